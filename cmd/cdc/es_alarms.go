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
	"cdc/internal/eventstore"
)

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
