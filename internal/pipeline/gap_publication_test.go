package pipeline_test

import (
	"strings"
	"testing"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
	"cdc/internal/pipeline"
)

// monitored is a pipeline over two rows whose publication is looked at often.
func monitored(t *testing.T) (*rig, *running) {
	t.Helper()
	r := newRig(t, func(c *pipeline.Config) { c.MonitorEvery = 50 * time.Millisecond })
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t VALUES (1, 'one'), (2, 'two')`)
	run := r.streaming()
	run.caughtUp()
	return r, run
}

// wantFrom wants the error to say from where on changes are lost. A record of the
// progress topic that was on its way when the stream broke may be a newer one.
func (r *rig) wantFrom(te *cdc.TerminalError) {
	r.t.Helper()
	_, text, ok := strings.Cut(te.Error(), "the changes from ")
	if !ok {
		r.t.Fatalf("error %q names no range", te)
	}
	if from, newest := lsn(r.t, strings.Fields(text)[0]), r.newestProgress().End; from == 0 || from > newest {
		r.t.Errorf("error names the changes from %s on, the progress record is at %s", from, newest)
	}
}

// The publication is dropped: nobody can read what is changed without it, and a
// new one does not help the slot over it. Postgres up to 17 ends the stream with an
// error; 18 remarks on it and goes on without the changes.
func TestG6PublicationDropped(t *testing.T) {
	t.Parallel()
	const drop, again = `DROP PUBLICATION %s`, `CREATE PUBLICATION %s FOR TABLE ONLY t WITH (publish_via_partition_root = true)`
	t.Run("while running", func(t *testing.T) {
		t.Parallel()
		r, run := monitored(t)
		r.db.Exec(t, r.slotSQL(drop))
		r.unseen()
		te := run.fails("publication-missing")
		r.wantFrom(te)
		te = r.start().fails("publication-missing")
		if from, to := ranges(t, te); from != r.newestProgress().End || to <= from {
			t.Errorf("error names the range %s to %s, want one from %s", from, to, r.newestProgress().End)
		}
		r.dropAndRun(te)

		r.resnapshot()
		run = r.streaming()
		run.caughtUp()
		r.db.Exec(t, r.slotSQL(drop))
		r.unseen()
		run.wait("a new life", func(s cdc.Status) bool { return s.Restarts > 0 && s.State == cdc.StateStreaming })
		run.whole()
	})
	t.Run("while down", func(t *testing.T) {
		t.Parallel()
		r, run := monitored(t)
		run.finish()
		r.db.Exec(t, r.slotSQL(drop))
		r.unseen()
		te := r.start().fails("publication-missing")
		if from, to := ranges(t, te); from != r.newestProgress().End || to != r.end() && to <= from {
			t.Errorf("error names the range %s to %s, want one from %s", from, to, r.newestProgress().End)
		}
		r.heals("publication-missing", "from="+r.newestProgress().End.String())
	})
	// Only the stream can find out that the changes in between cannot be read.
	t.Run("made again while down", func(t *testing.T) {
		t.Parallel()
		r, run := monitored(t)
		away := func() {
			r.db.Exec(t, r.slotSQL(drop))
			r.unseen()
			r.db.Exec(t, r.slotSQL(again))
		}
		run.finish()
		away()
		te := r.start().fails("publication-missing")
		r.wantFrom(te)
		r.dropAndRun(te)
		away()
		r.heals("publication-missing", "from="+r.newestProgress().End.String())
	})
}

// The publication leaves operations out.
func TestG6PublicationChanged(t *testing.T) {
	t.Parallel()
	const inserts = `ALTER PUBLICATION %s SET (publish = 'insert')`
	t.Run("while running", func(t *testing.T) {
		t.Parallel()
		r, run := monitored(t)
		r.db.Exec(t, r.slotSQL(inserts), `DELETE FROM t WHERE id = 1`)
		te := run.fails("publication-options")
		if !strings.Contains(te.Error(), "update, delete, truncate") {
			t.Errorf("error %q does not say what was left out", te)
		}
		te = r.start().fails("publication-options")
		r.dropAndRun(te)

		r.resnapshot()
		run = r.streaming()
		r.db.Exec(t, r.slotSQL(inserts), `DELETE FROM t WHERE id = 2`)
		run.wait("a new life", func(s cdc.Status) bool { return s.Restarts > 0 && s.State == cdc.StateStreaming })
		run.whole()
	})
	t.Run("while down", func(t *testing.T) {
		t.Parallel()
		r, run := monitored(t)
		run.finish()
		r.db.Exec(t, r.slotSQL(inserts), `DELETE FROM t WHERE id = 1`)
		te := r.start().fails("publication-options")
		if from, to := ranges(t, te); from != r.newestProgress().End || to <= from {
			t.Errorf("error names the range %s to %s, want one from %s", from, to, r.newestProgress().End)
		}
		r.heals("publication-options", "update, delete, truncate")
	})
}

// A row filter is set by hand: rows leave the publication without a delete in the
// stream. The table is copied again, and they are tombstoned.
func TestG6RowFilterChanged(t *testing.T) {
	t.Parallel()
	if v := cdctest.Postgres(t).Version(); v < 15 {
		t.Skipf("row filters came with PostgreSQL 15, this is %d", v)
	}
	r, run := monitored(t)
	run.finish()
	r.db.Exec(t, r.slotSQL(`ALTER PUBLICATION %s SET TABLE ONLY t WHERE (id > 1)`))
	r.streaming().settle()
	if got := r.fold("t"); got[`{"id":1}`] != "" || got[`{"id":2}`] == "" {
		t.Errorf("topic holds %v, want key 2 alone", got)
	}
}
