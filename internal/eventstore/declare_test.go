package eventstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"cdc/internal/cdc"
	"cdc/internal/intent"
)

// fields reads "a: string, b: int?" as the fields of a type.
func fields(text string) (all []intent.Field) {
	for _, part := range strings.Split(text, ",") {
		if name, typ, ok := strings.Cut(strings.TrimSpace(part), ":"); ok {
			all = append(all, intent.ParseField(name, strings.TrimSpace(typ)))
		}
	}
	return all
}

// university are the definitions of the example.
func university() intent.Definitions {
	return intent.Definitions{
		Events: []intent.EventType{
			{Name: "enrolment-cancelled", Stream: "course/{course}", Schema: 3, Fields: fields("course: string, student: string, reason: string?, by: string"),
				Upcast: map[int]string{
					1: `jsonb_set(data, '{reason}', 'null') -- nobody asked then`,
					2: `data || jsonb_build_object('by', coalesce(meta->>'actor', 'somebody at ' || split_part(stream, '/', 1)));`,
				}},
			{Name: "student-enrolled", Stream: "course/{course}", Schema: 1, Fields: fields("course: string, student: string")},
		},
		Folds: []intent.Fold{{Category: "course", Initial: json.RawMessage(`{"students": [], "last": null}`), When: map[string]string{
			"student-enrolled":    `jsonb_set(:state, '{students}', (:state->'students') || to_jsonb(:student))`,
			"enrolment-cancelled": `jsonb_build_object('students', (:state->'students') - :student, 'last', :data->>'by', 'version', :version)`,
		}}},
		Snapshots: 5,
	}
}

func install(t testing.TB, s *Store, d intent.Definitions) InstallReport {
	t.Helper()
	r, err := s.Install(testContext(t), d)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// event is a batch of one event.
func event(stream, typ string, schema int, data string) intent.Batch {
	return intent.Batch{Stream: stream, Expect: intent.Any, Events: []intent.NewEvent{{ID: intent.NewID(), Type: typ, Schema: schema, Data: json.RawMessage(data)}}}
}

func TestInstallOnlyWhatDiffers(t *testing.T) {
	t.Parallel()
	s, db := newStore(t, "")
	d := university()
	if r, err := s.CheckDefinitions(testContext(t), d); err != nil || fmt.Sprint(r) != "{true [enrolment-cancelled student-enrolled] [course] []}" {
		t.Errorf("check: got %v, %v", r, err)
	}
	if n := db.Value(t, "select count(*) from es.declared"); n != "0" {
		t.Errorf("the check has declared %s types", n)
	}
	oids := func() string {
		return db.Value(t, `select string_agg(proname || ' ' || oid, ',' order by oid) from pg_proc where pronamespace = 'es'::regnamespace and proname !~ '^(upcast|fold|state) '`)
	}
	var before string
	for _, step := range []struct {
		name   string
		change func()
		want   string
	}{
		{"first", func() {}, "{true [enrolment-cancelled student-enrolled] [course] []}"},
		{"same", func() { before = oids() }, "{false [] [] []}"},
		{"other order", func() { d.Events[0], d.Events[1] = d.Events[1], d.Events[0] }, "{false [] [] []}"},
		{"limit", func() { d.MaxEvent = 100 }, "{true [] [] []}"},
		{"field no fold names", func() { d.Events[0].Fields = fields("course: string, student: string, note: string?") }, "{true [student-enrolled] [] []}"},
		{"field a fold names", func() { d.Events[0].Fields = fields("course: string, student: uuid, note: string?") }, "{true [student-enrolled] [course] []}"},
		{"upcast", func() { d.Events[1].Upcast[1] = "data || '{\"reason\": null}'" }, "{true [enrolment-cancelled] [course] []}"},
		{"fold", func() { d.Folds[0].Initial = json.RawMessage("{}") }, "{true [] [course] []}"},
	} {
		step.change()
		if r := install(t, s, d); fmt.Sprint(r) != step.want {
			t.Errorf("%s: got %v, want %s", step.name, r, step.want)
		}
	}
	if after := oids(); after != before {
		t.Errorf("functions that sessions call by name were made anew\n got %s\nwant %s", after, before)
	}
	d = university()
	d.Events, d.Folds, d.Undeclared = d.Events[1:], nil, true
	if r := install(t, s, d); fmt.Sprint(r) != "{true [student-enrolled] [] [events[enrolment-cancelled] state[course]]}" {
		t.Errorf("removed: got %v", r)
	}
	generated := `select string_agg(split_part(proname, ' ', 1), ',' order by proname) from pg_proc where pronamespace = 'es'::regnamespace and proname ~ ' '`
	if got := db.Value(t, generated); got != "admit,admit,fold,fold,state,upcast,upcast,validate,validate" {
		t.Errorf("generated functions left for who began before: %s", got)
	}
	d.MaxEvent = 100
	install(t, s, d)
	if got := db.Value(t, generated); got != "admit,validate" {
		t.Errorf("generated functions left in the end: %s", got)
	}
	if got := fmt.Sprint(db.Query(t, "select type, schema from es.declared")); got != "[[student-enrolled 1]]" {
		t.Errorf("declared: %s", got)
	}
}

// TestGeneratedFunctionsAreNobodysElse: users reach them through es.append and
// es.state alone. Steps of upcasts they may call, as es.upcast does for them.
func TestGeneratedFunctionsAreNobodysElse(t *testing.T) {
	t.Parallel()
	s, db := newStore(t, "")
	install(t, s, university())
	if rows := db.Query(t, `select proname, pg_get_userbyid(proowner), proacl from pg_proc where pronamespace = 'es'::regnamespace and proname ~ ' '
		and (proowner <> 'es_owner'::regrole or proname !~ '^upcast ' and (has_function_privilege('es_writer', oid, 'execute') or has_function_privilege('es_reader', oid, 'execute')))`); len(rows) > 0 {
		t.Errorf("got %v", rows)
	}
}

func TestEveryFaultOfDefinitionsIsTold(t *testing.T) {
	t.Parallel()
	s, db := newStore(t, "")
	d := university()
	d.Events[0].Upcast[1] = "jsonb_set(data, '{at}', to_jsonb(now()))"
	d.Events[0].Upcast[2] = "dta || '{}'"
	d.Events[1].Stream = "course/{lecture}"
	d.Events = append(d.Events, intent.EventType{Name: "room-booked", Stream: "room/{room}", Schema: 2, Fields: fields("room: text"), Upcast: map[int]string{}})
	d.Folds[0].When = map[string]string{
		"student-enrolled":    ":state || jsonb_build_object('since', :pos)",
		"enrolment-cancelled": ":state ||",
		"exam-taken":          ":state",
	}
	d.Folds = append(d.Folds, intent.Fold{Category: "room", Initial: json.RawMessage("{"), When: map[string]string{"room-booked": "(select to_jsonb(count(*)) from es.event)"}})
	for _, run := range []func(context.Context, intent.Definitions) (InstallReport, error){s.CheckDefinitions, s.Install} {
		_, err := run(testContext(t), d)
		var terminal *cdc.TerminalError
		var faults *DefinitionError
		if !errors.As(err, &terminal) || terminal.Reason != "definition" || !errors.As(err, &faults) {
			t.Fatalf("got %v", err)
		}
		want := []string{
			"events[enrolment-cancelled].upcast[1]: now(): tells the clock",
			"events[enrolment-cancelled].upcast[2]: column \"dta\" does not exist (line 1, column 1)",
			"events[room-booked].data[room]: ",
			"events[room-booked].upcast: there is no step from version 1",
			"events[student-enrolled].stream: ",
			"state[course].when[enrolment-cancelled]: syntax error at its end (line 1, column 6)",
			"state[course].when[exam-taken]: type \"exam-taken\" is not declared",
			"state[course].when[student-enrolled]: :pos",
			"state[room].initial: is not JSON",
		}
		if len(faults.Faults) != len(want) {
			t.Errorf("got %v", err)
			continue
		}
		for i, f := range faults.Faults {
			if !strings.HasPrefix(f.String(), want[i]) {
				t.Errorf("got %q, want %q…", f, want[i])
			}
		}
	}
	if got := db.Value(t, "select count(*) from pg_proc where pronamespace = 'es'::regnamespace and proname ~ ' '"); got != "0" {
		t.Errorf("%s functions are left of what failed", got)
	}
}

func TestSchemaNeverFallsBelowWhatIsStored(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t, "")
	ctx := testContext(t)
	d := university()
	install(t, s, d)
	older := university()
	older.Events[0].Schema, older.Events[0].Upcast = 2, map[int]string{1: older.Events[0].Upcast[1]}
	install(t, s, older) // nothing is stored
	install(t, s, d)
	if _, err := s.Append(ctx, []intent.Batch{event("course/ddia", "enrolment-cancelled", 0, `{"course": "ddia", "student": "a", "by": "b"}`)}); err != nil {
		t.Fatal(err)
	}
	_, err := s.Install(ctx, older)
	if err == nil || !strings.Contains(err.Error(), "events[enrolment-cancelled].schema: events of schema 3 are stored") {
		t.Errorf("got %v", err)
	}
}

func TestInstallNeedsTheOwner(t *testing.T) {
	t.Parallel()
	s, db := newStore(t, "")
	login := "app_" + db.Name
	db.Exec(t, "create role "+login+" login", "grant es_writer to "+login)
	t.Cleanup(func() { db.Exec(t, "drop owned by "+login, "drop role "+login) })
	_ = s
	as, err := Open(testContext(t), Config{URL: strings.Replace(db.URL, "postgres@", login+"@", 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer as.Close()
	var terminal *cdc.TerminalError
	if _, err := as.Install(testContext(t), university()); !errors.As(err, &terminal) || terminal.Reason != "store-rights" {
		t.Errorf("got %v", err)
	}
}

func TestDeclaredEventsAreHeldToTheirFields(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t, "")
	ctx := testContext(t)
	d := intent.Definitions{Events: []intent.EventType{
		{Name: "all", Stream: "all/{s}-{i}", Schema: 1, Fields: fields("s: string, i: int, n: number, b: bool, t: time, d: date, u: uuid, j: json")},
		{Name: "optional", Stream: "optional", Schema: 1, Fields: fields("s: string?, i: int?, n: number?, b: bool?, t: time?, d: date?, u: uuid?, j: json?")},
		{Name: "bare", Stream: "bare", Schema: 1},
		{Name: "one", Stream: "one/x", Schema: 1, Fields: fields("i: int?, t: time?, d: date?, u: uuid?")},
		{Name: "grown", Stream: "grown/{a}", Schema: 3, Fields: fields("a: string, b: int"), Upcast: map[int]string{
			1: `jsonb_build_object('b', data->'old')`, 2: `data || jsonb_build_object('a', coalesce(meta->>'actor', 'nobody'), 'b', (data->>'b')::int + 1)`,
		}},
	}}
	install(t, s, d)
	good := `{"s": "x", "i": 1, "n": 1.5, "b": true, "t": "2026-01-31T10:00:00Z", "d": "2024-02-29", "u": "018F4e2c-7b1a-7c3d-9e5f-0a1b2c3d4e5f", "j": null}`
	with := func(key, value string) string {
		var m map[string]json.RawMessage
		_ = json.Unmarshal([]byte(good), &m)
		if value == "" {
			delete(m, key)
		} else {
			m[key] = json.RawMessage(value)
		}
		b, _ := json.Marshal(m)
		return string(b)
	}
	type try struct {
		stream, typ string
		schema      int
		data        string
		path, text  string // "" where it is taken
	}
	tries := []try{
		{"all/x-1", "all", 0, good, "", ""},
		{"all/x-1", "all", 1, good, "", ""},
		{"all/x-2", "all", 0, good, "stream", `all: the stream must be "all/x-1", which its data make of all/{s}-{i}, and not "all/x-2"`},
		{"all/x-1", "all", 2, good, "schema", "all: schema 2 is newer than the one declared, 1"},
		{"all/x-1", "nothing", 0, "{}", "type", `type "nothing" is not declared`},
		{"all/x-1", "all", 0, with("s", ""), "data.s", "all: data.s is missing: it must be a string"},
		{"all/x-1", "all", 0, with("s", "null"), "data.s", "is null: it must be a string"},
		{"all/x-1", "all", 0, with("s", "1"), "data.s", "all: data.s must be a string, not a number"},
		{"all/x-1", "all", 0, with("i", `"1"`), "data.i", "data.i must be a whole number of 64 bits, written without a fraction, not a string"},
		{"all/x-1", "all", 0, with("i", "1.5"), "data.i", "must be a whole number of 64 bits, written without a fraction"},
		{"all/x-1", "all", 0, with("n", "[]"), "data.n", "must be a number, not an array"},
		{"all/x-1", "all", 0, with("b", "0"), "data.b", "must be true or false, not a number"},
		{"all/x-1", "all", 0, with("t", "{}"), "data.t", "must be a time as in RFC 3339, 2026-01-31T10:00:00Z, not an object"},
		{"all/x-1", "all", 0, with("d", "true"), "data.d", "not a boolean"},
		{"all/x-1", "all", 0, with("u", `"x"`), "data.u", "must be a UUID"},
		{"all/x-1", "all", 0, with("j", ""), "data.j", "is missing: it must be any JSON"},
		{"all/x-1", "all", 0, with("other", "1"), "data.other", "data.other is not declared; declared is s, i, n, b, t, d, u, j"},
		{"optional", "optional", 0, `{}`, "", ""},
		{"optional", "optional", 0, good, "", ""},
		{"optional", "optional", 0, `{"s": null, "i": null, "n": null, "b": null, "t": null, "d": null, "u": null, "j": null}`, "", ""},
		{"optional", "optional", 0, `{"i": 1.5}`, "data.i", "64 bits"},
		{"optional", "optional", 0, `{"b": "true"}`, "data.b", "not a string"},
		{"bare", "bare", 0, `{}`, "", ""},
		{"bare", "bare", 0, `{"a": 1}`, "data.a", "declared is no field"},
		{"bare", "bare", 0, `[]`, "data", "must be a JSON object"},
		{"grown/nobody", "grown", 1, `{"old": 4}`, "", ""},
		{"grown/nobody", "grown", 2, `{"b": 4}`, "", ""},
		{"grown/x", "grown", 3, `{"a": "x", "b": 4}`, "", ""},
		{"grown/x", "grown", 0, `{"a": "x", "b": 4}`, "", ""},
		{"grown/x", "grown", 2, `{"b": 4}`, "stream", `must be "grown/nobody"`},
		{"grown/nobody", "grown", 2, `{"b": 4, "c": 1}`, "data.c", "not declared"},
		{"grown/nobody", "grown", 1, `{"old": "x"}`, "data", "grown: data of schema 1 cannot be brought to the newest: invalid input syntax"},
		{"grown/nobody", "grown", 1, `{}`, "data.b", "data.b is null"},
	}
	for _, v := range []struct{ field, good, bad string }{
		{"i", `0|-9223372036854775808|9223372036854775807|1e3|12e-1e|-0`, `9223372036854775808|-9223372036854775809|1.0|0.1|1e-1|1e40`},
		{"t", `"2026-01-31T10:00:00Z"|"2026-01-31t23:59:60z"|"0001-01-01T00:00:00.123456789+15:59"|"9999-12-31T23:59:59.9-00:00"|"2024-02-29T00:00:00Z"`,
			`"2026-01-31 10:00:00Z"|"2026-01-31T10:00:00"|"2026-01-31T24:00:00Z"|"2026-01-31T10:60:00Z"|"2026-01-31T10:00:61Z"|"2026-01-31T10:00Z"|"2026-02-30T10:00:00Z"|"2026-1-31T10:00:00Z"|"0000-01-31T10:00:00Z"|"2026-01-31T10:00:00+16:00"|"2026-01-31T10:00:00.Z"|"now"|""|" 2026-01-31T10:00:00Z"|"2026-01-31T10:00:00Z\n"|"infinity"|"２０２６-01-31T10:00:00Z"`},
		{"d", `"2026-01-31"|"2000-02-29"|"9999-12-31"|"0001-01-01"|"2026-04-30"`, `"2026-04-31"|"1900-02-29"|"2026-00-10"|"2026-13-01"|"2026-01-00"|"2026-01-32"|"today"|"20260131"|"2026-1-1"|"2026-01-31 "|"0000-01-01"|"2023-02-29"`},
		{"u", `"018f4e2c-7b1a-7c3d-9e5f-0a1b2c3d4e5f"|"00000000-0000-0000-0000-000000000000"`, `"018f4e2c7b1a7c3d9e5f0a1b2c3d4e5f"|"{018f4e2c-7b1a-7c3d-9e5f-0a1b2c3d4e5f}"|"018f4e2c-7b1a-7c3d-9e5f-0a1b2c3d4e5g"|""`},
	} {
		for _, g := range strings.Split(v.good, "|") {
			if json.Valid([]byte(g)) {
				tries = append(tries, try{"one/x", "one", 0, `{"` + v.field + `": ` + g + `}`, "", ""})
			}
		}
		for _, b := range strings.Split(v.bad, "|") {
			tries = append(tries, try{"one/x", "one", 0, `{"` + v.field + `": ` + b + `}`, "data." + v.field, "must be a"})
		}
	}
	for _, c := range tries {
		t.Run(c.typ+" "+c.data, func(t *testing.T) {
			_, err := s.Append(ctx, []intent.Batch{event(c.stream, c.typ, c.schema, c.data)})
			var invalid *intent.InvalidError
			switch {
			case c.path == "" && err != nil:
				t.Errorf("got %v, want it taken", err)
			case c.path != "" && !errors.As(err, &invalid):
				t.Errorf("got %v, want it refused at %s", err, c.path)
			case c.path != "" && (invalid.Path != c.path || !strings.Contains(invalid.Text, c.text)):
				t.Errorf("got %s %q, want %s %q", invalid.Path, invalid.Text, c.path, c.text)
			}
			// The short way of an append takes all that is written in the newest version.
			var admitted bool
			err = s.pool.QueryRow(ctx, "select es.admit($1, $2, nullif($3::int, 0), $4, 100) is not null", c.stream, c.typ, c.schema, c.data).Scan(&admitted)
			if newest := c.typ != "grown" || c.schema == 0 || c.schema == 3; err != nil || admitted != (c.path == "" && newest) {
				t.Errorf("admitted: %t, %v", admitted, err)
			}
		})
	}
	// What is taken can be read in the type that the field has in SQL.
	var n int
	if err := s.pool.QueryRow(ctx, `select count((data->>'i')::bigint) + count((data->>'t')::timestamptz) + count((data->>'d')::date) + count((data->>'u')::uuid)
		+ count((data->>'n')::numeric) + count((data->>'b')::boolean) from es.event where type <> 'grown'`).Scan(&n); err != nil || n == 0 {
		t.Errorf("got %d, %v", n, err)
	}
}

func TestUndeclaredTypesWhereTheyAreAllowed(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t, "")
	ctx := testContext(t)
	d := university()
	d.Undeclared = true
	install(t, s, d)
	if _, err := s.Append(ctx, []intent.Batch{event("anything", "whatever", 7, `{"x": 1}`)}); err != nil {
		t.Error(err)
	}
	var invalid *intent.InvalidError
	if _, err := s.Append(ctx, []intent.Batch{event("course/a", "student-enrolled", 0, `{"course": "a"}`)}); !errors.As(err, &invalid) || invalid.Path != "data.student" {
		t.Errorf("got %v", err)
	}
	install(t, s, intent.Definitions{})
	if _, err := s.Append(ctx, []intent.Batch{event("anything", "whatever", 7, `{"x": 1}`)}); !errors.As(err, &invalid) || invalid.Path != "type" {
		t.Errorf("without any type and none undeclared: got %v", err)
	}
	install(t, s, intent.Definitions{Undeclared: true, MaxEvent: 20})
	if _, err := s.Append(ctx, []intent.Batch{event("course/a", "student-enrolled", 0, `{"course": "a"}`)}); err != nil {
		t.Error(err)
	}
	if _, err := s.Append(ctx, []intent.Batch{event("course/a", "student-enrolled", 0, `{"course": "a123456789"}`)}); !errors.As(err, &invalid) || !strings.Contains(invalid.Text, "max_event") {
		t.Errorf("got %v", err)
	}
}

// TestDetailHasThePath: a writer in any language reads it there.
func TestDetailHasThePath(t *testing.T) {
	t.Parallel()
	s, db := newStore(t, "")
	install(t, s, university())
	_, err := db.Conn(t).Exec(testContext(t), `select es.append(array['course/a'], null::bigint[] || null::bigint, array['course/a'], array[gen_random_uuid()], array['student-enrolled'], array['{"course": "a", "student": 1}']::jsonb[])`)
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || pe.Code != "ES422" || pe.Detail != `{"path": "data.student"}` || pe.Message != "student-enrolled: data.student must be a string, not a number" {
		t.Errorf("got %+v", err)
	}
}

// TestDatesAndTimesAreWhatPostgresReads: of texts near the rules, those that are
// taken can be read, and the days are those of Go's calendar.
func TestDatesAndTimesAreWhatPostgresReads(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t, "")
	ctx := testContext(t)
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	var texts []string
	for range 4000 {
		day := fmt.Sprintf("%04d-%02d-%02d", []int{0, 1, 1900, 2000, 2023, 2024, 2100, 9999, r.IntN(10000)}[r.IntN(9)], r.IntN(14), r.IntN(33))
		text := []byte(day)
		if r.IntN(2) == 0 {
			text = fmt.Appendf(text, "%c%02d:%02d:%02d%s%s", "Tt "[r.IntN(3)], r.IntN(25), r.IntN(62), r.IntN(63),
				[]string{"", ".5", ".123456789", ".", ".1234567890"}[r.IntN(5)], []string{"Z", "z", "", fmt.Sprintf("+%02d:%02d", r.IntN(18), r.IntN(62)), "-15:59"}[r.IntN(5)])
		}
		if r.IntN(8) == 0 {
			text[r.IntN(len(text))] = "0129-:TZ+ .x"[r.IntN(12)]
		}
		texts = append(texts, string(text))
	}
	rows, err := s.pool.Query(ctx, "select x, es.is_date(x), es.is_time(x), case when es.is_date(x) or es.is_time(x) then x::timestamptz is not null end from unnest($1::text[]) x", texts)
	if err != nil {
		t.Fatal(err)
	}
	var text string
	var date, at bool
	var read *bool
	dates, times := 0, 0
	if _, err := pgx.ForEachRow(rows, []any{&text, &date, &at, &read}, func() error {
		day, err := time.Parse("2006-01-02", text)
		if want := err == nil && day.Year() > 0; date != want {
			t.Errorf("seed %d: %q: got a date: %t, want %t", seed, text, date, want)
		}
		if date {
			dates++
		}
		if at {
			times++
		}
		if at && !isTime.MatchString(text) {
			t.Errorf("seed %d: %q is taken as a time", seed, text)
		}
		return nil
	}); err != nil {
		t.Fatalf("seed %d: behind %q: %v", seed, text, err)
	}
	if dates < 100 || times < 20 {
		t.Errorf("seed %d: %d dates and %d times were taken: the test saw little", seed, dates, times)
	}
}

// isTime is the shape of RFC 3339, without its calendar.
var isTime = regexp.MustCompile(`^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$`)

func TestUpcast(t *testing.T) {
	t.Parallel()
	s, db := newStore(t, "")
	install(t, s, university())
	for _, c := range []struct{ call, want string }{
		{`es.upcast('enrolment-cancelled', 1, '{"student": "a"}', '{"actor": "b"}', 'course/x', now())`, `{"by": "b", "reason": null, "student": "a"}`},
		{`es.upcast('enrolment-cancelled', 2, '{"student": "a"}', '{}', 'course/x', now())`, `{"by": "somebody at course", "student": "a"}`},
		{`es.upcast('enrolment-cancelled', 3, '{"student": "a"}', '{}', 'course/x', now())`, `{"student": "a"}`},
		{`es.upcast('enrolment-cancelled', 4, '{"student": "a"}')`, `{"student": "a"}`},
		{`es.upcast('student-enrolled', 1, '{"student": "a"}')`, `{"student": "a"}`},
		{`es.upcast('unknown', 1, '{"student": "a"}')`, `{"student": "a"}`},
	} {
		if got := db.Value(t, "select "+c.call); got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.call, got, c.want)
		}
	}
	d := university()
	d.Events[0].Upcast[2] = "data || null"
	install(t, s, d)
	_, err := db.Conn(t).Exec(testContext(t), `select es.upcast('enrolment-cancelled', 1, '{}')`)
	if err == nil || !strings.Contains(err.Error(), "the upcast of enrolment-cancelled from schema 2 gives null") {
		t.Errorf("got %v", err)
	}
}
