package recheck

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cdc/internal/cdc"
)

// The first verification comes after one period, the next ones never before the last
// has ended; an error leaves the last result; stop ends the one under way.
func TestStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, running, calls := time.Now(), 0, []time.Duration{}
		steps := []func(context.Context) ([]cdc.Verification, error){
			func(context.Context) ([]cdc.Verification, error) {
				return []cdc.Verification{{Subject: "one"}}, nil
			},
			func(context.Context) ([]cdc.Verification, error) {
				time.Sleep(150 * time.Minute) // two periods pass
				return nil, errors.New("not reached")
			},
			func(context.Context) ([]cdc.Verification, error) {
				return []cdc.Verification{{Subject: "two"}}, nil
			},
			func(ctx context.Context) ([]cdc.Verification, error) {
				<-ctx.Done()
				return []cdc.Verification{{Subject: "cut off"}}, nil
			},
		}
		verify := func(ctx context.Context) ([]cdc.Verification, error) {
			if running++; running != 1 {
				t.Errorf("%d at once", running)
			}
			defer func() { running-- }()
			calls = append(calls, time.Since(began))
			return steps[len(calls)-1](ctx)
		}
		var kept []string
		stop := Start(t.Context(), time.Hour, slog.New(slog.DiscardHandler), verify, func(v []cdc.Verification) { kept = append(kept, v[0].Subject) })
		time.Sleep(10 * time.Hour)
		stop()
		if want := []string{"one", "two"}; !reflect.DeepEqual(kept, want) {
			t.Errorf("kept %q, want %q", kept, want)
		}
		if want := []time.Duration{time.Hour, 2 * time.Hour, 270 * time.Minute, 5 * time.Hour}; !reflect.DeepEqual(calls, want) {
			t.Errorf("verified at %v, want %v", calls, want)
		}
	})
}

func TestNever(t *testing.T) {
	Start(t.Context(), 0, nil, nil, nil)()
}

// A difference is an error with the commands to look and to mend, what could not be
// compared is a warning, what is equal is nothing; no value of a row is said or kept.
func TestTell(t *testing.T) {
	sample := cdc.Sample{Kind: "different", Key: "k", Columns: []cdc.ColumnDiff{{Column: "c", Source: "secret", Target: "other"}}}
	results := []cdc.Verification{
		{Pipeline: "p", Subject: "public.t", Topic: "d.public.t", Verdict: cdc.VerdictDifferent, LSN: 0x10, Different: 2, Mend: "mend it", Samples: []cdc.Sample{sample}},
		{Pipeline: "p", Subject: "log", Verdict: cdc.VerdictDifferent, Position: 7, Missing: 3, Ghosts: 4, Mend: "restore it"},
		{Pipeline: "p", Subject: "view v", Verdict: cdc.VerdictUnchecked, Why: "nobody numbers", Mend: "cdc run"},
		{Pipeline: "p", Subject: "view w", Verdict: cdc.VerdictEqual, Why: "a remark"},
	}
	var out strings.Builder
	tell(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})), results)
	want := `level=ERROR msg="verified: it differs from its source" subject=public.t topic=d.public.t lsn=0/10 missing=0 ghosts=0 different=2 look="cdc verify --pipeline p" mend="mend it"
level=ERROR msg="verified: it differs from its source" subject=log topic="" position=7 missing=3 ghosts=4 different=0 look="cdc verify --pipeline p" mend="restore it"
level=WARN msg="verified: it could not be compared with its source" subject="view v" topic="" why="nobody numbers" mend="cdc run"
`
	if got := out.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if text, err := json.Marshal(results); err != nil || strings.Contains(string(text), "secret") || !strings.Contains(string(text), `"k"`) {
		t.Errorf("%v, kept %s", err, text)
	}
}
