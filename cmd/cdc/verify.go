package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
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
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, _, err := g.load(cmd)
			if err != nil {
				return err
			}
			names, err := f.pipelines(cfg)
			if err != nil {
				return err
			}
			return f.reached(cmd.Context(), cfg, names, args, func(sc sink.Config, targets []*target) error {
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
			})
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

// reached calls fn with the brokers and the tables asked for, and ends what it was
// reached by.
func (f *verifyFlags) reached(ctx context.Context, cfg *config.Config, names, args []string, fn func(sink.Config, []*target) error) (err error) {
	sc, done, err := reach(ctx, cfg, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	targets, err := f.open(ctx, cfg, sc, names, args)
	defer func() {
		for _, t := range targets {
			t.v.Close()
		}
	}()
	if err != nil {
		return err
	}
	return fn(sc, targets)
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
