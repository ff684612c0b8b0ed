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
	"time"
)

// The goals that stand beside the results. They are printed, not enforced: a
// machine that does other work meanwhile misses them.
const (
	goalDiscard = 1.05 // of pg_recvlogical's rows per second
	goalKafka   = 1.0
	goalPeak    = 150_000_000 // bytes
)

// report collects results and prints them.
type report struct {
	options  options
	postgres string // version
	order    []reader
	runs     map[reader][]result
	peaks    []peakResult
}

// result is one run of one reader.
type result struct {
	round int
	rows  int
	outcome
}

func (r result) rate() float64 { return float64(r.rows) / r.Took.Seconds() }

type peakResult struct {
	what string
	reader
	result
}

func newReport(o options) *report { return &report{options: o, runs: map[reader][]result{}} }

func (r *report) add(l reader, round, rows int, o outcome) {
	if _, ok := r.runs[l]; !ok {
		r.order = append(r.order, l)
	}
	r.runs[l] = append(r.runs[l], result{round, rows, o})
}

func (r *report) addPeak(what string, l reader, rows int, o outcome) {
	r.peaks = append(r.peaks, peakResult{what, l, result{0, rows, o}})
}

// spread is the middle and the ends of a list of numbers.
type spread struct{ median, least, most float64 }

func spreadOf(values []float64) spread {
	v := slices.Sorted(slices.Values(values))
	if len(v) == 0 {
		return spread{}
	}
	half := len(v) / 2
	s := spread{median: v[half], least: v[0], most: v[len(v)-1]}
	if len(v)%2 == 0 {
		s.median = (v[half-1] + v[half]) / 2
	}
	return s
}

// ratios are the rates of a reader, each divided by pg_recvlogical's of the same round.
func (r *report) ratios(l reader) []float64 {
	var out []float64
	for _, run := range r.runs[l] {
		for _, base := range r.runs[reader{}] {
			if base.round == run.round {
				out = append(out, run.rate()/base.rate())
			}
		}
	}
	return out
}

func perMillion(cpu time.Duration, rows int) float64 { return cpu.Seconds() / float64(rows) * 1e6 }

// goal is the mark beside a ratio.
func goal(l reader, median float64) string {
	want := map[string]float64{sinkDiscard: goalDiscard, sinkKafka: goalKafka}[l.sink]
	switch {
	case want == 0:
		return ""
	case median >= want:
		return fmt.Sprintf("PASS (≥ %.2f)", want)
	}
	return fmt.Sprintf("below %.2f", want)
}

func (r *report) write(out io.Writer) error {
	w := bufio.NewWriter(out)
	r.writeHead(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if len(r.order) > 0 {
		r.writeRounds(t)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if len(r.peaks) > 0 {
		r.writePeaks(t)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	return w.Flush()
}

func (r *report) writeHead(w io.Writer) {
	kafka := ""
	if r.options.kafka != "" {
		kafka = ", Apache Kafka " + r.options.kafka
	}
	fmt.Fprintf(w, "\n%s, %d cores, %s/%s; PostgreSQL %s%s, %s; TCP over loopback, everything on this machine\n",
		processor(), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, r.postgres, kafka, runtime.Version())
	fmt.Fprintf(w, "repeat: %s\n", r.options.command())
}

func (r *report) writeRounds(w io.Writer) {
	work := r.options.work
	fmt.Fprintf(w, "\n%d changes: %d inserts in one transaction, %d updates in one, %d transactions of one update; %d rounds\n\n",
		work.rows(), work.inserts, work.updates, work.single, r.options.rounds)
	fmt.Fprintln(w, "reader\tk rows/s\tof pg_recvlogical (min–max)\tCPU-s per million\tpeak RSS\tgoal")
	for _, l := range (&bench{options: r.options}).lines() {
		runs := r.runs[l]
		rates, cpu, peak := make([]float64, len(runs)), make([]float64, len(runs)), int64(0)
		for i, run := range runs {
			rates[i], cpu[i], peak = run.rate()/1000, perMillion(run.CPU, run.rows), max(peak, run.Peak)
		}
		s, ratio, memory := spreadOf(r.ratios(l)), "1", "-"
		if l.sink != "" {
			ratio = fmt.Sprintf("%.2f (%.2f–%.2f)", s.median, s.least, s.most)
			memory = megabytes(peak)
		}
		fmt.Fprintf(w, "%s\t%.1f\t%s\t%.2f\t%s\t%s\n", l, spreadOf(rates).median, ratio, spreadOf(cpu).median, memory, goal(l, s.median))
	}
}

func (r *report) writePeaks(w io.Writer) {
	fmt.Fprintln(w, "\nmemory\trows\tk rows/s\tCPU-s per million\tpeak RSS\tgoal")
	for _, p := range r.peaks {
		mark := "PASS (≤ 150 MB)"
		if p.Peak > goalPeak {
			mark = "over 150 MB"
		}
		fmt.Fprintf(w, "%s: %s\t%d\t%.1f\t%.2f\t%s\t%s\n", p.what, p.reader, p.rows, p.rate()/1000, perMillion(p.CPU, p.rows), megabytes(p.Peak), mark)
	}
}

func megabytes(n int64) string { return fmt.Sprintf("%.0f MB", float64(n)/1e6) }

// command is the command line that repeats a run.
func (o options) command() string {
	return fmt.Sprintf("go run ./bench -what rows -inserts %d -updates %d -single %d -rounds %d -sinks %s -formats %s -kafka '%s' -pg '%s' -transaction %d -copy %d",
		o.work.inserts, o.work.updates, o.work.single, o.rounds, strings.Join(o.readers, ","), strings.Join(o.formats, ","), o.kafka, o.major, o.stream, o.copied)
}

// processor names the kind of machine.
func processor() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				return strings.TrimSpace(value)
			}
		}
	}
	return "unknown processor"
}
