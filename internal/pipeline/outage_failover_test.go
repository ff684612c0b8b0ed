package pipeline_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
	"cdc/internal/pipeline"
)

// 157, 158: a failover slot (PostgreSQL 17). The standby is away: the primary holds
// the stream back, which shows as lag. The primary dies and the standby is promoted:
// the pipeline finds it in its connection string and goes on, with nothing lost and
// nothing twice.
func TestCase157Case158FailoverSlot(t *testing.T) {
	t.Parallel()
	if v := cdctest.Postgres(t).Version(); v < 17 {
		t.Skipf("failover slots came with PostgreSQL 17, this is %d", v)
	}
	primary := cdctest.PrivatePostgres(t, nil)
	db := primary.Database(t)
	db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t SELECT i, 'copied' FROM generate_series(1, 100) i`)
	backup := primary.Backup(t)
	db.Exec(t, `SELECT pg_create_physical_replication_slot('standby')`,
		`ALTER SYSTEM SET synchronized_standby_slots = 'standby'`, `SELECT pg_reload_conf()`)
	standby := backup.Standby(t, primary, "standby", map[string]string{"sync_replication_slots": "on", "hot_standby_feedback": "on"})
	u, err := url.Parse(db.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.Host += fmt.Sprintf(",127.0.0.1:%d", standby.Port())
	u.RawQuery += "&target_session_attrs=read-write"
	r := rigOn(t, db, cdctest.Kafka(t), func(c *pipeline.Config) {
		c.Source.URL, c.Source.Failover, c.MonitorEvery = u.String(), true, 50*time.Millisecond
	})
	run := r.streaming()

	standby.Halt(t)
	r.db.Exec(t, `INSERT INTO t VALUES (201, 'held back')`)
	end := r.end()
	run.wait("lag, and the reason", func(s cdc.Status) bool {
		return s.ServerEnd >= end && s.LagBytes > 0 && strings.Contains(s.Stalled, "standby") && !s.Ready
	})
	if got := r.fold("t"); got[`{"id":201}`] != "" {
		t.Errorf("a change that the standby does not have was delivered: %s", got[`{"id":201}`])
	}
	standby.Resume(t)
	run.caughtUp()

	// The slot is usable there once the standby has what it needs of catalogue and WAL.
	there := &cdctest.DB{Name: db.Name, URL: standby.URL(db.Name), Server: standby}
	n := 300
	for deadline := time.Now().Add(waitLimit); there.Value(t, r.slotSQL(`SELECT count(*) FROM pg_replication_slots WHERE slot_name = '%s' AND synced AND NOT temporary AND invalidation_reason IS NULL`)) != "1"; n++ {
		if time.Now().After(deadline) {
			t.Fatalf("the slot is not on the standby: %v", there.Query(t, `SELECT slot_name, synced, temporary, invalidation_reason FROM pg_replication_slots`))
		}
		r.db.Exec(t, fmt.Sprintf(`INSERT INTO t VALUES (%d, 'while the slot comes over')`, n), `SELECT pg_log_standby_snapshot()`)
		run.caughtUp()
	}
	for i := range 50 {
		r.db.Exec(t, fmt.Sprintf(`INSERT INTO t VALUES (%d, 'just before')`, 10_000+i))
	}
	primary.Kill()
	r.db = there
	there.Exec(t, `SELECT pg_promote(false)`)
	for deadline := time.Now().Add(waitLimit); there.Value(t, `SELECT pg_is_in_recovery()`) != "f"; {
		if time.Now().After(deadline) {
			t.Fatal("the standby is not promoted")
		}
	}
	there.Exec(t, `INSERT INTO t VALUES (20000, 'on the new primary')`)
	run.settle()
	r.sameAsTable("t", "id")
	r.inOrder(r.topic("t"))
	if got, want := fmt.Sprint(len(r.records("t"))), there.Value(t, `SELECT count(*) FROM t`); got != want {
		t.Errorf("%s records for %s rows, each written once", got, want)
	}
	if p := r.newestProgress(); p.Timeline != 2 {
		t.Errorf("the progress record is on timeline %d, want 2", p.Timeline)
	}
}
