package view

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"cdc/internal/cdctest"
	"cdc/internal/intent"
)

// actions are what Install did, as "name action".
func actions(r Report) string {
	var all []string
	for _, i := range r {
		all = append(all, fmt.Sprint(i.View, " ", i.Action))
	}
	return strings.Join(all, ", ")
}

func TestInstall(t *testing.T) {
	t.Parallel()
	db, store := openStore(t)
	u := newUniversity(t, newSeed())
	defs := func(v ...intent.View) intent.Definitions {
		return intent.Definitions{Events: universityTypes, Views: v}
	}
	e, p := enrolments("e", intent.Inline), places("p", intent.Async)
	changed := e
	changed.Indexes = nil
	later := places("later", intent.Async)
	mended := later
	mended.Table += ", more int"

	expect := func(what string, d intent.Definitions, want string) {
		t.Helper()
		if got := actions(install(t, store, d)); got != want {
			t.Errorf("%s: got %s, want %s", what, got, want)
		}
	}
	expect("new", defs(e, p), "e live, p live")
	expect("again", defs(e, p), "e none, p none")
	u.append(t, store, 20)
	expect("changed", defs(changed, p), "e changed, p none")
	expect("not configured", defs(p), "e unknown, p none")
	expect("new, with events", defs(e, later, p), "e none, later building, p none")
	expect("mended before it is live", defs(e, mended, p), "e none, later building, p none")
	expect("again", defs(e, mended, p), "e none, later none, p none")
	if got := db.Value(t, "select string_agg(nspname, ' ' order by nspname) from pg_namespace where nspname like 'es\\_b%'"); got != "es_b1 es_b2 es_b4" {
		t.Errorf("got schemas %s, want those of builds 1, 2 and 4", got)
	}
	// A type's field that the statements use has another type: another view.
	types := append([]intent.EventType(nil), universityTypes...)
	types[0].Fields = []intent.Field{{Name: "course", Type: intent.TypeString}, {Name: "places", Type: intent.TypeNumber}}
	expect("a field changed", intent.Definitions{Events: types, Views: []intent.View{e, mended, p}}, "e none, later building, p changed")
	u.append(t, store, 20)
	checkRows(t, "e", tableRows(t, db, "views.e"), u.enrolmentRows())
}

// Several installing at once make each view once.
func TestInstallAtOnce(t *testing.T) {
	t.Parallel()
	db, store := openStore(t)
	other := cdctest.Database(t)
	there := places("there", intent.Async)
	there.Database = other.URL
	d := intent.Definitions{Events: universityTypes, Views: []intent.View{enrolments("e", intent.Inline), places("p", intent.Async), there}}
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			if _, err := Install(testContext(t), store, d); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got := db.Value(t, "select string_agg(name || ' ' || state, ', ' order by name) from es.view"); got != "e live, p live, there building" {
		t.Errorf("got %s", got)
	}
	if got := other.Value(t, "select count(*) from es_remote.view"); got != "1" {
		t.Errorf("got %s builds in the other database, want 1", got)
	}
	// What a killed maker left there goes with the next.
	other.Exec(t, "insert into es_remote.view select store, 99, 'gone' from es_remote.view", "create schema es_b99")
	more := enrolments("more", intent.Async)
	more.Database = other.URL
	d.Views = append(d.Views, more)
	install(t, store, d)
	if got := other.Value(t, "select string_agg(name, ' ' order by name) from es_remote.view") + other.Value(t, "select count(*) from pg_namespace where nspname = 'es_b99'"); got != "more there0" {
		t.Errorf("got %s, want the builds more and there and no schema es_b99", got)
	}
}

// The daemon's login needs no more than its roles and CREATE on the database.
func TestInstallAsDaemon(t *testing.T) {
	t.Parallel()
	db, store := openStore(t)
	name := "daemon_" + db.Name
	url := login(t, db, name, "")
	db.Exec(t, "grant es_owner, es_view to "+name)
	store.Close()
	store = openAs(t, url)
	u := newUniversity(t, newSeed())
	d := intent.Definitions{Events: universityTypes, Views: []intent.View{enrolments("e", intent.Inline), places("p", intent.Async)}}
	if err := Check(testContext(t), store.Pool(), d); err != nil {
		t.Fatal(err)
	}
	install(t, store, d)
	u.append(t, store, 50)
	startRunner(t, Config{Store: store})
	awaitLive(t, store, "p", number(t, store))
	checkRows(t, "e", tableRows(t, db, "views.e"), u.enrolmentRows())
	checkRows(t, "p", tableRows(t, db, "views.p"), u.placesRows())
	if got := db.Value(t, "select string_agg(distinct tableowner, ' ') from pg_tables where schemaname = 'views'"); got != "es_view" {
		t.Errorf("the tables' owner is %s, want es_view", got)
	}
}
