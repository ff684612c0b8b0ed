package reaction

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"

	"cdc/internal/cdctest"
	"cdc/internal/intent"
	"cdc/internal/view"
)

// TestCheck: faults of queries, each at its reaction, and nothing left behind.
func TestCheck(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	defs := university()
	defs.Undeclared = true
	defs.Views = append(defs.Views, intent.View{Name: "far", Mode: intent.Async, Database: "postgres://other/x", Table: "a int", When: map[string]string{"x": "insert into far values (1)"}})
	before := w.Value(t, "select count(*) from pg_class") + " " + w.Value(t, "select string_agg(nspname, ',' order by nspname) from pg_namespace where nspname !~ '^pg_'")
	for _, tc := range []struct{ name, query, want string }{
		{"the example", defs.Reactions[0].Append, ""},
		{"a name without its schema", `select 'x' as type, jsonb_build_object('s', student) as data from waiting order by since limit 1`, ""},
		{"a stream", `select 'x' as type, to_jsonb(w) as data, course || '/' || student as stream from views.waiting w -- and a comment`, ""},
		{"json", `select 'x' as type, '{}'::json as data`, ""},
		{"with", `with a as (select 1 as n) select 'x' as type, to_jsonb(a) as data from a;`, ""},
		{"no such column", `select 'x' as type, to_jsonb(nobody) as data from views.waiting`, `column "nobody" does not exist`},
		{"no such table", `select 'x' as type, '{}'::jsonb as data from views.nothing`, `relation "views.nothing" does not exist`},
		{"a view elsewhere", `select 'x' as type, '{}'::jsonb as data from views.far`, `relation "views.far" does not exist`},
		{"the events", `select 'x' as type, data from es.event`, "relation es.event"},
		{"the catalogue", `select 'x' as type, '{}'::jsonb as data from pg_class`, "relation pg_catalog.pg_class"},
		{"the clock", `select 'x' as type, jsonb_build_object('at', now()) as data`, "now()"},
		{"chance", `select 'x' as type, jsonb_build_object('n', random()) as data`, "random()"},
		{"a write", `delete from views.waiting returning 'x' as type, '{}'::jsonb as data`, "delete"},
		{"a write inside", `with d as (delete from views.waiting returning *) select 'x' as type, to_jsonb(d) as data from d`, "delete"},
		{"no data", `select 'x' as type`, "has the columns (type)"},
		{"more columns", `select 'x' as type, '{}'::jsonb as data, 1 as more`, "has the columns (type, data, more)"},
		{"a column twice", `select 'x' as type, '{}'::jsonb as data, 'y' as type`, "has the columns (type, data, type)"},
		{"data of another type", `select 'x' as type, 1 as data`, "cannot cast type integer to jsonb"},
		{"not SQL", `selec 1`, "syntax error"},
		{"an escape", `select 'x' as type, '{}'::jsonb as data) q) r; drop table views.waiting; --`, "without a ("},
		{"another escape", `select 'x' as type, '{}'::jsonb as data) q) r --`, "without a ("},
		{"a field that is no number", `select 'x' as type, jsonb_build_object('n', :course + 1) as data`, "operator does not exist: text + integer"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := defs
			d.Reactions = []intent.Reaction{{Name: "r", From: intent.FromEnd, When: []string{"enrolment-cancelled", "student-waitlisted"}, Append: tc.query}}
			err := Check(testContext(t), w.store, d)
			var faults view.FaultsError
			switch {
			case tc.want == "" && err != nil:
				t.Errorf("got %v, want no fault", err)
			case tc.want == "":
			case !errors.As(err, &faults) || len(faults) != 1 || faults[0].Path != "reactions[r].append" || !strings.Contains(faults[0].Text, tc.want):
				t.Errorf("got %v, want one fault with %q", err, tc.want)
			}
		})
	}
	after := w.Value(t, "select count(*) from pg_class") + " " + w.Value(t, "select string_agg(nspname, ',' order by nspname) from pg_namespace where nspname !~ '^pg_'")
	if before != after {
		t.Errorf("the check left something: %s, before it was %s", after, before)
	}
}

// TestReadsAsViews: the function of a reaction has the rights of es_view and writes
// nothing, whatever its query says.
func TestReadsAsViews(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := testContext(t)
	w.Exec(t, "create table secret as select 1 as n", "create table views.plain as select 1 as n", "alter table views.plain owner to es_view")
	defs := open(
		intent.Reaction{Name: "reads", From: intent.FromEnd, When: []string{"happened"}, Append: `select 'x' as type, to_jsonb(s) as data, 'a/b' as stream from public.secret s`},
		intent.Reaction{Name: "writes", From: intent.FromEnd, When: []string{"happened"}, Append: `select 'x' as type, to_jsonb(p) as data, 'a/b' as stream from views.plain p for update`},
	)
	if _, err := Install(ctx, w.store, defs); err != nil { // without a check
		t.Fatal(err)
	}
	w.reactions(t)
	w.add(t, "a/1", "happened", "{}")
	w.until(t, "both have failed", "select count(*) = 2 from es.reaction where error is not null")
	for name, want := range map[string]string{"reads": "permission denied for table secret", "writes": "not allowed in a non-volatile function"} {
		if got := w.Value(t, "select error->>'message' from es.reaction where name = '"+name+"'"); !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q in it", name, got, want)
		}
	}
	if public := w.Value(t, "select has_schema_privilege('es_writer', 'es_reaction', 'usage')"); public != "f" {
		t.Error("es_writer may use schema es_reaction")
	}
}

// TestAsTheDaemonsLogin: all of it works with the rights that Init gives the daemon.
func TestAsTheDaemonsLogin(t *testing.T) {
	t.Parallel()
	pg := cdctest.Postgres(t)
	login := fmt.Sprintf("reactor_%d", os.Getpid())
	admin := &cdctest.DB{Name: "postgres", URL: pg.URL("postgres"), Server: pg}
	admin.Exec(t, "create role "+login+" login")
	t.Cleanup(func() { admin.Exec(t, "drop role "+login) }) // behind the end of the database
	db := cdctest.Database(t)
	u, err := url.Parse(db.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.User(login)
	w := newWorldAs(t, db, login, u.String())
	w.install(t, university())
	w.views(t)
	w.reactions(t)
	w.waitlist(t, "ddia", "ada")
	w.cancel(t, "ddia", "eve")
	w.until(t, "the place is offered", "select count(*) = 1 from es.event where type = 'place-offered'")
	if r := w.install(t, intent.Definitions{Events: university().Events, Views: university().Views}); len(r.Removed) != 1 {
		t.Errorf("removed: got %+v", r)
	}
}
