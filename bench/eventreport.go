package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
)

// The goals of mode: events. They are printed, not enforced.
const (
	goalAppend = 0.5    // es.append, of the rate of a bare INSERT
	goalInline = 2.5    // times the cost of an append, with three inline views
	goalAsync  = 20_000 // events a second that an async view applies
	goalReplay = 50_000 // events a second that a rebuild reads from the log
	goalFlat   = 1.1    // memory in the second half of a rebuild, of that in the first
)

// target is a goal a figure is compared with.
type target struct {
	limit  float64
	most   bool // the limit must not be exceeded
	format string
}

func atLeast(limit float64, format string) *target { return &target{limit, false, format} }
func atMost(limit float64, format string) *target  { return &target{limit, true, format} }

// mark stands beside a figure.
func (t *target) mark(v float64) string {
	limit := fmt.Sprintf(t.format, t.limit)
	switch {
	case t.most && v <= t.limit:
		return "PASS (≤ " + limit + ")"
	case t.most:
		return "above " + limit
	case v >= t.limit:
		return "PASS (≥ " + limit + ")"
	}
	return "below " + limit
}

// figures are the results of mode: events.
type figures struct {
	options  options
	postgres string // version
	load     string // before it began
	groups   []*group
}

// group is a table of figures of one kind.
type group struct {
	title   string
	columns []string
	lines   []line
}

type line struct {
	name  string
	cells []string
	mark  string // beside its goal; "" where it has none
}

func (f *figures) group(title string, columns ...string) *group {
	g := &group{title: title, columns: columns}
	f.groups = append(f.groups, g)
	return g
}

func (g *group) add(l line) { g.lines = append(g.lines, l) }

func (f *figures) write(out io.Writer) error {
	w := bufio.NewWriter(out)
	fmt.Fprintf(w, "\nmode: events; %s, %d cores, %s/%s; PostgreSQL %s, %s; TCP over loopback, everything on this machine\n",
		processor(), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, f.postgres, runtime.Version())
	fmt.Fprintf(w, "load of the machine (1, 5, 15 minutes): %s before, %s after\n", f.load, loadAverage())
	fmt.Fprintf(w, "medians, with the least and the greatest; repeat: %s\n", f.options.eventCommand())
	for _, g := range f.groups {
		fmt.Fprintf(w, "\n%s\n\n", g.title)
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintf(t, "\t%s\tgoal\n", strings.Join(g.columns, "\t"))
		for _, l := range g.lines {
			cells := slices.Concat(l.cells, make([]string, max(0, len(g.columns)-len(l.cells))))
			fmt.Fprintf(t, "%s\t%s\t%s\n", l.name, strings.Join(cells, "\t"), l.mark)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	return w.Flush()
}

// eventCommand is the command line that repeats a run.
func (o options) eventCommand() string {
	s := o.sizes
	return fmt.Sprintf("go run ./bench -what events -figures %s -rounds %d -turns %d -turn %s -commits %d -events %d -timed %d -rebuild %d -kafka '%s' -pg '%s'",
		strings.Join(o.figures, ","), o.rounds, s.turns, s.turn, s.commits, s.events, s.timed, s.rebuilt, o.kafka, o.major)
}

// loadAverage is the machine's, where it tells.
func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if fields := strings.Fields(string(text)); err == nil && len(fields) >= 3 {
		return strings.Join(fields[:3], " ")
	}
	return "not known"
}

// ratios divides values by others of the same turn.
func ratios(values, base []float64) []float64 {
	var out []float64
	for i := range min(len(values), len(base)) {
		out = append(out, values[i]/base[i])
	}
	return out
}

func scaled(values []float64, by float64) []float64 {
	out := slices.Clone(values)
	for i := range out {
		out[i] *= by
	}
	return out
}

// quantile is the value below which that part of the values is.
func quantile(values []float64, q float64) float64 {
	v := slices.Sorted(slices.Values(values))
	if len(v) == 0 {
		return 0
	}
	return v[min(int(q*float64(len(v))), len(v)-1)]
}

func shown(s spread, format string) string {
	if s.least == s.most {
		return fmt.Sprintf(format, s.median)
	}
	return fmt.Sprintf(format+" ("+format+"–"+format+")", s.median, s.least, s.most)
}

func whole(values []float64) string { return shown(spreadOf(values), "%.0f") }

func thousands(values []float64) string { return shown(spreadOf(scaled(values, 1e-3)), "%.1f k") }

func millis(v float64) string { return fmt.Sprintf("%.1f ms", v) }

func ratio(values, base []float64) string { return shown(spreadOf(ratios(values, base)), "%.2f") }
