package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The suite from end to end, with few seeds: one with the broker inside cdc, one
// with a broker beside it and connections that break.
func TestSeeds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	var out strings.Builder
	ok, err := suite(ctx, []string{"-seeds", "2", "-from", "1000", "-jobs", "2", "-v"}, &out)
	if err != nil || !ok {
		t.Errorf("ok %v, error %v\n%s", ok, err, out.String())
	}
	for _, want := range []string{"seed 1000 embedded", "seed 1001 fake", "2 seeds in"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output lacks %q:\n%s", want, out.String())
		}
	}
}

// Every sabotage still finds the line that it changes.
func TestSabotagesFitTheSource(t *testing.T) {
	t.Parallel()
	for name, m := range mutants {
		b, err := os.ReadFile(filepath.Join("..", "..", m.file))
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(b), m.old); n != 1 {
			t.Errorf("%s: the text to change is %d times in %s, want once:\n%s", name, n, m.file, m.old)
		}
		if m.old == m.new {
			t.Errorf("%s changes nothing", name)
		}
	}
}

// A seed determines its plan; another one is another.
func TestPlanIsOfItsSeed(t *testing.T) {
	t.Parallel()
	texts := func(p plan) string {
		var b strings.Builder
		b.WriteString(p.String())
		for _, s := range p.sessions {
			for _, st := range s {
				b.WriteString(st.String() + st.pause.String() + "\n")
			}
		}
		return b.String()
	}
	for seed := range uint64(50) {
		for _, kafka := range []string{kindEmbedded, "fake", "4.4.0"} {
			a, b := texts(makePlan(seed, kafka, limits{})), texts(makePlan(seed, kafka, limits{}))
			if a != b {
				t.Fatalf("seed %d: two plans:\n%s\n%s", seed, a, b)
			}
			if texts(makePlan(seed+1, kafka, limits{})) == a {
				t.Fatalf("seeds %d and %d have one plan", seed, seed+1)
			}
			for _, f := range makePlan(seed, kafka, limits{}).faults {
				if kafka == kindEmbedded && (networked[f.kind] > 0 || f.kind == faultBroker || f.kind == faultBoth) {
					t.Fatalf("seed %d: fault %s needs a broker outside of cdc", seed, f)
				}
			}
		}
	}
}

// A plan can be cut down: faults keep what they are, sessions their first steps.
func TestLimits(t *testing.T) {
	t.Parallel()
	whole := makePlan(5, "fake", limits{})
	cut := makePlan(5, "fake", limits{steps: 3, faults: []int{}})
	if len(cut.faults) != 0 || cut.steps() != 3*len(whole.sessions) {
		t.Errorf("got %d faults and %d steps, want 0 and %d", len(cut.faults), cut.steps(), 3*len(whole.sessions))
	}
	for i, s := range cut.sessions {
		for j, st := range s {
			if st.String() != whole.sessions[i][j].String() {
				t.Errorf("session %d step %d: got %s, want %s", i, j, st, whole.sessions[i][j])
			}
		}
	}
	last := len(whole.faults) - 1
	if one := makePlan(5, "fake", limits{faults: []int{last}}); len(one.faults) != 1 || one.faults[0] != whole.faults[last] {
		t.Errorf("got faults %v, want %v", one.faults, whole.faults[last:])
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, args, want string // want: part of the error, "" for none
	}{
		{"defaults", "", ""},
		{"one seed again", "-seed 7 -kafka 4.4.0 -faults 0,2 -steps 10", ""},
		{"no faults", "-seed 7 -faults none", ""},
		{"no full disks", "-seed 7 -no-disk", ""},
		{"shrink what", "-shrink", "-seed"},
		{"shrink where", "-shrink -seed 3", "-kafka"},
		{"stray", "now", "no arguments"},
		{"faults that are none", "-faults x", "numbers"},
		{"no jobs", "-jobs 0", "1 or more"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parseOptions(strings.Fields(tt.args))
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one with %q", err, tt.want)
			}
		})
	}
	o, err := parseOptions(strings.Fields("-seed 7 -kafka fake -faults 0,2 -steps 10 -no-disk -sabotage no-skip"))
	if err != nil {
		t.Fatal(err)
	}
	want := "go run ./internal/crash -seed 7 -kafka fake -steps 10 -faults 0,2 -no-disk -sabotage no-skip"
	if got := o.again(makePlan(7, "fake", o.limits)); got != want {
		t.Errorf("again: got %q, want %q", got, want)
	}
}
