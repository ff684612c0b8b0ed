package eventlog_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
)

// Stopped in order and started again under load: nothing twice, nothing skipped.
func TestRestartedUnderLoad(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := newRig(t)
	u := r.start(r.config(), nil)
	u.state(cdc.StateStreaming)
	second := r.witness()
	w := r.workload(4, 0, seed)
	for range 5 {
		<-u.head.After(u.head.Pos()) // something happens
		u.stop()
		u = r.start(r.config(), nil)
		u.state(cdc.StateStreaming)
	}
	w.finish()
	r.barrier()
	u.stop()
	r.same(r.exactlyOnce(), second.order())
	if contains(u.log, "looking at every event") {
		t.Errorf("a restart made it distrust the slot:\n%s", u.log)
	}
	if got := r.db.Value(t, fmt.Sprintf(`select lsn = confirmed_flush_lsn from es.reader, pg_replication_slots where slot_name = '%s'`, r.slot)); got != "t" {
		t.Error("stopped in order, and the slot does not stand at es.reader")
	}
}

// Postgres is killed and comes back, with a slot that stands further back.
func TestPostgresKilled(t *testing.T) {
	t.Parallel()
	pg := cdctest.PrivatePostgres(t, nil)
	r := newRigOn(t, pg.Database(t))
	u := r.start(r.config(), nil)
	u.state(cdc.StateStreaming)
	for range 20 {
		r.append("a/1", 3)
	}
	r.barrier()
	pg.Kill()
	err := u.failed()
	if err == nil || cdc.IsTerminal(err) {
		t.Fatalf("Postgres was killed: got %v, want an error that passes", err)
	}
	if err := pg.Restart(testContext(t)); err != nil {
		t.Fatal(err)
	}
	r.store.Pool().Reset()
	second := r.witness()
	u = r.start(r.config(), nil)
	u.state(cdc.StateStreaming)
	for range 5 {
		r.append("a/1", 3)
	}
	r.barrier()
	got := r.exactlyOnce()
	r.same(got[60:], second.order())
	// A fast shutdown waits for walsenders: it must not wait for this one.
	ctx, cancel := context.WithTimeout(context.Background(), waitLimit/2)
	defer cancel()
	if err := pg.Stop(ctx, "fast"); err != nil {
		t.Errorf("fast shutdown: %v", err)
	}
	if err := u.failed(); err == nil || cdc.IsTerminal(err) {
		t.Errorf("Postgres was shut down: got %v, want an error that passes", err)
	}
	if err := pg.Restart(testContext(t)); err != nil {
		t.Fatal(err)
	}
}

// While no events come the slot follows the WAL that others write, and es.reader is
// written rarely: its own writes are WAL too.
func TestIdle(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.config()
	c.Idle = 20 * time.Millisecond
	u := r.start(c, nil)
	u.state(cdc.StateStreaming)
	r.append("a/1", 1)
	r.barrier()
	r.db.Exec(t, `create table other (v text)`, `insert into other select repeat('x', 1000) from generate_series(1, 2000)`)
	end := r.db.Value(t, `select pg_current_wal_lsn()`)
	r.until("the slot follows", func() bool {
		return r.db.Value(t, fmt.Sprintf(`select confirmed_flush_lsn >= '%s' from pg_replication_slots where slot_name = '%s'`, end, r.slot)) == "t"
	})
	r.exactlyOnce()
	u.stop()
	// While the hour lasts only barriers write, that of the start among them, whatever
	// others do.
	u = r.start(r.config(), nil)
	u.state(cdc.StateStreaming)
	writes := map[string]bool{}
	for range 20 {
		writes[r.db.Value(t, `select xmin from es.reader`)] = true
		r.db.Exec(t, `insert into other values ('y')`)
	}
	if len(writes) > 2 {
		t.Errorf("es.reader was written %d times while nothing was numbered", len(writes)-1)
	}
	u.stop()
}
