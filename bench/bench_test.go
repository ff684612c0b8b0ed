package main

import (
	"context"
	"flag"
	"io"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"cdc/internal/cdctest"
)

func TestMain(m *testing.M) {
	if kind := os.Getenv(childVariable); kind != "" {
		os.Exit(childMain(kind))
	}
	cdctest.Main(m)
}

func TestSpread(t *testing.T) {
	tests := []struct {
		name   string
		values []float64
		want   spread
	}{
		{"nothing", nil, spread{}},
		{"one", []float64{2}, spread{2, 2, 2}},
		{"odd, out of order", []float64{3, 1, 2}, spread{2, 1, 3}},
		{"even", []float64{4, 1, 2, 3}, spread{2.5, 1, 4}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := spreadOf(tt.values); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

// A ratio compares runs of one round: what slows a whole round down says nothing.
func TestRatiosArePerRound(t *testing.T) {
	r := newReport(options{})
	discard := reader{sinkDiscard, "json"}
	for round, took := range []time.Duration{time.Second, 4 * time.Second} {
		r.add(reader{}, round, 100, outcome{Took: took})
		r.add(discard, round, 100, outcome{Took: took / 2})
	}
	got := spreadOf(r.ratios(discard))
	if math.Abs(got.least-2) > 1e-9 || math.Abs(got.most-2) > 1e-9 {
		t.Errorf("got ratios %+v, want 2 in both rounds", got)
	}
}

func TestGoal(t *testing.T) {
	tests := []struct {
		sink   string
		median float64
		want   string
	}{
		{sinkDiscard, 1.06, "PASS (≥ 1.05)"}, {sinkDiscard, 1.04, "below 1.05"},
		{sinkKafka, 1, "PASS (≥ 1.00)"}, {sinkKafka, 0.9, "below 1.00"}, {sinkEmbedded, 0.1, ""},
	}
	for _, tt := range tests {
		if got := goal(reader{sink: tt.sink}, tt.median); got != tt.want {
			t.Errorf("%s at %v: got %q, want %q", tt.sink, tt.median, got, tt.want)
		}
	}
}

func TestOptions(t *testing.T) {
	tests := []struct {
		name, args, want string // want: part of the error, "" for none
	}{
		{"defaults", "", ""},
		{"no rounds", "-sinks= -kafka= -transaction 10", ""},
		{"unknown sink", "-sinks discard,tape", "tape"},
		{"unknown format", "-formats avro", "avro"},
		{"no format", "-formats=", "-formats"},
		{"more updates than rows", "-inserts 5 -updates 6", "-updates"},
		{"no round", "-rounds 0", "-rounds"},
		{"stray argument", "now", "now"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parseOptions(strings.Fields(tt.args))
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one with %q", err, tt.want)
			}
		})
	}
	if o, err := parseOptions([]string{"-kafka", ""}); err != nil || len(o.readers) != 2 {
		t.Errorf("without Apache Kafka: got sinks %v and error %v, want the other two", o.readers, err)
	}
	if _, err := parseOptions([]string{"-h"}); err != flag.ErrHelp {
		t.Errorf("-h: got %v, want %v", err, flag.ErrHelp)
	}
}

// The memory runs from end to end, with the embedded broker and few rows: the
// children, the workload, the counts and the table.
func TestMemoryRuns(t *testing.T) {
	o, err := parseOptions([]string{"-sinks", "", "-kafka", "", "-transaction", "2000", "-copy", "3000"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var out strings.Builder
	if err := run(ctx, o, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"transaction: cdc, debezium-json, embedded broker", "table copied: cdc, debezium-json, embedded broker", "PASS (≤ 150 MB)"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, out.String())
		}
	}
}

// Rows that are missing are an error, not a slow run.
func TestCheckCounts(t *testing.T) {
	j := job{Name: "n", Rows: 10, Discard: true}
	tests := []struct {
		name string
		o    outcome
		ok   bool
	}{
		{"all", outcome{Changes: 10, Records: 10}, true},
		{"a change too few", outcome{Changes: 9, Records: 10}, false},
		{"a record too many", outcome{Changes: 10, Records: 11}, false},
		{"started again", outcome{Changes: 10, Records: 10, Restarts: 1}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := j.check(t.Context(), tt.o); (err == nil) != tt.ok {
				t.Errorf("got error %v, want none: %t", err, tt.ok)
			}
		})
	}
}
