package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"cdc/internal/config"
	"cdc/internal/demo"
)

func newDemoCommand(g *globals) *cobra.Command {
	var o demo.Options
	var printConfig bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show everything on this machine: private PostgreSQL, embedded broker, a live university",
		Long: `Demo needs nothing running. It finds PostgreSQL's server programs or fetches them, starts a private cluster and the
embedded broker, and lets the students of a university join, enrol, wait, cancel and leave. One pipeline captures its tables
(what is), another publishes its events (what was meant): enrolments and waiting lists are views of events, and both
pipelines see the same transactions.
Half-way a reaction, which offers a freed place to the next on the waiting list, and a new view are added to the
configuration and installed, as cdc es init does it. Nothing else changes and nothing is restarted.

Every change and every intent is shown as a reader of the topics gets it. At the end the workload stops, every view is
compared with a replay of all events, and the topics are compacted: then every state topic is compared with its table, row
by row, and every intent topic, which keeps everything, with the events of the store. It exits with 0 if all are equal and
with 4 if anything differs.

Look in from another terminal meanwhile: psql on the database, kcat on the broker, and with the configuration in the data
folder cdc status, cdc tail, cdc tx, cdc es log, cdc views ls. Ctrl-C ends the workload and compares; a second one ends
everything at once. A later run in the same folder goes on where this one stopped.`,
		Example: `  cdc demo --for 30s
  cdc demo --print-config > cdc.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if printConfig {
				text, err := demo.Example()
				if err != nil {
					return err
				}
				_, err = io.WriteString(cmd.OutOrStdout(), text)
				return err
			}
			return runDemo(cmd, g, o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Dir, "dir", "", "data folder (default "+demo.DefaultDir+", or one below the temporary directory)")
	f.BoolVar(&o.Fresh, "fresh", false, "forget what an earlier run left in the data folder")
	f.DurationVar(&o.For, "for", 0, "how long the workload runs (default until Ctrl-C)")
	f.IntVar(&o.Transactions, "transactions", 0, "how many transactions the workload begins (default no limit)")
	f.IntVar(&o.Rate, "rate", demo.DefaultRate, "transactions per second")
	f.IntVar(&o.Lines, "lines", demo.DefaultLines, "changes shown per second, 0 for all")
	f.Uint64Var(&o.Seed, "seed", 1, "of everything random")
	f.StringVar(&o.Programs, "programs", "", "folder of PostgreSQL's server programs (default found, else fetched)")
	f.StringVar(&o.Broker, "broker", "", "where the broker listens (default "+demo.DefaultBroker+", or a free port)")
	f.StringVar(&o.Admin, "admin", "", "where health and metrics are served (default "+demo.DefaultAdmin+", or a free port)")
	f.BoolVar(&printConfig, "print-config", false, "print the configuration the demo uses, to start from, and run nothing")
	return cmd
}

func runDemo(cmd *cobra.Command, g *globals, o demo.Options) error {
	o.Out = cmd.OutOrStdout()
	if g.output == outputJSON { // the result alone goes to standard output
		o.Out = cmd.ErrOrStderr()
	}
	o.Color, o.Start = colored(o.Out), startForDemo
	if err := o.Check(); err != nil {
		return usageError("%w", err)
	}
	res, err := demo.Run(cmd.Context(), o)
	if res != nil && g.output == outputJSON {
		err = errors.Join(err, encodeJSON(cmd.OutOrStdout(), res, "  "))
	}
	return demoError(err)
}

// demoError gives an error of a run its exit code.
func demoError(err error) error {
	var start *demo.StartError
	switch {
	case errors.Is(err, demo.ErrDifferent):
		return &exitError{exitDifference, err}
	case errors.As(err, &start):
		return environmentError("%w", err)
	}
	return err
}

// colored says that w is a terminal whose owner did not ask for plain text
// (https://no-color.org).
func colored(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// demoDaemon is the daemon as the demo drives it.
type demoDaemon struct {
	daemon
	listen string // of the admin server
}

// startForDemo implements demo.Starter with the daemon of `cdc run`.
func startForDemo(ctx context.Context, cfg *config.Config, log *slog.Logger) (demo.Daemon, error) {
	s, err := build(ctx, cfg, log)
	if err != nil {
		return nil, err
	}
	if s.broker == nil {
		return nil, errors.New("the configuration of the demo has no embedded broker")
	}
	return &demoDaemon{daemon{stack: s, log: log}, cfg.Admin.Listen}, nil
}

// Run implements demo.Daemon. A pipeline that fails for good ends the others: there
// is nothing left to show.
func (d *demoDaemon) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	d.failed = func(name string, err error) { cancel(fmt.Errorf("pipeline %s: %w", name, err)) }
	return d.run(ctx, d.listen)
}

// Compact implements demo.Daemon.
func (d *demoDaemon) Compact(ctx context.Context) error { return d.broker.Compact(ctx) }

// Close implements demo.Daemon.
func (d *demoDaemon) Close() error { return d.close() }
