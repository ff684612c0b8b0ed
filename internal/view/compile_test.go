package view

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"cdc/internal/cdctest"
	"cdc/internal/eventstore"
	"cdc/internal/intent"
)

func TestCompile(t *testing.T) {
	types := []intent.EventType{{Name: "a", Schema: 2, Fields: []intent.Field{{Name: "n", Type: intent.TypeInt}}}}
	for _, tc := range []struct {
		name      string
		mode      intent.ViewMode
		statement string
		want      string // of the statement, or of the error behind "error: "
		params    []string
	}{
		{"placeholders", intent.Async, "insert into v values (:id, :n, :other, :pos, :n, ':n', '1'::text)",
			"insert into v values (cdc_event_id, ((cdc_event_data->>'n')::pg_catalog.int8), (cdc_event_data->>'other'), cdc_event_pos, ((cdc_event_data->>'n')::pg_catalog.int8), ':n', '1'::text)",
			[]string{"id", "data", "pos"}},
		{"none", intent.Inline, "delete from v", "delete from v", nil},
		{"the position, inline", intent.Inline, "insert into v values (:pos)", "error: views[v].when[a]: :pos has no value", nil},
		{"a name of ours", intent.Async, "insert into v values (CDC_event_id)", "error: views[v].when[a]: CDC_event_id is a name", nil},
		{"two statements", intent.Async, "delete from v; delete from v", "error: views[v].when[a]: holds more than one", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := compile(intent.View{Name: "v", Mode: tc.mode, Table: "x int", When: map[string]string{"a": tc.statement}}, types)
			if text, isError := strings.CutPrefix(tc.want, "error: "); isError {
				if err == nil || !strings.HasPrefix(err.Error(), text) {
					t.Errorf("got %v, want %s…", err, text)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := c.when[0]; got.text != tc.want || !slices.Equal(got.params, tc.params) {
				t.Errorf("got  %s %v\nwant %s %v", got.text, got.params, tc.want, tc.params)
			}
		})
	}
}

// A stored definition compiles to the same code, and holds no password.
func TestDefinitionIsStored(t *testing.T) {
	v := enrolments("e", intent.Async)
	v.Database = "postgres://me:secret@somewhere/there"
	c, err := compile(v, universityTypes)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(c.definition())
	if err != nil || strings.Contains(string(raw), "secret") {
		t.Fatalf("got %s, %v", raw, err)
	}
	again, err := decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := c.applySQL("s", "s"), again.applySQL("s", "s"); a != b {
		t.Errorf("got %s\nwant %s", b, a)
	}
	if again.view.Database != "somewhere:5432/there" {
		t.Errorf("got database %q", again.view.Database)
	}
	var plain intent.View
	if err := json.Unmarshal(raw, &plain); err != nil || plain.Name != "e" || len(plain.When) != 2 {
		t.Errorf("read as a view: got %v, %v", plain, err)
	}
}

func TestDollarQuote(t *testing.T) {
	for _, text := range []string{"", "a", "$$", "$body$", "$body$ $body0$ $body1$"} {
		q := dollarQuote(text)
		tag := q[:strings.IndexByte(q[1:], '$')+2]
		if got := strings.TrimSuffix(strings.TrimPrefix(q, tag), tag); got != text || strings.Contains(text, tag) {
			t.Errorf("got %s of %s", q, text)
		}
	}
}

// What a session has set does not show in a view, and older data comes in the
// version the statements were written for.
func TestSessionAndUpcast(t *testing.T) {
	t.Parallel()
	db, store := openStore(t)
	other := cdctest.Database(t)
	table := "id uuid primary key, day text, at text, x text, note text, b text"
	statement := "insert into %s values (:id, :day::text, :at::text, :x::text, 'a\\b' || :note, '\\x01'::bytea::text)"
	view := func(name string, mode intent.ViewMode) intent.View {
		return intent.View{Name: name, Mode: mode, Table: table, When: map[string]string{"measured": fmt.Sprintf(statement, name)}}
	}
	there := view("there", intent.Async)
	there.Database = other.URL
	fields := []intent.Field{{Name: "day", Type: intent.TypeDate}, {Name: "note", Type: intent.TypeString}, {Name: "x", Type: intent.TypeJSON}}
	d := intent.Definitions{MaxEvent: 1 << 20, Events: []intent.EventType{{Name: "measured", Stream: "m/{note}", Schema: 1, Fields: fields}}}
	if _, err := store.Install(testContext(t), d); err != nil {
		t.Fatal(err)
	}
	appendFrom := func(schema int, data string) {
		conn, err := pgx.Connect(testContext(t), db.URL)
		if err != nil {
			t.Fatal(err)
		}
		defer closeConn(conn)
		_, err = conn.Exec(testContext(t), `set timezone = 'Asia/Tokyo'; set datestyle = 'SQL, DMY'; set intervalstyle = 'iso_8601';
			set extra_float_digits = -10; set bytea_output = 'escape'; set standard_conforming_strings = off; set transform_null_equals = on`)
		if err != nil {
			t.Fatal(err)
		}
		if err := pgx.BeginFunc(testContext(t), conn, func(tx pgx.Tx) error {
			_, err := eventstore.AppendTx(context.Background(), tx, []intent.Batch{{Stream: "m/n", Expect: intent.Any,
				Events: []intent.NewEvent{{ID: intent.NewID(), Type: "measured", Schema: schema, Data: json.RawMessage(data)}}}})
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	appendFrom(1, `{"day": "2026-02-01", "note": "n", "x": 0.1}`) // before any view

	d.Events[0].Schema = 2
	d.Events[0].Upcast = map[int]string{1: `data || jsonb_build_object('x', 'x of ' || (data->>'x') || ' in ' || stream)`}
	d.Views = []intent.View{view("here", intent.Async), view("inline", intent.Inline), there}
	if _, err := store.Install(testContext(t), d); err != nil {
		t.Fatal(err)
	}
	install(t, store, d)
	startNumbering(t, store)
	startRunner(t, Config{Store: store, Databases: map[string]string{there.DatabaseName(): other.URL}})
	awaitLive(t, store, "inline", number(t, store))
	appendFrom(1, `{"day": "2026-02-03", "note": "n", "x": 0.3}`)
	appendFrom(2, `{"day": "2026-02-04", "note": "n", "x": {"already": 1.25}}`)
	head := number(t, store)
	awaitLive(t, store, "here", head)
	awaitLive(t, store, "there", head)

	here := tableRows(t, db, "(select * from views.here order by day) v")
	checkRows(t, "inline", tableRows(t, db, "views.inline"), here)
	checkRows(t, "there", tableRows(t, other, "views.there"), here)
	var got []string
	for _, row := range db.Query(t, "select day, x, note, b from views.here order by day") {
		got = append(got, strings.Join(row, " "))
	}
	want := []string{
		`2026-02-01 "x of 0.1 in m/n" a\bn \x01`,
		`2026-02-03 "x of 0.3 in m/n" a\bn \x01`,
		`2026-02-04 {"already": 1.25} a\bn \x01`,
	}
	checkRows(t, "here", got, want)
}

// A batch is bounded by the size of its events; one alone may be larger.
func TestBatchBytes(t *testing.T) {
	t.Parallel()
	db, store := openStore(t)
	db.Exec(t, "update es.meta set max_event = 100000000")
	v := intent.View{Name: "v", Mode: intent.Async, Table: "pos bigint, n bigint",
		When: map[string]string{"big": "insert into v values (:pos, length(:text))"}}
	d := intent.Definitions{Undeclared: true, Views: []intent.View{v}}
	build := install(t, store, d)[0].Build
	const each = 3 << 20
	sizes := []int{each, each, each, each, each, each, each, batchBytes + 1, 10, 10}
	for i, n := range sizes {
		text := strings.Repeat("x", n) // compressed to a hundredth of it
		if i%2 == 0 {
			text = strings.Repeat("xyzzy "+intent.NewID().String(), n/42+1)[:n]
		}
		raw, _ := json.Marshal(map[string]string{"text": text})
		if _, err := store.Append(testContext(t), []intent.Batch{{Stream: "s/1", Expect: intent.Any, Events: []intent.NewEvent{{ID: intent.NewID(), Type: "big", Data: raw}}}}); err != nil {
			t.Fatal(err)
		}
	}
	number(t, store)
	row, err := findBuild(testContext(t), store.Pool(), "v", build)
	if err != nil {
		t.Fatal(err)
	}
	c, err := compile(v, nil)
	if err != nil {
		t.Fatal(err)
	}
	src := newLocal(store, c, row, func(string) {})
	var steps []int64
	for pos := int64(0); pos < int64(len(sizes)); {
		if pos, err = src.step(testContext(t), pos, maxPosition); err != nil {
			t.Fatal(err)
		}
		steps = append(steps, pos)
	}
	if want := []int64{5, 7, 8, 10}; !slices.Equal(steps, want) {
		t.Errorf("got batches up to %v, want %v", steps, want)
	}
	if got := db.Value(t, "select count(*) || ' ' || sum(n) from views.v"); got != fmt.Sprint(len(sizes), " ", 7*each+batchBytes+1+20) {
		t.Errorf("got %s", got)
	}
}
