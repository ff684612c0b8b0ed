package intent

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// university is a set of definitions without a fault.
func university() Definitions {
	course := []Field{{Name: "course", Type: TypeString}, {Name: "student", Type: TypeString}}
	return Definitions{
		MaxEvent: 1 << 20, Snapshots: 200,
		Events: []EventType{
			{Name: "enrolment-cancelled", Stream: "course/{course}", Schema: 2,
				Fields: append(course[:2:2], Field{Name: "reason", Type: TypeString, Optional: true}),
				Upcast: map[int]string{1: "jsonb_set(data, '{reason}', 'null')"}},
			{Name: "place-offered", Stream: "course/{course}", Schema: 1, Fields: course},
			{Name: "student-enrolled", Stream: "course/{course}", Schema: 1, Fields: course},
			{Name: "student-waitlisted", Stream: "course/{course}", Schema: 1, Fields: course},
			{Name: "moved", Stream: "student/{student-id}", Schema: 1, Fields: []Field{{Name: "student-id", Type: TypeUUID}, {Name: "pos", Type: TypeInt}}},
		},
		Folds: []Fold{{Category: "course", Initial: json.RawMessage(`{"students": []}`), When: map[string]string{
			"student-enrolled": "jsonb_set(:state, '{students}', (:state->'students') || to_jsonb(:student))",
		}}},
		Views: []View{
			{Name: "enrolments", Mode: Inline, Table: "course text, student text, since bigint, primary key (course, student)", Indexes: []string{"since"}, When: map[string]string{
				"student-enrolled":    "insert into enrolments values (:course, :student, :version) on conflict (course, student) do update set since = excluded.since",
				"enrolment-cancelled": "delete from enrolments where course = :course and student = :student",
			}},
			{Name: "waiting", Mode: Async, Database: "postgres://u:pw@db/reports", Table: "course text, student text, since bigint, primary key (course, student)", When: map[string]string{
				"student-waitlisted": "insert into waiting values (:course, :student, :pos) on conflict do nothing",
				"place-offered":      "delete from waiting where course = :course and student = :student",
			}},
		},
		Reactions: []Reaction{{Name: "offer-freed-place", After: "waiting", When: []string{"enrolment-cancelled"}, From: FromEnd,
			Append: "select 'place-offered' as type, jsonb_build_object('course', :course, 'student', student) as data from views.waiting where course = :course order by since limit 1"}},
	}
}

func faultsOf(d Definitions) []string {
	var out []string
	for _, f := range d.Validate() {
		out = append(out, f.String())
	}
	return out
}

func TestValidateTakes(t *testing.T) {
	if got := faultsOf(university()); got != nil {
		t.Errorf("refused:\n%s", strings.Join(got, "\n"))
	}
	if got := faultsOf(Definitions{}); got != nil {
		t.Errorf("nothing at all is refused:\n%s", strings.Join(got, "\n"))
	}
	// Without declarations everything may be used.
	d := university()
	d.Events, d.Undeclared = nil, true
	d.Views[0].When["Something else: ü"] = "delete from enrolments where course = :any"
	if got := faultsOf(d); got != nil {
		t.Errorf("refused without declarations:\n%s", strings.Join(got, "\n"))
	}
}

func TestValidateRefuses(t *testing.T) {
	for _, tc := range []struct {
		name string
		edit func(d *Definitions)
		want []string
	}{
		// Types.
		{"name of a type", func(d *Definitions) { d.Events[4].Name = "1moved" }, []string{`events[1moved]: "1moved" cannot name a type: write 1 to 40 letters, digits, '-' and '_', the first a letter`}},
		{"name of a type too long", func(d *Definitions) { d.Events[4].Name = strings.Repeat("a", MaxName+1) }, []string{`events[aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa]: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" cannot name a type: write 1 to 40 letters, digits, '-' and '_', the first a letter`}},
		{"empty name of a type", func(d *Definitions) { d.Events[4].Name = "" }, []string{`events[]: "" cannot name a type: write 1 to 40 letters, digits, '-' and '_', the first a letter`}},
		{"type twice", func(d *Definitions) { d.Events = append(d.Events, d.Events[4]) }, []string{`events[moved]: the type is declared twice: remove one`}},
		{"schema", func(d *Definitions) { d.Events[4].Schema = 0 }, []string{`events[moved].schema: 0 is out of range: the first version is 1`}},
		{"name of a field", func(d *Definitions) { d.Events[4].Fields[1].Name = "p q" }, []string{`events[moved].data[p q]: "p q" cannot name a field: write 1 to 40 letters, digits, '-' and '_', the first a letter`}},
		{"field twice", func(d *Definitions) {
			d.Events[4].Fields = append(d.Events[4].Fields, Field{Name: "pos", Type: TypeInt})
		}, []string{`events[moved].data[pos]: the field is declared twice: remove one`}},
		{"type of a field", func(d *Definitions) { d.Events[4].Fields[1].Type = "bigint" }, []string{`events[moved].data[pos]: "bigint" is no type of a field: write one of string, int, number, bool, time, date, uuid, json, with a ? behind it where it may be missing`}},
		{"stream", func(d *Definitions) { d.Events[4].Stream = "student/{id}" }, []string{`events[moved].stream: stream "student/{id}": {id} is not a field of data`}},
		{"step missing", func(d *Definitions) { d.Events[0].Upcast = nil }, []string{`events[enrolment-cancelled].upcast: there is no step from version 1: write the SQL expression that makes the data of version 2`}},
		{"steps missing", func(d *Definitions) { d.Events[0].Schema = 1_000_000_000 }, []string{
			`events[enrolment-cancelled].upcast: there is no step from version 2: write the SQL expression that makes the data of version 3`,
			`events[enrolment-cancelled].upcast: there is no step from version 3: write the SQL expression that makes the data of version 4`,
			`events[enrolment-cancelled].upcast: there is no step from version 4: write the SQL expression that makes the data of version 5`,
			`events[enrolment-cancelled].upcast: there is no step from version 5: write the SQL expression that makes the data of version 6`,
			`events[enrolment-cancelled].upcast: there is no step from version 6: write the SQL expression that makes the data of version 7`,
			`events[enrolment-cancelled].upcast: more steps are missing: schema is 1000000000`,
		}},
		{"steps from nowhere", func(d *Definitions) { d.Events[0].Upcast[0], d.Events[0].Upcast[2] = "data", "data" }, []string{
			`events[enrolment-cancelled].upcast[0]: there is no version 0 to come from: schema is 2, steps go from 1 to 1`,
			`events[enrolment-cancelled].upcast[2]: there is no version 2 to come from: schema is 2, steps go from 1 to 1`,
		}},
		{"step that is no SQL", func(d *Definitions) { d.Events[0].Upcast[1] = "data || '{" }, []string{`events[enrolment-cancelled].upcast[1]: the SQL ends inside '…'`}},
		{"step with placeholders", func(d *Definitions) { d.Events[0].Upcast[1] = ":data || :reason" }, []string{
			`events[enrolment-cancelled].upcast[1]: :data has no meaning here: data, meta, stream and at are called by their plain names`,
			`events[enrolment-cancelled].upcast[1]: :reason has no meaning here: data, meta, stream and at are called by their plain names`,
		}},

		// Limits.
		{"limits", func(d *Definitions) { d.MaxEvent, d.Snapshots = -1, MaxSnapshots+1 }, []string{
			`max_event: -1 bytes are less than nothing`,
			`snapshots.every: 1000001 is out of range: write a number of events up to 1000000, or 0 for no snapshots`,
		}},
		{"snapshots below nothing", func(d *Definitions) { d.Snapshots = -1 }, []string{`snapshots.every: -1 is out of range: write a number of events up to 1000000, or 0 for no snapshots`}},

		// States.
		{"name of a category", func(d *Definitions) { d.Folds[0].Category = "a/b" }, []string{
			`state[a/b]: "a/b" is no category: write 1 to 100 of letters, digits, '.', '_' and '-'`,
			`state[a/b].when[student-enrolled]: events of the type are in streams of another category: they never come here`,
		}},
		{"category of no type", func(d *Definitions) { d.Folds[0].Category = "room" }, []string{
			`state[room]: no declared type has streams of category "room", as in stream: "room/{id}"`,
			`state[room].when[student-enrolled]: events of the type are in streams of another category: they never come here`,
		}},
		{"category twice", func(d *Definitions) { d.Folds = append(d.Folds, d.Folds[0]) }, []string{`state[course]: the category has two states: remove one`}},
		{"initial state", func(d *Definitions) { d.Folds[0].Initial = json.RawMessage(`{`) }, []string{`state[course].initial: is not JSON: write it as in '{"students": []}'`}},
		{"state of nothing", func(d *Definitions) { d.Folds[0].When = nil }, []string{`state[course].when: there is none: write the expression of the state after each type of event`}},
		{"expressions of a state", func(d *Definitions) {
			d.Folds[0].When = map[string]string{"enrolled": ":state", "moved": ":state", "place-offered": ":reason", "student-enrolled": ":pos; ", "student-waitlisted": ""}
		}, []string{
			`state[course].when[enrolled]: type "enrolled" is not declared: add it to events; declared are enrolment-cancelled, moved, place-offered, student-enrolled, student-waitlisted`,
			`state[course].when[moved]: events of the type are in streams of another category: they never come here`,
			`state[course].when[place-offered]: :reason is not a field of place-offered, it has course, student`,
			`state[course].when[student-enrolled]: :pos is not known here: the state counts events that have no position yet`,
			`state[course].when[student-waitlisted]: the SQL is empty`,
		}},

		// Views.
		{"name of a view", func(d *Definitions) { d.Views[0].Name = "Enrolments" }, []string{`views[Enrolments]: "Enrolments" cannot name a view, it is the name of a table: write 1 to 40 of a-z, 0-9 and '_', the first a letter`}},
		{"name of a view begins with a mark", func(d *Definitions) { d.Views[0].Name = "_x" }, []string{`views[_x]: "_x" cannot name a view, it is the name of a table: write 1 to 40 of a-z, 0-9 and '_', the first a letter`}},
		{"view twice", func(d *Definitions) { d.Views[0].Name = "waiting" }, []string{`views[waiting]: the view is defined twice: remove one`}},
		{"mode of a view", func(d *Definitions) { d.Views[0].Mode = "" }, []string{`views[enrolments].mode: "" is not one of inline, async`}},
		{"table", func(d *Definitions) { d.Views[0].Table = " \n" }, []string{`views[enrolments].table: is empty: write its columns, as in "course text primary key, taken int"`}},
		{"table with a placeholder", func(d *Definitions) { d.Views[0].Table = "course text default :course" }, []string{`views[enrolments].table: :course has no meaning here: no event is at hand`}},
		{"table with a bracket too many", func(d *Definitions) { d.Views[0].Table = "course text) as select (1" }, []string{`views[enrolments].table: the SQL holds a ) without a ( before it`}},
		{"indexes", func(d *Definitions) { d.Views[0].Indexes = []string{"since", "", "a; b"} }, []string{
			`views[enrolments].indexes[1]: is empty: write its columns, as in "course, since"`,
			`views[enrolments].indexes[2]: the SQL holds more than one statement: write one`,
		}},
		{"view of nothing", func(d *Definitions) { d.Views[0].When = nil }, []string{`views[enrolments].when: there is none: write a statement for each type of event that changes the view`}},
		{"statements of a view", func(d *Definitions) {
			d.Views[0].When = map[string]string{"enrolled": "delete from enrolments", "moved": "select :student", "place-offered": "select :state, :cuorse",
				"student-enrolled": "select :pos", "student-waitlisted": "select 1; select 2"}
		}, []string{
			`views[enrolments].when[enrolled]: type "enrolled" is not declared: add it to events; declared are enrolment-cancelled, moved, place-offered, student-enrolled, student-waitlisted`,
			`views[enrolments].when[moved]: :student is not a field of moved; a name with '-' is reached by :data, as in (:data->>'student-id')`,
			`views[enrolments].when[place-offered]: :state is known in state alone`,
			`views[enrolments].when[place-offered]: :cuorse is not a field of place-offered, it has course, student`,
			`views[enrolments].when[student-enrolled]: :pos is not known in an inline view: it is given after the commit`,
			`views[enrolments].when[student-waitlisted]: the SQL holds more than one statement: write one`,
		}},
		{"field that is called like the position", func(d *Definitions) { d.Views[0].When = map[string]string{"moved": "select :pos"} }, []string{`views[enrolments].when[moved]: :pos is the position in the log, which is not known in an inline view: it is given after the commit; the field of that name is :data->>'pos'`}},

		// Reactions.
		{"name of a reaction", func(d *Definitions) { d.Reactions[0].Name = "offer place" }, []string{`reactions[offer place]: "offer place" cannot name a reaction: write 1 to 40 letters, digits, '-' and '_', the first a letter`}},
		{"reaction twice", func(d *Definitions) { d.Reactions = append(d.Reactions, d.Reactions[0]) }, []string{`reactions[offer-freed-place]: the reaction is defined twice: remove one`}},
		{"reaction to nothing, after nothing, from nowhere", func(d *Definitions) {
			d.Reactions[0] = Reaction{Name: "r", After: "v"}
		}, []string{
			`reactions[r].after: there is no view "v": name one of views, or remove the key`,
			`reactions[r].from: "" is not one of end, beginning`,
			`reactions[r].when: there is none: name the types of event to react to`,
			`reactions[r].append: the SQL is empty`,
		}},
		{"types of a reaction", func(d *Definitions) {
			d.Reactions[0].When = []string{"moved", "enrolment-cancelled", "freed", "moved"}
		}, []string{
			`reactions[offer-freed-place].when[2]: type "freed" is not declared: add it to events; declared are enrolment-cancelled, moved, place-offered, student-enrolled, student-waitlisted`,
			`reactions[offer-freed-place].when[3]: type "moved" is listed twice: remove one`,
			`reactions[offer-freed-place].append: :course is not a field of moved, it has pos, student-id`,
		}},
		{"query of a reaction", func(d *Definitions) {
			d.Reactions[0].Append = "select 'place-ofered' as type, :pos as data, :state, :reason, :at"
		}, []string{
			`reactions[offer-freed-place].append: :state is known in state alone`,
			`reactions[offer-freed-place].append: appends type "place-ofered", which is not declared: add it to events; declared are enrolment-cancelled, moved, place-offered, student-enrolled, student-waitlisted`,
		}},
		{"reaction to what it appends", func(d *Definitions) {
			d.Reactions[0].When = []string{"place-offered"}
		}, []string{`reactions[offer-freed-place].append: sets itself off for ever: offer-freed-place -> offer-freed-place; append a type that leads no further`}},
		{"reactions in a ring", func(d *Definitions) {
			d.Reactions = []Reaction{
				{Name: "a", When: []string{"moved"}, From: FromEnd, Append: "select 'place-offered' as type"},
				{Name: "b", When: []string{"place-offered"}, From: FromEnd, Append: "select 'student-enrolled' as type union all select 'student-waitlisted' as type"},
				{Name: "c", When: []string{"student-waitlisted"}, From: FromEnd, Append: "select 'moved' as type"},
				{Name: "leads-in", When: []string{"enrolment-cancelled"}, From: FromEnd, Append: "select 'moved' as type"},
				{Name: "leads-out", When: []string{"student-enrolled"}, From: FromEnd, Append: "select 'enrolment-cancelled' as type from t where 'moved' = x"},
			}
		}, []string{
			`reactions[a].append: sets itself off for ever: a -> b -> c -> a; append a type that leads no further`,
			`reactions[leads-in].append: sets itself off for ever: leads-in -> a -> b -> leads-out -> leads-in; append a type that leads no further`,
		}},

		// Without declarations.
		{"type that nothing can have", func(d *Definitions) {
			d.Events, d.Undeclared = nil, true
			d.Views[0].When = map[string]string{strings.Repeat("x", MaxName+1): "select :state", "moved": "select :pos"}
		}, []string{
			`views[enrolments].when[moved]: :pos is not known in an inline view: it is given after the commit`,
			`views[enrolments].when[xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx]: "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" cannot name a type: write 1 to 40 bytes without control characters`,
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := university()
			tc.edit(&d)
			if got := faultsOf(d); !reflect.DeepEqual(got, tc.want) {
				t.Errorf("\n got %s\nwant %s", strings.Join(got, "\n     "), strings.Join(tc.want, "\n     "))
			}
		})
	}
}

// Placeholders of every kind of statement that are known.
func TestPlaceholders(t *testing.T) {
	const all = "jsonb_build_array(:id, :stream, :version, :type, :schema, :data, :meta, :at, :course, :student)"
	d := university()
	d.Folds[0].When["student-enrolled"] = all + " || :state"
	d.Views[0].When["student-enrolled"] = "insert into enrolments select " + all
	d.Views[1].When["place-offered"] = "insert into waiting select " + all + ", :pos"
	d.Reactions[0].Append = "select 'moved' as type, " + all + " as data where :pos > 1 and :reason is null"
	if got := faultsOf(d); got != nil {
		t.Errorf("refused:\n%s", strings.Join(got, "\n"))
	}
}

func TestNames(t *testing.T) {
	for _, tc := range []struct {
		name             string
		typ, declared, v bool // TypeOK, NameOK, ViewNameOK
	}{
		{"waiting", true, true, true}, {"w", true, true, true}, {"a_1", true, true, true}, {"a-1", true, true, false}, {"Waiting", true, true, false},
		{strings.Repeat("a", MaxName), true, true, true}, {strings.Repeat("a", MaxName+1), false, false, false}, {"", false, false, false},
		{"1a", true, false, false}, {"_a", true, false, false}, {"-a", true, false, false}, {"a b", true, false, false}, {"é", true, false, false},
		{"a.b", true, false, false}, {"a\n", false, false, false}, {"a\x7f", false, false, false}, {"a\xff", false, false, false},
	} {
		if a, b, c := TypeOK(tc.name), NameOK(tc.name), ViewNameOK(tc.name); a != tc.typ || b != tc.declared || c != tc.v {
			t.Errorf("%q: type %v, name %v, view %v, want %v, %v, %v", tc.name, a, b, c, tc.typ, tc.declared, tc.v)
		}
	}
}

// Many reactions to many types are judged in a time that does not explode.
func TestValidateManyReactions(t *testing.T) {
	d := Definitions{Undeclared: true}
	var when []string
	var query strings.Builder
	query.WriteString("select 1")
	for i := range 200 {
		name := "t" + strings.Repeat("x", i%30) + string(rune('a'+i%26)) + string(rune('a'+i/26))
		when = append(when, name)
		query.WriteString(" union all select '" + name + "x' as type")
	}
	for i := range 200 {
		d.Reactions = append(d.Reactions, Reaction{Name: "r" + when[i], When: when, From: FromEnd, Append: query.String()})
	}
	d.Validate()
}
