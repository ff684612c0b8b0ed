package eventlog_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/eventstore"
	"cdc/internal/intent"
)

func TestGapFreeOrderUnderSixteenWriters(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := newRig(t)
	u := r.start(r.config(), nil)
	u.state(cdc.StateStreaming)
	second := r.witness()
	w := r.workload(16, 40, seed)
	stop, looked := make(chan struct{}), make(chan int)
	go func() { looked <- r.lookForHoles(stop) }()
	w.wait()
	r.barrier()
	close(stop)
	t.Logf("%d looks at the log while it grew", <-looked)
	want := second.order()
	got := r.exactlyOnce()
	r.same(got, want)
	if len(got) < 500 {
		t.Errorf("only %d events: the workload shows nothing", len(got))
	}
	if pos := u.head.Pos(); pos != int64(len(got)) {
		t.Errorf("head is told %d, want %d", pos, len(got))
	}
	s := u.n.Status()
	if s.Head != int64(len(got)) || s.Events != uint64(len(got)) || s.Alarms != 0 || s.Batches == 0 {
		t.Errorf("status: got %+v, want %d events", s, len(got))
	}
	// es.log names the transaction of each event: its id and its commit record.
	if odd := r.db.Value(t, `select count(*) from (select tx, lsn, count(*) over (partition by tx) a, count(*) over (partition by tx, lsn) b,
		max(pos) over (partition by tx) - min(pos) over (partition by tx) + 1 c from es.log) l where a <> b or a <> c`); odd != "0" {
		t.Errorf("%s events do not stand together with those of their transaction", odd)
	}
	u.stop()
	t.Logf("%d events in %d batches", len(got), s.Batches)
}

// lookForHoles reads the log again and again: whoever sees a position must see its
// event. It returns how often it looked.
func (r *rig) lookForHoles(stop <-chan struct{}) (looks int) {
	for ; ; looks++ {
		select {
		case <-stop:
			return looks
		default:
		}
		var holes int
		err := r.store.Pool().QueryRow(context.Background(), `select count(*) from (select event from es.log order by pos desc limit 50) l
			where not exists (select from es.event e where e.id = l.event)`).Scan(&holes)
		if err != nil || holes > 0 {
			r.t.Errorf("%d events have a position and are not visible: %v", holes, err)
			return looks
		}
	}
}

// A commit that stands in the WAL and is not visible gets no position yet.
func TestNotVisibleYet(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := testContext(t)
	w, err := r.store.OpenLogWriter(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	w.Claim(eventstore.Reader{Slot: "s", System: "1", Timeline: 1})
	r.append("a/1", 1) // of a transaction that is visible
	first, err := intent.ParseID(r.db.Value(t, `select id from es.event`))
	if err != nil {
		t.Fatal(err)
	}
	xmin, err := strconv.ParseUint(r.db.Value(t, `select xmin from es.event`), 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	tx, err := r.store.Pool().Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(ctx) }()
	open := event(1)
	if _, err := eventstore.AppendTx(ctx, tx, []intent.Batch{{Stream: "a/2", Expect: intent.Any, Events: []intent.NewEvent{open}}}); err != nil {
		t.Fatal(err)
	}
	var xid uint32
	if err := tx.QueryRow(ctx, `select (pg_current_xact_id()::text::numeric % 4294967296)::bigint`).Scan(&xid); err != nil {
		t.Fatal(err)
	}
	w.Add(first, 100, uint32(xmin))
	w.Add(open.ID, 200, xid)
	for range 3 {
		if err := w.Commit(ctx, 300); !errors.Is(err, eventstore.ErrNotVisible) {
			t.Fatalf("got %v, want %v", err, eventstore.ErrNotVisible)
		}
	}
	if got := r.db.Value(t, `select count(*) from es.log`); got != "0" {
		t.Errorf("%s events have a position", got)
	}
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(ctx, 300); err != nil {
		t.Fatal(err)
	}
	r.exactlyOnce()
	// Ids of 32 bits go round: half of them lie behind the newest, half before it.
	for _, c := range []struct {
		tx      uint32
		visible bool
	}{{xid - 1000, true}, {xid - 1<<31 + 100_000, true}, {xid + 1<<30, false}} {
		r.append("a/3", 1)
		id, err := intent.ParseID(r.db.Value(t, `select id from es.event order by at desc limit 1`))
		if err != nil {
			t.Fatal(err)
		}
		w.Add(id, 400, c.tx)
		if err := w.Commit(ctx, 500); c.visible != (err == nil) || !c.visible && !errors.Is(err, eventstore.ErrNotVisible) {
			t.Errorf("transaction %d beside %d: got %v, want visible: %t", c.tx, xid, err, c.visible)
		}
		if !c.visible {
			break // the row is still held
		}
	}
}

// The first start finds events: each stream keeps its order, otherwise time decides.
func TestFirstStartNumbersExistingEvents(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for n := range 20 {
		r.append(fmt.Sprintf("a%d/x", n%3), 1+n%4)
	}
	u := r.start(r.config(), nil)
	u.state(cdc.StateStreaming)
	order := r.exactlyOnce()
	if len(order) == 0 {
		t.Fatal("nothing was numbered")
	}
	if bad := r.db.Value(t, `select count(*) from (select at < lag(at) over (order by pos) as back from es.log join es.event on id = event) l where back`); bad != "0" {
		t.Errorf("%s events stand behind later ones", bad)
	}
	at := r.db.Value(t, `select min(lsn) + 1 from es.log`)
	if bad := r.db.Value(t, `select count(*) from es.log l join es.event e on e.id = l.event where l.lsn + 1 <> '`+at+`' or l.tx <> e.xmin::text::bigint`); bad != "0" || !contains(u.log, "lsn="+at) {
		t.Errorf("%s events have another lsn than the one before the snapshot's, or another tx:\n%s", bad, u.log)
	}
	if !contains(u.log, "events="+strconv.Itoa(len(order))) {
		t.Errorf("the log does not say how many:\n%s", u.log)
	}
	r.append("a0/x", 2)
	r.barrier()
	if got := r.exactlyOnce(); len(got) != len(order)+2 {
		t.Errorf("%d events, want %d", len(got), len(order)+2)
	}
	u.stop()
}

// The clock of the appending server went back: versions stay in order all the same.
func TestFirstStartKeepsVersionsWhereTheClockWentBack(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.db.Exec(t, `insert into es.stream values ('a/1', 3), ('b/1', 2)`,
		`insert into es.event (id, stream, version, type, data, at) values
			(gen_random_uuid(), 'a/1', 1, 't', '{}', '2026-01-01 12:00'), (gen_random_uuid(), 'a/1', 2, 't', '{}', '2026-01-01 10:00'),
			(gen_random_uuid(), 'a/1', 3, 't', '{}', '2026-01-01 13:00'), (gen_random_uuid(), 'b/1', 1, 't', '{}', '2026-01-01 11:00'),
			(gen_random_uuid(), 'b/1', 2, 't', '{}', '2026-01-01 12:30')`)
	u := r.start(r.config(), nil)
	u.state(cdc.StateStreaming)
	r.exactlyOnce()
	if got, want := r.db.Value(t, `select string_agg(stream || '@' || version, ' ' order by pos) from es.log join es.event on id = event`),
		"b/1@1 a/1@1 a/1@2 b/1@2 a/1@3"; got != want {
		t.Errorf("order: got %s, want %s", got, want)
	}
	u.stop()
}

// One transaction of 200,000 events is numbered in pieces and appears at once. Not
// beside the others: no slot can be made on their server while it is open.
func TestLargeTransaction(t *testing.T) {
	const events = 200_000
	r := newRig(t)
	u := r.start(r.config(), nil)
	u.state(cdc.StateStreaming)
	r.append("small/1", 1)
	start := time.Now()
	r.large(events)
	appended := time.Since(start)
	r.barrier()
	t.Logf("%d events: %s until committed, %s until numbered", events, appended.Round(time.Millisecond), time.Since(start).Round(time.Millisecond))
	if s := u.n.Status(); s.Head != events+1 || s.Batches > 3 {
		t.Errorf("status: %+v, want the large transaction in one batch", s)
	}
	if got := r.db.Value(t, `select count(*) || ' ' || max(pos) || ' ' || count(distinct event) || ' ' || count(distinct lsn) from es.log`); got != "200001 200001 200001 2" {
		t.Errorf("rows, greatest position, events, transactions: got %s", got)
	}
	if bad := r.db.Value(t, `select count(*) from es.log join es.event on id = event where stream = 'large/1' and pos <> version + 1`); bad != "0" {
		t.Errorf("%s events out of order", bad)
	}
	u.stop()
}

// large appends to one stream in one transaction, past es.append, which takes them
// as arrays.
func (r *rig) large(events int) {
	r.t.Helper()
	r.db.Exec(r.t, fmt.Sprintf(`insert into es.stream values ('large/1', %d);
		insert into es.event (id, stream, version, type, data) select gen_random_uuid(), 'large/1', i, 'noted', '{}' from generate_series(1, %d) i`, events, events))
}

// A prepared transaction is numbered where it was committed, not where it was
// prepared.
func TestPreparedTransaction(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	u := r.start(r.config(), nil)
	u.state(cdc.StateStreaming)
	second := r.witness()
	ctx := testContext(t)
	conn, err := r.store.Pool().Acquire(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	tx, err := conn.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	prepared := event(1)
	if _, err := eventstore.AppendTx(ctx, tx, []intent.Batch{{Stream: "p/1", Expect: intent.None, Events: []intent.NewEvent{prepared}}}); err != nil {
		t.Fatal(err)
	}
	gid := "es:" + r.db.Name
	if _, err := conn.Exec(ctx, "PREPARE TRANSACTION '"+gid+"'"); err != nil {
		t.Fatal(err)
	}
	r.append("p/2", 1)
	r.barrier()
	if got := r.exactlyOnceBut(1); len(got) != 1 {
		t.Fatalf("%d events numbered, want the one that is committed", len(got))
	}
	if _, err := conn.Exec(ctx, "COMMIT PREPARED '"+gid+"'"); err != nil {
		t.Fatal(err)
	}
	r.append("p/3", 1)
	r.barrier()
	got := r.exactlyOnce()
	r.same(got, second.order())
	if len(got) != 3 || got[1] != prepared.ID.String() {
		t.Errorf("log %v, want %s second", got, prepared.ID)
	}
	u.stop()
}

// exactlyOnceBut is exactlyOnce while a number of events is not committed; es.event
// shows none of those.
func (r *rig) exactlyOnceBut(int) []string { return r.exactlyOnce() }

func TestBarrier(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	// late is what a barrier says that is not passed. On a busy machine the time may
	// be up before it is written at all: then with more of it.
	outer := testContext(t)
	late := func() *eventstore.BarrierError {
		for patience := 20 * time.Millisecond; ; patience *= 2 {
			ctx, cancel := context.WithTimeout(outer, patience)
			err := eventstore.Barrier(ctx, r.store.Pool())
			cancel()
			var late *eventstore.BarrierError
			if errors.As(err, &late) {
				return late
			}
			if !errors.Is(err, context.DeadlineExceeded) || outer.Err() != nil {
				t.Fatalf("got %v, want a barrier that is not passed", err)
			}
		}
	}
	if err := late(); err.Slot != "" {
		t.Errorf("no daemon has ever run: got %v", err)
	}
	u := r.start(r.config(), nil)
	u.state(cdc.StateStreaming)
	listener := r.db.Conn(t)
	if _, err := listener.Exec(testContext(t), "LISTEN "+eventstore.NotifyChannel); err != nil {
		t.Fatal(err)
	}
	for n := range 30 {
		r.append("a/1", 1)
		r.barrier()
		if got := u.head.Pos(); got < int64(n+1) {
			// The barrier looks at the database, which is told first.
			<-u.head.After(int64(n))
		}
		if got := r.db.Value(t, `select count(*) from es.log`); got != strconv.Itoa(n+1) {
			t.Fatalf("behind barrier %d: %s events numbered", n+1, got)
		}
		if told, err := listener.WaitForNotification(testContext(t)); err != nil || told.Payload != strconv.Itoa(n+1) {
			t.Fatalf("notified of %+v, %v; want position %d", told, err, n+1)
		}
	}
	u.stop()
	if err := late(); err.Running || err.Slot != r.slot {
		t.Errorf("the daemon has stopped: got %v", err)
	}
}
