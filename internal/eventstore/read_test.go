package eventstore

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"cdc/internal/cdctest"
	"cdc/internal/intent"
)

// number gives positions to all events that have none, as a LogWriter would, in the
// order in which they were stored.
func number(t testing.TB, db *cdctest.DB) {
	t.Helper()
	db.Exec(t, `insert into es.log (pos, event, lsn, tx) select (select coalesce(max(pos), 0) from es.log) + row_number() over (order by e.ctid), e.id, '1/AB00', e.xmin::text::bigint
		from es.event e where not exists (select from es.log l where l.event = e.id)`)
}

func TestReadInPages(t *testing.T) {
	t.Parallel()
	s, db := newStore(t, RoleReader)
	ctx := testContext(t)
	const events = 2*readPage + 7
	db.Exec(t, fmt.Sprintf("select * from es.append('{a/1}', '{0}', array_fill('a/1'::text, '{%[1]d}'), array(select gen_random_uuid() from generate_series(1, %[1]d)), array_fill('x'::text, '{%[1]d}'), array_fill('{}'::jsonb, '{%[1]d}'))", events))
	for _, c := range []struct{ from, to, first, n int64 }{
		{0, 0, 1, events}, {1, 0, 1, events}, {2, 5, 2, 4}, {1, readPage, 1, readPage}, {1, readPage + 1, 1, readPage + 1}, {events, 0, events, 1},
		{events + 1, 0, 0, 0}, {5, 4, 0, 0}, {-7, 2, 1, 2}, {readPage + 8, 0, readPage + 8, readPage},
	} {
		var got []int64
		err := s.Read(ctx, "a/1", c.from, c.to, func(e *intent.Event) error { got = append(got, e.Version); return nil })
		if err != nil || int64(len(got)) != c.n || c.n > 0 && got[0] != c.first {
			t.Errorf("from %d to %d: got %d events, %v, want %d from %d", c.from, c.to, len(got), err, c.n, c.first)
		}
		for i, v := range got {
			if v != c.first+int64(i) {
				t.Fatalf("from %d to %d: event %d has version %d", c.from, c.to, i, v)
			}
		}
	}
	if err := s.Read(ctx, "a/none", 1, 0, func(*intent.Event) error { return errors.New("called") }); err != nil {
		t.Error(err)
	}
	stop := errors.New("enough")
	if err := s.Read(ctx, "a/1", 1, 0, func(*intent.Event) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v, want the error of the function", err)
	}
}

func TestLog(t *testing.T) {
	t.Parallel()
	s, db := newStore(t, RoleWriter)
	owner := open(t, s, "")
	ctx := testContext(t)
	read := func(after int64, limit int, types ...string) (got []int64, last int64) {
		t.Helper()
		last, err := s.Log(ctx, after, limit, types, func(e *intent.Event) error { got = append(got, e.Position); return nil })
		if err != nil {
			t.Fatal(err)
		}
		return got, last
	}
	check := func(after int64, limit int, types []string, want []int64, wantLast int64) {
		t.Helper()
		if got, last := read(after, limit, types...); !reflect.DeepEqual(got, want) || last != wantLast {
			t.Errorf("after %d, limit %d, types %v: got %v up to %d, want %v up to %d", after, limit, types, got, last, want, wantLast)
		}
	}
	check(0, 10, nil, nil, 0)
	check(5, 10, nil, nil, 5)
	var first, second intent.Batch
	for i := range 6 { // types x y x y x y
		b := one("a/1", intent.Any, []string{"x", "y"}[i%2])
		mustAppend(t, s, b)
		if i == 0 {
			first = b
		}
		second = b
	}
	check(0, 10, nil, nil, 0) // not numbered: not in the log
	number(t, db)
	mustAppend(t, s, one("a/1", intent.Any, "x"))
	check(0, 10, nil, []int64{1, 2, 3, 4, 5, 6}, 6)
	check(0, 6, nil, []int64{1, 2, 3, 4, 5, 6}, 6)
	check(0, 2, nil, []int64{1, 2}, 2)
	check(4, 2, nil, []int64{5, 6}, 6)
	check(6, 2, nil, nil, 6)
	check(9, 2, nil, nil, 9)
	check(0, 10, []string{"x"}, []int64{1, 3, 5}, 6)
	check(0, 2, []string{"x"}, []int64{1, 3}, 3)
	check(3, 1, []string{"y", "z"}, []int64{4}, 4)
	check(0, 10, []string{"z"}, nil, 6)
	stop := errors.New("enough")
	last, err := s.Log(ctx, 0, 10, nil, func(e *intent.Event) error {
		if e.Position == 3 {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) || last != 2 {
		t.Errorf("stopped: got %d, %v, want 2", last, err)
	}
	if pos, err := s.Head(ctx); err != nil || pos != 6 {
		t.Errorf("head: got %d, %v", pos, err)
	}

	e, err := owner.Event(ctx, first.Events[0].ID)
	if err != nil || e.Position != 1 || e.LSN != 0x10000AB00 || e.Tx == 0 || e.Stream != "a/1" || e.Version != 1 || e.At.Location() != time.UTC {
		t.Fatalf("got %+v, %v", e, err)
	}
	if _, err := owner.Event(ctx, intent.NewID()); !errors.Is(err, ErrNotFound) {
		t.Errorf("an event that is not stored: got %v", err)
	}
	events, err := owner.EventsOfTx(ctx, e.Tx)
	if err != nil || len(events) != 1 || !reflect.DeepEqual(events[0], *e) {
		t.Errorf("of its transaction: got %+v, %v", events, err)
	}
	if events, err := owner.EventsOfTx(ctx, 1); err != nil || len(events) != 0 {
		t.Errorf("of another: got %+v, %v", events, err)
	}
	if e, err := owner.Event(ctx, second.Events[0].ID); err != nil || e.Position != 6 {
		t.Errorf("got %+v, %v", e, err)
	}
}

func TestAlarms(t *testing.T) {
	t.Parallel()
	s, db := newStore(t, RoleOwner)
	ctx := testContext(t)
	id := intent.NewID()
	db.Exec(t, fmt.Sprintf("insert into es.alarm (lsn, tx, operation, event, at) values ('0/10', 7, 'update', '%s', '2026-01-02 03:04:05+01'), ('0/20', 8, 'truncate', null, now())", id))
	got, err := s.Alarms(ctx, false)
	want := Alarm{ID: 1, LSN: 0x10, Tx: 7, Operation: "update", Event: id, At: time.Date(2026, 1, 2, 2, 4, 5, 0, time.UTC)}
	if err != nil || len(got) != 2 || got[0] != want || !got[1].Event.IsZero() {
		t.Fatalf("got %+v, %v, want %+v first", got, err, want)
	}
	for _, want := range []int{2, 0} {
		if n, err := s.AcknowledgeAlarms(ctx); err != nil || n != want {
			t.Errorf("acknowledged %d, %v, want %d", n, err, want)
		}
	}
	if got, err = s.Alarms(ctx, false); err != nil || len(got) != 0 {
		t.Errorf("open: got %+v, %v", got, err)
	}
	if got, err = s.Alarms(ctx, true); err != nil || len(got) != 2 || got[0].Acknowledged.IsZero() {
		t.Errorf("all: got %+v, %v", got, err)
	}
}
