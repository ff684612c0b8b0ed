package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cdc/internal/admin"
	"cdc/internal/cdc"
	"cdc/internal/config"
)

// followEvery is how often the daemon is asked how far a copy is.
const followEvery = 500 * time.Millisecond

func newSnapshotCommand(g *globals) *cobra.Command {
	var name string
	var pause, resume, cancel, detach bool
	cmd := &cobra.Command{
		Use:   "snapshot TABLE...",
		Short: "Copy tables again while the stream goes on",
		Long: `Snapshot has the running daemon copy captured tables into their topics again, in chunks in the order of the key, while the
stream goes on: no lock is held, no row lands behind a newer event of its key, and keys that are gone from the table are
tombstoned. It goes on after a restart where it was. Without --detach the command shows how far it is and returns at the end.`,
		Example: "  cdc snapshot public.orders\n  cdc snapshot public.orders --pause",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, _, err := g.load(cmd)
			if err != nil {
				return err
			}
			p, err := rowsPipeline(cfg, name)
			if err != nil {
				return err
			}
			if cfg.Admin.Listen == "" {
				return usageError("admin.listen is not set: the command speaks to the daemon through it")
			}
			req := cdc.CopyRequest{Action: cdc.CopyStart, Tables: args}
			switch {
			case pause && resume, pause && cancel, resume && cancel:
				return usageError("give one of --pause, --resume and --cancel")
			case pause:
				req.Action = cdc.CopyPause
			case resume:
				req.Action = cdc.CopyResume
			case cancel:
				req.Action = cdc.CopyCancel
			}
			if err := admin.Ask(cmd.Context(), cfg.Admin.Listen, p, req); err != nil {
				if unreachable := (*admin.UnreachableError)(nil); errors.As(err, &unreachable) {
					return surroundings(err)
				}
				return err
			}
			if detach || pause || cancel {
				return nil
			}
			return followCopies(cmd.Context(), cmd.OutOrStdout(), cfg.Admin.Listen, p, args)
		},
	}
	f := cmd.Flags()
	f.StringVar(&name, "pipeline", "", "the pipeline, where the configuration has several of mode: cdc")
	f.BoolVar(&pause, "pause", false, "stop reading until --resume")
	f.BoolVar(&resume, "resume", false, "go on behind the last row that is acknowledged")
	f.BoolVar(&cancel, "cancel", false, "give the copy up; what is written stays")
	f.BoolVar(&detach, "detach", false, "return when the daemon has taken it on")
	return cmd
}

// rowsPipeline is the pipeline of mode: cdc that a command is about.
func rowsPipeline(cfg *config.Config, name string) (string, error) {
	names := slices.DeleteFunc(cfg.PipelineNames(), func(n string) bool { return cfg.Pipelines[n].Mode != config.ModeCDC })
	switch {
	case name == "" && len(names) == 1:
		return names[0], nil
	case name == "" && len(names) > 1:
		return "", usageError("say which pipeline with --pipeline: %s", strings.Join(names, ", "))
	case !slices.Contains(names, name):
		return "", usageError("no pipeline %q of mode: cdc in the configuration; it has %s", name, strings.Join(names, ", "))
	}
	return name, nil
}

// followCopies shows how far the copies of tables are, a line when something has
// changed, until all are done.
func followCopies(ctx context.Context, out io.Writer, addr, pipeline string, tables []string) error {
	began, last := time.Now(), ""
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		report, err := admin.Fetch(ctx, addr)
		if err != nil {
			return surroundings(err)
		}
		var copies []cdc.TableProgress
		for _, p := range report.Pipelines {
			if p.Name == pipeline {
				copies = slices.DeleteFunc(p.Snapshot, func(t cdc.TableProgress) bool { return t.State == "" || !slices.Contains(tables, t.Table) })
			}
		}
		if len(copies) == 0 {
			_, err := fmt.Fprintf(out, "copied in %s\n", time.Since(began).Round(time.Millisecond))
			return err
		}
		for _, c := range copies {
			if c.State == "failed" {
				return fmt.Errorf("copy %s: %s", c.Table, c.Error)
			}
		}
		if line := copyNote(copies); line != last {
			last = line
			if _, err := fmt.Fprintln(out, line); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// copyNote tells how far copies by chunks are.
func copyNote(copies []cdc.TableProgress) string {
	list := make([]string, len(copies))
	for i, c := range copies {
		of, state := "", ""
		if c.RowsTotal > 0 {
			of = fmt.Sprintf(" of about %d", max(c.RowsTotal, c.Rows))
		}
		if c.State != "active" {
			state = ", " + c.State
		}
		if c.Error != "" {
			state += ": " + c.Error
		}
		list[i] = fmt.Sprintf("copying %s: %d rows%s%s", c.Table, c.Rows, of, state)
	}
	return strings.Join(list, "\n")
}
