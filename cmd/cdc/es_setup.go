package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"cdc/internal/config"
	"cdc/internal/eventpipe"
	"cdc/internal/eventstore"
	"cdc/internal/history"
)

// setUp is what `cdc es init -o json` prints.
type setUp struct {
	eventstore.InitReport
	Definitions []string `json:"definitions"`
}

func newEsInitCommand(f *eventsFlags) *cobra.Command {
	var o eventstore.InitOptions
	var printOnly bool
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make or migrate the event store, and install what the configuration defines",
		Long: `Init makes schema es and its roles in the database of the pipeline, or brings them to this version, and installs event
types, folds, views and reactions as configured. Run again it changes only what differs; a running daemon takes up what is
new within a second. A view that was changed goes on as it was: cdc views build makes the new one beside it.

The login needs CREATE on the database and CREATEROLE, or to be a superuser; --print shows the SQL for somebody who has that.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, p, log, err := f.load(cmd)
			if err != nil {
				return err
			}
			ctx, url := cmd.Context(), cfg.PostgresFor(p).URL
			if printOnly {
				sql, err := eventstore.Plan(ctx, url, o)
				if err != nil {
					return surroundings(err)
				}
				_, err = io.WriteString(cmd.OutOrStdout(), sql)
				return err
			}
			var done setUp
			if done.InitReport, err = eventstore.Init(ctx, url, o); err != nil {
				return surroundings(err)
			}
			store, err := eventstore.Open(ctx, eventstore.Config{URL: url, Logger: log})
			if err != nil {
				return surroundings(err)
			}
			defer store.Close()
			if done.Definitions, err = eventpipe.Install(ctx, store, p.Definitions()); err != nil {
				return surroundings(err)
			}
			return f.print(cmd, done, func(w io.Writer) error { return writeSetUp(w, done) })
		},
	}
	cmd.Flags().StringVar(&o.Daemon, "daemon", "", "login of the daemon, to be given its rights")
	cmd.Flags().StringVar(&o.App, "app", "", "login of an application, to be allowed to append and read")
	cmd.Flags().BoolVar(&printOnly, "print", false, "print the SQL and do nothing")
	return cmd
}

func writeSetUp(w io.Writer, s setUp) error {
	switch {
	case s.From == 0:
		fmt.Fprintf(w, "database %s: schema es made, version %d\n", s.Database, s.To)
	case s.From < s.To:
		fmt.Fprintf(w, "database %s: schema es brought from version %d to %d\n", s.Database, s.From, s.To)
	default:
		fmt.Fprintf(w, "database %s: schema es is in order, version %d\n", s.Database, s.To)
	}
	for _, d := range s.Definitions {
		fmt.Fprintln(w, d)
	}
	for _, n := range s.Notes {
		if _, err := fmt.Fprintf(w, "to be run by somebody with more rights:\n  %s\n", indent(n)); err != nil {
			return err
		}
	}
	return nil
}

func newEsRepublishCommand(f *eventsFlags) *cobra.Command {
	var from int64
	var topics []string
	var yes bool
	cmd := &cobra.Command{
		Use:   "republish",
		Short: "Write a topic that was lost again, from the store",
		Long: `Republish puts the publication back to a position: the daemon goes over the log from there once more and writes what a
topic lacks. What a topic still has is not written twice. A topic that is gone is made anew.`,
		Example: `  cdc es republish --from 1`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case !cmd.Flags().Changed("from"):
				return usageError("say --from which position: 1 is the beginning")
			case from < 1:
				return usageError("--from %d: positions begin at 1", from)
			}
			return f.with(cmd, func(ctx context.Context, s *eventstore.Store, cfg *config.Config, p *config.Pipeline) (err error) {
				fmt.Fprintf(cmd.OutOrStdout(), "pipeline %s publishes again from position %d\n", p.Name, from)
				if !yes && !confirmed(cmd) {
					return refused("nothing was changed: answer yes, or give --yes")
				}
				sc, done, err := reach(ctx, cfg, true)
				if err != nil {
					return err
				}
				defer func() { err = errors.Join(err, done()) }()
				hc, err := eventpipe.Publication(ctx, s, eventsConfig(cfg, p, sc, discard()))
				if err != nil {
					return err
				}
				if err := history.Republish(ctx, hc, from, topics); err != nil {
					return err
				}
				_, err = fmt.Fprintln(cmd.OutOrStdout(), "done: a running daemon goes on from there by itself, else the next cdc run does")
				return err
			})
		},
	}
	cmd.Flags().Int64Var(&from, "from", 0, "first position to look at; 1 is the beginning (required)")
	cmd.Flags().StringSliceVar(&topics, "topic", nil, "topics that were lost (default whichever are missing)")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}
