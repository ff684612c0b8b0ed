package main

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"cdc/internal/admin"
	"cdc/internal/cdc"
	"cdc/internal/config"
	"cdc/internal/sink"
)

// repairReport is what `cdc repair -o json` prints.
type repairReport struct {
	Verified []cdc.Verification `json:"verified"`
	Repaired []repairedTable    `json:"repaired"`        // nothing where it was not asked for
	After    []cdc.Verification `json:"after,omitempty"` // the repaired tables verified again
}

// repairedTable is what was written into the topic of one table.
type repairedTable struct {
	Pipeline string `json:"pipeline"`
	Table    string `json:"table"`
	cdc.RepairResult
}

func newRepairCommand(g *globals) *cobra.Command {
	var f verifyFlags
	var yes bool
	var addr string
	cmd := &cobra.Command{
		Use:   "repair [TABLE...]",
		Short: "Compare topics with their tables, and write right what differs",
		Long: `Repair verifies the captured tables (or those that the arguments name, as cdc verify takes them) and says what it would do:
rows that are missing from a topic or differ there are read again and written, keys that are gone from the table get a
tombstone. After a yes on the terminal, or with --yes, it has the running daemon do that, in order with the stream, and
verifies those tables again. Without either nothing is written.

Exit codes: 0 all are equal now, 4 differences remain, 1 nothing differs and something is unchecked, 3 no daemon answers, or
Postgres or Kafka cannot be reached, 2 usage.`,
		Example: "  cdc repair public.orders\n  cdc repair --yes",
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, _, err := g.load(cmd)
			if err != nil {
				return err
			}
			if addr == "" {
				if addr = cfg.Admin.Listen; addr == "" {
					return usageError("admin.listen is empty in %s: the daemon, which writes, cannot be asked", g.config)
				}
			}
			names, err := f.pipelines(cfg)
			if err != nil {
				return err
			}
			names = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return cfg.Pipelines[n].Mode != config.ModeCDC })
			if len(names) == 0 {
				return usageError("there is no pipeline of mode: cdc to repair; topics of mode: events are written again by cdc es republish")
			}
			// Without a daemon no pipeline passes the place at which tables are read.
			if _, err := admin.Fetch(cmd.Context(), addr); err != nil {
				return environmentError("%w; the daemon writes the repair, start it: cdc run", err)
			}
			r := repairRun{g: g, cmd: cmd, flags: &f, addr: addr, yes: yes, report: repairReport{Verified: []cdc.Verification{}, Repaired: []repairedTable{}}}
			defer r.close()
			return f.reached(cmd.Context(), cfg, names, args, func(_ sink.Config, targets []*target) error { return r.run(targets) })
		},
	}
	f.register(cmd)
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.Flags().StringVar(&addr, "addr", "", "host:port of the daemon, in place of admin.listen")
	return cmd
}

// repairRun is one call of cdc repair.
type repairRun struct {
	g      *globals
	cmd    *cobra.Command
	flags  *verifyFlags
	addr   string
	yes    bool
	report repairReport
	found  []*differences // of each target
}

func (r *repairRun) close() {
	for _, d := range r.found {
		d.close()
	}
}

func (r *repairRun) run(targets []*target) error {
	todo := false
	for _, t := range targets {
		d, err := newDifferences(t.p.Verify.Dir)
		if err != nil {
			return err
		}
		r.found = append(r.found, d)
		found, err := t.verify(r.cmd, r.flags, d.add)
		if err != nil {
			return err
		}
		for _, v := range found {
			r.report.Verified = append(r.report.Verified, v.Verification)
			d.result(v)
		}
		todo = todo || len(d.tables) > 0
	}
	if r.g.output != outputJSON {
		if err := r.tell(); err != nil {
			return err
		}
	}
	verdicts := r.report.Verified
	if todo && r.agreed() {
		for i, t := range targets {
			if err := r.send(t, r.found[i]); err != nil {
				return err
			}
		}
		if verdicts = r.report.After; r.g.output != outputJSON {
			if err := r.tellAfter(); err != nil {
				return err
			}
		}
		verdicts = append(slices.Clone(verdicts), r.untouched()...)
	} else if todo && r.g.output != outputJSON {
		fmt.Fprintln(r.cmd.OutOrStdout(), "nothing was written: answer yes, or give --yes")
	}
	if r.g.output == outputJSON {
		if err := encodeJSON(r.cmd.OutOrStdout(), r.report, "  "); err != nil {
			return err
		}
	}
	return verdictError(verdicts)
}

// agreed asks where nobody has answered yet. With -o json nobody is asked: the
// question would stand in the result.
func (r *repairRun) agreed() bool {
	return r.yes || r.g.output != outputJSON && confirmed(r.cmd)
}

// untouched are the results of tables that were not repaired.
func (r *repairRun) untouched() []cdc.Verification {
	return slices.DeleteFunc(slices.Clone(r.report.Verified), func(v cdc.Verification) bool { return v.Verdict == cdc.VerdictDifferent })
}

// tell writes what was found and what is to be done about it.
func (r *repairRun) tell() error {
	w := r.cmd.OutOrStdout()
	if err := writeVerifications(w, withoutMend(r.report.Verified)); err != nil {
		return err
	}
	for _, v := range r.report.Verified {
		if v.Verdict != cdc.VerdictDifferent {
			continue
		}
		_, err := fmt.Fprintf(w, "\nrepair %s: read %d rows again and write them, write %d tombstones\n", v.Subject, v.Missing+v.Different, v.Ghosts)
		if err != nil {
			return err
		}
	}
	return nil
}

// withoutMend leaves out the advice to call this command.
func withoutMend(list []cdc.Verification) []cdc.Verification {
	out := slices.Clone(list)
	for i := range out {
		if out[i].Verdict == cdc.VerdictDifferent {
			out[i].Mend = ""
		}
	}
	return out
}

func (r *repairRun) tellAfter() error {
	w := r.cmd.OutOrStdout()
	for _, t := range r.report.Repaired {
		left := ""
		if t.Left > 0 {
			left = fmt.Sprintf(", %d keys left alone (changed or gone meanwhile)", t.Left)
		}
		if _, err := fmt.Fprintf(w, "%s: %d rows and %d tombstones written%s\n", t.Table, t.Upserts, t.Tombstones, left); err != nil {
			return err
		}
	}
	if _, err := io.WriteString(w, "\n"); err != nil {
		return err
	}
	return writeVerifications(w, r.report.After)
}

// send has the daemon repair the tables of a target, then verifies them again.
func (r *repairRun) send(t *target, d *differences) error {
	if len(d.tables) == 0 {
		return nil
	}
	sums := map[string]*repairedTable{}
	err := d.batches(func(req cdc.RepairRequest) error {
		result, err := admin.Repair(r.cmd.Context(), r.addr, t.p.Name, req)
		if unreachable := (*admin.UnreachableError)(nil); errors.As(err, &unreachable) {
			return environmentError("%w", err)
		}
		if err != nil {
			return fmt.Errorf("repair %s: %w; what was written is right, repair goes on where it is called again", req.Table, err)
		}
		sum := sums[req.Table]
		if sum == nil {
			sum = &repairedTable{Pipeline: t.p.Name, Table: req.Table}
			sums[req.Table] = sum
		}
		sum.Upserts += result.Upserts
		sum.Tombstones += result.Tombstones
		sum.Left += result.Left
		return nil
	})
	if err != nil {
		return err
	}
	again := &target{p: t.p, v: t.v, want: map[uint32]bool{}}
	for _, table := range t.v.Tables() {
		if sum := sums[table.FullName()]; sum != nil {
			r.report.Repaired = append(r.report.Repaired, *sum)
			again.want[table.OID] = true
		}
	}
	found, err := again.verify(r.cmd, r.flags, nil)
	for _, v := range found {
		r.report.After = append(r.report.After, v.Verification)
	}
	return err
}
