package pipeline_test

import (
	"testing"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
	"cdc/internal/pipeline"
)

// onServer is a pipeline over two rows on a server of its own, stopped in order,
// and a copy of that server's files as they were then.
func onServer(t *testing.T) (*rig, *cdctest.PG, *cdctest.Backup) {
	t.Helper()
	pg := cdctest.PrivatePostgres(t, nil)
	r := rigOn(t, pg.Database(t), cdctest.Kafka(t), func(c *pipeline.Config) { c.MonitorEvery = 50 * time.Millisecond })
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t VALUES (1, 'one'), (2, 'two')`)
	r.streaming().settle()
	return r, pg, pg.Backup(t)
}

// goOn lets the pipeline stream changes that the copy does not have, until its
// memory holds a restart_lsn of the slot from behind the copy.
func (r *rig) goOn() {
	r.t.Helper()
	copied := lsn(r.t, r.slotField("restart_lsn"))
	run := r.streaming()
	r.db.Exec(r.t, `INSERT INTO t VALUES (50, 'never on the restored server')`, `DELETE FROM t WHERE id = 1`)
	for deadline := time.Now().Add(waitLimit); r.newestProgress().Restart <= copied; {
		if time.Now().After(deadline) {
			r.t.Fatalf("the slot still restarts at %s", copied)
		}
		r.db.Exec(r.t, `CHECKPOINT`, `UPDATE t SET v = v || '.' WHERE id = 2`)
		run.caughtUp()
	}
	run.settle()
}

// 8: the server's files are put back to an older copy. Its log ends before what
// the topics hold; once it has written more, only the slot tells.
func TestCase008ServerRestored(t *testing.T) {
	t.Parallel()
	r, pg, backup := onServer(t)
	r.goOn()
	topics := r.newestProgress().End
	pg.Restore(t, backup, false)
	if end := r.end(); end >= topics {
		t.Fatalf("the restored server ends at %s, the topics at %s: the test shows nothing", end, topics)
	}
	te := r.start().fails("server-behind")
	if from, to := ranges(t, te); to != topics || from > r.end() {
		t.Errorf("error names the range %s to %s, want one from the server's end to %s", from, to, topics)
	}
	slot := lsn(t, r.slotField("confirmed_flush_lsn"))
	for r.end() < topics {
		r.db.Exec(t, `SELECT pg_switch_wal()`, `INSERT INTO t SELECT max(id) + 1, 'of the restored server' FROM t`)
	}
	te = r.start().fails("server-behind")
	wantRange(t, te, slot, topics)
	r.dropAndRun(te)

	r.goOn()
	pg.Restore(t, backup, false)
	r.heals("server-behind")
}

// A copy of the server that lacks what the topics hold becomes the primary, on a
// timeline of its own.
func TestG6ServerForked(t *testing.T) {
	t.Parallel()
	r, pg, backup := onServer(t)
	r.goOn()
	topics := r.newestProgress().End
	pg.Restore(t, backup, true)
	for r.end() < topics { // its log reuses the positions
		r.db.Exec(t, `SELECT pg_switch_wal()`, `INSERT INTO t SELECT max(id) + 1, 'of the fork' FROM t`)
	}
	te := r.start().fails("server-forked")
	if from, to := ranges(t, te); to != topics || from >= topics {
		t.Errorf("error names the range %s to %s, want one up to %s", from, to, topics)
	}
	r.heals("server-forked", "to="+topics.String())
}

// Another server under the same name: a copy of it over the topics is nothing
// that happens by itself.
func TestG6AnotherServer(t *testing.T) {
	t.Parallel()
	r, _, _ := onServer(t)
	other := cdctest.PrivatePostgres(t, nil)
	other.Database(t).Exec(t, `SELECT 1`)
	db := &cdctest.DB{Name: r.db.Name, URL: other.URL(r.db.Name), Server: other}
	admin := &cdctest.DB{Name: "postgres", URL: other.URL("postgres"), Server: other}
	admin.Exec(t, `CREATE DATABASE `+r.db.Name)
	db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t VALUES (2, 'of the other server')`)
	before := len(r.records("t"))
	r.db, r.cfg.Source.URL, r.cfg.OnGap = db, db.URL, "resnapshot"
	te := r.start().fails("system-changed")
	if n := len(r.records("t")); n != before {
		t.Errorf("%d records were written", n-before)
	}
	r.dropAndRun(te)
}

// A standby that has everything is promoted: no gap, on another timeline.
func TestPromotedIsNoGap(t *testing.T) {
	t.Parallel()
	pg := cdctest.PrivatePostgres(t, nil)
	r := rigOn(t, pg.Database(t), cdctest.Kafka(t))
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t VALUES (1, 'one'), (2, 'two')`)
	r.streaming().settle()
	backup := pg.Backup(t)
	pg.Restore(t, backup, true)
	before := len(r.records("t"))
	r.db.Exec(t, `INSERT INTO t VALUES (3, 'on the new timeline')`)
	run := r.streaming()
	run.settle()
	if s := run.p.Status(); s.State != cdc.StateStopped || len(r.records("t")) != before+1 {
		t.Errorf("%d records became %d, want one more", before, len(r.records("t")))
	}
	r.sameAsTable("t", "id")
	if p := r.newestProgress(); p.Timeline != 2 {
		t.Errorf("the progress record is on timeline %d, want 2", p.Timeline)
	}
}
