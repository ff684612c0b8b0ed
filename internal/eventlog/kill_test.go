package eventlog_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
	"cdc/internal/eventstore"
)

func child(ctx context.Context, c config) error {
	store, err := eventstore.Open(ctx, eventstore.Config{URL: c.URL, MaxConns: 2})
	if err != nil {
		return err
	}
	return c.numberer(store, eventstore.NewHead(), slog.New(slog.NewTextHandler(os.Stderr, nil)), c.Hook()).Run(ctx)
}

// spawn starts a numberer in a process of its own.
func (r *rig) spawn(c config, kill string, count int) *cdctest.Victim {
	r.t.Helper()
	c.Point = cdctest.Point{Kill: kill, Count: count}
	return cdctest.Spawn(r.t, c)
}

// kill -9 at every point of the stream, under load, the slot never lost: the log is
// the WAL, event by event.
func TestKilledAtEachPointOfTheStream(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := newRig(t)
	u := r.start(r.config(), nil)
	u.state(cdc.StateStreaming)
	u.stop()
	second := r.witness()
	w := r.workload(4, 0, seed)
	for _, p := range []struct {
		name  string
		count int
	}{
		{"locked", 1}, {"publish", 1}, {"stream", 1},
		{"commit", 1}, {"commit", 7}, {"committed", 1}, {"committed", 9}, {"confirm", 1}, {"confirm", 2}, {"confirm", 11},
	} {
		r.spawn(r.config(), p.name, p.count).Killed(t, p.name)
	}
	c := r.config()
	c.Idle = time.Millisecond
	w.finish()
	r.spawn(c, "idle", 2).Killed(t, "idle")
	u = r.start(r.config(), nil)
	u.state(cdc.StateStreaming)
	r.append("last/1", 1)
	r.barrier()
	u.stop()
	r.same(r.exactlyOnce(), second.order())
	if contains(u.log, "looking at every event") {
		t.Errorf("a kill made it distrust the slot:\n%s", u.log)
	}
}

// kill -9 in the middle of a large transaction: none of it was numbered, then all of
// it at once.
func TestKilledInALargeTransaction(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	u := r.start(r.config(), nil)
	u.state(cdc.StateStreaming)
	u.stop()
	second := r.witness()
	r.append("small/1", 3)
	r.large(20_000)
	r.append("small/2", 3)
	for _, count := range []int{1, 12, 20} {
		r.spawn(r.config(), "rows", count).Killed(t, "rows")
		if got := r.db.Value(t, `select count(*) from es.log join es.event on id = event where stream <> 'small/1'`); got != "0" {
			t.Fatalf("killed at piece %d: %s events of the large transaction or behind it are numbered, want none", count, got)
		}
	}
	r.spawn(r.config(), "committed", 1).Killed(t, "committed")
	u = r.start(r.config(), nil)
	u.state(cdc.StateStreaming)
	r.barrier()
	u.stop()
	r.same(r.exactlyOnce(), second.order())
}

// kill -9 at every point of an adoption, under load: no event is lost, none is
// numbered twice, and no slot is left that lies.
func TestKilledAtEachPointOfAnAdoption(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := newRig(t)
	r.append("old/1", 50)
	w := r.workload(2, 0, seed)
	points := []string{"publish", "adopt", "adopt-snapshot", "adopt-rows", "adopt-commit", "adopt-committed", "adopt-slot"}
	for _, point := range points {
		r.spawn(r.config(), point, 1).Killed(t, point)
		r.dropSlot()
	}
	u := r.start(r.config(), nil)
	u.state(cdc.StateStreaming)
	r.barrier()
	u.stop()
	// The slot is worthless and is dropped first.
	r.db.Exec(t, fmt.Sprintf(`select pg_replication_slot_advance('%s', pg_current_wal_lsn())`, r.slot))
	r.append("skipped/1", 5)
	r.db.Exec(t, fmt.Sprintf(`select pg_replication_slot_advance('%s', pg_current_wal_lsn())`, r.slot))
	r.spawn(r.config(), "drop-slot", 1).Killed(t, "drop-slot")
	r.spawn(r.config(), "adopt-rows", 1).Killed(t, "adopt-rows")
	r.spawn(r.config(), "adopt-committed", 1).Killed(t, "adopt-committed")
	u = r.start(r.config(), nil)
	u.state(cdc.StateStreaming)
	w.finish()
	r.barrier()
	u.stop()
	r.exactlyOnce()
	if got := r.db.Slots(t); len(got) != 1 || got[0] != r.slot {
		t.Errorf("slots %v, want %s alone", got, r.slot)
	}
}

// dropSlot drops the slot once nobody holds it, if it is there.
func (r *rig) dropSlot() {
	r.t.Helper()
	r.until("the slot is free", func() bool {
		return r.db.Value(r.t, fmt.Sprintf(`select count(*) from pg_replication_slots where slot_name like '%s%%' and active`, r.slot)) == "0"
	})
	r.db.Exec(r.t, fmt.Sprintf(`select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = '%s'`, r.slot))
}

func contains(o *output, s string) bool { return strings.Contains(o.String(), s) }
