package reaction

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"cdc/internal/cdc"
	"cdc/internal/intent"
	"cdc/internal/view"
)

// TestOfferFreedPlace: cancellations that follow each other quickly offer the places
// in the order of the waiting list, none twice.
func TestOfferFreedPlace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.install(t, university())
	w.views(t)
	w.reactions(t)
	w.waitlist(t, "ddia", "ada", "bob", "cyd")
	w.waitlist(t, "tapl", "dan")
	var triggers []intent.ID
	for range 4 { // one more than wait
		triggers = append(triggers, w.cancel(t, "ddia", "eve"))
	}
	w.until(t, "three places are offered", "select count(*) = 3 from es.log join es.event on id = event where type = 'place-offered'")
	w.reacted(t, "offer-freed-place")
	offers := w.events(t, "place-offered")
	if len(offers) != 3 {
		t.Fatalf("got %d offers, want 3", len(offers))
	}
	for i, student := range []string{"ada", "bob", "cyd"} {
		e, id := offers[i], triggers[i].Derive("offer-freed-place/1")
		var data struct{ Course, Student string }
		if err := json.Unmarshal(e.Data, &data); err != nil || data.Student != student || data.Course != "ddia" || e.Stream != "course/ddia" || e.ID != id {
			t.Errorf("offer %d: got %s to %s, id %s, %v, want to %s, id %s", i, e.Data, e.Stream, e.ID, err, student, id)
		}
		var meta map[string]any
		want := map[string]any{"actor": "reaction:offer-freed-place", "causation": triggers[i].String(), "correlation": triggers[i].String(), "depth": 1.0}
		if err := json.Unmarshal(e.Meta, &meta); err != nil || fmt.Sprint(meta) != fmt.Sprint(want) {
			t.Errorf("offer %d: got meta %s, want %v", i, e.Meta, want)
		}
	}
	if n := w.Value(t, "select count(*) from views.waiting"); n != "1" {
		t.Errorf("%s students wait, want 1 (of the other course)", n)
	}
}

// noting is a reaction without a view that notes the event.
func noting(name string, from intent.From, when ...string) intent.Reaction {
	return intent.Reaction{Name: name, From: from, When: when,
		Append: fmt.Sprintf(`select 'noted' as type, jsonb_build_object('of', :id, 'by', '%s') as data, 'notes/%[1]s' as stream`, name)}
}

// notes is what a reaction has noted, in order.
func (w *world) notes(t testing.TB, name string) []string {
	t.Helper()
	var ids []string
	for _, row := range w.Query(t, fmt.Sprintf("select data->>'of' from es.event where stream = 'notes/%s' order by version", name)) {
		ids = append(ids, row[0])
	}
	return ids
}

func open(reactions ...intent.Reaction) intent.Definitions {
	return intent.Definitions{Undeclared: true, Reactions: reactions}
}

func texts(ids ...intent.ID) []string {
	var all []string
	for _, id := range ids {
		all = append(all, id.String())
	}
	return all
}

// TestFrom: a reaction added to a running system reacts from now on, or to all there
// was.
func TestFrom(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.reactions(t)
	old := w.add(t, "a/1", "happened", "{}")
	w.until(t, "the old event is numbered", "select es.head() = 1")
	report := w.install(t, open(noting("late", intent.FromEnd, "happened"), noting("whole", intent.FromBeginning, "happened")))
	if fmt.Sprint(report.New) != "[late whole]" {
		t.Errorf("got %+v, want two new", report)
	}
	recent := w.add(t, "a/1", "happened", "{}")
	w.until(t, "both have noted the new one", "select count(*) = 2 from es.event where data->>'of' = $1", recent.String())
	if got, want := w.notes(t, "late"), texts(recent); !slices.Equal(got, want) {
		t.Errorf("from the end: got %v, want %v", got, want)
	}
	if got, want := w.notes(t, "whole"), texts(old, recent); !slices.Equal(got, want) {
		t.Errorf("from the beginning: got %v, want %v", got, want)
	}
}

// TestInstallAgain: what is installed stays as it is, a changed reaction keeps its
// position, one that is configured no more is gone with its functions, and one that
// begins anew finds what it appended in its earlier life.
func TestInstallAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.reactions(t)
	first, second := noting("first", intent.FromBeginning, "happened"), noting("second", intent.FromBeginning, "happened", "noted")
	second.When = []string{"happened"}
	w.install(t, open(first, second))
	a := w.add(t, "a/1", "happened", "{}")
	w.until(t, "both have noted", "select count(*) = 2 from es.event where data->>'of' = $1", a.String())

	if r := w.install(t, open(first, second)); len(r.New)+len(r.Changed)+len(r.Removed) > 0 || len(r.Unchanged) != 2 {
		t.Errorf("installed again: got %+v", r)
	}
	changed := first
	changed.Append = `select 'noted' as type, jsonb_build_object('of', :id, 'changed', true) as data, 'notes/first' as stream`
	if r := w.install(t, open(changed)); !slices.Equal(r.Changed, []string{"first"}) || !slices.Equal(r.Removed, []string{"second"}) {
		t.Errorf("changed and removed: got %+v", r)
	}
	if n := w.Value(t, `select count(*) from pg_proc where pronamespace = 'es_reaction'::regnamespace`); n != "1" {
		t.Errorf("%s functions are there, want 1", n)
	}
	b := w.add(t, "a/1", "happened", "{}")
	w.until(t, "the changed one has noted", "select count(*) = 1 from es.event where data->>'of' = $1 and data->>'changed' = 'true'", b.String())
	w.reacted(t, "first")

	// It would give more rows now: what it has reacted to before it leaves alone.
	second.Append += " from generate_series(1, 2)"
	if r := w.install(t, open(changed, second)); !slices.Equal(r.New, []string{"second"}) {
		t.Errorf("added again: got %+v", r)
	}
	w.until(t, "the second has noted the later event", "select count(*) = 3 from es.event where data->>'of' = $1", b.String())
	w.reacted(t, "second")
	for name, want := range map[string][]string{"first": texts(a, b), "second": texts(a, b, b)} {
		if got := w.notes(t, name); !slices.Equal(got, want) {
			t.Errorf("%s: got notes of %v, want %v", name, got, want)
		}
	}
}

// TestInstallAtOnce: several installations of the same definitions are one.
func TestInstallAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	defs := open(noting("first", intent.FromEnd, "happened"))
	var group errgroup.Group
	var made atomic.Int32
	for range 6 {
		group.Go(func() error {
			r, err := Install(testContext(t), w.store, defs)
			made.Add(int32(len(r.New)))
			return err
		})
	}
	if err := group.Wait(); err != nil || made.Load() != 1 {
		t.Errorf("got %d installations that made it, %v, want 1", made.Load(), err)
	}
}

// TestFailsAlone: a reaction whose query fails stands still and says why, the others
// go on, and it goes on when its text is mended.
func TestFailsAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	bad := intent.Reaction{Name: "bad", From: intent.FromEnd, When: []string{"happened"},
		Append: `select 'noted' as type, jsonb_build_object('of', :id, 'share', 10 / (:n)::int) as data, 'notes/bad' as stream`}
	w.install(t, open(bad, noting("good", intent.FromEnd, "happened")))
	r, _ := w.reactions(t)
	one := w.add(t, "a/1", "happened", `{"n": 1}`)
	zero := w.add(t, "a/1", "happened", `{"n": 0}`)
	two := w.add(t, "a/1", "happened", `{"n": 2}`)
	w.until(t, "the good one has noted all", "select count(*) = 3 from es.event where stream = 'notes/good'")
	w.until(t, "the bad one has said why", "select error is not null from es.reaction where name = 'bad'")
	var said Error
	if err := json.Unmarshal([]byte(w.Value(t, "select error from es.reaction where name = 'bad'")), &said); err != nil {
		t.Fatal(err)
	}
	if said.Event != zero || said.Type != "happened" || said.Message != "division by zero" || said.SQLState != "22012" || said.Query != bad.Append {
		t.Errorf("got %+v, want the event %s, the query and division by zero", said, zero)
	}
	if s := r.Status(); len(s) != 2 || s[0].Name != "reaction bad" || !strings.Contains(s[0].Error, "division by zero") || s[1].State != cdc.StateStreaming || s[1].Error != "" {
		t.Errorf("got status %+v", s)
	}
	mended := bad
	mended.Append = strings.Replace(bad.Append, "10 / (:n)::int", "10 / nullif((:n)::int, 0)", 1)
	w.install(t, open(mended, noting("good", intent.FromEnd, "happened")))
	w.reacted(t, "bad")
	w.until(t, "the error is gone", "select error is null from es.reaction where name = 'bad'")
	if got, want := w.notes(t, "bad"), texts(one, zero, two); !slices.Equal(got, want) {
		t.Errorf("got notes of %v, want %v", got, want)
	}
}

// TestRefused: what a reaction gives and must not stops it with a sentence.
func TestRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Exec(t, `insert into es.view (name, hash, definition, mode, database, state) values ('far', '', '{"When": {"feeds-far": "x"}}', 'inline', 'other:5432/x', 'live')`)
	var reactions []intent.Reaction
	wants := map[string]string{}
	for name, tc := range map[string]struct{ query, want string }{
		"no-type":     {`select null::text as type, '{}'::jsonb as data, 'a/b' as stream`, "row 1 of the query has no type"},
		"no-data":     {`select 'x' as type, null::jsonb as data, 'a/b' as stream`, "has no data"},
		"no-stream":   {`select 'x' as type, '{}'::jsonb as data`, "has no stream"},
		"bad-stream":  {`select 'x' as type, '{}'::jsonb as data, 'a b/c' as stream`, "names the topic"},
		"no-object":   {`select 'x' as type, '[]'::jsonb as data, 'a/b' as stream`, "data must be a JSON object"},
		"too-many":    {`select 'x' as type, '{}'::jsonb as data, 'a/b' as stream from generate_series(1, 1001)`, "more than 1000 rows"},
		"elsewhere":   {`select 'feeds-far' as type, '{}'::jsonb as data, 'a/b' as stream`, "inline view far in other:5432/x"},
		"closed":      {`select 'x' as type, '{}'::jsonb as data, 'closed/1' as stream`, "is closed"},
		"wrong-field": {`select 'declared' as type, '{"n": "many"}'::jsonb as data`, "n"},
		"no-field":    {`select 'declared' as type, '{}'::jsonb as data`, "has no stream"},
	} {
		reactions = append(reactions, intent.Reaction{Name: name, From: intent.FromEnd, When: []string{"happened"}, Append: tc.query})
		wants[name] = tc.want
	}
	w.add(t, "closed/1", "opened", "{}")
	w.Exec(t, "select es.close('closed/1')")
	slices.SortFunc(reactions, func(a, b intent.Reaction) int { return strings.Compare(a.Name, b.Name) })
	defs := open(reactions...)
	defs.Events = []intent.EventType{{Name: "declared", Stream: "d/{n}", Schema: 1, Fields: []intent.Field{{Name: "n", Type: intent.TypeInt}}}}
	w.install(t, defs)
	w.reactions(t)
	w.add(t, "a/1", "happened", "{}")
	w.until(t, "all have failed", "select count(*) = $1 from es.reaction where error is not null", len(wants))
	for _, row := range w.Query(t, "select name, error->>'message' from es.reaction") {
		if !strings.Contains(row[1], wants[row[0]]) {
			t.Errorf("%s: got %q, want %q in it", row[0], row[1], wants[row[0]])
		}
	}
	if n := w.Value(t, "select count(*) from es.event"); n != "2" {
		t.Errorf("%s events are stored, want the 2 of the test", n)
	}
}

// TestRows: one event leads to several, in several streams, in the query's order,
// with ids of their own.
func TestRows(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	defs := open(intent.Reaction{Name: "split", From: intent.FromEnd, When: []string{"order-placed"},
		Append: `select 'item-reserved' as type, jsonb_build_object('item', i, 'total', :total, 'at', :at, 'v', :version, 's', :stream, 'p', :pos, 'k', :type, 'actor', :meta ->> 'actor') as data, 'item/' || i as stream
			from jsonb_array_elements_text(:items) i order by i desc`})
	defs.Events = []intent.EventType{{
		Name: "order-placed", Stream: "order/{number}", Schema: 2, Upcast: map[int]string{1: `data || '{"total": 7}'`},
		Fields: []intent.Field{{Name: "items", Type: intent.TypeJSON}, {Name: "number", Type: intent.TypeInt}, {Name: "total", Type: intent.TypeNumber}},
	}}
	w.install(t, defs)
	w.reactions(t)
	id := intent.NewID()
	_, err := w.store.Append(testContext(t), []intent.Batch{{Stream: "order/9", Expect: intent.Any, Events: []intent.NewEvent{{
		ID: id, Type: "order-placed", Schema: 1, Data: json.RawMessage(`{"items": ["b", "c", "a"], "number": 9}`),
		Meta: json.RawMessage(`{"correlation": "request-5", "actor": "eve", "depth": "none"}`),
	}}}})
	if err != nil {
		t.Fatal(err)
	}
	w.until(t, "the items are reserved", "select count(*) = 3 from es.event where type = 'item-reserved'")
	w.reacted(t, "split")
	for n, item := range []string{"c", "b", "a"} {
		e, err := w.store.Event(testContext(t), id.Derive(fmt.Sprintf("split/%d", n+1)))
		if err != nil {
			t.Fatalf("row %d: %v", n+1, err)
		}
		var data, meta map[string]any
		if err := errors.Join(json.Unmarshal(e.Data, &data), json.Unmarshal(e.Meta, &meta)); err != nil {
			t.Fatal(err)
		}
		if e.Stream != "item/"+item || data["item"] != item || data["total"] != 7.0 || data["v"] != 1.0 || data["s"] != "order/9" || data["p"] != 1.0 || data["k"] != "order-placed" || data["actor"] != "eve" {
			t.Errorf("row %d: got %s in %s", n+1, e.Data, e.Stream)
		}
		if meta["correlation"] != "request-5" || meta["causation"] != id.String() || meta["depth"] != 1.0 {
			t.Errorf("row %d: got meta %s", n+1, e.Meta)
		}
	}
}

// TestLoop: reactions that set each other off end after a hundred rounds, with a
// sentence. Validate sees only what a query names as a type.
func TestLoop(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ping := intent.Reaction{Name: "ping", From: intent.FromEnd, When: []string{"ping"}, Append: `select 'po' || 'ng' as type, '{}'::jsonb as data, 'loop/1' as stream`}
	pong := intent.Reaction{Name: "pong", From: intent.FromEnd, When: []string{"pong"}, Append: `select 'pi' || 'ng' as type, '{}'::jsonb as data, 'loop/1' as stream`}
	w.install(t, open(ping, pong))
	w.reactions(t)
	w.add(t, "loop/1", "ping", "{}")
	w.until(t, "one has stopped", "select count(*) = 1 from es.reaction where error->>'message' like '%100 reactions led to this event%'")
	if n := w.Value(t, "select count(*) from es.event"); n != "101" {
		t.Errorf("%s events are stored, want 101", n)
	}
}

// TestSilentWhenAViewIsBuilt: a view that is built again from the same log sets off
// nothing.
func TestSilentWhenAViewIsBuilt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	defs := university()
	defs.Reactions[0].From = intent.FromBeginning
	w.install(t, defs)
	w.views(t)
	w.reactions(t)
	w.waitlist(t, "ddia", "ada", "bob")
	w.cancel(t, "ddia", "eve")
	w.until(t, "a place is offered", "select count(*) = 1 from es.log join es.event on id = event where type = 'place-offered'")
	w.reacted(t, "offer-freed-place")
	build, err := view.Build(testContext(t), w.store, defs.Views[0], defs.Events)
	if err != nil {
		t.Fatal(err)
	}
	w.until(t, "the build has caught up", "select pos = es.head() from es.view where build = $1", build)
	if r := w.install(t, defs); len(r.New)+len(r.Changed)+len(r.Removed) > 0 {
		t.Errorf("installed again: got %+v", r)
	}
	// An event behind the rebuild shows that the reaction has been awake.
	w.cancel(t, "ddia", "fay")
	w.until(t, "the next place is offered", "select count(*) >= 2 from es.log join es.event on id = event where type = 'place-offered'")
	w.reacted(t, "offer-freed-place")
	if n := len(w.events(t, "place-offered")); n != 2 {
		t.Errorf("got %d offers, want 2", n)
	}
}

// TestWaitsForWhatItAppended: a runner that starts anew waits for the view to see what
// the one before it appended last.
func TestWaitsForWhatItAppended(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.install(t, university())
	stopViews := w.views(t)
	w.waitlist(t, "ddia", "ada", "bob")
	w.cancel(t, "ddia", "eve")
	w.cancel(t, "ddia", "fay")
	w.until(t, "the view has all", "select pos = 4 from es.view where name = 'waiting'")
	stopViews()
	_, stop := w.reactions(t)
	w.until(t, "the first place is offered", "select count(*) = 1 from es.log join es.event on id = event where type = 'place-offered'")
	stop()
	// In place of the second runner: what it would ask before it does anything.
	var last string
	if last = w.Value(t, "select last from es.reaction"); last != w.events(t, "place-offered")[0].ID.String() {
		t.Fatalf("got %s as the last it appended, want the offer", last)
	}
	r, _ := w.reactions(t)
	w.until(t, "it has taken up the work", "select count(*) > 0 from pg_stat_activity where query like '%es.progress%'")
	if n := w.Value(t, "select count(*) from es.event where type = 'place-offered'"); n != "1" {
		t.Errorf("%s places are offered while the view stands still, want 1: %+v", n, r.Status())
	}
	w.views(t)
	w.until(t, "the second place is offered", "select count(*) = 2 from es.log join es.event on id = event where type = 'place-offered'")
	if e := w.events(t, "place-offered")[1]; !strings.Contains(string(e.Data), "bob") {
		t.Errorf("the second offer is %s, want one to bob", e.Data)
	}
}

// TestNoViewYet: a reaction whose view is not there waits for it, and says so.
func TestNoViewYet(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	defs := university()
	ctx := testContext(t)
	if _, err := w.store.Install(ctx, defs); err != nil {
		t.Fatal(err)
	}
	if _, err := Install(ctx, w.store, defs); err != nil {
		t.Fatal(err)
	}
	r, _ := w.reactions(t)
	w.waitlist(t, "ddia", "ada")
	w.cancel(t, "ddia", "eve")
	for s := r.Status(); len(s) == 0 || s[0].State != cdc.StateWaiting; s = r.Status() {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("got status %+v, want waiting", s)
		}
	}
	if _, err := view.Install(ctx, w.store, defs); err != nil {
		t.Fatal(err)
	}
	w.views(t)
	w.until(t, "the place is offered", "select count(*) = 1 from es.log join es.event on id = event where type = 'place-offered'")
}
