package eventstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"cdc/internal/cdctest"
	"cdc/internal/intent"
)

func TestState(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t, "")
	ctx := testContext(t)
	install(t, s, university())
	reader := open(t, s, RoleReader)
	if _, err := s.Append(ctx, []intent.Batch{{Stream: "course/ddia", Events: []intent.NewEvent{
		{ID: intent.NewID(), Type: "student-enrolled", Data: json.RawMessage(`{"course": "ddia", "student": "ann"}`)},
		{ID: intent.NewID(), Type: "student-enrolled", Data: json.RawMessage(`{"course": "ddia", "student": "bob"}`)},
		{ID: intent.NewID(), Type: "enrolment-cancelled", Schema: 1, Data: json.RawMessage(`{"course": "ddia", "student": "ann"}`), Meta: json.RawMessage(`{"actor": "dean"}`)},
	}}}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		stream  string
		at      At
		version int64
		want    string
	}{
		{"course/ddia", At{}, 3, `{"last": "dean", "version": 3, "students": ["bob"]}`},
		{"course/ddia", At{Version: 3}, 3, `{"last": "dean", "version": 3, "students": ["bob"]}`},
		{"course/ddia", At{Version: 99}, 3, `{"last": "dean", "version": 3, "students": ["bob"]}`},
		{"course/ddia", At{Version: 2}, 2, `{"last": null, "students": ["ann", "bob"]}`},
		{"course/ddia", At{Version: 1}, 1, `{"last": null, "students": ["ann"]}`},
		{"course/ddia", At{Time: time.Now().Add(-time.Hour)}, 0, `{"last": null, "students": []}`},
		{"course/ddia", At{Version: 2, Time: time.Now().Add(time.Hour)}, 2, `{"last": null, "students": ["ann", "bob"]}`},
		{"course/none", At{}, 0, `{"last": null, "students": []}`},
		{"course", At{Version: 5}, 0, `{"last": null, "students": []}`},
	} {
		st, err := reader.State(ctx, c.stream, c.at)
		if err != nil || st.Stream != c.stream || st.Version != c.version || string(st.State) != c.want {
			t.Errorf("%s at %v: got %+v %s, %v\nwant %d %s", c.stream, c.at, st, st.State, err, c.version, c.want)
		}
	}
	if _, err := reader.State(ctx, "room/1", At{}); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), `category "room" has no state`) {
		t.Errorf("without a fold: got %v", err)
	}
	var invalid *intent.InvalidError
	if _, err := reader.State(ctx, "course/ddia", At{Version: -1}); !errors.As(err, &invalid) {
		t.Errorf("version -1: got %v", err)
	}
}

// open opens the store of s as another role.
func open(t testing.TB, s *Store, role string) *Store {
	t.Helper()
	as, err := Open(testContext(t), Config{URL: s.pool.Config().ConnString(), Role: role})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(as.Close)
	return as
}

// TestStateAtATimeWhileTheClockGoesBack: the state at a time is that of the last
// version appended then or before, with every version before it.
func TestStateAtATimeWhileTheClockGoesBack(t *testing.T) {
	t.Parallel()
	s, db := newStore(t, "")
	ctx := testContext(t)
	install(t, s, counting(0))
	at := func(minute int) time.Time { return time.Date(2026, 3, 1, 10, minute, 0, 0, time.UTC) }
	store(t, db, "n/a", []int{10, 20, 15, 30, 30})
	for _, c := range []struct {
		minute int
		want   int64
	}{{9, 0}, {10, 1}, {14, 1}, {15, 3}, {19, 3}, {20, 3}, {29, 3}, {30, 5}, {59, 5}} {
		st, err := s.State(ctx, "n/a", At{Time: at(c.minute)})
		if err != nil || st.Version != c.want {
			t.Errorf("at minute %d: got %+v, %v, want version %d", c.minute, st, err, c.want)
		}
	}
	if st, err := s.State(ctx, "n/a", At{Version: 2, Time: at(16)}); err != nil || st.Version != 1 {
		t.Errorf("version 2 at minute 16: got %+v, %v, want version 1: the last of the first two appended by then", st, err)
	}
}

// counting are definitions of a state that counts.
func counting(snapshots int) intent.Definitions {
	return intent.Definitions{Undeclared: true, Snapshots: snapshots, Folds: []intent.Fold{{Category: "n", Initial: json.RawMessage("0"),
		When: map[string]string{"added": "to_jsonb((:state)::int + 1)"}}}}
}

// store puts events of type added into a stream with these minutes as their times,
// past es.append, which takes the clock's.
func store(t testing.TB, db *cdctest.DB, stream string, minutes []int) {
	t.Helper()
	sql := []string{fmt.Sprintf("insert into es.stream values (%s, %d)", intent.Literal(stream), len(minutes))}
	for i, m := range minutes {
		sql = append(sql, fmt.Sprintf("insert into es.event (id, stream, version, type, data, at) values (gen_random_uuid(), %s, %d, 'added', '{}', '2026-03-01 10:%02d:00Z')", intent.Literal(stream), i+1, m))
	}
	db.Exec(t, strings.Join(sql, ";"))
}

func TestSnapshots(t *testing.T) {
	t.Parallel()
	s, db := newStore(t, "")
	ctx := testContext(t)
	install(t, s, counting(3))
	minutes := make([]int, 10)
	store(t, db, "n/a", minutes)
	snapshot := func() string { return fmt.Sprint(db.Query(t, "select version, state from es.snapshot")) }
	state := func(version int64, want string) {
		t.Helper()
		if st, err := s.State(ctx, "n/a", At{Version: version}); err != nil || string(st.State) != want {
			t.Errorf("version %d: got %s, %v, want %s", version, st.State, err, want)
		}
	}
	state(3, "3")
	if got := snapshot(); got != "[]" {
		t.Errorf("after three: got %s, want none", got)
	}
	state(4, "4")
	state(6, "6")
	if got := snapshot(); got != "[[4 4]]" {
		t.Errorf("got %s, want that of version 4: two more were not enough", got)
	}
	state(10, "10")
	state(4, "4") // an older one does not take the place of a newer
	state(9, "9")
	if got := snapshot(); got != "[[10 10]]" {
		t.Errorf("got %s, want that of version 10", got)
	}
	// It is begun at: a wrong one shows.
	db.Exec(t, "update es.snapshot set version = 8, state = '800'")
	state(10, "802")
	state(7, "7")
	// Another fold does not see it, and takes its place.
	d := counting(3)
	d.Folds[0].Initial = json.RawMessage("100")
	install(t, s, d)
	state(10, "110")
	if got := snapshot(); got != "[[10 110]]" {
		t.Errorf("got %s, want that of the new fold", got)
	}
	install(t, s, intent.Definitions{Undeclared: true})
	if got := snapshot(); got != "[]" {
		t.Errorf("got %s, want none of a fold that is gone", got)
	}
}

// TestStateWhereNothingMayBeWritten: a snapshot is no condition of an answer.
func TestStateWhereNothingMayBeWritten(t *testing.T) {
	t.Parallel()
	s, db := newStore(t, "")
	ctx := testContext(t)
	install(t, s, counting(1))
	store(t, db, "n/a", make([]int, 5))
	for _, o := range []pgx.TxOptions{{AccessMode: pgx.ReadOnly}, {IsoLevel: pgx.RepeatableRead}, {IsoLevel: pgx.Serializable}} {
		if err := pgx.BeginTxFunc(ctx, db.Conn(t), o, func(tx pgx.Tx) error {
			var version int64
			var state string
			if err := tx.QueryRow(ctx, "select version, state::text from es.state('n/a')").Scan(&version, &state); err != nil || state != "5" {
				return fmt.Errorf("got %d %s: %w", version, state, err)
			}
			return nil
		}); err != nil {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if got := db.Value(t, "select count(*) from es.snapshot"); got != "0" {
		t.Errorf("%s snapshots", got)
	}
	// While another transaction holds the snapshot's place, nobody waits for it.
	conn := db.Conn(t)
	tx, err := conn.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(ctx) }()
	if _, err := tx.Exec(ctx, "select es.state('n/a')"); err != nil {
		t.Fatal(err)
	}
	if st, err := s.State(ctx, "n/a", At{}); err != nil || string(st.State) != "5" {
		t.Errorf("got %s, %v", st.State, err)
	}
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if got := db.Value(t, "select state from es.snapshot"); got != "5" {
		t.Errorf("got %s", got)
	}
}

// TestStateSeesTheOwnTransaction: what was appended before in it, and its snapshot
// goes where the transaction goes.
func TestStateSeesTheOwnTransaction(t *testing.T) {
	t.Parallel()
	s, db := newStore(t, "")
	ctx := testContext(t)
	install(t, s, counting(1))
	tx, err := s.pool.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(ctx) }()
	var b intent.Batch
	b.Stream = "n/a"
	for range 3 {
		b.Events = append(b.Events, intent.NewEvent{ID: intent.NewID(), Type: "added", Data: json.RawMessage("{}")})
	}
	if _, err := AppendTx(ctx, tx, []intent.Batch{b}); err != nil {
		t.Fatal(err)
	}
	var state string
	if err := tx.QueryRow(ctx, "select state::text from es.state('n/a')").Scan(&state); err != nil || state != "3" {
		t.Errorf("inside: got %s, %v", state, err)
	}
	if err := tx.Rollback(ctx); err != nil {
		t.Fatal(err)
	}
	if st, err := s.State(ctx, "n/a", At{}); err != nil || st.Version != 0 || string(st.State) != "0" {
		t.Errorf("after the rollback: got %+v, %v", st, err)
	}
	if got := db.Value(t, "select count(*) from es.snapshot"); got != "0" {
		t.Errorf("%s snapshots of what never was", got)
	}
}

func TestStateThatFailsSaysWhere(t *testing.T) {
	t.Parallel()
	s, db := newStore(t, "")
	ctx := testContext(t)
	d := counting(0)
	d.Folds[0].When["divided"] = "to_jsonb((:state)::int / (:by)::int)"
	d.Folds[0].When["emptied"] = "null::jsonb"
	install(t, s, d)
	store(t, db, "n/a", []int{1})
	_, err := s.Append(ctx, []intent.Batch{event("n/a", "divided", 0, `{"by": 0}`), event("n/b", "emptied", 0, `{}`)})
	if err != nil {
		t.Fatal(err)
	}
	for stream, want := range map[string]string{
		"n/a": `state[n].when[divided] failed at version 2 of "n/a": division by zero`,
		"n/b": `state[n].when[emptied] failed at version 1 of "n/b": the expression gives null: write a coalesce`,
	} {
		var invalid *intent.InvalidError
		if _, err := s.State(ctx, stream, At{}); err == nil || !strings.Contains(err.Error(), want) || errors.As(err, &invalid) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if st, err := s.State(ctx, "n/a", At{Version: 1}); err != nil || string(st.State) != "1" {
		t.Errorf("before it: got %s, %v", st.State, err)
	}
}

// TestStateIsTheSameInEverySession: settings that change what expressions give are
// pinned.
func TestStateIsTheSameInEverySession(t *testing.T) {
	t.Parallel()
	s, db := newStore(t, "")
	ctx := testContext(t)
	install(t, s, intent.Definitions{Undeclared: true, Folds: []intent.Fold{{Category: "n", When: map[string]string{
		"added": `jsonb_build_object('at', :at, 'text', (:at)::text, 'read', ('2026-02-03 10:00')::timestamptz, 'of', (:day)::date::text, 'bytes', convert_to(:day, 'UTF8')::text, 'last', interval '1 day 2 hours'::text, 'null', null = 1, 'what', :day)`,
	}}}})
	if _, err := s.Append(ctx, []intent.Batch{event("n/a", "added", 0, `{"day": "03/02/2026"}`)}); err != nil {
		t.Fatal(err)
	}
	want := db.Value(t, "select state from es.state('n/a')")
	rows := db.Query(t, `set timezone = 'Asia/Tokyo'; set datestyle = 'German, DMY'; set intervalstyle = 'iso_8601'; set bytea_output = 'escape'; set search_path = public;
		set transform_null_equals = on; create function public.jsonb_build_object(variadic text[]) returns jsonb language sql return '"public"'::jsonb; select state from es.state('n/a')`)
	if got := rows[len(rows)-1][0]; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// history is one stream's events as a test knows them.
type history struct {
	stream string
	events []stored
}

type stored struct {
	typ    string
	schema int
	data   map[string]any
	minute int
}

// TestStatesEqualADumbFold: random histories, folded by the store and by hand, as of
// every version and time, with snapshots, without, with a lost table of snapshots,
// and through changes of the definitions.
func TestStatesEqualADumbFold(t *testing.T) {
	t.Parallel()
	s, db := newStore(t, "")
	ctx := testContext(t)
	seed := rand.Uint64()
	defer func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	}()
	r := rand.New(rand.NewPCG(seed, 0))
	var all []history
	for n := range 6 {
		h := history{stream: fmt.Sprintf("bank/%d", n)}
		minute := 0
		for range r.IntN(25) {
			minute = max(0, minute+r.IntN(5)-1)
			e := stored{typ: []string{"paid", "fee", "noted", "renamed"}[r.IntN(4)], schema: 1 + r.IntN(2), minute: minute, data: map[string]any{}}
			switch e.typ {
			case "paid":
				e.data["amount"] = r.IntN(100)
				if e.schema == 1 {
					e.data["amount"] = fmt.Sprint(e.data["amount"])
				}
			case "renamed":
				e.data["name"] = fmt.Sprint("n", r.IntN(1000))
			}
			h.events = append(h.events, e)
		}
		sql := []string{fmt.Sprintf("insert into es.stream values ('%s', %d)", h.stream, len(h.events))}
		for i, e := range h.events {
			data, _ := json.Marshal(e.data)
			sql = append(sql, fmt.Sprintf("insert into es.event (id, stream, version, type, schema, data, at) values (gen_random_uuid(), '%s', %d, '%s', %d, '%s', timestamptz '2026-03-01 10:00Z' + interval '%d min')",
				h.stream, i+1, e.typ, e.schema, data, e.minute))
		}
		db.Exec(t, strings.Join(sql, ";"))
		all = append(all, h)
	}
	for round := range 5 {
		fee := 1 + r.IntN(3) // a fold that differs from round to round
		d := intent.Definitions{Undeclared: true, Snapshots: []int{0, 1, 3, 3, 10}[round],
			Events: []intent.EventType{{Name: "paid", Stream: "bank/{bank}", Schema: 2, Fields: fields("bank: string, amount: int"),
				Upcast: map[int]string{1: `jsonb_set(data, '{amount}', to_jsonb((data->>'amount')::int + ` + fmt.Sprint(fee) + `))`}}},
			Folds: []intent.Fold{{Category: "bank", Initial: json.RawMessage(`{"sum": 0, "name": null, "fees": 0}`), When: map[string]string{
				"paid":    `jsonb_set(:state, '{sum}', to_jsonb((:state->>'sum')::bigint + :amount))`,
				"fee":     fmt.Sprintf(`jsonb_set(jsonb_set(:state, '{sum}', to_jsonb((:state->>'sum')::bigint - %[1]d)), '{fees}', (select to_jsonb(max(v) + %[1]d) from (select (:state->>'fees')::int as v) x))`, fee),
				"renamed": `:state || jsonb_build_object('name', :name, 'version', :version)`,
			}}}}
		install(t, s, d)
		// In any order, and some twice: whatever snapshots the ones before left.
		for range 120 {
			h := all[r.IntN(len(all))]
			var at At
			if r.IntN(3) > 0 && len(h.events) > 0 {
				at.Version = 1 + int64(r.IntN(len(h.events)+2))
			}
			if r.IntN(3) == 0 {
				at.Time = time.Date(2026, 3, 1, 10, r.IntN(60), 0, 0, time.UTC).Add(time.Duration(r.IntN(2)) * -time.Second)
			}
			if r.IntN(30) == 0 {
				db.Exec(t, "truncate es.snapshot")
			}
			st, err := s.State(ctx, h.stream, at)
			if err != nil {
				t.Fatal(err)
			}
			version, want := dumb(h, at, fee)
			var got any
			_ = json.Unmarshal(st.State, &got)
			text, _ := json.Marshal(got)
			if st.Version != version || string(text) != want {
				t.Fatalf("round %d, %s at %+v:\n got %d %s\nwant %d %s", round, h.stream, at, st.Version, text, version, want)
			}
		}
	}
}

// dumb folds by hand.
func dumb(h history, at At, fee int) (int64, string) {
	upto := int64(len(h.events))
	if at.Version > 0 {
		upto = min(upto, at.Version)
	}
	if !at.Time.IsZero() {
		for upto > 0 && time.Date(2026, 3, 1, 10, h.events[upto-1].minute, 0, 0, time.UTC).After(at.Time) {
			upto--
		}
	}
	state := map[string]any{"sum": 0, "name": nil, "fees": 0}
	for i, e := range h.events[:upto] {
		switch e.typ {
		case "paid":
			var n int
			if e.schema == 1 {
				_, _ = fmt.Sscan(e.data["amount"].(string), &n)
				n += fee
			} else {
				n = e.data["amount"].(int)
			}
			state["sum"] = state["sum"].(int) + n
		case "fee":
			state["sum"] = state["sum"].(int) - fee
			state["fees"] = state["fees"].(int) + fee
		case "renamed":
			state["name"], state["version"] = e.data["name"], i+1
		}
	}
	b, _ := json.Marshal(state)
	return upto, string(b)
}

// TestStatesWhileDefinitionsChange: a state is of one definition, the old or the
// new, whatever is installed meanwhile, and a snapshot is of the one it says.
func TestStatesWhileDefinitionsChange(t *testing.T) {
	t.Parallel()
	s, db := newStore(t, "")
	ctx, stop := context.WithCancel(testContext(t))
	const events = 8
	store(t, db, "n/a", make([]int, events))
	by := func(n int) intent.Definitions {
		d := counting(1)
		d.Events = []intent.EventType{{Name: "added", Stream: "n/{n}", Schema: 2, Fields: fields("n: string"),
			Upcast: map[int]string{1: fmt.Sprintf(`data || '{"by": %d}'`, n)}}}
		d.Folds[0].When["added"] = "to_jsonb((:state)::int + (:data->>'by')::int)"
		return d
	}
	install(t, s, by(1))
	failed := make(chan error, 4)
	for range cap(failed) {
		go func() {
			for ctx.Err() == nil {
				version := 1 + rand.Int64N(events)
				st, err := s.State(ctx, "n/a", At{Version: version})
				if ctx.Err() != nil {
					break
				}
				if got := string(st.State); err != nil || got != fmt.Sprint(version) && got != fmt.Sprint(version*100) {
					failed <- fmt.Errorf("version %d: got %s, %w", version, got, err)
					return
				}
			}
			failed <- nil
		}()
	}
	for i := range 6 {
		n := []int{100, 1}[i%2]
		install(t, s, by(n))
		for version := range int64(events + 1) {
			want := fmt.Sprint(version * int64(n))
			if version == 0 {
				want = fmt.Sprint(events * n)
			}
			if st, err := s.State(ctx, "n/a", At{Version: version}); err != nil || string(st.State) != want {
				t.Errorf("by %d: version %d: got %s, %v, want %s", n, version, st.State, err, want)
			}
		}
	}
	stop()
	for range cap(failed) {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
}
