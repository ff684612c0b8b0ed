package pipeline_test

import (
	"net/url"
	"testing"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
)

// 153: the server gave the slot's WAL up while the service was down. That is a gap:
// terminal, and mended by a copy where that is allowed.
func TestCase153SlotLost(t *testing.T) {
	t.Parallel()
	pg := cdctest.PrivatePostgres(t, map[string]string{"max_slot_wal_keep_size": "1MB", "max_wal_size": "32MB", "min_wal_size": "32MB"})
	r := rigOn(t, pg.Database(t), cdctest.Kafka(t))
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t VALUES (1, 'a'), (2, 'b')`)
	run := r.streaming()
	run.finish()
	r.db.Exec(t, `DELETE FROM t WHERE id = 1`)
	for lost, n := false, 0; !lost; n++ {
		if n == 50 {
			t.Fatal("the slot is not lost after 50 segments")
		}
		r.db.Exec(t, `SELECT pg_logical_emit_message(false, 'cdc-test', repeat('x', 100000))`, `SELECT pg_switch_wal()`, `CHECKPOINT`)
		lost = r.db.Value(t, r.slotSQL(`SELECT wal_status FROM pg_replication_slots WHERE slot_name = '%s'`)) == "lost"
	}
	r.start().fails("slot-lost")
	r.cfg.OnGap = "resnapshot"
	run = r.streaming()
	r.db.Exec(t, `INSERT INTO t VALUES (3, 'c')`)
	run.settle()
	r.sameAsTable("t", "id")
	r.inOrder(r.topic("t"))
}

// 165: the right to read the table is taken away behind the snapshot. A stream
// needs it no more, and a restart does not copy again.
func TestCase165SelectRevoked(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	role := r.db.Name + "_role"
	r.db.Exec(t, `CREATE ROLE `+role+` LOGIN REPLICATION`, `GRANT CREATE ON DATABASE `+r.db.Name+` TO `+role,
		`CREATE TABLE t(id int PRIMARY KEY, v text)`, `ALTER TABLE t OWNER TO `+role, `INSERT INTO t VALUES (1, 'a')`)
	t.Cleanup(func() {
		r.db.Exec(t, `REASSIGN OWNED BY `+role+` TO CURRENT_USER`, `DROP OWNED BY `+role, `DROP ROLE `+role)
	})
	u, err := url.Parse(r.db.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.User(role)
	r.cfg.Source.URL = u.String()
	run := r.streaming()
	run.settle()
	r.db.Exec(t, `REVOKE SELECT ON t FROM `+role, `INSERT INTO t VALUES (2, 'b')`)
	run = r.streaming()
	r.db.Exec(t, `UPDATE t SET v = 'c' WHERE id = 1`)
	run.settle()
	r.sameAsTable("t", "id")
	if s := run.p.Status(); len(s.Snapshot) != 0 || s.State != cdc.StateStopped {
		t.Errorf("status %+v, want no snapshot", s)
	}
}
