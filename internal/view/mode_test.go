package view

import (
	"testing"

	"cdc/internal/cdctest"
	"cdc/internal/intent"
)

// Every mode gives what a replay in Go gives, for views that were there before the
// events and for views that came later.
func TestModesEqualReplay(t *testing.T) {
	t.Parallel()
	db, store := openStore(t)
	other := cdctest.Database(t)
	u := newUniversity(t, newSeed())

	there := enrolments("e_there", intent.Async)
	there.Database = other.URL
	early := intent.Definitions{Events: universityTypes, Views: []intent.View{
		enrolments("e_async", intent.Async), enrolments("e_inline", intent.Inline), there,
		places("p_async", intent.Async), places("p_inline", intent.Inline),
	}}
	for _, did := range install(t, store, early) {
		want := ActionLive
		if did.View == "e_there" {
			want = ActionBuilding
		}
		if did.Action != want {
			t.Errorf("%s: got %s, want %s", did, did.Action, want)
		}
	}
	u.append(t, store, 300)
	number(t, store)
	startRunner(t, Config{Store: store, Databases: map[string]string{there.DatabaseName(): other.URL}})

	late := early
	late.Views = append(late.Views, enrolments("late_async", intent.Async), places("late_inline", intent.Inline))
	for _, did := range install(t, store, late) {
		if want := map[bool]Action{true: ActionBuilding, false: ActionNone}[did.View[:4] == "late"]; did.Action != want {
			t.Errorf("%s: got %s, want %s", did, did.Action, want)
		}
	}
	startNumbering(t, store)
	u.append(t, store, 300)
	head := number(t, store)
	awaitLive(t, store, "late_inline", head)
	u.append(t, store, 100)
	head = number(t, store)
	for _, v := range late.Views {
		awaitLive(t, store, v.Name, head)
	}
	for _, name := range []string{"e_async", "e_inline", "late_async"} {
		checkRows(t, name, tableRows(t, db, "views."+name), u.enrolmentRows())
	}
	checkRows(t, "e_there", tableRows(t, other, "views.e_there"), u.enrolmentRows())
	for _, name := range []string{"p_async", "p_inline", "late_inline"} {
		checkRows(t, name, tableRows(t, db, "views."+name), u.placesRows())
	}
	if len(u.enrolmentRows()) == 0 {
		t.Error("the test shows nothing: there are no rows")
	}
}
