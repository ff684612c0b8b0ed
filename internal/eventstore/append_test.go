package eventstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"cdc/internal/cdctest"
	"cdc/internal/intent"
)

// testLimit bounds what a test waits for in all.
const testLimit = 2 * time.Minute

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testLimit)
	t.Cleanup(cancel)
	return ctx
}

// newStore makes a database with a store and opens it as a role.
func newStore(t testing.TB, role string) (*Store, *cdctest.DB) {
	t.Helper()
	ctx := testContext(t)
	db := cdctest.Database(t)
	if _, err := Init(ctx, db.URL, InitOptions{}); err != nil {
		t.Fatal(err)
	}
	s, err := Open(ctx, Config{URL: db.URL, Role: role, MaxConns: 16})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, db
}

// one is a batch of one event with a fresh id.
func one(stream string, expect intent.Expect, typ string) intent.Batch {
	return intent.Batch{Stream: stream, Expect: expect, Events: []intent.NewEvent{{ID: intent.NewID(), Type: typ, Data: json.RawMessage(`{"n": 1}`)}}}
}

func TestAppendAndRead(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t, RoleWriter)
	ctx := testContext(t)
	b := one("course/ddia", intent.None, "student-enrolled")
	b.Events[0].Subjects = []string{"stu_9", `a "quoted", one`}
	r, err := s.Append(ctx, []intent.Batch{b})
	if err != nil {
		t.Fatal(err)
	}
	if r.Duplicate || r.Token != b.Events[0].ID || len(r.Streams) != 1 || r.Streams[0] != (intent.StreamVersion{Stream: "course/ddia", Version: 1}) {
		t.Fatalf("got receipt %+v", r)
	}
	again, err := s.Append(ctx, []intent.Batch{b})
	if err != nil || !again.Duplicate || again.Token != r.Token || again.Streams[0] != r.Streams[0] {
		t.Fatalf("repeated: got %+v, %v, want %+v as a duplicate", again, err, r)
	}
	var got []*intent.Event
	if err := s.Read(ctx, "course/ddia", 1, 0, func(e *intent.Event) error { got = append(got, e); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0].ID != b.Events[0].ID || string(got[0].Data) != `{"n": 1}` || string(got[0].Meta) != `{}` || len(got[0].Subjects) != 2 || got[0].Subjects[1] != `a "quoted", one` || got[0].Schema != 1 {
		t.Fatalf("got %d events, first %+v", len(got), got[0])
	}
}

// expectState fails unless err is of SQLSTATE code; "" is success.
func expectState(t testing.TB, err error, code string) {
	t.Helper()
	var pe *pgconn.PgError
	switch {
	case code == "" && err != nil:
		t.Fatalf("got error %v, want none", err)
	case code != "" && !errors.As(err, &pe):
		t.Fatalf("got %v, want SQLSTATE %s", err, code)
	case code != "" && pe.Code != code:
		t.Fatalf("got SQLSTATE %s (%s), want %s", pe.Code, pe.Message, code)
	}
}

// mustAppend appends and returns the receipt.
func mustAppend(t testing.TB, s *Store, batches ...intent.Batch) intent.Receipt {
	t.Helper()
	r, err := s.Append(testContext(t), batches)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestExpectedVersions(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t, RoleWriter)
	ctx := testContext(t)
	for _, have := range []int64{0, 1, 3} {
		for _, expect := range []intent.Expect{intent.Any, intent.Some, intent.None, 1, 2, 3, 4} {
			for _, checked := range []bool{false, true} {
				name := fmt.Sprintf("have %d, expect %s, only checked %t", have, expect, checked)
				stream := fmt.Sprintf("c/%d-%s-%t", have, expect, checked)
				for range have {
					mustAppend(t, s, one(stream, intent.Any, "x"))
				}
				ok := expect == intent.Any || expect == intent.Some && have > 0 || int64(expect) == have
				b := []intent.Batch{one(stream, expect, "x")}
				want := have + 1
				if checked {
					b = []intent.Batch{{Stream: stream, Expect: expect}, one("other/"+stream, intent.Any, "x")}
					want = have
				}
				r, err := s.Append(ctx, b)
				var conflict *intent.ConflictError
				switch {
				case ok && err != nil:
					t.Errorf("%s: got %v, want success", name, err)
				case ok && r.Streams[0] != (intent.StreamVersion{Stream: stream, Version: want}):
					t.Errorf("%s: got %+v, want version %d", name, r.Streams, want)
				case !ok && !errors.As(err, &conflict):
					t.Errorf("%s: got %v, want a conflict", name, err)
				case !ok && (conflict.Stream != stream || conflict.Expected != expect || conflict.Actual != have):
					t.Errorf("%s: got conflict %+v", name, *conflict)
				}
			}
		}
	}
}

func TestAppendToSeveralStreams(t *testing.T) {
	t.Parallel()
	s, db := newStore(t, RoleWriter)
	mustAppend(t, s, one("b/1", intent.None, "first"))
	mustAppend(t, s, one("student/9", intent.None, "registered"))
	b := []intent.Batch{
		{Stream: "student/9", Expect: 1},
		{Stream: "b/1", Expect: 1, Events: []intent.NewEvent{
			{ID: intent.NewID(), Type: "p", Data: json.RawMessage(`{}`)}, {ID: intent.NewID(), Type: "q", Schema: 3, Data: json.RawMessage(`{}`), Meta: json.RawMessage(`{"actor":"me"}`)}}},
		{Stream: "a/1", Expect: intent.None, Events: []intent.NewEvent{{ID: intent.NewID(), Type: "r", Data: json.RawMessage(`{}`)}}},
	}
	r := mustAppend(t, s, b...)
	want := intent.Receipt{Streams: []intent.StreamVersion{{Stream: "a/1", Version: 1}, {Stream: "b/1", Version: 3}, {Stream: "student/9", Version: 1}}, Token: b[2].Events[0].ID}
	if !reflect.DeepEqual(r, want) {
		t.Errorf("got %+v, want %+v", r, want)
	}
	got := db.Value(t, "select string_agg(type || version || '.' || schema || meta, ' ' order by ctid) from es.event where type in ('p', 'q', 'r')")
	if want := `p2.1{} q3.3{"actor": "me"} r1.1{}`; got != want {
		t.Errorf("stored in the order of the call: got %s, want %s", got, want)
	}
	mustAppend(t, s, one("student/9", 1, "left"), one("b/1", 3, "later"))
	again := mustAppend(t, s, b...)
	want.Duplicate = true
	if !reflect.DeepEqual(again, want) {
		t.Errorf("repeated: got %+v, want %+v", again, want)
	}
}

func TestRepeatedBeforeVersionsAndClosing(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t, RoleWriter)
	ctx := testContext(t)
	b := one("a/1", intent.None, "x")
	first := mustAppend(t, s, b)
	mustAppend(t, s, one("a/1", 1, "x"), one("a/2", intent.Any, "x"))
	if err := s.CloseStream(ctx, "a/1", 2); err != nil {
		t.Fatal(err)
	}
	for _, expect := range []intent.Expect{intent.None, intent.Any, intent.Some, 7} {
		b.Expect = expect
		r := mustAppend(t, s, b)
		if !r.Duplicate || !reflect.DeepEqual(r.Streams, first.Streams) || r.Token != first.Token {
			t.Errorf("expect %s: got %+v, want %+v as a duplicate", expect, r, first)
		}
	}
}

func TestAppendOfWhichSomeIsStored(t *testing.T) {
	t.Parallel()
	s, db := newStore(t, RoleWriter)
	ctx := testContext(t)
	stored := one("a/1", intent.None, "x")
	mustAppend(t, s, stored)
	id := stored.Events[0].ID
	fresh := one("a/1", intent.Any, "x").Events[0]
	for name, b := range map[string][]intent.Batch{
		"one of two":          {{Stream: "a/1", Expect: intent.Any, Events: []intent.NewEvent{stored.Events[0], fresh}}},
		"in another stream":   {{Stream: "a/2", Expect: intent.Any, Events: stored.Events}},
		"with another type":   {{Stream: "a/1", Expect: intent.Any, Events: []intent.NewEvent{{ID: id, Type: "y", Data: json.RawMessage(`{}`)}}}},
		"of one of two":       {{Stream: "a/2", Expect: intent.Any, Events: []intent.NewEvent{fresh}}, stored},
		"of streams, swapped": {{Stream: "a/3", Expect: intent.Any, Events: stored.Events}, {Stream: "a/1", Expect: 1}},
	} {
		_, err := s.Append(ctx, b)
		var conflict *intent.ConflictError
		if !errors.As(err, &conflict) || conflict.Expected != intent.Any {
			t.Errorf("%s: got %v, want a conflict", name, err)
		}
	}
	if n := db.Value(t, "select count(*) from es.event"); n != "1" {
		t.Errorf("got %s events, want 1", n)
	}
}

func TestClosedStream(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t, RoleWriter)
	ctx := testContext(t)
	mustAppend(t, s, one("a/1", intent.None, "x"))
	var conflict *intent.ConflictError
	if err := s.CloseStream(ctx, "a/1", 5); !errors.As(err, &conflict) || conflict.Actual != 1 {
		t.Fatalf("close at another version: got %v", err)
	}
	if err := s.CloseStream(ctx, "a/none", intent.Any); !errors.Is(err, ErrNotFound) {
		t.Fatalf("close what is not there: got %v", err)
	}
	for range 2 {
		if err := s.CloseStream(ctx, "a/1", intent.Some); err != nil {
			t.Fatal(err)
		}
	}
	for name, b := range map[string][]intent.Batch{
		"alone":        {one("a/1", intent.Any, "x")},
		"among others": {one("a/0", intent.Any, "x"), one("a/1", intent.Any, "x")},
		"expected":     {one("a/1", 7, "x")},
	} {
		_, err := s.Append(ctx, b)
		var closed *intent.ClosedError
		if !errors.As(err, &closed) || closed.Stream != "a/1" {
			t.Errorf("%s: got %v, want that a/1 is closed", name, err)
		}
	}
	mustAppend(t, s, intent.Batch{Stream: "a/1", Expect: 1}, one("a/2", intent.None, "x")) // to check it is no writing
}

func TestAppendInTheCallersTransaction(t *testing.T) {
	t.Parallel()
	s, db := newStore(t, "")
	ctx := testContext(t)
	db.Exec(t, "create table mine (n int)")
	rollback := errors.New("not this one")
	for name, end := range map[string]error{"rolled back": rollback, "committed": nil} {
		b := one("a/"+name, intent.None, "x")
		err := pgx.BeginFunc(ctx, s.Pool(), func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "insert into mine values (1)"); err != nil {
				return err
			}
			if _, err := AppendTx(ctx, tx, []intent.Batch{b}); err != nil {
				return err
			}
			// A conflict costs a savepoint, not the transaction.
			err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
				_, err := AppendTx(ctx, tx, []intent.Batch{one("a/"+name, 7, "x")})
				return err
			})
			var conflict *intent.ConflictError
			if !errors.As(err, &conflict) || conflict.Actual != 1 {
				return fmt.Errorf("got %w, want a conflict with version 1", err)
			}
			return end
		})
		if !errors.Is(err, end) {
			t.Fatalf("%s: got %v", name, err)
		}
	}
	if got := db.Value(t, "select (select count(*) from mine) || ' ' || string_agg(stream || version, ' ') from es.event"); got != "1 a/committed1" {
		t.Errorf("got %s", got)
	}
	if got := db.Value(t, "select string_agg(stream, ' ') from es.stream"); got != "a/committed" {
		t.Errorf("streams: got %s", got)
	}
}

func TestAppendFromPlainSQL(t *testing.T) {
	t.Parallel()
	_, db := newStore(t, "")
	rows := db.Query(t, `select * from es.append(array['course/ddia', 'student/9'], array[0, null],
		array['course/ddia'], array['01980000-0000-7000-8000-000000000001']::uuid[], array['student-enrolled'],
		array['{"course": "ddia"}']::jsonb[], ev_subjects => array['{stu_9,"a b"}'])`)
	if want := [][]string{{"course/ddia", "1", "f", "01980000-0000-7000-8000-000000000001"}, {"student/9", "0", "f", "01980000-0000-7000-8000-000000000001"}}; !reflect.DeepEqual(rows, want) {
		t.Errorf("got %v, want %v", rows, want)
	}
	const call = `select * from es.append('[{"stream": "course/ddia", "expect": 1, "events": [
		{"id": "01980000-0000-7000-8000-000000000002", "type": "a", "data": {"n": 1}, "meta": {"actor": "me"}, "schema": 2, "subjects": ["x", "y,z"]},
		{"id": "01980000-0000-7000-8000-000000000003", "type": "b", "data": {}}]},
		{"stream": "course/other", "expect": "none"}, {"stream": "course/third"}]')`
	for _, duplicate := range []string{"f", "t"} {
		rows = db.Query(t, call)
		want := [][]string{}
		for _, w := range []string{"course/ddia 3", "course/other 0", "course/third 0"} {
			name, version, _ := strings.Cut(w, " ")
			want = append(want, []string{name, version, duplicate, "01980000-0000-7000-8000-000000000003"})
		}
		if !reflect.DeepEqual(rows, want) {
			t.Errorf("got %v, want %v", rows, want)
		}
	}
	rows = db.Query(t, "select version, type, schema, data, meta, subjects, pos from es.read('course/ddia', 1, 2)")
	want := [][]string{{"1", "student-enrolled", "1", `{"course": "ddia"}`, "{}", `{stu_9,"a b"}`, "NULL"}, {"2", "a", "2", `{"n": 1}`, `{"actor": "me"}`, `{x,"y,z"}`, "NULL"}}
	if !reflect.DeepEqual(rows, want) {
		t.Errorf("got %v, want %v", rows, want)
	}
}

// TestPlansOutliveSmallTables: a session whose plans were made when the tables had a
// few rows, and were known to, must not read them whole later.
func TestPlansOutliveSmallTables(t *testing.T) {
	t.Parallel()
	s, db := newStore(t, "")
	ctx := testContext(t)
	for i := range 20 {
		mustAppend(t, s, one(fmt.Sprintf("a/%d", i), intent.None, "x"))
	}
	number(t, db)
	makeView(t, db, "now", "inline", "live", "null", 0)
	db.Exec(t, "analyze")
	conn := db.Conn(t)
	for i := range 20 { // beyond the executions after which a plan is kept
		tx, err := conn.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		first := one(fmt.Sprintf("a/%d", i), 1, "x")
		for _, batches := range [][]intent.Batch{{first}, {first}, {one("a/0", intent.Any, "x"), one("b/0", intent.Any, "x")}} {
			if _, err := AppendTx(ctx, tx, batches); err != nil {
				t.Fatal(err)
			}
		}
		var scans []string
		if err := tx.QueryRow(ctx, `select coalesce(array_agg(relname || ' ' || seq_scan), '{}') from pg_stat_xact_user_tables
			where schemaname = 'es' and relname in ('event', 'stream', 'log') and seq_scan > 0
			and (select count(*) from es.read('a/0')) + (select count(*) from es.read_log(0, 5)) + es.head() > 0`).Scan(&scans); err != nil {
			t.Fatal(err)
		}
		if len(scans) > 0 {
			t.Fatalf("round %d: tables were read whole: %v", i, scans)
		}
		if err := tx.Commit(ctx); err != nil {
			t.Fatal(err)
		}
	}
}
