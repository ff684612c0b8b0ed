package pipeline_test

import (
	"strings"
	"testing"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/pipeline"
)

// 139: killed while a table that joined a streaming pipeline is copied, with
// changes of it and of the others going on.
func TestCase139KilledWhileJoining(t *testing.T) {
	t.Parallel()
	run := flow(t, `CREATE TABLE a(id int PRIMARY KEY, v text)`, `INSERT INTO a SELECT i, 'a' FROM generate_series(1, 100) i`)
	run.settle()
	run.db.Exec(t, `INSERT INTO a VALUES (1000, 'before')`, `CREATE TABLE b(id int PRIMARY KEY, v text)`, `INSERT INTO b SELECT i, 'b' FROM generate_series(1, 500) i`)
	for _, point := range []string{"publish", "joined", "stream-start", "chunk-read", "chunk-written", "chunk-acknowledged", "copy-rows", "copy-ghosts"} {
		run.rig.spawn(point, 1).Killed(t, point)
		run.db.Exec(t, `DELETE FROM b WHERE id = (SELECT min(id) FROM b)`, `UPDATE b SET v = v || '.' WHERE id % 50 = 0`, `UPDATE b SET id = id + 1000 WHERE id = (SELECT max(id) FROM b WHERE id < 1000)`,
			`UPDATE a SET v = v || '.' WHERE id < 10`, `DELETE FROM a WHERE id = (SELECT min(id) FROM a)`)
	}
	run = run.rig.streaming()
	run.db.Exec(t, `UPDATE b SET v = 'last' WHERE id % 7 = 0`)
	run.settle()
	for _, table := range []string{"a", "b"} {
		run.sameAsTable(table, "id")
		run.inOrder(run.topic(table))
	}
	if got := run.db.Slots(t); len(got) != 1 {
		t.Errorf("slots %v, want the pipeline's own alone", got)
	}
}

// 166: a table that leaves the pipeline and joins it again later is copied: what
// happened meanwhile is in it.
func TestCase166TableLeavesAndJoins(t *testing.T) {
	t.Parallel()
	run := flow(t, `CREATE TABLE a(id int PRIMARY KEY, v text)`, `CREATE TABLE b(id int PRIMARY KEY, v text)`, `INSERT INTO b SELECT i, 'b' FROM generate_series(1, 50) i`)
	run.settle()
	r := run.rig
	r.cfg.Source.Exclude = []string{"public.b"}
	r.db.Exec(t, `INSERT INTO b VALUES (51, 'not yet out')`)
	run = r.streaming()
	r.db.Exec(t, `DELETE FROM b WHERE id < 10`, `UPDATE b SET v = 'out'`, `INSERT INTO a VALUES (1, 'a')`)
	run.settle()
	r.cfg.Source.Exclude = nil
	run = r.streaming()
	r.db.Exec(t, `UPDATE b SET v = 'in' WHERE id = 20`)
	run.settle()
	r.sameAsTable("a", "id")
	r.sameAsTable("b", "id")
}

// Another format of the values is another content of the topic: the tables are
// copied in it.
func TestFormatChanged(t *testing.T) {
	t.Parallel()
	run := flow(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t SELECT i, 'x' FROM generate_series(1, 20) i`)
	run.settle()
	run.rig.cfg.Format.Format = "debezium-json"
	run.db.Exec(t, `DELETE FROM t WHERE id = 1`)
	run = run.rig.streaming()
	run.db.Exec(t, `UPDATE t SET v = 'y' WHERE id = 2`)
	run.settle()
	got := run.fold("t")
	if len(got) != 19 {
		t.Errorf("%d keys are alive, want 19", len(got))
	}
	for k, v := range got {
		if !strings.Contains(v, `"after":`) {
			t.Errorf("key %s still has the old form: %s", k, v)
		}
	}
}

// 50, 55: what the stream still holds was written under types, tables and schemas
// that exist no more when it is read.
func TestCase050Case055GoneWhenRead(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"json", "debezium-json"} {
		t.Run(format, func(t *testing.T) {
			r := newRig(t)
			r.cfg.Format.Format = format
			r.cfg.Source.Include = []string{"*.*"}
			r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `CREATE TABLE u(id int PRIMARY KEY, v text)`, `CREATE SCHEMA s`, `CREATE TABLE s.w(id int PRIMARY KEY)`)
			run := r.streaming()
			run.finish()
			r.db.Exec(t, `CREATE TYPE mood AS ENUM ('ok')`, `CREATE TYPE pair AS (x int, m mood)`, `CREATE DOMAIN d AS int`,
				`ALTER TABLE t ADD m mood, ADD p pair, ADD d d, ADD a mood[]`, `INSERT INTO t VALUES (1, 'a', 'ok', '(1,ok)', 7, '{ok,NULL}')`,
				`INSERT INTO u VALUES (1, 'u')`, `INSERT INTO s.w VALUES (1)`,
				`ALTER TABLE t DROP m, DROP p, DROP d, DROP a`, `DROP TYPE pair`, `DROP TYPE mood`, `DROP DOMAIN d`, `DROP TABLE u`, `DROP SCHEMA s CASCADE`,
				`INSERT INTO t VALUES (2, 'b')`)
			run = r.streaming()
			run.settle()
			got := r.fold("t")
			if len(got) != 2 || !strings.Contains(got[`{"id":1}`], `"v":"a"`) {
				t.Errorf("got %v, want the rows 1 and 2", got)
			}
			if s := run.p.Status(); s.State != cdc.StateStopped || s.Restarts != 0 {
				t.Errorf("state %s, %d restarts: %s", s.State, s.Restarts, s.Error)
			}
		})
	}
}

// 166: a table that is made while the pipeline runs is published and copied; one
// that cannot be captured stops nothing.
func TestCase166TableMadeWhileRunning(t *testing.T) {
	t.Parallel()
	run := flowWith(t, func(c *pipeline.Config) { c.MonitorEvery = 100 * time.Millisecond }, `CREATE TABLE a(id int PRIMARY KEY)`)
	run.db.Exec(t, `CREATE TABLE unkeyed(id int)`, `INSERT INTO unkeyed VALUES (1)`, `CREATE TABLE b(id int PRIMARY KEY, v text)`, `INSERT INTO b SELECT i, 'x' FROM generate_series(1, 100) i`)
	run.db.Exec(t, `INSERT INTO a VALUES (1)`)
	run.caughtUp()
	run.db.Exec(t, `ALTER TABLE unkeyed ADD PRIMARY KEY (id)`)
	run.wait("the new tables", func(s cdc.Status) bool { return s.Tables == 3 && s.State == cdc.StateStreaming && len(copies(s)) == 0 })
	run.db.Exec(t, `UPDATE b SET v = 'y' WHERE id < 10`, `DELETE FROM b WHERE id = 50`, `INSERT INTO unkeyed VALUES (2)`)
	run.settle()
	for _, table := range []string{"a", "b", "unkeyed"} {
		run.sameAsTable(table, "id")
		run.inOrder(run.topic(table))
	}
}
