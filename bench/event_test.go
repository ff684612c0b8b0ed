package main

import (
	"context"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestTarget(t *testing.T) {
	tests := []struct {
		t    *target
		v    float64
		want string
	}{
		{atLeast(0.5, "%.2f"), 0.5, "PASS (≥ 0.50)"}, {atLeast(0.5, "%.2f"), 0.49, "below 0.50"},
		{atMost(2.5, "%.1f"), 2.5, "PASS (≤ 2.5)"}, {atMost(2.5, "%.1f"), 2.6, "above 2.5"},
	}
	for _, tt := range tests {
		if got := tt.t.mark(tt.v); got != tt.want {
			t.Errorf("%+v at %v: got %q, want %q", *tt.t, tt.v, got, tt.want)
		}
	}
}

func TestQuantile(t *testing.T) {
	values := []float64{5, 1, 4, 2, 3, 10, 9, 8, 7, 6}
	for q, want := range map[float64]float64{0: 1, .5: 6, .99: 10, 1: 10} {
		if got := quantile(values, q); got != want {
			t.Errorf("%v: got %v, want %v", q, got, want)
		}
	}
	if got := quantile(nil, .5); got != 0 {
		t.Errorf("of nothing: got %v, want 0", got)
	}
}

// The clock runs from the first sample that says it began to the first at the target.
func TestProgressRate(t *testing.T) {
	began := time.Unix(0, 0)
	at := func(ms int, head int64) sample {
		return sample{At: began.Add(time.Duration(ms) * time.Millisecond), Head: head, CPU: time.Duration(ms) * time.Millisecond / 2}
	}
	moved := func(s sample) bool { return s.Head > 0 }
	tests := []struct {
		name    string
		samples []sample
		rate    float64
		cpu     time.Duration
	}{
		{"nothing", nil, 0, 0},
		{"waits, moves, is there, stays", []sample{at(0, 0), at(1000, 100), at(1500, 200), at(2000, 300), at(9000, 300)}, 200, 500 * time.Millisecond},
		{"never there", []sample{at(0, 0), at(1000, 100)}, 0, 0},
		{"there at once", []sample{at(0, 0), at(1000, 300)}, 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rate, cpu := progressRate(tt.samples, moved, 300, head)
			if rate != tt.rate || cpu != tt.cpu {
				t.Errorf("got %v events/s and %s, want %v and %s", rate, cpu, tt.rate, tt.cpu)
			}
		})
	}
}

func TestHalves(t *testing.T) {
	at := func(s int, bytes int64) memoryAt { return memoryAt{time.Unix(int64(s), 0), bytes} }
	least, first, second := halves([]memoryAt{at(0, 5), at(1, 7), at(2, 3), at(9, 8), at(10, 6)})
	if least != 3 || first != 7 || second != 8 {
		t.Errorf("got %d, %d, %d, want 3, 7, 8", least, first, second)
	}
	if least, first, second := halves(nil); least+first+second != 0 {
		t.Errorf("of nothing: got %d, %d, %d", least, first, second)
	}
}

func TestParts(t *testing.T) {
	for _, tt := range []struct {
		total, rounds int
		want          []int
	}{{10, 3, []int{3, 3, 4}}, {2, 3, []int{1, 1}}, {5, 1, []int{5}}} {
		if got := parts(tt.total, tt.rounds); !slices.Equal(got, tt.want) {
			t.Errorf("%d in %d: got %v, want %v", tt.total, tt.rounds, got, tt.want)
		}
	}
}

func TestEventOptions(t *testing.T) {
	for _, tt := range []struct{ name, args, want string }{
		{"events alone", "-what events", ""},
		{"nothing", "-what=", "-what"},
		{"unknown", "-what columns", "columns"},
		{"unknown figure", "-figures taste", "taste"},
		{"no turn", "-turns 0", "-turns"},
		{"too few events", "-events 10", "-events"},
		{"a shorter log for the rebuild", "-commits 20 -events 20000 -rebuild 20010", "-rebuild"},
		{"no rebuild", "-rebuild 0", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parseOptions(strings.Fields(tt.args))
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one with %q", err, tt.want)
			}
		})
	}
}

// All figures from end to end, with few events and the embedded broker: the daemons,
// the counts that are checked, the tables.
func TestEventFigures(t *testing.T) {
	o, err := parseOptions(strings.Fields("-what events -kafka= -rounds 1 -turns 1 -turn 50ms -commits 100 -events 11000 -timed 20 -rebuild 22000"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	var out strings.Builder
	if err := runEvents(ctx, o, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"es.append of a declared type", "3 views", "transactions of 10000 events", "the same in another Postgres", "1000 events a second", "to new topics", "the daemon, resident"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, out.String())
		}
	}
}
