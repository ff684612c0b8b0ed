package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"cdc/internal/config"
	"cdc/internal/eventstore"
	"cdc/internal/intent"
)

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
