package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"text/tabwriter"
	"time"

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

func newEsAppendCommand(f *eventsFlags) *cobra.Command {
	var id, expect, meta, actor, correlation, causation string
	cmd := &cobra.Command{
		Use:   "append STREAM TYPE DATA",
		Short: "Append one event to a stream",
		Long: `Append adds one event; DATA is a JSON object, or - for standard input. Appending the same --id again changes nothing and
answers as the first time. The token it prints waits for views: cdc views wait VIEW TOKEN.`,
		Example: `  cdc es append course/ddia student-enrolled '{"course":"ddia","student":"ada"}' --expect none --actor ada`,
		Args:    cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			e := intent.NewEvent{ID: intent.NewID(), Type: args[1], Data: json.RawMessage(args[2])}
			if args[2] == "-" {
				data, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), maxEventInput+1))
				if err != nil {
					return fmt.Errorf("read DATA: %w", err)
				}
				if len(data) > maxEventInput {
					return usageError("DATA on standard input is larger than %s", size(maxEventInput))
				}
				e.Data = data
			}
			if !json.Valid(e.Data) {
				return usageError("DATA is not JSON: write an object, as in '{\"course\":\"ddia\"}'")
			}
			if id != "" {
				var err error
				if e.ID, err = intent.ParseID(id); err != nil {
					return usageError("--id: %w", err)
				}
			}
			expected, err := intent.ParseExpect(expect)
			if err != nil {
				return usageError("--expect: %w", err)
			}
			if e.Meta, err = metaOf(meta, actor, correlation, causation); err != nil {
				return err
			}
			return f.with(cmd, func(ctx context.Context, s *eventstore.Store, _ *config.Config, _ *config.Pipeline) error {
				r, err := s.Append(ctx, []intent.Batch{{Stream: args[0], Expect: expected, Events: []intent.NewEvent{e}}})
				if err != nil {
					return err
				}
				return f.print(cmd, r, func(w io.Writer) error {
					note := ""
					if r.Duplicate {
						note = ", stored already"
					}
					for _, v := range r.Streams {
						fmt.Fprintf(w, "%s is at version %d%s\n", v.Stream, v.Version, note)
					}
					_, err := fmt.Fprintf(w, "token %s\n", r.Token)
					return err
				})
			})
		},
	}
	cmd.Flags().StringVar(&id, "id", "", "the event's id, a UUID (default a new one)")
	cmd.Flags().StringVar(&expect, "expect", "any", "version the stream must have: a number, none, some or any")
	cmd.Flags().StringVar(&meta, "meta", "", "further metadata, a JSON object")
	cmd.Flags().StringVar(&actor, "actor", "", "who does it")
	cmd.Flags().StringVar(&correlation, "correlation", "", "what it all belongs to")
	cmd.Flags().StringVar(&causation, "causation", "", "id of the event it follows from")
	return cmd
}

// maxEventInput bounds what is read from standard input: the largest event that
// max_event allows, and some.
const maxEventInput = 64 << 20

func metaOf(meta, actor, correlation, causation string) (json.RawMessage, error) {
	m := map[string]json.RawMessage{}
	if meta != "" {
		if err := json.Unmarshal([]byte(meta), &m); err != nil {
			return nil, usageError("--meta is not a JSON object: %w", err)
		}
	}
	for key, v := range map[string]string{intent.MetaActor: actor, intent.MetaCorrelation: correlation, intent.MetaCausation: causation} {
		if v != "" {
			text, err := json.Marshal(v)
			if err != nil {
				return nil, fmt.Errorf("encode metadata: %w", err)
			}
			m[key] = text
		}
	}
	if len(m) == 0 {
		return nil, nil
	}
	return json.Marshal(m)
}

func newEsReadCommand(f *eventsFlags) *cobra.Command {
	var from, to int64
	cmd := &cobra.Command{
		Use:   "read STREAM",
		Short: "Print the events of a stream: what, when, who and why",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.with(cmd, func(ctx context.Context, s *eventstore.Store, _ *config.Config, _ *config.Pipeline) error {
				tale := story{s}
				n := 0
				err := s.Read(ctx, args[0], from, to, func(e *intent.Event) error {
					n++
					return f.printLine(cmd, e, func(w io.Writer) error { return tale.write(ctx, w, e) })
				})
				if err == nil && n == 0 {
					return refused("stream %q has no events in that range", args[0])
				}
				return err
			})
		},
	}
	cmd.Flags().Int64Var(&from, "from", 1, "first version")
	cmd.Flags().Int64Var(&to, "to", 0, "last version (default the newest)")
	return cmd
}

// logPage is how many events a command asks for at a time.
const logPage = 1000

func newEsLogCommand(f *eventsFlags) *cobra.Command {
	var after int64
	var limit int
	var types []string
	var follow bool
	cmd := &cobra.Command{
		Use:   "log",
		Short: "Print the log: all events in commit order",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if after < 0 || limit < 0 {
				return usageError("--after and --limit are numbers from 0")
			}
			return f.with(cmd, func(ctx context.Context, s *eventstore.Store, _ *config.Config, _ *config.Pipeline) error {
				tale := story{s}
				left := limit
				tick := time.NewTicker(200 * time.Millisecond)
				defer tick.Stop()
				for {
					page := logPage
					if limit > 0 {
						page = min(page, left)
					}
					n := 0
					last, err := s.Log(ctx, after, page, types, func(e *intent.Event) error {
						n++
						return f.printLine(cmd, e, func(w io.Writer) error { return tale.write(ctx, w, e) })
					})
					if follow && ctx.Err() != nil { // Ctrl-C is how following ends
						return nil
					}
					if err != nil {
						return err
					}
					left -= n
					if limit > 0 && left == 0 {
						return nil
					}
					if last > after {
						after = last
						continue
					}
					if !follow {
						return nil
					}
					select {
					case <-tick.C:
					case <-ctx.Done():
						return nil
					}
				}
			})
		},
	}
	cmd.Flags().Int64Var(&after, "after", 0, "position behind which to begin")
	cmd.Flags().IntVar(&limit, "limit", 0, "how many events (default all there are)")
	cmd.Flags().StringSliceVar(&types, "type", nil, "only events of these types")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on when the end is reached")
	return cmd
}

func newEsStateCommand(f *eventsFlags) *cobra.Command {
	var version int64
	var at string
	cmd := &cobra.Command{
		Use:   "state STREAM",
		Short: "Print the state of a stream, now or as it was",
		Long: `State folds the events of a stream with the expressions of state: in the configuration. --version and --at tell it as it
was at a version, or at a time: an RFC 3339 time, or how long ago, as in 90m.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			when, err := moment(at, time.Now())
			if err != nil {
				return err
			}
			if version < 0 {
				return usageError("--version %d: versions begin at 1", version)
			}
			if version > 0 && at != "" {
				return usageError("--version and --at exclude each other")
			}
			return f.with(cmd, func(ctx context.Context, s *eventstore.Store, _ *config.Config, _ *config.Pipeline) error {
				st, err := s.State(ctx, args[0], eventstore.At{Version: version, Time: when})
				if err != nil {
					return err
				}
				return f.print(cmd, st, func(w io.Writer) error {
					_, err := fmt.Fprintf(w, "%s @%d\n%s\n", st.Stream, st.Version, pretty(st.State))
					return err
				})
			})
		},
	}
	cmd.Flags().Int64Var(&version, "version", 0, "as of this version (default the newest)")
	cmd.Flags().StringVar(&at, "at", "", "as of this time")
	return cmd
}

// moment reads a time or how long ago; "" is none.
func moment(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, usageError("--at %q: write a time such as 2026-03-01T12:00:00Z, or how long ago, as in 90m", s)
}

func newEsCloseCommand(f *eventsFlags) *cobra.Command {
	var expect string
	cmd := &cobra.Command{
		Use:   "close STREAM",
		Short: "Close a stream: nothing can be appended to it any more",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			expected, err := intent.ParseExpect(expect)
			if err != nil {
				return usageError("--expect: %w", err)
			}
			return f.with(cmd, func(ctx context.Context, s *eventstore.Store, _ *config.Config, _ *config.Pipeline) error {
				if err := s.CloseStream(ctx, args[0], expected); err != nil {
					return err
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s is closed\n", args[0])
				return err
			})
		},
	}
	cmd.Flags().StringVar(&expect, "expect", "any", "version the stream must have: a number, none, some or any")
	return cmd
}

func newEsAlarmsCommand(f *eventsFlags) *cobra.Command {
	var acknowledge, all bool
	cmd := &cobra.Command{
		Use:   "alarms",
		Short: "Show changes of stored events that the WAL told of",
		Long: `Stored events never change: the store refuses it. Somebody who goes round that (a superuser who switched the triggers off)
is seen in the WAL all the same, and readiness turns red until it was acknowledged here.
It exits with 4 where an alarm is not acknowledged.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.with(cmd, func(ctx context.Context, s *eventstore.Store, _ *config.Config, _ *config.Pipeline) error {
				if acknowledge {
					n, err := s.AcknowledgeAlarms(ctx)
					if err != nil {
						return err
					}
					_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s acknowledged\n", alarmsOf(n))
					return err
				}
				alarms, err := s.Alarms(ctx, all)
				if err != nil {
					return err
				}
				if err := f.print(cmd, alarms, func(w io.Writer) error { return writeAlarms(w, alarms) }); err != nil {
					return err
				}
				for _, a := range alarms {
					if a.Acknowledged.IsZero() {
						return &exitError{exitDifference, errors.New("events were changed: look into it, then cdc es alarms --acknowledge")}
					}
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&acknowledge, "acknowledge", false, "acknowledge all of them")
	cmd.Flags().BoolVar(&all, "all", false, "show those that were acknowledged too")
	return cmd
}

func alarmsOf(n int) string {
	if n == 1 {
		return "1 alarm"
	}
	return fmt.Sprintf("%d alarms", n)
}

func writeAlarms(w io.Writer, alarms []eventstore.Alarm) error {
	if len(alarms) == 0 {
		_, err := fmt.Fprintln(w, "no alarms")
		return err
	}
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, "AT\tOPERATION\tEVENT\tTRANSACTION\tLSN\tACKNOWLEDGED")
	for _, a := range alarms {
		event, seen := "-", "no"
		if !a.Event.IsZero() {
			event = a.Event.String()
		}
		if !a.Acknowledged.IsZero() {
			seen = stamp(a.Acknowledged)
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%d\t%s\t%s\n", stamp(a.At), a.Operation, event, a.Tx, a.LSN, seen)
	}
	return tw.Flush()
}

// stamp writes a time for people.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000") }
