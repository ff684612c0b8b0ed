package pipeline_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
	"cdc/internal/pipeline"
)

func TestG3SnapshotThenStream(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`,
		`INSERT INTO t SELECT i, 'old ' || i FROM generate_series(1, 1000) i`)
	run := r.start()
	run.waitState(cdc.StateStreaming)
	r.db.Exec(t, `UPDATE t SET v = 'new' WHERE id % 3 = 0`, `DELETE FROM t WHERE id % 5 = 0`,
		`INSERT INTO t SELECT i, 'later' FROM generate_series(2001, 2010) i`)
	run.caughtUp()
	run.finish()
	r.sameAsTable("t", "id")
	r.inOrder(r.topic("t"))
}

func TestG2ConfirmsOnlyWhatTheProgressRecordSays(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`)
	run := r.start()
	run.waitState(cdc.StateStreaming)
	r.db.Exec(t, `INSERT INTO t VALUES (1, 'a')`)
	run.caughtUp()
	run.finish()
	confirmed, err := cdc.ParseLSN(r.db.Value(t, `SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '`+r.cfg.Name+`'`))
	if err != nil {
		t.Fatal(err)
	}
	var end cdc.LSN
	for _, rec := range cdctest.Read(t, r.k.Brokers, r.cfg.Progress) {
		if string(rec.Key) == "progress" {
			p := decodeProgress(t, rec.Value)
			end = p.End
		}
	}
	if end == 0 || confirmed != end {
		t.Fatalf("slot is confirmed up to %s, newest progress record says %s: after an orderly stop they are the same", confirmed, end)
	}
}

// 129: rows that change while they are copied.
func TestCase129JoinExactness(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`,
		`INSERT INTO t SELECT i, 'old' FROM generate_series(1, 50000) i`)
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for w := range 6 {
		conn := r.db.Conn(t)
		writers.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				id := (n*7919+w*104729)%60000 + 1
				var sql string
				switch n % 4 {
				case 0:
					sql = fmt.Sprintf(`INSERT INTO t VALUES (%d, 'w%d-%d') ON CONFLICT (id) DO UPDATE SET v = excluded.v`, id, w, n)
				case 1:
					sql = fmt.Sprintf(`UPDATE t SET v = 'w%d-%d' WHERE id = %d`, w, n, id)
				case 2:
					sql = fmt.Sprintf(`DELETE FROM t WHERE id = %d`, id)
				case 3:
					sql = fmt.Sprintf(`UPDATE t SET id = id + 100000 WHERE id = %d AND NOT EXISTS (SELECT 1 FROM t WHERE id = %d)`, id, id+100000)
				}
				if _, err := conn.Exec(t.Context(), sql); err != nil && !strings.Contains(err.Error(), "23505") {
					t.Errorf("writer %d: %v", w, err)
					return
				}
			}
		})
	}
	run := r.start()
	run.waitState(cdc.StateStreaming)
	run.wait("some of the stream", func(s cdc.Status) bool { return s.Transactions > 500 })
	close(stop)
	writers.Wait()
	run.caughtUp()
	run.finish()
	r.sameAsTable("t", "id")
	r.inOrder(r.topic("t"))
}

func TestCase079KeySwap(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t VALUES (1,'one'),(2,'two')`)
	run := r.start()
	run.waitState(cdc.StateStreaming)
	r.db.Exec(t, `BEGIN; UPDATE t SET id = -1 WHERE id = 1; UPDATE t SET id = 1 WHERE id = 2; UPDATE t SET id = 2 WHERE id = -1; COMMIT`)
	run.caughtUp()
	run.finish()
	r.sameAsTable("t", "id")
}

func TestCase080SameKeyInOneTransaction(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t VALUES (1,'one')`)
	run := r.start()
	run.waitState(cdc.StateStreaming)
	r.db.Exec(t,
		`BEGIN; DELETE FROM t WHERE id = 1; INSERT INTO t VALUES (1, 'again'); COMMIT`,
		`BEGIN; INSERT INTO t VALUES (2, 'x'); DELETE FROM t WHERE id = 2; COMMIT`,
		`BEGIN; INSERT INTO t VALUES (3, 'x'); UPDATE t SET v = 'y' WHERE id = 3; DELETE FROM t WHERE id = 3; COMMIT`)
	run.caughtUp()
	run.finish()
	r.sameAsTable("t", "id")
	var ops []string
	for _, rec := range cdctest.Read(t, r.k.Brokers, r.topic("t")) {
		if op, _ := rec.Header("op"); string(rec.Key) == `{"id":3}` {
			ops = append(ops, string(op))
		}
	}
	if got := strings.Join(ops, ""); got != "cud" {
		t.Fatalf("key 3 has the history %q, want cud", got)
	}
}

func TestTruncateTombstonesEveryLiveKey(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t SELECT i, 'x' FROM generate_series(1, 500) i`,
		`CREATE TABLE other(id int PRIMARY KEY)`, `INSERT INTO other VALUES (1)`)
	run := r.start()
	run.waitState(cdc.StateStreaming)
	r.db.Exec(t, `BEGIN; INSERT INTO t VALUES (501, 'in'); TRUNCATE t; INSERT INTO t VALUES (7, 'after'); COMMIT`, `INSERT INTO t VALUES (8, 'later')`)
	run.caughtUp()
	run.finish()
	r.sameAsTable("t", "id")
	r.sameAsTable("other", "id")
}

func TestTruncateStop(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *pipeline.Config) { c.Truncate = "stop" })
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY)`, `INSERT INTO t VALUES (1)`)
	run := r.start()
	run.waitState(cdc.StateStreaming)
	r.db.Exec(t, `TRUNCATE t`)
	run.fails("truncate")
}

func TestG5ToastIsFilledIn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, big text, n int)`, `ALTER TABLE t ALTER big SET STORAGE EXTERNAL`,
		`INSERT INTO t SELECT i, repeat(i::text, 5000), 0 FROM generate_series(1, 20) i`)
	run := r.start()
	run.waitState(cdc.StateStreaming)
	r.db.Exec(t,
		`UPDATE t SET n = n + 1`,
		`BEGIN; UPDATE t SET n = n + 1 WHERE id = 1; UPDATE t SET big = repeat('z', 9000) WHERE id = 1; COMMIT`,
		`BEGIN; SAVEPOINT s; UPDATE t SET n = 100 WHERE id = 2; RELEASE s; COMMIT`,
		`UPDATE t SET n = 5, id = 30 WHERE id = 3`,
		`BEGIN; UPDATE t SET n = 6 WHERE id = 4; DELETE FROM t WHERE id = 4; COMMIT`)
	run.caughtUp()
	run.finish()
	r.sameAsTable("t", "id")
	if s := run.p.Status(); s.Rereads == 0 {
		t.Fatal("no value was read back: the test shows nothing")
	}
}

// The column was dropped before the change that left it alone was read.
func TestG5ToastColumnIsGone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, big text, n int)`, `ALTER TABLE t ALTER big SET STORAGE EXTERNAL`,
		`INSERT INTO t VALUES (1, repeat('x', 5000), 0)`)
	run := r.start()
	run.waitState(cdc.StateStreaming)
	run.finish()
	r.db.Exec(t, `UPDATE t SET n = 1`, `ALTER TABLE t DROP COLUMN big`)
	run = r.start()
	run.waitState(cdc.StateStreaming)
	run.caughtUp()
	run.finish()
	r.sameAsTable("t", "id")
	records := cdctest.Read(t, r.k.Brokers, r.topic("t"))
	if h, _ := records[len(records)-1].Header("incomplete"); string(h) != `["big"]` {
		t.Errorf("header incomplete is %q, want the column's name", h)
	}
}

// A value that the format cannot say stops the pipeline; it is not a null.
func TestG5ValueThatCannotBeSaid(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *pipeline.Config) { c.Format.Format = "debezium-json" })
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, n numeric(5,2))`)
	run := r.start()
	run.waitState(cdc.StateStreaming)
	r.db.Exec(t, `INSERT INTO t VALUES (1, 'NaN')`)
	te := run.fails("value")
	if !strings.Contains(te.Error(), "public.t") {
		t.Errorf("error %q does not name the table", te)
	}
}

// 98: a prepared transaction comes at its commit, or not at all.
func TestCase098TwoPhase(t *testing.T) {
	r := newRig(t)
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`)
	run := r.start()
	run.waitState(cdc.StateStreaming)
	id := r.cfg.Name
	r.db.Exec(t, `BEGIN; INSERT INTO t VALUES (1, 'a'); PREPARE TRANSACTION '`+id+`-1'`,
		`BEGIN; INSERT INTO t VALUES (2, 'b'); PREPARE TRANSACTION '`+id+`-2'`, `INSERT INTO t VALUES (3, 'c')`)
	run.caughtUp()
	run.finish()
	r.db.Exec(t, `COMMIT PREPARED '`+id+`-1'`, `ROLLBACK PREPARED '`+id+`-2'`)
	run = r.start()
	run.waitState(cdc.StateStreaming)
	run.caughtUp()
	run.finish()
	r.sameAsTable("t", "id")
	r.inOrder(r.topic("t"))
}

// 61, 62, 145: partitions are captured under their root, in snapshot and stream.
func TestCase062PartitionKeyUpdate(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.db.Exec(t, `CREATE TABLE p(id int, region text, v text, PRIMARY KEY (id, region)) PARTITION BY LIST (region)`,
		`CREATE TABLE p_eu PARTITION OF p FOR VALUES IN ('eu')`, `CREATE TABLE p_us(v text, region text NOT NULL, id int NOT NULL)`,
		`ALTER TABLE p ATTACH PARTITION p_us FOR VALUES IN ('us')`,
		`INSERT INTO p SELECT i, CASE WHEN i % 2 = 0 THEN 'eu' ELSE 'us' END, 'x' FROM generate_series(1, 100) i`)
	run := r.start()
	run.waitState(cdc.StateStreaming)
	r.db.Exec(t, `UPDATE p SET region = 'us' WHERE region = 'eu' AND id < 20`, `UPDATE p SET v = 'y' WHERE id = 50`, `DELETE FROM p WHERE id > 90`)
	run.caughtUp()
	run.finish()
	r.sameAsTable("p", "id", "region")
	if got := r.k.Topics(t, r.cfg.Name+".public."); len(got) != 1 {
		t.Fatalf("topics %v, want the root's alone", got)
	}
}

// 53: each row with its own schema.
func TestCase053DDLInsideTransaction(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`)
	run := r.start()
	run.waitState(cdc.StateStreaming)
	r.db.Exec(t, `BEGIN; INSERT INTO t VALUES (1, 'a'); ALTER TABLE t ADD COLUMN n int; INSERT INTO t VALUES (2, 'b', 5);
		ALTER TABLE t DROP COLUMN v; INSERT INTO t VALUES (3, 7); COMMIT`)
	run.caughtUp()
	run.finish()
	want := map[string]string{`{"id":1}`: `{"id":1,"v":"a"}`, `{"id":2}`: `{"id":2,"v":"b","n":5}`, `{"id":3}`: `{"id":3,"n":7}`}
	got := cdctest.Fold(cdctest.Read(t, r.k.Brokers, r.topic("t")))
	for k, v := range want {
		if got[k] != v {
			t.Errorf("key %s: got %s, want %s", k, got[k], v)
		}
	}
}

// 56: the primary key changes while the pipeline runs; it copies the table under
// the new one at the next start.
func TestCase056KeyChangesMidStream(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, code text NOT NULL UNIQUE)`, `INSERT INTO t VALUES (1, 'a'), (2, 'b')`)
	run := r.start()
	run.waitState(cdc.StateStreaming)
	r.db.Exec(t, `ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (code)`, `INSERT INTO t VALUES (3, 'c')`, `DELETE FROM t WHERE id = 1`)
	run.fails("key-changed")
	run = r.start()
	run.waitState(cdc.StateStreaming)
	r.db.Exec(t, `UPDATE t SET id = 20 WHERE code = 'b'`)
	run.caughtUp()
	run.finish()
	r.sameAsTable("t", "code")
}

// 55, 56: the key changes while the service is down, with changes under the old
// one still to be streamed.
func TestCase056KeyChangesWhileDown(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, code text NOT NULL UNIQUE)`, `INSERT INTO t VALUES (1, 'a'), (2, 'b')`)
	run := r.start()
	run.waitState(cdc.StateStreaming)
	run.finish()
	r.db.Exec(t, `INSERT INTO t VALUES (3, 'c')`, `DELETE FROM t WHERE id = 1`,
		`ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (code)`, `UPDATE t SET id = 30 WHERE code = 'c'`)
	run = r.start()
	run.waitState(cdc.StateStreaming)
	r.db.Exec(t, `DELETE FROM t WHERE code = 'b'`)
	run.caughtUp()
	run.finish()
	r.sameAsTable("t", "code")
}

func TestTableAddedLater(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.db.Exec(t, `CREATE TABLE a(id int PRIMARY KEY, v text)`, `INSERT INTO a VALUES (1, 'a')`)
	run := r.start()
	run.waitState(cdc.StateStreaming)
	run.finish()
	r.db.Exec(t, `CREATE TABLE b(id int PRIMARY KEY, v text)`, `INSERT INTO b SELECT i, 'b' FROM generate_series(1, 100) i`, `INSERT INTO a VALUES (2, 'x')`)
	run = r.start()
	run.waitState(cdc.StateStreaming)
	r.db.Exec(t, `UPDATE b SET v = 'c' WHERE id < 10`, `DELETE FROM b WHERE id > 95`, `DELETE FROM a WHERE id = 1`)
	run.caughtUp()
	run.finish()
	r.sameAsTable("a", "id")
	r.sameAsTable("b", "id")
	// 55: dropped and made again with another key while the service is down.
	r.db.Exec(t, `DROP TABLE b`, `CREATE TABLE b(k text PRIMARY KEY, v text)`, `INSERT INTO b VALUES ('one', 'x')`)
	run = r.start()
	run.waitState(cdc.StateStreaming)
	run.caughtUp()
	run.finish()
	r.sameAsTable("b", "k")
}

func TestFormatDebezium(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *pipeline.Config) { c.Format.Format = "debezium-json" })
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t VALUES (1, 'a')`)
	run := r.start()
	run.waitState(cdc.StateStreaming)
	r.db.Exec(t, `UPDATE t SET id = 2`, `DELETE FROM t`)
	run.caughtUp()
	run.finish()
	var ops []string
	for _, rec := range cdctest.Read(t, r.k.Brokers, r.topic("t")) {
		if rec.Value == nil {
			ops = append(ops, "-")
			continue
		}
		ops = append(ops, jsonField(t, rec.Value, "op"))
	}
	// Two keys may lie in two partitions, which are read one after the other.
	if got := strings.Join(ops, ""); len(got) != 6 || strings.Count(got, "-") != 2 || strings.Count(got, "d") != 2 {
		t.Fatalf("operations %q, want r, d and tombstone, c, d and tombstone", got)
	}
}

func TestCompressions(t *testing.T) {
	t.Parallel()
	for _, codec := range []string{"none", "snappy", "lz4", "zstd"} {
		t.Run(codec, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(c *pipeline.Config) { c.Writer.Compression = codec })
			r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t SELECT i, repeat('row ', i) FROM generate_series(1, 300) i`)
			run := r.start()
			run.waitState(cdc.StateStreaming)
			r.db.Exec(t, `UPDATE t SET v = 'changed ' || v WHERE id < 100`)
			run.caughtUp()
			run.finish()
			r.sameAsTable("t", "id")
		})
	}
}
