package pipeline_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
	"cdc/internal/pipeline"
)

// rangeText is a range of changes as errors and logs name it.
var rangeText = regexp.MustCompile(`from ([0-9A-F]+/[0-9A-F]+) to ([0-9A-F]+/[0-9A-F]+)`)

// ranges wants the error to name the changes that are lost, and returns their range.
func ranges(t *testing.T, te *cdc.TerminalError) (from, to cdc.LSN) {
	t.Helper()
	if !strings.HasPrefix(te.Error(), "gap: ") {
		t.Errorf("error %q does not say that it is a gap", te)
	}
	m := rangeText.FindStringSubmatch(te.Error())
	if m == nil {
		t.Fatalf("error %q names no range", te)
	}
	return lsn(t, m[1]), lsn(t, m[2])
}

func lsn(t *testing.T, s string) cdc.LSN {
	t.Helper()
	v, err := cdc.ParseLSN(s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// wantRange compares the range with what the test knows of it.
func wantRange(t *testing.T, te *cdc.TerminalError, from, to cdc.LSN) {
	t.Helper()
	if f, e := ranges(t, te); f != from || e != to {
		t.Errorf("error names the range %s to %s, want %s to %s: %q", f, e, from, to, te)
	}
}

// dropAndRun carries out the command that the error names.
func (r *rig) dropAndRun(te *cdc.TerminalError) {
	r.t.Helper()
	if want := "cdc drop " + r.cfg.Name + ", then cdc run"; !strings.Contains(te.Mend, want) {
		r.t.Errorf("mend %q does not name the command %q", te.Mend, want)
	}
	if err := pipeline.Drop(r.t.Context(), r.cfg); err != nil {
		r.t.Fatalf("cdc drop: %v", err)
	}
	r.streaming().whole()
}

// whole writes once more and wants the topic to be the table.
func (r *running) whole() {
	r.t.Helper()
	r.db.Exec(r.t, `INSERT INTO t SELECT coalesce(max(id), 0) + 1, 'whole' FROM t`)
	r.settle()
	r.sameAsTable("t", "id")
	r.inOrder(r.topic("t"))
}

// unseen changes rows that no stream will carry: an insert, and a delete whose key
// is a ghost in the topic until somebody tombstones it.
func (r *rig) unseen() {
	r.t.Helper()
	r.db.Exec(r.t, `DELETE FROM t WHERE id = (SELECT min(id) FROM t)`, `INSERT INTO t SELECT max(id) + 1, 'unseen' FROM t`)
}

// heals runs the pipeline with on_gap: resnapshot over a gap: it says so loudly,
// and is whole.
func (r *rig) heals(reason string, says ...string) {
	r.t.Helper()
	book := r.resnapshot()
	r.streaming().whole()
	wantLoud(r.t, book, reason, says...)
}

// resnapshot sets on_gap, and keeps what the pipeline logs.
func (r *rig) resnapshot() *logbook {
	book := &logbook{}
	book.into(&r.cfg)
	r.cfg.OnGap = "resnapshot"
	return book
}

func wantLoud(t *testing.T, book *logbook, reason string, says ...string) {
	t.Helper()
	for line := range strings.Lines(book.String()) {
		if strings.Contains(line, "level=ERROR") && strings.Contains(line, "gap: ") && strings.Contains(line, "reason="+reason) {
			for _, s := range says {
				if !strings.Contains(line, s) {
					t.Errorf("the gap is logged without %q: %s", s, line)
				}
			}
			return
		}
	}
	t.Errorf("no error with reason %s is logged:\n%s", reason, tail(book.String()))
}

func (r *rig) end() cdc.LSN { return lsn(r.t, r.db.Value(r.t, `SELECT pg_current_wal_lsn()`)) }

func (r *rig) slotField(column string) string {
	r.t.Helper()
	return r.db.Value(r.t, fmt.Sprintf(`SELECT coalesce(%s::text, '') FROM pg_replication_slots WHERE slot_name = '%s'`, column, r.cfg.Source.Slot))
}

// The slot was dropped and made again under its name while the service was down.
func TestG6SlotMadeAgain(t *testing.T) {
	t.Parallel()
	r := streamed(t)
	again := func() {
		r.unseen()
		r.db.Exec(t, r.slotSQL(`SELECT pg_drop_replication_slot('%s')`))
		r.db.Exec(t, r.slotSQL(`SELECT pg_create_logical_replication_slot('%s', 'pgoutput')`))
	}
	again()
	te := r.start().fails("slot-advanced")
	wantRange(t, te, r.newestProgress().End, lsn(t, r.slotField("confirmed_flush_lsn")))
	r.dropAndRun(te)
	again()
	r.heals("slot-advanced", "from="+r.newestProgress().End.String())
}

// 152: another consumer reads the slot while the service is cut off from Postgres.
func TestCase152ConsumedByAnother(t *testing.T) {
	t.Parallel()
	db := cdctest.Database(t)
	proxy, through := throughProxy(t, db)
	r := rigOn(t, db, cdctest.Kafka(t), func(c *pipeline.Config) { c.Source.URL = through })
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t VALUES (1, 'a'), (2, 'b')`)
	consume := func(run *running) {
		run.caughtUp()
		proxy.Refuse()
		proxy.Cut()
		r.unseen()
		// The walsender goes when it finds its client gone.
		for r.slotField("active") != "false" {
			r.db.Exec(t, r.slotSQL(`SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '%s' AND active`))
		}
		r.db.Query(t, fmt.Sprintf(`SELECT lsn FROM pg_logical_slot_get_binary_changes('%[1]s', NULL, NULL, 'proto_version', '1', 'publication_names', '%[1]s')`, r.cfg.Name))
		proxy.Heal()
	}
	run := r.streaming()
	consume(run)
	te := run.fails("slot-advanced")
	wantRange(t, te, r.newestProgress().End, lsn(t, r.slotField("confirmed_flush_lsn")))
	r.dropAndRun(te)

	book := r.resnapshot()
	run = r.streaming()
	consume(run)
	run.wait("a new life", func(s cdc.Status) bool { return s.Restarts > 0 && s.State == cdc.StateStreaming })
	run.whole()
	wantLoud(t, book, "slot-advanced", "to="+stretchTo(book))
}

// stretchTo is the end of the range that the log's error names.
func stretchTo(book *logbook) string {
	if m := rangeText.FindStringSubmatch(book.String()); m != nil {
		return m[2]
	}
	return "?"
}

// lose writes WAL until the server gives the slot up.
func (r *rig) lose() {
	r.t.Helper()
	for n := 0; r.slotField("wal_status") != "lost"; n++ {
		if n == 50 {
			r.t.Fatal("the slot is not lost after 50 segments")
		}
		r.db.Exec(r.t, `SELECT pg_logical_emit_message(false, 'cdc-test', repeat('x', 100000))`, `SELECT pg_switch_wal()`, `CHECKPOINT`)
	}
}

// 153: the server gives the slot's WAL up while the service is connected and does
// not keep up. It stops at once, and does not try again for ever.
func TestCase153SlotLostWhileConnected(t *testing.T) {
	t.Parallel()
	pg := cdctest.PrivatePostgres(t, map[string]string{"max_slot_wal_keep_size": "1MB", "max_wal_size": "32MB", "min_wal_size": "32MB"})
	db := pg.Database(t)
	proxy, through := throughProxy(t, db)
	r := rigOn(t, db, cdctest.Kafka(t), func(c *pipeline.Config) { c.Source.URL = through })
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t VALUES (1, 'a'), (2, 'b')`)
	run := r.streaming()
	run.caughtUp()
	proxy.Stall()
	r.unseen()
	r.lose()
	proxy.Heal()
	te := run.fails("slot-lost")
	from, to := ranges(t, te)
	if want := r.newestProgress().End; from != want || to <= from {
		t.Errorf("error names the range %s to %s, want one from %s", from, to, want)
	}
	r.start().fails("slot-lost")
	r.dropAndRun(te)
}

// 155: the server gives up a slot that nobody has read for too long.
func TestCase155IdleTimeout(t *testing.T) {
	t.Parallel()
	if v := cdctest.Postgres(t).Version(); v < 18 {
		t.Skipf("idle_replication_slot_timeout came with PostgreSQL 18, this is %d", v)
	}
	pg := cdctest.PrivatePostgres(t, map[string]string{"idle_replication_slot_timeout": "1s"})
	r := rigOn(t, pg.Database(t), cdctest.Kafka(t))
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t VALUES (1, 'a'), (2, 'b')`)
	run := r.streaming()
	run.settle()
	idle := func() {
		r.unseen()
		for r.slotField("invalidation_reason") == "" {
			r.db.Exec(t, `CHECKPOINT`)
			time.Sleep(100 * time.Millisecond) // the server's clock is what this waits for
		}
	}
	idle()
	te := r.start().fails("slot-lost")
	if from, _ := ranges(t, te); from != r.newestProgress().End || !strings.Contains(te.Error(), "idle_timeout") {
		t.Errorf("error %q, want the range from %s and the reason idle_timeout", te, r.newestProgress().End)
	}
	r.dropAndRun(te)
	idle()
	r.heals("slot-lost", "idle_timeout")
}
