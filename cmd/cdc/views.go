package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"cdc/internal/config"
	"cdc/internal/eventpipe"
	"cdc/internal/eventstore"
	"cdc/internal/intent"
	"cdc/internal/view"
)

func newViewsCommand(g *globals) *cobra.Command {
	group := &cobra.Command{
		Use:   "views",
		Short: "Views of the event store: list, rebuild, verify, switch, wait",
	}
	f := &eventsFlags{g}
	group.AddCommand(newViewsLsCommand(f), newViewsBuildCommand(f), newViewsVerifyCommand(f), newViewsSwitchCommand(f), newViewsDropCommand(f), newViewsWaitCommand(f))
	return group
}

func newViewsLsCommand(f *eventsFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "List the builds of the views",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.with(cmd, func(ctx context.Context, s *eventstore.Store, _ *config.Config, _ *config.Pipeline) error {
				list, err := view.List(ctx, s)
				if err != nil {
					return err
				}
				return f.print(cmd, list, func(w io.Writer) error { return writeViews(w, list, time.Now()) })
			})
		},
	}
}

func writeViews(w io.Writer, list []intent.ViewStatus, now time.Time) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, "VIEW\tBUILD\tMODE\tSTATE\tFOR\tPOSITION\tBEHIND\tDATABASE")
	for _, v := range list {
		position, behind, database := fmt.Sprint(v.Position), fmt.Sprint(v.Lag), v.Database
		if v.Mode == intent.Inline && v.State == "live" {
			position, behind = "-", "0"
		}
		if database == "" {
			database = "the store's"
		}
		fmt.Fprintf(tw, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\n", v.Name, v.Build, v.Mode, v.State, age(v.Since, now), position, behind, database)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, v := range list {
		if v.Error != "" {
			if _, err := fmt.Fprintf(w, "\n%s (build %d) stands still: %s\n", v.Name, v.Build, v.Error); err != nil {
				return err
			}
		}
	}
	return nil
}

func newViewsBuildCommand(f *eventsFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "build VIEW",
		Short: "Build a view anew beside the live one, as it is configured now",
		Long: `Build makes an empty table beside the live one; the daemon replays the whole log into it while appends and reads go on.
cdc views ls shows how far it is, cdc views verify --building compares it, cdc views switch puts it in place.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.with(cmd, func(ctx context.Context, s *eventstore.Store, _ *config.Config, p *config.Pipeline) error {
				v, err := configuredView(p, args[0])
				if err != nil {
					return err
				}
				build, err := view.Build(ctx, s, v, p.Definitions().Events)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "view %s: build %d begins; cdc views ls shows how far it is, cdc views switch %s puts it in place\n", v.Name, build, v.Name)
				return err
			})
		},
	}
}

func configuredView(p *config.Pipeline, name string) (intent.View, error) {
	for _, v := range p.Definitions().Views {
		if v.Name == name {
			return v, nil
		}
	}
	return intent.View{}, usageError("no view %q in pipeline %s of the configuration", name, p.Name)
}

// databases are the URLs of the other databases that hold views.
func databases(p *config.Pipeline) map[string]string { return eventpipe.Databases(p.Definitions()) }

func newViewsVerifyCommand(f *eventsFlags) *cobra.Command {
	var samples int
	var building bool
	cmd := &cobra.Command{
		Use:   "verify [VIEW…]",
		Short: "Replay the log into a scratch table and compare: exit 4 if they differ",
		Long: `Verify replays every event into a scratch table and compares it with the view in both directions, as of one moment, while
appends and reads go on. Without names it verifies every live view. It exits with 4 if a row differs.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.with(cmd, func(ctx context.Context, s *eventstore.Store, _ *config.Config, p *config.Pipeline) error {
				list, err := view.List(ctx, s)
				if err != nil {
					return err
				}
				state := "live"
				if building {
					state = "building"
				}
				targets, err := chosen(list, args, state)
				if err != nil {
					return err
				}
				var reports []view.VerifyReport
				different := false
				for _, v := range targets {
					r, err := view.Verify(ctx, s, v.Name, view.VerifyOptions{Build: v.Build, Samples: samples, Databases: databases(p)})
					if err != nil {
						return err
					}
					reports = append(reports, r)
					different = different || !r.Equal()
				}
				if err := f.print(cmd, reports, func(w io.Writer) error { return writeVerified(w, reports) }); err != nil {
					return err
				}
				if different {
					return &exitError{exitDifference, errors.New("a view differs from what the log gives: build it anew with cdc views build")}
				}
				return nil
			})
		},
	}
	cmd.Flags().IntVar(&samples, "samples", view.DefaultSamples, "differing rows shown of each kind")
	cmd.Flags().BoolVar(&building, "building", false, "verify the build under way in place of the live one")
	return cmd
}

// chosen are the builds in a state that were named, or all of them.
func chosen(list []intent.ViewStatus, names []string, state string) ([]intent.ViewStatus, error) {
	var out []intent.ViewStatus
	for _, v := range list {
		if v.State == state && len(names) == 0 {
			out = append(out, v)
		}
	}
	for _, name := range names {
		n := len(out)
		for _, v := range list {
			if v.State == state && v.Name == name {
				out = append(out, v)
			}
		}
		if len(out) == n {
			return nil, usageError("no view %q that is %s: see cdc views ls", name, state)
		}
	}
	return out, nil
}

func writeVerified(w io.Writer, reports []view.VerifyReport) error {
	if len(reports) == 0 {
		_, err := fmt.Fprintln(w, "no views")
		return err
	}
	for _, r := range reports {
		verdict := "equal to a replay"
		if !r.Equal() {
			verdict = fmt.Sprintf("DIFFERENT: %d rows missing, %d rows too many", r.Missing.Count, r.Extra.Count)
		}
		fmt.Fprintf(w, "%s: %s (%d rows, %d events up to position %d, %s)\n", r.View, verdict, r.Rows, r.Events, r.Position, seconds(r.Took.Seconds()))
		for _, row := range r.Missing.Rows {
			fmt.Fprintf(w, "    missing   %s\n", row)
		}
		for _, row := range r.Extra.Rows {
			if _, err := fmt.Fprintf(w, "    too many  %s\n", row); err != nil {
				return err
			}
		}
	}
	return nil
}

func newViewsSwitchCommand(f *eventsFlags) *cobra.Command {
	o := view.SwitchOptions{}
	cmd := &cobra.Command{
		Use:   "switch VIEW",
		Short: "Put the newest build of a view in the place of the live one",
		Long: `Switch lets the build catch up and exchanges the tables in one transaction. Of an inline view, appends wait for that
moment; where it cannot be had within --lock-timeout, nothing is changed and it tries again.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.with(cmd, func(ctx context.Context, s *eventstore.Store, _ *config.Config, p *config.Pipeline) error {
				o.Databases = databases(p)
				if err := view.Switch(ctx, s, args[0], o); err != nil {
					return err
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "view %s: switched\n", args[0])
				return err
			})
		},
	}
	cmd.Flags().DurationVar(&o.LockTimeout, "lock-timeout", view.DefaultLockTimeout, "how long one attempt may keep others waiting")
	cmd.Flags().IntVar(&o.Attempts, "attempts", view.DefaultAttempts, "how often it is tried")
	return cmd
}

func newViewsDropCommand(f *eventsFlags) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "drop VIEW",
		Short: "Drop a view: its table and its builds; the log stays",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.with(cmd, func(ctx context.Context, s *eventstore.Store, _ *config.Config, p *config.Pipeline) error {
				fmt.Fprintf(cmd.OutOrStdout(), "drop view %s, its table and its builds\n", args[0])
				if !yes && !confirmed(cmd) {
					return refused("nothing was dropped: answer yes, or give --yes")
				}
				if err := view.Drop(ctx, s, args[0], view.DropOptions{Databases: databases(p)}); err != nil {
					return err
				}
				_, err := fmt.Fprintln(cmd.OutOrStdout(), "dropped")
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

func newViewsWaitCommand(f *eventsFlags) *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "wait VIEW TOKEN",
		Short: "Wait until a view has seen the event of a token",
		Long:  `Wait returns when the view shows the append that gave the token, and exits with 1 where it has not in time.`,
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			token, err := intent.ParseID(args[1])
			if err != nil {
				return usageError("TOKEN: %w", err)
			}
			return f.with(cmd, func(ctx context.Context, s *eventstore.Store, _ *config.Config, _ *config.Pipeline) error {
				_, err := s.Wait(ctx, args[0], token, timeout)
				return err
			})
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 10*time.Second, "how long to wait")
	return cmd
}
