package eventstore

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"cdc/internal/cdctest"
	"cdc/internal/intent"
)

// makeView writes a row of es.view.
func makeView(t testing.TB, db *cdctest.DB, name, mode, state, database string, pos int64) {
	t.Helper()
	if database != "null" {
		database = "'" + database + "'"
	}
	db.Exec(t, fmt.Sprintf(`insert into es.view (name, hash, definition, mode, database, state, pos) values ('%s', '', '{}', '%s', %s, '%s', %d)`, name, mode, database, state, pos))
}

func TestWait(t *testing.T) {
	t.Parallel()
	s, db := newStore(t, RoleReader)
	ctx := testContext(t)
	makeView(t, db, "slow", "async", "live", "null", 1)
	makeView(t, db, "slow", "async", "retired", "null", 99)
	makeView(t, db, "now", "inline", "live", "null", 0)
	makeView(t, db, "far", "inline", "live", "host:5432/b", 0)
	makeView(t, db, "new", "async", "building", "null", 99)
	makeView(t, db, "old", "async", "retired", "null", 99)
	var ids [3]intent.ID
	for i := range ids {
		b := one("a/1", intent.Any, "x")
		ids[i] = b.Events[0].ID
		mustAppend(t, open(t, s, RoleWriter), b)
		if i < 2 {
			number(t, db)
		}
	}
	db.Exec(t, fmt.Sprintf("insert into es.decision (gid, events) values ('es:store', '{%s}')", ids[1]))
	for _, c := range []struct {
		view  string
		event intent.ID
		pos   int64
		code  string
	}{
		{"slow", ids[0], 1, ""},
		{"slow", ids[1], 0, codeWaitTimeout}, // numbered, not applied
		{"slow", ids[2], 0, codeWaitTimeout}, // not numbered
		{"now", ids[1], 2, ""},
		{"now", ids[2], 0, ""}, // the view has it before it is numbered
		{"far", ids[0], 1, ""},
		{"far", ids[1], 0, codeWaitTimeout}, // decided, perhaps not committed there
		{"new", ids[0], 0, codeWaitTimeout}, // there is nothing to read yet
		{"old", ids[0], 0, codeNotFound},
		{"none", ids[0], 0, codeNotFound},
		{"slow", intent.NewID(), 0, codeNotFound},
		{"", ids[1], 2, ""},
		{"", ids[2], 0, codeWaitTimeout},
		{"", intent.NewID(), 0, codeNotFound},
	} {
		for _, timeout := range []time.Duration{-time.Second, 0, 30 * time.Millisecond} {
			if c.code == "" {
				timeout += time.Minute
			}
			name := fmt.Sprintf("view %q, timeout %s", c.view, timeout)
			var got *int64
			err := s.Pool().QueryRow(ctx, "select es.wait($1, $2, $3)", c.view, [16]byte(c.event), timeout).Scan(&got)
			var pe *pgconn.PgError
			if errors.As(err, &pe) != (c.code != "") || pe != nil && pe.Code != c.code || err == nil && value(got) != c.pos {
				t.Errorf("%s: es.wait gave %d, %v, want %d, %q", name, value(got), err, c.pos, c.code)
			}
			pos, err := s.Wait(ctx, c.view, c.event, timeout)
			want := map[string]error{codeWaitTimeout: ErrTimeout, codeNotFound: ErrNotFound}[c.code]
			if pos != c.pos || !errors.Is(err, want) {
				t.Errorf("%s: Wait gave %d, %v, want %d, %v", name, pos, err, c.pos, want)
			}
		}
	}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.Wait(canceled, "slow", ids[2], time.Minute); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: got %v", err)
	}
}

func value(n *int64) int64 {
	if n == nil {
		return 0
	}
	return *n
}

// TestWaitUntilApplied moves the view while two wait for it, in SQL and in Go.
func TestWaitUntilApplied(t *testing.T) {
	t.Parallel()
	s, db := newStore(t, RoleWriter)
	ctx := testContext(t)
	makeView(t, db, "seats", "async", "live", "null", 0)
	b := one("a/1", intent.None, "x")
	r := mustAppend(t, s, b)
	number(t, db)
	answers := make(chan error, 2)
	go func() {
		pos, err := s.Wait(ctx, "seats", r.Token, time.Minute)
		if err == nil && pos != 1 {
			err = fmt.Errorf("got position %d, want 1", pos)
		}
		answers <- err
	}()
	go func() {
		_, err := s.Pool().Exec(ctx, "select es.wait('seats', $1, '1 minute')", [16]byte(r.Token))
		answers <- err
	}()
	for db.Value(t, "select count(*) from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()") != "1" {
		if ctx.Err() != nil {
			t.Fatal("nobody waits")
		}
	}
	db.Exec(t, "update es.view set pos = 1")
	for range 2 {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
}

// TestWaitTooEarly asks in a transaction that cannot see the answer.
func TestWaitTooEarly(t *testing.T) {
	t.Parallel()
	s, db := newStore(t, RoleWriter)
	ctx := testContext(t)
	makeView(t, db, "now", "inline", "live", "null", 0)
	stored := one("a/1", intent.None, "x")
	mustAppend(t, s, stored)
	number(t, db)
	older := one("a/6", intent.None, "x")
	mustAppend(t, s, older)
	wait := func(tx pgx.Tx, id intent.ID, want string) {
		t.Helper()
		inner, err := tx.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, view := range []string{"", "now"} {
			_, err = inner.Exec(ctx, "select es.wait($1, $2, '10 ms')", view, [16]byte(id))
			expectState(t, err, want)
			if err != nil {
				break
			}
		}
		_ = inner.Rollback(ctx)
	}
	for _, level := range []pgx.TxIsoLevel{pgx.RepeatableRead, pgx.Serializable} {
		tx, err := s.Pool().BeginTx(ctx, pgx.TxOptions{IsoLevel: level})
		if err != nil {
			t.Fatal(err)
		}
		wait(tx, stored.Events[0].ID, codeTooEarly)
		_ = tx.Rollback(ctx)
	}
	tx, err := s.Pool().Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(ctx) }() // of a test that has failed
	own, nested, other := one("a/2", intent.None, "x"), one("a/3", intent.None, "x"), one("a/4", intent.None, "x")
	if _, err := AppendTx(ctx, tx, []intent.Batch{own}); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, s, other) // with a greater id of a transaction than ours
	savepoint, err := tx.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := AppendTx(ctx, savepoint, []intent.Batch{nested}); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, s, one("a/5", intent.None, "x"))
	wait(savepoint, nested.Events[0].ID, codeTooEarly)
	if err := savepoint.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	wait(tx, own.Events[0].ID, codeTooEarly)
	wait(tx, nested.Events[0].ID, codeTooEarly)
	wait(tx, stored.Events[0].ID, "")
	wait(tx, other.Events[0].ID, codeWaitTimeout)
	wait(tx, older.Events[0].ID, codeWaitTimeout)
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Wait(ctx, "now", nested.Events[0].ID, time.Minute); err != nil {
		t.Errorf("after the commit: %v", err)
	}
	var early error
	err = pgx.BeginFunc(ctx, s.Pool(), func(tx pgx.Tx) error {
		_, early = tx.Exec(ctx, "select es.wait('', $1)", [16]byte(intent.NewID()))
		return early
	})
	if !errors.Is(typed(err), ErrNotFound) {
		t.Errorf("got %v", err)
	}
}
