package admin

import (
	"flag"
	"log/slog"
	"math"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"cdc/internal/cdc"
)

var update = flag.Bool("update", false, "write testdata anew")

// The whole of what one pipeline exposes, as a text one can read.
func TestMetricsGolden(t *testing.T) {
	const golden = "testdata/metrics.txt"
	b := &board{}
	second := cdc.Status{Name: "other", State: cdc.StateFailed, Stalled: "x", SlotSafe: -1, LagBytes: -5, Log: &cdc.LogStatus{
		Head: 7, Published: 5, Alarms: 1,
		Parts: []cdc.PartStatus{{Name: "publication", Position: 5}, {Name: "view waiting", Position: 3, Error: "x", Restarts: 2}},
	}}
	first := full()
	first.Verified = []cdc.Verification{
		{Subject: "public.students", Verdict: cdc.VerdictDifferent, LSN: 0x200, Missing: 1, Ghosts: 2, Different: 3, At: time.Now().Add(time.Hour)}, // an age of 0
		{Subject: "public.courses", Verdict: cdc.VerdictUnchecked, LSN: 0x200, At: time.Now().Add(time.Hour)},
	}
	b.set(first, second)
	_, _, body := ask(t, start(t, b), "GET", "/metrics")
	var lines []string
	for line := range strings.Lines(body) {
		if regexp.MustCompile(`^(# (HELP|TYPE) )?cdc_`).MatchString(line) {
			lines = append(lines, line)
		}
	}
	got := strings.Join(lines, "")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("differs from %s (-update writes it anew)\n got %s\nwant %s", golden, got, want)
	}
	for _, name := range []string{"go_goroutines", "process_open_fds"} {
		if !strings.Contains(body, "\n"+name+" ") {
			t.Errorf("no %s", name)
		}
	}
}

func TestMetricsLint(t *testing.T) {
	b := &board{}
	b.set(full())
	problems, err := testutil.CollectAndLint(&collector{source: b})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// A registry checks at each scrape that the metrics are those described.
func TestMetricsPedantic(t *testing.T) {
	b := &board{}
	b.set(full(), cdc.Status{Name: "empty"})
	r := prometheus.NewPedanticRegistry()
	if err := r.Register(&collector{source: b}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Gather(); err != nil {
		t.Error(err)
	}
}

// A series that cannot be made leaves the others standing.
func TestMetricsOfABadName(t *testing.T) {
	b := &board{}
	s := full()
	s.Snapshot[0].Table = "public.\xff"
	s.LagSeconds = math.Inf(1)
	b.set(s)
	code, _, body := ask(t, start(t, b), "GET", "/metrics")
	if code != 200 || !strings.Contains(body, `cdc_changes_total{pipeline="rows"} 20`) || !strings.Contains(body, `cdc_snapshot_rows{pipeline="rows",table="public.courses"} 7`) {
		t.Errorf("%d %s", code, body)
	}
}

func TestTwoServersDoNotShareMetrics(t *testing.T) {
	for range 2 {
		New(&board{}, slog.New(slog.DiscardHandler)) // registering twice in one registry would panic
	}
}

// Each state has a series, and just one of them is 1.
func TestStateIsOneHot(t *testing.T) {
	for _, state := range states {
		b := &board{}
		b.set(cdc.Status{Name: "p", State: state})
		r := prometheus.NewPedanticRegistry()
		r.MustRegister(&collector{source: b})
		families, err := r.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() != "cdc_state" {
				continue
			}
			if len(f.Metric) != len(states) {
				t.Errorf("%d series, want %d", len(f.Metric), len(states))
			}
			for _, m := range f.Metric {
				var of string
				for _, l := range m.Label {
					if l.GetName() == "state" {
						of = l.GetValue()
					}
				}
				if got, want := m.Gauge.GetValue(), oneIf(of == string(state)); got != want {
					t.Errorf("in %s, cdc_state{state=%q} is %v, want %v", state, of, got, want)
				}
			}
		}
	}
}
