package eventlog_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/intent"
)

// BenchmarkNumbering appends from sixteen sessions, once without and once with a
// numberer beside them, then has the numberer catch up with a backlog of many
// transactions.
func BenchmarkNumbering(b *testing.B) {
	const writers, calls = 16, 300
	for _, per := range []int{1, 10} {
		b.Run(fmt.Sprintf("events=%d", per), func(b *testing.B) {
			for range b.N {
				r := newRig(b)
				u := r.start(r.config(), nil)
				u.state(cdc.StateStreaming)
				u.stop()
				total := float64(writers * calls * per)
				alone := total / r.hammer(writers, calls, per).Seconds()
				u = r.start(r.config(), nil)
				start := time.Now()
				u.state(cdc.StateStreaming)
				r.barrier()
				b.ReportMetric(total/time.Since(start).Seconds(), "backlog/s")
				start = time.Now()
				beside := total / r.hammer(writers, calls, per).Seconds()
				appended := time.Since(start)
				r.barrier()
				b.ReportMetric(alone, "append-alone/s")
				b.ReportMetric(beside, "append-beside/s")
				b.ReportMetric(total/time.Since(start).Seconds(), "numbered/s")
				b.ReportMetric((time.Since(start)-appended).Seconds()*1000, "behind-ms")
				u.stop()
				r.exactlyOnce()
			}
		})
	}
}

func BenchmarkLargeTransaction(b *testing.B) {
	const events = 200_000
	for range b.N {
		r := newRig(b)
		u := r.start(r.config(), nil)
		u.state(cdc.StateStreaming)
		r.large(events)
		start := time.Now()
		r.barrier()
		b.ReportMetric(events/time.Since(start).Seconds(), "numbered-after-commit/s")
		u.stop()
	}
}

// hammer appends calls × per events from each writer and says how long it took.
func (r *rig) hammer(writers, calls, per int) time.Duration {
	r.t.Helper()
	var wg sync.WaitGroup
	start := time.Now()
	for w := range writers {
		wg.Go(func() {
			for c := range calls {
				batch := intent.Batch{Stream: fmt.Sprintf("h/%d-%d", w, c%50), Expect: intent.Any}
				for range per {
					batch.Events = append(batch.Events, intent.NewEvent{ID: intent.NewID(), Type: "noted", Data: json.RawMessage(`{"text":"` + pad + `"}`)})
				}
				if _, err := r.store.Append(context.Background(), []intent.Batch{batch}); err != nil {
					r.t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return time.Since(start)
}

// pad makes an event of about 200 bytes.
const pad = "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789" +
	"0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"
