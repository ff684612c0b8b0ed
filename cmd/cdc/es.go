package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"cdc/internal/config"
	"cdc/internal/eventstore"
	"cdc/internal/intent"
	"cdc/internal/view"
)

// eventsFlags are the globals of the commands about events.
type eventsFlags struct{ *globals }

// load reads the configuration and finds its pipeline of mode: events.
func (f *eventsFlags) load(cmd *cobra.Command) (*config.Config, *config.Pipeline, *slog.Logger, error) {
	cfg, log, err := f.globals.load(cmd)
	if err != nil {
		return nil, nil, nil, err
	}
	for _, name := range cfg.PipelineNames() {
		if p := cfg.Pipelines[name]; p.Mode == config.ModeEvents { // there is one at most
			return cfg, p, log, nil
		}
	}
	return nil, nil, nil, usageError("%s has no pipeline of mode: events; config.example.yaml shows one", f.config)
}

// with runs fn with the event store open, as the login itself.
func (f *eventsFlags) with(cmd *cobra.Command, fn func(context.Context, *eventstore.Store, *config.Config, *config.Pipeline) error) error {
	cfg, p, log, err := f.load(cmd)
	if err != nil {
		return err
	}
	store, err := eventstore.Open(cmd.Context(), eventstore.Config{URL: cfg.PostgresFor(p).URL, Logger: log})
	if err != nil {
		return surroundings(err)
	}
	defer store.Close()
	return eventsError(fn(cmd.Context(), store, cfg, p))
}

// eventsError gives an error of the store its exit code: a refusal is a failure,
// what trying again may mend is about what is around the process.
func eventsError(err error) error {
	var conflict *intent.ConflictError
	var closed *intent.ClosedError
	var invalid *intent.InvalidError
	var faults view.FaultsError
	var dependents *view.DependentsError
	var exit *exitError
	if errors.As(err, &conflict) || errors.As(err, &closed) || errors.As(err, &invalid) || errors.As(err, &faults) ||
		errors.As(err, &dependents) || errors.As(err, &exit) {
		return err
	}
	for _, refusal := range []error{eventstore.ErrNotFound, eventstore.ErrTimeout, eventstore.ErrTooEarly, view.ErrNoView, view.ErrNoBuild} {
		if errors.Is(err, refusal) {
			return err
		}
	}
	return surroundings(err)
}

// refused is what a command itself says no to.
func refused(format string, args ...any) error {
	return &exitError{exitFailed, fmt.Errorf(format, args...)}
}

func newEsCommand(g *globals) *cobra.Command {
	group := &cobra.Command{
		Use:   "es",
		Short: "The event store: set it up, append, read, ask for states",
	}
	f := &eventsFlags{g}
	group.AddCommand(
		newEsInitCommand(f), newEsAppendCommand(f), newEsReadCommand(f), newEsLogCommand(f), newEsStateCommand(f),
		newEsCloseCommand(f), newEsRepublishCommand(f), newEsAlarmsCommand(f),
	)
	return group
}
