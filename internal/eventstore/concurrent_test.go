package eventstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"cdc/internal/cdctest"
	"cdc/internal/intent"
)

const writers = 16

// together runs f in 16 goroutines, each with random numbers of its own, and prints
// the seed of a failure.
func together(t testing.TB, f func(ctx context.Context, writer int, r *rand.Rand) error) {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	ctx := testContext(t)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			if err := f(ctx, w, rand.New(rand.NewPCG(seed, uint64(w)))); err != nil {
				t.Errorf("seed %d, writer %d: %v", seed, w, err)
			}
		})
	}
	wg.Wait()
}

// checkDense compares the versions of events with those of their streams.
func checkDense(t testing.TB, db *cdctest.DB) {
	t.Helper()
	rows := db.Query(t, `select s.stream, s.version, count(e), coalesce(min(e.version), 1), coalesce(max(e.version), 0) from es.stream s left join es.event e using (stream)
		group by 1, 2 having count(e) <> s.version or coalesce(min(e.version), 1) <> 1 or coalesce(max(e.version), 0) <> s.version`)
	if len(rows) > 0 {
		t.Errorf("stream, version, events, least and greatest version: %v", rows)
	}
}

func TestVersionsWithoutGapsUnderSixteenWriters(t *testing.T) {
	t.Parallel()
	s, db := newStore(t, "")
	rollback := errors.New("as the dice fell")
	var stored atomic.Int64
	together(t, func(ctx context.Context, w int, r *rand.Rand) error {
		for range 40 {
			b := one(fmt.Sprintf("a/%d", r.IntN(4)), intent.Any, "x")
			for range r.IntN(3) {
				b.Events = append(b.Events, one("", 0, "y").Events...)
			}
			err := pgx.BeginFunc(ctx, s.Pool(), func(tx pgx.Tx) error {
				if _, err := AppendTx(ctx, tx, []intent.Batch{b}); err != nil {
					return err
				}
				if r.IntN(3) == 0 {
					return rollback
				}
				return nil
			})
			if err != nil && !errors.Is(err, rollback) {
				return err
			}
			if err == nil {
				stored.Add(int64(len(b.Events)))
			}
		}
		return nil
	})
	checkDense(t, db)
	if got, want := db.Value(t, "select count(*) from es.event"), fmt.Sprint(stored.Load()); got != want {
		t.Errorf("got %s events, want the %s whose append was committed", got, want)
	}
}

func TestFiveHundredIDsHammeredBySixteenClients(t *testing.T) {
	t.Parallel()
	s, db := newStore(t, RoleWriter)
	calls := make([][]intent.Batch, 250)
	for i := range calls { // two events each, some calls with two streams
		calls[i] = []intent.Batch{one(fmt.Sprintf("a/%d", i%7), intent.Any, "x")}
		if i%3 == 0 {
			calls[i][0].Events = append(calls[i][0].Events, one("", 0, "y").Events...)
		} else {
			calls[i] = append(calls[i], one(fmt.Sprintf("b/%d", i%5), intent.Any, "y"))
		}
	}
	answers := make([]sync.Map, len(calls))
	var first atomic.Int64
	together(t, func(ctx context.Context, w int, r *rand.Rand) error {
		for _, i := range r.Perm(len(calls)) {
			receipt, err := s.Append(ctx, calls[i])
			if err != nil {
				return err
			}
			if !receipt.Duplicate {
				first.Add(1)
			}
			receipt.Duplicate = false
			answers[i].Store(fmt.Sprint(receipt), true)
		}
		return nil
	})
	if n := first.Load(); n != int64(len(calls)) {
		t.Errorf("%d answers say that they were the first, want %d", n, len(calls))
	}
	for i := range answers {
		n := 0
		answers[i].Range(func(any, any) bool { n++; return true })
		if n != 1 {
			t.Errorf("call %d has %d different answers", i, n)
		}
	}
	if got := db.Value(t, "select count(*) || ' ' || count(distinct id) from es.event"); got != "500 500" {
		t.Errorf("got %s, want 500 events", got)
	}
	checkDense(t, db)
}

// TestSameSingleEventAtOnce has the short way meet itself: the second waits for the
// stream's row with a look that is too old.
func TestSameSingleEventAtOnce(t *testing.T) {
	t.Parallel()
	s, db := newStore(t, "")
	ctx := testContext(t)
	for _, expect := range []intent.Expect{intent.Any, 1, intent.Some} {
		stream := "a/" + expect.String()
		mustAppend(t, s, one(stream, intent.None, "x"))
		b := one(stream, expect, "x")
		tx, err := s.Pool().Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(ctx) }() // of a test that has failed
		want, err := AppendTx(ctx, tx, []intent.Batch{b})
		if err != nil {
			t.Fatal(err)
		}
		second := make(chan error, 1)
		var got intent.Receipt
		go func() {
			var err error
			got, err = s.Append(ctx, []intent.Batch{b})
			second <- err
		}()
		waitBlocked(t, db, 1)
		if err := tx.Commit(ctx); err != nil {
			t.Fatal(err)
		}
		if err := <-second; err != nil {
			t.Fatalf("expect %s: %v", expect, err)
		}
		if !got.Duplicate || got.Token != want.Token || !slices.Equal(got.Streams, want.Streams) {
			t.Errorf("expect %s: got %+v, want %+v as a duplicate", expect, got, want)
		}
		checkDense(t, db)
	}
}

// waitBlocked returns when n sessions of the database wait for a lock.
func waitBlocked(t testing.TB, db *cdctest.DB, n int) {
	t.Helper()
	for ctx := testContext(t); ctx.Err() == nil; {
		if db.Value(t, "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()") == fmt.Sprint(n) {
			return
		}
	}
	t.Fatalf("there were never %d sessions waiting for a lock", n)
}

// TestConflictStorm has every call write one stream, or two, and check others, all
// of the same few, in whatever order. Nobody waits in a circle: 40P01 never.
func TestConflictStorm(t *testing.T) {
	t.Parallel()
	s, db := newStore(t, RoleWriter)
	var appended, conflicts atomic.Int64
	together(t, func(ctx context.Context, w int, r *rand.Rand) error {
		known := map[string]int64{}
		for range 60 {
			var batches []intent.Batch
			for i, n := range r.Perm(6)[:2+r.IntN(3)] {
				name := fmt.Sprintf("a/%d", n)
				b := intent.Batch{Stream: name, Expect: intent.Any}
				if v, ok := known[name]; ok && r.IntN(2) == 0 {
					b.Expect = intent.Expect(v)
				} else if !ok && r.IntN(4) == 0 {
					b.Expect = intent.None
				}
				if i == 0 || r.IntN(3) == 0 {
					b.Events = one("", 0, "x").Events
				}
				batches = append(batches, b)
			}
			receipt, err := s.Append(ctx, batches)
			var conflict *intent.ConflictError
			var pe *pgconn.PgError
			switch {
			case err == nil:
				appended.Add(1)
				for _, v := range receipt.Streams {
					known[v.Stream] = v.Version
				}
			case errors.As(err, &conflict):
				conflicts.Add(1)
				known[conflict.Stream] = conflict.Actual
			case errors.As(err, &pe):
				return fmt.Errorf("SQLSTATE %s: %w", pe.Code, err)
			default:
				return err
			}
		}
		return nil
	})
	checkDense(t, db)
	if appended.Load() == 0 || conflicts.Load() == 0 {
		t.Errorf("%d appended, %d conflicts: want some of both", appended.Load(), conflicts.Load())
	}
}

// TestOneOfManyExpectingTheSameVersion: of 16 who have seen the same version, one
// appends, each time.
func TestOneOfManyExpectingTheSameVersion(t *testing.T) {
	t.Parallel()
	s, db := newStore(t, RoleWriter)
	const rounds = 20
	var won [rounds]atomic.Int64
	together(t, func(ctx context.Context, w int, r *rand.Rand) error {
		for v := range rounds {
			for {
				_, err := s.Append(ctx, []intent.Batch{{Stream: "a/1", Expect: intent.Expect(v), Events: []intent.NewEvent{{ID: intent.NewID(), Type: "x", Data: json.RawMessage(`{}`)}}}})
				var conflict *intent.ConflictError
				if err == nil {
					won[v].Add(1)
				} else if !errors.As(err, &conflict) {
					return err
				} else if conflict.Actual < int64(v) {
					continue // the others are not so far yet
				}
				break
			}
		}
		return nil
	})
	for v := range won {
		if n := won[v].Load(); n != 1 {
			t.Errorf("version %d was appended to %d times", v, n)
		}
	}
	checkDense(t, db)
}

// TestCheckedStreamsHold: a stream that is only checked stays as it was found until
// the append has committed, also one that is not there.
func TestCheckedStreamsHold(t *testing.T) {
	t.Parallel()
	s, db := newStore(t, "")
	ctx := testContext(t)
	mustAppend(t, s, one("student/1", intent.None, "x"))
	for _, check := range []intent.Batch{{Stream: "student/1", Expect: 1}, {Stream: "student/2", Expect: intent.None}} {
		tx, err := s.Pool().Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(ctx) }() // of a test that has failed
		if _, err := AppendTx(ctx, tx, []intent.Batch{check, one("course/1", intent.Any, "x")}); err != nil {
			t.Fatal(err)
		}
		if check.Expect != intent.None {
			// Who checks as well does not wait, where there is a row to share.
			mustAppend(t, s, check, one("course/2", intent.Any, "x"))
		}
		done := make(chan error, 1)
		go func() {
			_, err := s.Append(ctx, []intent.Batch{one(check.Stream, check.Expect, "x")})
			done <- err
		}()
		waitBlocked(t, db, 1)
		if err := tx.Commit(ctx); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}
