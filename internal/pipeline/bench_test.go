package pipeline_test

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
	"cdc/internal/format"
	"cdc/internal/pipeline"
)

// stretch is WAL that a pipeline has yet to read: half of the changes are
// inserts, half updates. What the pipeline makes of it is dropped when a batch is
// sealed, so that everything from the socket to the batch is there and no more.
type stretch struct {
	cfg     pipeline.Config
	changes uint64
}

func newStretch(tb testing.TB, values string, changes int) stretch {
	tb.Helper()
	db, k := cdctest.Database(tb), cdctest.Kafka(tb)
	db.KeepSlot(db.Name)
	db.Exec(tb, `CREATE TABLE t(id bigint PRIMARY KEY, customer bigint, status text, amount numeric(12,2), note text, at timestamptz, payload jsonb)`)
	s := stretch{cfg: baseConfig(db.Name, db.URL, k.Brokers), changes: uint64(changes)}
	s.cfg.Format.Format, s.cfg.Snapshot = values, pipeline.SnapshotNever
	s.cfg.Logger = slog.New(slog.DiscardHandler)
	s.run(tb, func(st cdc.Status) bool { return st.State == cdc.StateStreaming })
	s.cfg.Writer.Discard = true
	rows := (changes + 1) / 2
	db.Exec(tb, fmt.Sprintf(`INSERT INTO t SELECT i, i %% 1000, 'new', i / 100.0, left(repeat(md5(i::text), 3), 80),
			timestamptz '2026-01-01 00:00:00+00' + i * interval '1.000123 s', jsonb_build_object('sku', i %% 100, 'gift', true)
			FROM generate_series(1, %d) i`, rows),
		fmt.Sprintf(`UPDATE t SET status = 'sent' WHERE id <= %d`, changes-rows))
	return s
}

// run starts the pipeline, waits until each condition in turn holds, and stops it.
func (s stretch) run(tb testing.TB, until ...func(cdc.Status) bool) {
	tb.Helper()
	ctx, stop := context.WithTimeout(context.Background(), waitLimit)
	defer stop()
	p := pipeline.New(s.cfg)
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for _, cond := range until {
		for !cond(p.Status()) {
			select {
			case err := <-done:
				tb.Fatalf("pipeline ended before it had read everything: %v; %+v", err, p.Status())
			case <-tick.C:
			}
		}
	}
	stop()
	if err := <-done; err != nil {
		tb.Fatal(err)
	}
	if st := p.Status(); st.Restarts > 0 {
		tb.Fatalf("pipeline started again: %+v", st)
	}
}

// A row allocates nothing on its way from the socket to the batch. What is
// allocated belongs to batches, reads and ticks: less than one object in a
// hundred rows, in the whole process. Not parallel, so that it is alone in it.
func TestNoAllocationPerRow(t *testing.T) {
	const (
		warm    = 20_000 // in which buffers find their size
		changes = 120_000
		most    = 0.01
	)
	for _, values := range []string{format.JSON, format.DebeziumJSON} {
		t.Run(values, func(t *testing.T) {
			s := newStretch(t, values, changes)
			var before, after runtime.MemStats
			var from, to uint64
			s.run(t, func(st cdc.Status) bool {
				if from = st.Changes; from < warm {
					return false
				}
				runtime.ReadMemStats(&before)
				return true
			}, func(st cdc.Status) bool {
				if to = st.Changes; to < changes {
					return false
				}
				runtime.ReadMemStats(&after)
				return true
			})
			if to != changes || to-from < changes/4 {
				t.Fatalf("measured changes %d to %d, want up to %d and a good part of them", from, to, changes)
			}
			perRow := float64(after.Mallocs-before.Mallocs) / float64(to-from)
			t.Logf("%.4f allocations and %.1f bytes a row over %d rows", perRow, float64(after.TotalAlloc-before.TotalAlloc)/float64(to-from), to-from)
			if perRow > most {
				t.Errorf("got %.4f allocations a row over %d rows, want at most %v", perRow, to-from, most)
			}
		})
	}
}

// BenchmarkSocketToBatch reads b.N changes from a real walsender into sealed
// batches. Its time is mostly Postgres'; what counts is allocs/op.
func BenchmarkSocketToBatch(b *testing.B) {
	for _, values := range []string{format.JSON, format.DebeziumJSON} {
		b.Run(values, func(b *testing.B) {
			s := newStretch(b, values, b.N)
			b.ReportAllocs()
			s.cfg.Hook = func(point string) {
				if point == "stream-start" {
					b.ResetTimer()
				}
			}
			s.run(b, func(st cdc.Status) bool {
				if st.Changes < s.changes {
					return false
				}
				b.StopTimer()
				return true
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
