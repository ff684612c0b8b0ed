package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"cdc/internal/admin"
	"cdc/internal/cdc"
)

func newStatusCommand(g *globals) *cobra.Command {
	var addr string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what the pipelines of a running daemon are doing",
		Long: `Status asks the running daemon at admin.listen of the configuration, or at --addr, which needs no configuration.
It exits with 3 where no daemon answers.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if addr == "" {
				cfg, _, err := g.load(cmd)
				if err != nil {
					return err
				}
				if addr = cfg.Admin.Listen; addr == "" {
					return usageError("admin.listen is empty in %s: the daemon has no server to ask", g.config)
				}
			}
			report, err := admin.Fetch(cmd.Context(), addr)
			if err != nil {
				return environmentError("%w", err)
			}
			return g.print(cmd, report, func(w io.Writer) error { return writeStatus(w, report, time.Now()) })
		},
	}
	cmd.Flags().StringVar(&addr, "addr", "", "host:port of the daemon, in place of admin.listen")
	return cmd
}

// writeStatus writes a line per pipeline, and below it what needs more words.
func writeStatus(w io.Writer, r admin.Report, now time.Time) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, "PIPELINE\tSTATE\tFOR\tREADY\tTABLES\tTRANSACTIONS\tCHANGES\tRECORDS\tLAG\tWAL HELD\tCONFIRMED")
	for _, p := range r.Pipelines {
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%s, %s\t%s\t%s\n", p.Name, p.State, age(p.Since, now), yesNo(p.Ready), p.Tables,
			p.Transactions, p.Changes, p.Records, size(p.LagBytes), seconds(p.LagSeconds), size(p.SlotBytes), p.Confirmed)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, p := range r.Pipelines {
		for _, note := range notes(p, now) {
			if _, err := fmt.Fprintf(w, "\n%s: %s\n", p.Name, strings.ReplaceAll(note, "\n", "\n  ")); err != nil {
				return err
			}
		}
	}
	return nil
}

// notes are what a line of the table cannot say.
func notes(p cdc.Status, now time.Time) []string {
	var list []string
	if p.Error != "" {
		text := p.Error
		if p.Reason != "" {
			text += " (" + p.Reason + ")"
		}
		if p.Mend != "" {
			text += "\n" + p.Mend
		}
		if !p.RetryAt.IsZero() {
			text += fmt.Sprintf("\ntried again in %s", max(0, p.RetryAt.Sub(now)).Round(time.Second))
		}
		list = append(list, text)
	}
	if p.Stalled != "" {
		text := "stalled: " + p.Stalled
		if p.Error == "" && p.Mend != "" {
			text += "\n" + p.Mend
		}
		list = append(list, text)
	}
	if p.SlotStatus != "" && p.SlotStatus != "reserved" {
		text := fmt.Sprintf("slot %s is %s", p.Slot, p.SlotStatus)
		if p.SlotSafe >= 0 {
			text += ", " + size(p.SlotSafe) + " of WAL until it may be lost"
		}
		list = append(list, text)
	}
	if p.DeadLetters > 0 {
		list = append(list, fmt.Sprintf("%d records went to the dead-letter topic", p.DeadLetters))
	}
	if p.Log != nil {
		list = append(list, logNote(p.Log, now))
	}
	if len(p.Verified) > 0 {
		list = append(list, verifiedStatus(p.Verified, now))
	}
	if p.State == cdc.StateSnapshot && len(p.Snapshot) > 0 {
		list = append(list, snapshotNote(p, now))
	} else if copies := slices.DeleteFunc(slices.Clone(p.Snapshot), func(t cdc.TableProgress) bool { return t.State == "" }); len(copies) > 0 {
		list = append(list, copyNote(copies))
	}
	return list
}

// verifiedStatus tells what the newest verification has found: in one line where
// all is equal.
func verifiedStatus(list []cdc.Verification, now time.Time) string {
	var b strings.Builder
	equal := 0
	var oldest time.Time
	for _, v := range list {
		if oldest.IsZero() || v.At.Before(oldest) {
			oldest = v.At
		}
		switch v.Verdict {
		case cdc.VerdictEqual:
			equal++
		case cdc.VerdictDifferent:
			fmt.Fprintf(&b, "\n%s: %d missing, %d ghosts, %d different", v.Subject, v.Missing, v.Ghosts, v.Different)
		case cdc.VerdictUnchecked:
			fmt.Fprintf(&b, "\n%s: unchecked: %s", v.Subject, v.Why)
		}
		if v.Verdict != cdc.VerdictEqual && v.Mend != "" {
			fmt.Fprintf(&b, "\n  %s", v.Mend)
		}
	}
	return fmt.Sprintf("verified %s ago: %d of %d equal", age(oldest, now), equal, len(list)) + b.String()
}

// logNote tells how far the parts of a pipeline of events are.
func logNote(l *cdc.LogStatus, now time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "log at position %d, published to %d", l.Head, l.Published)
	tw := tabwriter.NewWriter(&b, 0, 4, 2, ' ', 0)
	for _, part := range l.Parts {
		position := "-"
		if part.Position > 0 {
			position = strconv.FormatInt(part.Position, 10)
		}
		fmt.Fprintf(tw, "\n%s\t%s\t%s", part.Name, part.State, position)
		if part.Error != "" {
			fmt.Fprintf(tw, "\t%s", part.Error)
			if !part.RetryAt.IsZero() {
				fmt.Fprintf(tw, "; tried again in %s", max(0, part.RetryAt.Sub(now)).Round(time.Second))
			}
			if part.Mend != "" {
				fmt.Fprintf(tw, "\n\t\t\t%s", part.Mend)
			}
		}
	}
	_ = tw.Flush() // a Builder takes everything
	return b.String()
}

// snapshotNote tells how far each table is, and for all of them how long it will
// take at the rate so far.
func snapshotNote(p cdc.Status, now time.Time) string {
	var b strings.Builder
	var rows, left int64
	known := true
	for _, t := range p.Snapshot {
		rows += t.Rows
		of := ""
		if t.RowsTotal > 0 {
			of = fmt.Sprintf(" of about %d", t.RowsTotal)
		}
		switch {
		case t.Done:
			of = ", done"
		case t.RowsTotal == 0:
			known = false
		default:
			left += max(0, t.RowsTotal-t.Rows)
		}
		fmt.Fprintf(&b, "\n%s: %d rows%s, %s", t.Table, t.Rows, of, size(t.Bytes))
	}
	head := fmt.Sprintf("snapshot: %d rows", rows)
	if d := now.Sub(p.Since).Seconds(); d >= 1 && rows > 0 {
		rate := float64(rows) / d
		head += fmt.Sprintf(", %.0f rows/s", rate)
		if known {
			head += ", about " + seconds(math.Ceil(float64(left)/rate)) + " left"
		}
	}
	return head + b.String()
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// age is how long ago t was, "-" for never.
func age(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return max(0, now.Sub(t)).Round(time.Second).String()
}

// maxSeconds is thirty years: beyond it a number is no time any more, and far
// beyond it no time.Duration.
const maxSeconds = 1e9

// seconds writes a number of seconds as a duration a person reads.
func seconds(s float64) string {
	d := time.Duration(min(s, maxSeconds) * float64(time.Second))
	if d < time.Second {
		return d.Round(time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// size writes a number of bytes with one digit behind the point.
func size(n int64) string {
	x, units := float64(n), []string{"B", "KiB", "MiB", "GiB", "TiB"}
	for len(units) > 1 && x >= 1024 {
		x, units = x/1024, units[1:]
	}
	if units[0] == "B" {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", x, units[0])
}
