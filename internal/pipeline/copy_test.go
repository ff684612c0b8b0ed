package pipeline_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
	"cdc/internal/pipeline"
	"cdc/internal/sink"
)

func smallChunks(c *pipeline.Config) { c.ChunkRows = 50 }

// order asks for copies and fails the test where that is refused.
func (r *running) order(action cdc.CopyAction, tables ...string) {
	r.t.Helper()
	if err := r.p.Copy(r.t.Context(), cdc.CopyRequest{Action: action, Tables: tables}); err != nil {
		r.t.Fatal(err)
	}
}

// forge puts a record into a topic as an earlier, damaged life could have left it:
// it carries a position behind the partition's last record.
func (r *rig) forge(topic, key string, value []byte) {
	r.t.Helper()
	part := sink.Partition([]byte(key), int32(r.cfg.Partitions))
	var last cdc.Stamp
	for _, rec := range cdctest.Read(r.t, r.k.Brokers, topic) {
		if rec.Partition == part {
			last = stamp(r.t, rec)
		}
	}
	last.Position.Record++
	cl := r.k.Client(r.t, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	rec := &kgo.Record{Topic: topic, Partition: part, Key: []byte(key), Value: value, Headers: []kgo.RecordHeader{{Key: cdc.StampHeader, Value: cdc.AppendStamp(nil, last)}}}
	if err := cl.ProduceSync(r.t.Context(), rec).FirstErr(); err != nil {
		r.t.Fatal(err)
	}
}

// writers change rows of a table until stopped: inserts, updates, deletes, key
// changes, from several sessions.
func (r *rig) writers(n int, table string) (stop func()) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	var wait sync.WaitGroup
	for w := range n {
		conn := r.db.Conn(r.t)
		rng := rand.New(rand.NewPCG(uint64(w), 147))
		wait.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				id := rng.IntN(1000)
				sql := [...]string{
					fmt.Sprintf("INSERT INTO %s VALUES (%d, 'new') ON CONFLICT (id) DO UPDATE SET v = 'again'", table, id),
					fmt.Sprintf("UPDATE %s SET v = v || '%d' WHERE id BETWEEN %d AND %d", table, i%10, id, id+5),
					fmt.Sprintf("DELETE FROM %s WHERE id = %d", table, id),
					fmt.Sprintf("UPDATE %s SET id = id + %d WHERE id = %d", table, 2000+i*10+w, id),
				}[rng.IntN(4)]
				if _, err := conn.Exec(context.WithoutCancel(ctx), sql, pgx.QueryExecModeSimpleProtocol); err != nil && !strings.Contains(err.Error(), "40P01") && !strings.Contains(err.Error(), "23505") {
					r.t.Errorf("%s: %v", sql, err)
					return
				}
			}
		})
	}
	return func() {
		cancel()
		wait.Wait()
	}
}

// 147: a table is copied again while it changes: no row lands behind a newer event
// of its key, and keys that are gone are tombstoned.
func TestCase147CopyBesideTheStream(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"json", "debezium-json"} {
		t.Run(format, func(t *testing.T) {
			run := flowWith(t, func(c *pipeline.Config) { smallChunks(c); c.Format.Format = format },
				`CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t SELECT i, 'x' FROM generate_series(1, 1000) i`, `CREATE TABLE other(id int PRIMARY KEY)`)
			run.caughtUp()
			run.forge(run.topic("t"), `{"id":999999}`, []byte(`{"id":999999,"v":"ghost"}`))
			stop := run.writers(3, "t")
			run.order(cdc.CopyStart, "public.t")
			run.copied()
			stop()
			run.settle()
			if format == "json" {
				run.sameAsTable("t", "id")
			}
			run.inOrder(run.topic("t"))
			read := map[string]bool{}
			for _, rec := range run.records("t") {
				if op, _ := rec.Header("op"); string(op) == "r" || strings.Contains(string(rec.Value), `"snapshot":"incremental"`) {
					read[string(rec.Key)] = true
				}
			}
			if len(read) < 200 {
				t.Errorf("%d keys were read: nothing was copied", len(read))
			}
			live := run.fold("t")
			if _, ok := live[`{"id":999999}`]; ok {
				t.Error("a key that is not in the table is alive")
			}
			if want := run.db.Value(t, `SELECT count(*) FROM t`); fmt.Sprint(len(live)) != want {
				t.Errorf("%d keys are alive, the table has %s rows", len(live), want)
			}
		})
	}
}

// 147: killed at every step of a copy: it goes on behind what is acknowledged, and
// the topic is the table.
func TestCase147CopyKilled(t *testing.T) {
	t.Parallel()
	run := flowWith(t, smallChunks, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t SELECT i, 'x' FROM generate_series(1, 600) i`)
	run.caughtUp()
	run.forge(run.topic("t"), `{"id":999999}`, []byte(`{"id":999999,"v":"ghost"}`))
	run.settle()
	r := run.rig
	copies := []string{"public.t"}
	for i, at := range []struct {
		point string
		count int
	}{{"chunk-read", 2}, {"chunk-written", 1}, {"chunk-acknowledged", 2}, {"produce-after", 3}, {"copy-rows", 1}, {"copy-ghosts", 1}} {
		r.spawn(at.point, at.count, copies...).Killed(t, at.point)
		copies = nil // the progress topic remembers
		r.db.Exec(t, fmt.Sprintf(`DELETE FROM t WHERE id = %d`, 100*i+50), fmt.Sprintf(`UPDATE t SET v = 'after %d' WHERE id %% 7 = %d`, i, i),
			fmt.Sprintf(`UPDATE t SET id = id + 5000 WHERE id = %d`, 100*i+51), fmt.Sprintf(`INSERT INTO t VALUES (%d, 'inserted')`, 700+i))
	}
	run = r.streaming()
	run.settle()
	run.sameAsTable("t", "id")
	run.inOrder(run.topic("t"))
}

// 136, 147: truncated, altered and dropped between two chunks.
func TestCase136CopyOfATableThatIsAltered(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	between := map[int]func(){}
	chunks := 0
	run := flowWith(t, func(c *pipeline.Config) {
		smallChunks(c)
		c.Hook = func(point string) {
			if point != "chunk-written" {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			chunks++
			if f := between[chunks]; f != nil {
				f()
			}
		}
	}, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t SELECT i, 'x' FROM generate_series(1, 400) i`,
		`CREATE TABLE gone(id int PRIMARY KEY)`, `INSERT INTO gone SELECT generate_series(1, 300)`)
	run.caughtUp()
	mu.Lock()
	between[2] = func() {
		run.db.Exec(t, `ALTER TABLE t ADD w int`, `UPDATE t SET w = 1 WHERE id % 2 = 0`, `INSERT INTO t VALUES (1000, 'y', 2)`)
	}
	between[4] = func() {
		run.db.Exec(t, `TRUNCATE t`, `INSERT INTO t SELECT i, 'after', 3 FROM generate_series(150, 250) i`)
	}
	mu.Unlock()
	run.order(cdc.CopyStart, "public.t")
	run.copied()
	mu.Lock()
	between[chunks+2] = func() { run.db.Exec(t, `DROP TABLE gone`) }
	mu.Unlock()
	run.order(cdc.CopyStart, "public.gone")
	run.wait("the end of the copy", func(s cdc.Status) bool {
		return len(copies(s)) == 0 || copies(s)[0].State == "failed"
	})
	run.db.Exec(t, `UPDATE t SET v = 'last' WHERE id = 200`)
	run.wait("the change behind", func(cdc.Status) bool { return strings.Contains(run.fold("t")[`{"id":200}`], `"last"`) })
	run.finish()
	run.sameAsTable("t", "id")
	run.inOrder(run.topic("t"))
}

// 147: between two chunks labels of an enum in the key are renamed, and two exchange
// theirs: the copy begins anew, and what has a key of the old words is gone, also
// what the copy itself and the stream had written.
func TestCase147CopyWhileLabelsAreRenamed(t *testing.T) {
	t.Parallel()
	var chunks atomic.Int32
	var run *running
	run = flowWith(t, func(c *pipeline.Config) {
		smallChunks(c)
		c.Hook = func(point string) {
			if point == "chunk-written" && chunks.Add(1) == 5 {
				run.db.Exec(t, `INSERT INTO t VALUES ('sad', 1000, 'before')`,
					`BEGIN; ALTER TYPE mood RENAME VALUE 'sad' TO 'x'; ALTER TYPE mood RENAME VALUE 'ok' TO 'sad'; ALTER TYPE mood RENAME VALUE 'x' TO 'ok';
						ALTER TYPE mood RENAME VALUE 'glad' TO 'merry'; COMMIT`,
					`INSERT INTO t VALUES ('merry', 2000, 'after')`)
			}
		}
	}, `CREATE TYPE mood AS ENUM ('sad', 'ok', 'glad')`, `CREATE TABLE t(k mood, id int, v text, PRIMARY KEY (k, id))`,
		`INSERT INTO t SELECT (enum_range(NULL::mood))[1 + i % 3], i, 'x' || i FROM generate_series(1, 600) i`)
	run.caughtUp()
	run.order(cdc.CopyStart, "public.t")
	run.settle()
	if n := chunks.Load(); n < 5+600/50 {
		t.Errorf("%d chunks were written: the copy was not begun anew", n)
	}
	run.sameAsTable("t", "k", "id")
	run.inOrder(run.topic("t"))
}

// 147: paused, resumed, cancelled, and refused where there is nothing to copy.
func TestCase147CopyPausedAndCancelled(t *testing.T) {
	t.Parallel()
	run := flowWith(t, smallChunks, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t SELECT i, 'x' FROM generate_series(1, 500) i`)
	run.caughtUp()
	state := func(want string) {
		t.Helper()
		run.wait(want, func(s cdc.Status) bool { return len(copies(s)) == 1 && copies(s)[0].State == want })
	}
	for _, refused := range []cdc.CopyRequest{
		{Action: cdc.CopyPause, Tables: []string{"public.t"}},
		{Action: cdc.CopyStart, Tables: []string{"public.nothing"}},
	} {
		if err := run.p.Copy(t.Context(), refused); err == nil {
			t.Errorf("%+v was not refused", refused)
		}
	}
	run.order(cdc.CopyStart, "public.t")
	if err := run.p.Copy(t.Context(), cdc.CopyRequest{Action: cdc.CopyPause, Tables: []string{"public.t"}}); err == nil {
		state("paused")
		run.finish() // a pause outlives a restart
		run = run.rig.streaming()
		state("paused")
		run.order(cdc.CopyResume, "public.t")
	} // else it was done before it could be paused
	run.copied()
	run.order(cdc.CopyStart, "public.t")
	if err := run.p.Copy(t.Context(), cdc.CopyRequest{Action: cdc.CopyCancel, Tables: []string{"public.t"}}); err != nil && !strings.Contains(err.Error(), "not being copied") {
		t.Error(err)
	}
	run.settle()
	run.sameAsTable("t", "id")
	run.inOrder(run.topic("t"))
}
