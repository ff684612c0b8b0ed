package pipeline_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
	"cdc/internal/pipeline"
)

// childConfig is that of a pipeline in a process of its own.
type childConfig struct {
	cdctest.Point
	Name    string
	URL     string
	Brokers []string
	// ChunkRows and Copy: copy these tables by chunks once streaming.
	ChunkRows int
	Copy      []string
}

func child(ctx context.Context, c childConfig) error {
	cfg := baseConfig(c.Name, c.URL, c.Brokers)
	cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	cfg.Source.Logger, cfg.Sink.Logger = cfg.Logger, cfg.Logger
	cfg.Hook = c.Hook()
	cfg.ChunkRows = c.ChunkRows
	p := pipeline.New(cfg)
	if len(c.Copy) > 0 {
		go func() {
			if err := p.Copy(ctx, cdc.CopyRequest{Action: cdc.CopyStart, Tables: c.Copy}); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}()
	}
	return p.Run(ctx)
}

func (r *rig) spawn(kill string, count int, copies ...string) *cdctest.Victim {
	r.t.Helper()
	return cdctest.Spawn(r.t, childConfig{Point: cdctest.Point{Kill: kill, Count: count}, Name: r.cfg.Name, URL: r.cfg.Source.URL,
		Brokers: r.cfg.Sink.Brokers, ChunkRows: r.cfg.ChunkRows, Copy: copies})
}

// atRest counts the records of a table's topic once what a killed process had on
// the wire has been dealt with: when a second look, a while later, finds no more.
func (r *rig) atRest(table string) int {
	r.t.Helper()
	const between = 250 * time.Millisecond
	for before := -1; ; {
		n := len(r.records(table))
		if n == before {
			return n
		}
		before = n
		<-time.After(between)
	}
}

func tail(s string) string {
	if len(s) > 4000 {
		return s[len(s)-4000:]
	}
	return s
}

// workload changes rows and writes down, in the same transaction, what it did:
// the audit table knows the truth and nothing of this service. Keys are locked
// before the version is drawn, so per key versions rise in commit order.
type workload struct {
	t    *testing.T
	db   *cdctest.DB
	stop chan struct{}
	wg   sync.WaitGroup
}

const workloadKeys = 200

func workloadTables(t *testing.T, db *cdctest.DB) {
	t.Helper()
	db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v bigint NOT NULL, pad text)`, `CREATE SEQUENCE ver`,
		`CREATE TABLE aud(v bigint PRIMARY KEY, id int NOT NULL, op text NOT NULL)`)
}

func startWorkload(t *testing.T, db *cdctest.DB, writers int, seed uint64) *workload {
	t.Helper()
	w := &workload{t: t, db: db, stop: make(chan struct{})}
	for i := range writers {
		rnd := rand.New(rand.NewPCG(seed, uint64(i)))
		w.wg.Go(func() { w.write(rnd) })
	}
	return w
}

// write commits one transaction after the other. Where Postgres goes away it
// waits for it: whether the transaction under way was committed, the audit table
// knows.
func (w *workload) write(rnd *rand.Rand) {
	ctx := context.Background()
	var conn *pgx.Conn
	for {
		select {
		case <-w.stop:
			if conn != nil {
				_ = conn.Close(ctx)
			}
			return
		default:
		}
		if conn == nil || conn.IsClosed() {
			var err error
			if conn, err = pgx.Connect(ctx, w.db.URL); err != nil {
				conn = nil
				select {
				case <-w.stop:
				case <-time.After(50 * time.Millisecond):
				}
				continue
			}
		}
		if _, err := conn.Exec(ctx, transaction(rnd)); err != nil && !conn.IsClosed() && !strings.Contains(err.Error(), "57P") {
			w.t.Errorf("workload: %v", err)
			return
		}
	}
}

// transaction is one to eight changes; some are rolled back to a savepoint or as
// a whole.
func transaction(rnd *rand.Rand) string {
	var b strings.Builder
	b.WriteString("BEGIN;")
	n := 1 + rnd.IntN(8)
	ids := rnd.Perm(workloadKeys)[:n]
	for i := range ids {
		for j := i + 1; j < len(ids); j++ {
			if ids[j] < ids[i] {
				ids[i], ids[j] = ids[j], ids[i] // one lock order, no deadlock
			}
		}
	}
	for _, id := range ids {
		fmt.Fprintf(&b, "SELECT pg_advisory_xact_lock(%d);", id)
		switch {
		case rnd.IntN(5) == 0:
			fmt.Fprintf(&b, "WITH d AS (DELETE FROM t WHERE id = %d RETURNING id) INSERT INTO aud SELECT nextval('ver'), id, 'd' FROM d;", id)
		case rnd.IntN(12) == 0:
			fmt.Fprintf(&b, "SAVEPOINT s; INSERT INTO t VALUES (%[1]d, -1) ON CONFLICT (id) DO UPDATE SET v = -1; ROLLBACK TO s;", id)
		default:
			fmt.Fprintf(&b, "WITH n AS (INSERT INTO aud SELECT nextval('ver'), %[1]d, 'u' RETURNING v) INSERT INTO t SELECT %[1]d, v, repeat('p', %[2]d) FROM n ON CONFLICT (id) DO UPDATE SET v = excluded.v, pad = excluded.pad;", id, rnd.IntN(300))
		}
	}
	if rnd.IntN(10) == 0 {
		b.WriteString("ROLLBACK")
	} else {
		b.WriteString("COMMIT")
	}
	return b.String()
}

func (w *workload) finish() {
	close(w.stop)
	w.wg.Wait()
}

// checkAudit is the checker: it knows the audit table and a foreign Kafka client,
// nothing else. Per key the topic's history must be the audit's, record by record.
func (r *rig) checkAudit() {
	r.t.Helper()
	want := map[string][]string{}
	for _, row := range r.db.Query(r.t, `SELECT id::text, op, v::text FROM aud ORDER BY aud.v`) {
		entry := "-"
		if row[1] == "u" {
			entry = row[2]
		}
		want[`{"id":`+row[0]+`}`] = append(want[`{"id":`+row[0]+`}`], entry)
	}
	got := map[string][]string{}
	for _, rec := range cdctest.Read(r.t, r.k.Brokers, r.topic("t")) {
		entry := "-"
		if rec.Value != nil {
			entry = jsonField(r.t, rec.Value, "v")
		}
		got[string(rec.Key)] = append(got[string(rec.Key)], entry)
	}
	changes := 0
	bad := 0
	for k, w := range want {
		changes += len(w)
		if g := got[k]; strings.Join(g, " ") != strings.Join(w, " ") {
			if bad++; bad > 5 {
				continue
			}
			r.t.Errorf("key %s: the topic's history differs from the audit's at entry %d: got %d entries, want %d", k, firstDifference(g, w), len(g), len(w))
		}
	}
	if bad > 0 {
		r.t.Errorf("%d of %d keys have another history", bad, len(want))
	}
	for k := range got {
		if want[k] == nil {
			r.t.Errorf("key %s is in the topic and was never committed", k)
		}
	}
	if audit := len(cdctest.Read(r.t, r.k.Brokers, r.topic("aud"))); audit != changes {
		r.t.Errorf("the audit table's own topic holds %d records, want %d", audit, changes)
	}
	r.inOrder(r.topic("t"))
	r.inOrder(r.topic("aud"))
	r.t.Logf("%d changes checked", changes)
}

func firstDifference(a, b []string) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// 109: kill -9 at every named point of a life, under load, then once more in
// full; nothing is lost, twice or out of order. The tables are empty at the
// start, so the whole history is streamed.
func TestCase109KilledAtEachPoint(t *testing.T) {
	t.Parallel()
	points := []struct {
		name  string
		count int
	}{
		{"take-over", 1}, {"takeover-init", 1}, {"takeover-added", 1}, {"takeover-ended", 1}, {"takeover-marker", 1},
		{"progress-read", 1}, {"publish", 1}, {"stream-start", 1},
		{"produce-before", 3}, {"produce-before", 40}, {"produce-after", 3}, {"produce-after", 40},
		{"progress", 1}, {"confirm", 1}, {"confirm", 2},
	}
	r := newRig(t)
	workloadTables(t, r.db)
	first := r.start()
	first.waitState(cdc.StateStreaming)
	first.finish()
	w := startWorkload(t, r.db, 4, 1)
	for _, p := range points {
		v := r.spawn(p.name, p.count)
		v.Killed(t, p.name)
	}
	run := r.start()
	run.waitState(cdc.StateStreaming)
	w.finish()
	run.caughtUp()
	run.finish()
	if s := run.p.Status(); s.Restarts > 0 {
		t.Errorf("the last instance restarted %d times: %s", s.Restarts, s.Error)
	}
	r.checkAudit()
	r.sameAsTable("t", "id")
}

// 109, 139: kill -9 within the first copy, while rows change: no ghosts, no slot.
func TestCase139KilledInSnapshot(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"snapshot-begin", "snapshot-rows", "snapshot-ghosts", "snapshot-finish", "snapshot-slot", "snapshot-progress"} {
		t.Run(point, func(t *testing.T) {
			r := newRig(t)
			r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t SELECT i, 'x' FROM generate_series(1, 2000) i`)
			r.spawn(point, 1).Killed(t, point)
			r.db.Exec(t, `DELETE FROM t WHERE id % 3 = 0`, `UPDATE t SET v = 'y' WHERE id % 7 = 0`)
			run := r.start()
			run.waitState(cdc.StateStreaming)
			r.db.Exec(t, `DELETE FROM t WHERE id % 5 = 0`)
			run.caughtUp()
			run.finish()
			r.sameAsTable("t", "id")
			r.inOrder(r.topic("t"))
			if got := r.db.Slots(t); len(got) != 1 {
				t.Errorf("slots %v, want the pipeline's own alone", got)
			}
		})
	}
}

// 183: kills in the middle of one transaction of 200,000 rows: what is there is left
// out, partition by partition.
func TestCase183KilledMidTransaction(t *testing.T) {
	t.Parallel()
	const rows = 200_000
	r := newRig(t)
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`)
	run := r.start()
	run.waitState(cdc.StateStreaming)
	run.finish()
	r.db.Exec(t, fmt.Sprintf(`INSERT INTO t SELECT i, repeat('x', 100) FROM generate_series(1, %d) i`, rows))
	r.spawn("produce-after", 10).Killed(t, "produce-after")
	r.spawn("produce-before", 25).Killed(t, "produce-before")
	run = r.start()
	run.waitState(cdc.StateStreaming)
	run.caughtUp()
	run.finish()
	if got := len(cdctest.Read(t, r.k.Brokers, r.topic("t"))); got != rows {
		t.Fatalf("%d records, want %d", got, rows)
	}
	if s := run.p.Status(); s.Skipped == 0 {
		t.Error("nothing was left out: the kills came too early to show anything")
	}
	r.inOrder(r.topic("t"))
}

// 185: killed between two partitions of a TRUNCATE, with a key change behind it.
func TestCase185TruncateKilledHalfWay(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t SELECT i, 'x' FROM generate_series(1, 500) i`)
	run := r.start()
	run.waitState(cdc.StateStreaming)
	run.finish()
	r.db.Exec(t, `TRUNCATE t`, `INSERT INTO t VALUES (5, 'new')`, `UPDATE t SET id = 6`)
	r.spawn("truncate-partition", 2).Killed(t, "truncate-partition")
	run = r.start()
	run.waitState(cdc.StateStreaming)
	run.caughtUp()
	run.finish()
	r.sameAsTable("t", "id")
	tombstones := 0
	for _, rec := range cdctest.Read(t, r.k.Brokers, r.topic("t")) {
		if rec.Value == nil {
			tombstones++
		}
	}
	if tombstones != 501 {
		t.Errorf("%d tombstones, want 500 for the TRUNCATE and one for the key change, each once", tombstones)
	}
}
