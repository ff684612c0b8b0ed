package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"cdc/internal/cdc"
	"cdc/internal/config"
	"cdc/internal/eventpipe"
	"cdc/internal/pipeline"
	"cdc/internal/sink"
)

// verifyFlags are those of cdc verify and cdc repair.
type verifyFlags struct {
	pipeline string
	rate     rateFlag
	memory   config.Bytes
	timeout  time.Duration
}

// rateFlag is a size, or 0 for no limit; unset, the configuration's verify.rate.
type rateFlag struct {
	bytes config.Bytes
	set   bool
}

// String, Set and Type implement pflag.Value.
func (r *rateFlag) String() string {
	if !r.set {
		return ""
	}
	return r.bytes.String()
}

// Type is what help shows for the value.
func (r *rateFlag) Type() string { return "size" }

// Set takes a size with its unit, or 0.
func (r *rateFlag) Set(s string) (err error) {
	r.set = true
	if s == "0" {
		r.bytes = 0
		return nil
	}
	r.bytes, err = config.ParseBytes(s)
	return err
}

// sizeFlag is a flag of config.Bytes.
type sizeFlag struct{ to *config.Bytes }

// String, Set and Type implement pflag.Value.
func (f sizeFlag) String() string {
	if f.to == nil {
		return ""
	}
	return f.to.String()
}

// Type is what help shows for the value.
func (f sizeFlag) Type() string { return "size" }

// Set takes a size with its unit.
func (f sizeFlag) Set(s string) (err error) {
	*f.to, err = config.ParseBytes(s)
	return err
}

func (f *verifyFlags) register(cmd *cobra.Command) {
	f.memory = 64 << 20
	flags := cmd.Flags()
	flags.StringVar(&f.pipeline, "pipeline", "", "this pipeline alone (default all)")
	flags.Var(&f.rate, "rate", "read so much per second from Postgres and Kafka together, 0 for no limit (default verify.rate of the configuration)")
	flags.Var(sizeFlag{&f.memory}, "memory", "keep so much in memory, the rest in files of the directory for temporary files (or verify.dir)")
	flags.DurationVar(&f.timeout, "timeout", pipeline.DefaultVerifyTimeout, "wait so long for the pipeline to reach the place at which the tables were read")
}

func newVerifyCommand(g *globals) *cobra.Command {
	var f verifyFlags
	cmd := &cobra.Command{
		Use:   "verify [TABLE...]",
		Short: "Compare topics with their tables, while both change",
		Long: `Verify reads the captured tables (or those that the arguments name: schema.table, or patterns) as of one exact place in
Postgres' log, waits until the running pipeline has passed that place, and reads the topics up to it. It names every row that
is missing from its topic, every key that is alive there and gone from the table, and every row that differs. It changes
nothing, stops nobody from writing, and holds no WAL back. A pipeline of mode: events has its log, topics and views compared
with its events.

A table that cannot be compared is "unchecked", with the reason; that is not "different".

Exit codes: 0 all are equal, 4 something differs, 1 nothing differs and something is unchecked, 3 Postgres or Kafka cannot
be reached, 2 usage.`,
		Example: "  cdc verify\n  cdc verify public.orders 'billing.*' --rate 100MiB",
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			cfg, _, err := g.load(cmd)
			if err != nil {
				return err
			}
			names, err := f.pipelines(cfg)
			if err != nil {
				return err
			}
			sc, done, err := reach(cmd.Context(), cfg, false)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, done()) }()
			targets, err := f.open(cmd.Context(), cfg, sc, names, args)
			defer closeTargets(targets)
			if err != nil {
				return err
			}
			report := verifyReport{Verified: []cdc.Verification{}}
			for _, t := range targets {
				found, err := t.verify(cmd, &f, nil)
				if err != nil {
					return err
				}
				for _, v := range found {
					report.Verified = append(report.Verified, v.Verification)
				}
			}
			if len(args) == 0 { // tables are of mode: cdc alone
				for _, name := range names {
					if cfg.Pipelines[name].Mode != config.ModeEvents {
						continue
					}
					found, err := verifyEvents(cmd.Context(), cfg, cfg.Pipelines[name], sc, &f)
					if err != nil {
						return surroundings(err)
					}
					report.Verified = append(report.Verified, found...)
				}
			}
			if err := g.print(cmd, report, func(w io.Writer) error { return writeVerifications(w, report.Verified) }); err != nil {
				return err
			}
			return verdictError(report.Verified)
		},
	}
	f.register(cmd)
	return cmd
}

// verifyReport is what `cdc verify -o json` prints.
type verifyReport struct {
	Verified []cdc.Verification `json:"verified"`
}

// verifyEvents verifies a pipeline of mode: events: its log, topics and views.
func verifyEvents(ctx context.Context, cfg *config.Config, p *config.Pipeline, sc sink.Config, f *verifyFlags) ([]cdc.Verification, error) {
	return eventpipe.Verify(ctx, eventsConfig(cfg, p, sc, discard()), eventpipe.VerifyOptions{Patience: f.timeout})
}

// pipelines are the names of those the command is about.
func (f *verifyFlags) pipelines(cfg *config.Config) ([]string, error) {
	names := cfg.PipelineNames()
	switch {
	case f.pipeline == "":
		return names, nil
	case !slices.Contains(names, f.pipeline):
		return nil, usageError("no pipeline %q in the configuration; it has %s", f.pipeline, strings.Join(names, ", "))
	}
	return []string{f.pipeline}, nil
}

// target is a pipeline of mode: cdc, reached, with the tables asked for.
type target struct {
	p    *config.Pipeline
	v    *pipeline.Verifier
	want map[uint32]bool // OIDs
}

// open reaches the pipelines and resolves the tables. The targets it returns with
// an error are to be closed too.
func (f *verifyFlags) open(ctx context.Context, cfg *config.Config, sc sink.Config, names, args []string) ([]*target, error) {
	var all, wanted []*target
	for _, name := range names {
		p := cfg.Pipelines[name]
		if p.Mode != config.ModeCDC {
			continue
		}
		v, err := pipeline.OpenVerifier(ctx, pipelineConfig(cfg, p, sc, discard()))
		if err != nil {
			return all, surroundings(fmt.Errorf("pipeline %s: %w", name, err))
		}
		all = append(all, &target{p: p, v: v, want: map[uint32]bool{}})
	}
	if err := choose(all, args); err != nil {
		return all, err
	}
	for _, t := range all {
		if len(t.want) > 0 {
			wanted = append(wanted, t)
		} else {
			t.v.Close()
		}
	}
	return wanted, nil
}

// choose marks the tables that arguments name; none names all.
func choose(all []*target, args []string) error {
	if len(args) == 0 {
		args = []string{"*.*"}
	}
	captured := []string{}
	for _, t := range all {
		for _, table := range t.v.Tables() {
			captured = append(captured, table.FullName())
		}
	}
	if len(all) == 0 && args[0] == "*.*" {
		return nil
	}
	for _, arg := range args {
		pattern, err := config.ParsePattern(arg)
		if err != nil {
			return usageError("%w", err)
		}
		found := false
		for _, t := range all {
			for _, table := range t.v.Tables() {
				if pattern.Match(table.Namespace, table.Name) {
					t.want[table.OID], found = true, true
				}
			}
		}
		if !found {
			return usageError("no captured table is %s; captured are %s", arg, cmp.Or(strings.Join(captured, ", "), "none"))
		}
	}
	return nil
}

func closeTargets(targets []*target) {
	for _, t := range targets {
		t.v.Close()
	}
}

// verify compares the tables asked for, and shows how far it is on a terminal.
func (t *target) verify(cmd *cobra.Command, f *verifyFlags, each func(pipeline.VerifyDifference) error) ([]pipeline.Verified, error) {
	o := pipeline.VerifyOptions{Rate: int64(t.p.Verify.Rate), Memory: int64(f.memory), Dir: t.p.Verify.Dir, Timeout: f.timeout, Difference: each}
	if f.rate.set {
		o.Rate = int64(f.rate.bytes)
	}
	if o.Timeout <= 0 {
		return nil, usageError("--timeout %s: write a time to wait, as in 10m", f.timeout)
	}
	stop := showProgress(cmd.ErrOrStderr(), t.p.Name, t.v.Progress)
	found, err := t.v.Run(cmd.Context(), func(table cdc.Table) bool { return t.want[table.OID] }, o)
	stop()
	if cmd.Context().Err() != nil {
		return nil, cmp.Or(context.Cause(cmd.Context()), err)
	}
	return found, surroundings(err)
}

// progressEvery is how often the line of progress is drawn.
const progressEvery = 250 * time.Millisecond

// showProgress draws how far a verification is, on one line of a terminal, until
// it is stopped.
func showProgress(w io.Writer, name string, progress func() pipeline.VerifyProgress) (stop func()) {
	if !colored(w) {
		return func() {}
	}
	const clear = "\r\x1b[K"
	done := make(chan struct{})
	var drawing sync.WaitGroup
	began := time.Now()
	drawing.Go(func() {
		tick := time.NewTicker(progressEvery)
		defer tick.Stop()
		for {
			select {
			case <-done:
				fmt.Fprint(w, clear)
				return
			case now := <-tick.C:
				fmt.Fprintf(w, "%s%s: %s", clear, name, progressLine(progress(), now.Sub(began)))
			}
		}
	})
	return func() {
		close(done)
		drawing.Wait()
	}
}

// progressLine says how much was read, how fast, and about how long it will take.
func progressLine(p pipeline.VerifyProgress, took time.Duration) string {
	line := fmt.Sprintf("%d rows, %d records", p.Rows, p.Records)
	if p.RowsTotal > 0 {
		line = fmt.Sprintf("%d of about %d rows, %d records", p.Rows, max(p.Rows, p.RowsTotal), p.Records)
	}
	if p.RecordsTotal > 0 {
		line += fmt.Sprintf(" of %d", max(p.Records, p.RecordsTotal))
	}
	if s := took.Seconds(); s > 0 {
		line += fmt.Sprintf(", %s/s", size(int64(float64(p.Bytes)/s)))
	}
	done := p.Rows + p.Records
	left := max(0, p.RowsTotal-p.Rows) + max(0, p.RecordsTotal-p.Records)
	switch {
	case p.Waiting != "":
		line += "; waiting: " + p.Waiting
	case p.RecordsTotal > 0 && done > 0:
		line += fmt.Sprintf(", about %s left", seconds(took.Seconds()*float64(left)/float64(done)))
	}
	return line
}

// verdictError is what the verdicts mean for the exit code.
func verdictError(list []cdc.Verification) error {
	different, unchecked := 0, 0
	for _, v := range list {
		switch v.Verdict {
		case cdc.VerdictDifferent:
			different++
		case cdc.VerdictUnchecked:
			unchecked++
		case cdc.VerdictEqual:
		}
	}
	switch {
	case different > 0:
		return &exitError{exitDifference, fmt.Errorf("%d of %d differ", different, len(list))}
	case unchecked > 0:
		return &exitError{exitFailed, fmt.Errorf("%d of %d could not be checked", unchecked, len(list))}
	}
	return nil
}

// writeVerifications writes a line for each result, and below it what needs more words.
func writeVerifications(w io.Writer, list []cdc.Verification) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, "PIPELINE\tSUBJECT\tVERDICT\tROWS\tRECORDS\tMISSING\tGHOSTS\tDIFFERENT\tOLDER\tAT\tTOOK")
	for _, v := range list {
		at := "-"
		switch {
		case v.LSN > 0:
			at = v.LSN.String()
		case v.Position > 0:
			at = fmt.Sprint(v.Position)
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t%s\n", v.Pipeline, v.Subject, v.Verdict, v.Rows, v.Records,
			v.Missing, v.Ghosts, v.Different, v.Older, at, seconds(v.Took.Seconds()))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for i := range list {
		if note := verifiedNote(&list[i]); note != "" {
			if _, err := fmt.Fprintf(w, "\n%s %s: %s\n", list[i].Pipeline, list[i].Subject, note); err != nil {
				return err
			}
		}
	}
	return nil
}

// verifiedNote is what the line of a result cannot say.
func verifiedNote(v *cdc.Verification) string {
	var lines []string
	if v.Why != "" {
		lines = append(lines, v.Why)
	}
	for _, s := range v.Samples {
		line := fmt.Sprintf("%s %s", s.Kind, s.Key)
		if s.Partition >= 0 {
			line += fmt.Sprintf(" (partition %d offset %d)", s.Partition, s.Offset)
		}
		for _, c := range s.Columns {
			line += fmt.Sprintf("\n    %s: table %s, topic %s", c.Column, cmp.Or(c.Source, "-"), cmp.Or(c.Target, "-"))
		}
		lines = append(lines, line)
	}
	if n := v.Differences() - int64(len(v.Samples)); n > 0 && len(v.Samples) > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", n))
	}
	if v.Mend != "" {
		lines = append(lines, v.Mend)
	}
	return strings.Join(lines, "\n  ")
}
