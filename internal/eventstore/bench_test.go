package eventstore

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"cdc/internal/cdctest"
	"cdc/internal/intent"
)

// The load of the benchmarks: as many clients as the measured prototype had, and
// more streams than are hot at once.
const (
	benchClients = 16
	benchStreams = 100  // of each client
	benchSlice   = 2000 // events of one side before the other has its turn
)

const benchData = `{"course": "ddia", "student": "stu_000000009", "reason": "moving to another city, and no place in the other group", "by": "the student, in the portal, on a phone", "seen": true, "n": 12}`

// BenchmarkAppend appends one event a call, 16 clients at once, and has the same
// clients make the same rows with a bare INSERT in turns: the rates of both and
// their ratio are of the same moments. Run it with -benchtime 20000x.
func BenchmarkAppend(b *testing.B) {
	for _, fsync := range []string{"on", "off"} {
		b.Run("fsync="+fsync, func(b *testing.B) { benchmarkAppend(b, fsync) })
	}
}

func benchmarkAppend(b *testing.B, fsync string) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	pg := cdctest.PrivatePostgres(b, map[string]string{"fsync": fsync, "full_page_writes": fsync, "shared_buffers": "256MB", "max_wal_size": "4GB"})
	db := pg.Database(b)
	if _, err := Init(ctx, db.URL, InitOptions{}); err != nil {
		b.Fatal(err)
	}
	conns := make([]*pgx.Conn, benchClients)
	for i := range conns {
		conns[i] = db.Conn(b)
	}
	db.Exec(b, fmt.Sprintf("insert into es.stream select format('plain/%%s-%%s', c, s), 0 from generate_series(0, %d) c, generate_series(0, %d) s", benchClients-1, benchStreams-1),
		fmt.Sprintf("insert into es.stream select format('course/%%s-%%s', c, s), 0 from generate_series(0, %d) c, generate_series(0, %d) s", benchClients-1, benchStreams-1), "analyze")

	insert := func(client, n int) error {
		_, err := conns[client].Exec(ctx, "insert into es.event (id, stream, version, type, schema, data, meta, subjects) values ($1, $2, $3, $4, $5, $6, $7, $8)",
			[16]byte(intent.NewID()), fmt.Sprintf("plain/%d-%d", client, n%benchStreams), n/benchStreams+1, "student-enrolled", 1, json.RawMessage(benchData), json.RawMessage("{}"), []string{})
		return err
	}
	appendOne := func(client, n int) error {
		_, err := appendTo(ctx, conns[client], []intent.Batch{{Stream: fmt.Sprintf("course/%d-%d", client, n%benchStreams), Expect: intent.Expect(n / benchStreams),
			Events: []intent.NewEvent{{ID: intent.NewID(), Type: "student-enrolled", Data: json.RawMessage(benchData)}}}})
		return err
	}
	sides := []func(client, n int) error{insert, appendOne}
	var took [2]time.Duration
	var done [2][benchClients]int
	b.ResetTimer()
	for left := b.N; left > 0; left -= benchSlice {
		for i, f := range sides {
			took[i] += turn(b, min(left, benchSlice), &done[i], f)
		}
	}
	b.StopTimer()
	rate := func(i int) float64 { return float64(b.N) / took[i].Seconds() }
	b.ReportMetric(rate(0), "inserts/s")
	b.ReportMetric(rate(1), "appends/s")
	b.ReportMetric(rate(1)/rate(0), "ratio")
	b.ReportMetric(0, "ns/op")
}

// turn has the clients make n calls together. done counts those of each client.
func turn(b *testing.B, n int, done *[benchClients]int, f func(client, n int) error) time.Duration {
	start := time.Now()
	var left atomic.Int64
	left.Store(int64(n))
	var wg sync.WaitGroup
	for c := range benchClients {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := f(c, done[c]); err != nil {
					b.Error(err)
					return
				}
				done[c]++
			}
		})
	}
	wg.Wait()
	return time.Since(start)
}

// BenchmarkAppendMany appends to one stream, to two of which one is only checked,
// and batches, 16 clients at once.
func BenchmarkAppendMany(b *testing.B) {
	ctx := context.Background()
	pg := cdctest.PrivatePostgres(b, map[string]string{"shared_buffers": "256MB", "max_wal_size": "4GB"})
	db := pg.Database(b)
	if _, err := Init(ctx, db.URL, InitOptions{}); err != nil {
		b.Fatal(err)
	}
	conns := make([]*pgx.Conn, benchClients)
	for i := range conns {
		conns[i] = db.Conn(b)
	}
	for _, c := range []struct {
		name           string
		streams, check int
		events         int // to each stream
	}{{"1 stream, 1 event", 1, 0, 1}, {"1 stream, 1 check", 1, 1, 1}, {"2 streams", 2, 0, 1}, {"10 events", 1, 0, 10}, {"1000 events", 1, 0, 1000}} {
		b.Run(c.name, func(b *testing.B) {
			var done [benchClients]int
			took := turn(b, b.N, &done, func(client, n int) error {
				var batches []intent.Batch
				for i := range c.streams {
					batch := intent.Batch{Stream: fmt.Sprintf("course/%d-%d-%d", client, n%benchStreams, i), Expect: intent.Any}
					for range c.events {
						batch.Events = append(batch.Events, intent.NewEvent{ID: intent.NewID(), Type: "student-enrolled", Data: json.RawMessage(benchData)})
					}
					batches = append(batches, batch)
				}
				for i := range c.check {
					batches = append(batches, intent.Batch{Stream: fmt.Sprintf("student/%d", (client*7+n*3+i)%benchStreams), Expect: intent.Any})
				}
				_, err := appendTo(ctx, conns[client], batches)
				return err
			})
			b.ReportMetric(float64(b.N)/took.Seconds(), "calls/s")
			b.ReportMetric(float64(b.N*c.streams*c.events)/took.Seconds(), "events/s")
			b.ReportMetric(0, "ns/op")
		})
	}
}
