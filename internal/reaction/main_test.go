package reaction

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"cdc/internal/cdctest"
	"cdc/internal/eventstore"
	"cdc/internal/intent"
	"cdc/internal/view"
)

// TestMain runs the tests, or, started by TestKilledAtEveryStep, a runner that is to
// be killed.
func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		os.Exit(child())
	}
	cdctest.Main(m)
}

// testLimit bounds what a test waits for in all.
const testLimit = 2 * time.Minute

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testLimit)
	t.Cleanup(cancel)
	return ctx
}

// world is a store with what goes on around reactions: events are numbered, and
// views follow.
type world struct {
	*cdctest.DB
	store *eventstore.Store
	head  *eventstore.Head
}

func newWorld(t testing.TB) *world {
	t.Helper()
	db := cdctest.Database(t)
	return newWorldAs(t, db, "", db.URL)
}

// newWorldAs has the reactions run as a login of its own, where one is given.
func newWorldAs(t testing.TB, db *cdctest.DB, login, url string) *world {
	t.Helper()
	ctx := testContext(t)
	if _, err := eventstore.Init(ctx, db.URL, eventstore.InitOptions{Daemon: login}); err != nil {
		t.Fatal(err)
	}
	store, err := eventstore.Open(ctx, eventstore.Config{URL: url, MaxConns: 12})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	w := &world{DB: db, store: store, head: eventstore.NewHead()}
	w.run(t, w.number)
	return w
}

// run runs something until the test ends.
func (w *world) run(t testing.TB, f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	ended := false
	stop = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := <-done; err != nil && ctx.Err() == nil {
			t.Errorf("ended by itself: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// numberSQL numbers what is committed, as the reader of the slot does. In place of
// the WAL's order it takes that of the appends: the tests' appends do not overlap
// within a stream.
const numberSQL = `insert into es.log (pos, event, lsn, tx)
	select (select coalesce(max(pos), 0) from es.log) + row_number() over (order by e.at, e.stream, e.version), e.id, '0/1', 1
	from es.event e where not exists (select from es.log l where l.event = e.id)`

func (w *world) number(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, w.URL)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := conn.Exec(ctx, numberSQL); err != nil {
			return err
		}
		var pos int64
		if err := conn.QueryRow(ctx, "select es.head()").Scan(&pos); err != nil {
			return err
		}
		w.head.Set(pos)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// install installs all of the definitions, and checks their reactions before.
func (w *world) install(t testing.TB, defs intent.Definitions) Report {
	t.Helper()
	ctx := testContext(t)
	if faults := defs.Validate(); len(faults) > 0 {
		t.Fatalf("definitions of the test: %v", faults)
	}
	if _, err := w.store.Install(ctx, defs); err != nil {
		t.Fatal(err)
	}
	if _, err := view.Install(ctx, w.store, defs); err != nil {
		t.Fatal(err)
	}
	if err := Check(ctx, w.store, defs); err != nil {
		t.Fatal(err)
	}
	report, err := Install(ctx, w.store, defs)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// views follows the log with the views.
func (w *world) views(t testing.TB) (stop func()) {
	return w.run(t, view.New(view.Config{Store: w.store, Head: w.head}).Run)
}

// reactions runs the reactions.
func (w *world) reactions(t testing.TB) (*Runner, func()) {
	r := New(Config{Store: w.store, Head: w.head})
	return r, w.run(t, r.Run)
}

// add appends one event and gives it back as it is stored.
func (w *world) add(t testing.TB, stream, kind, data string) intent.ID {
	t.Helper()
	return w.addMeta(t, stream, kind, data, "{}")
}

func (w *world) addMeta(t testing.TB, stream, kind, data, meta string) intent.ID {
	t.Helper()
	id := intent.NewID()
	_, err := w.store.Append(testContext(t), []intent.Batch{{Stream: stream, Expect: intent.Any, Events: []intent.NewEvent{
		{ID: id, Type: kind, Data: json.RawMessage(data), Meta: json.RawMessage(meta)},
	}}})
	if err != nil {
		t.Fatalf("append %s to %s: %v", kind, stream, err)
	}
	return id
}

// events are those of a type in the order of the log.
func (w *world) events(t testing.TB, kind string) []intent.Event {
	t.Helper()
	var all []intent.Event
	_, err := w.store.Log(testContext(t), 0, 1<<20, []string{kind}, func(e *intent.Event) error {
		all = append(all, *e)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// until waits for a condition of the database, as SQL.
func (w *world) until(t testing.TB, what, sql string, args ...any) {
	t.Helper()
	ctx := testContext(t)
	for {
		var ok bool
		if err := w.store.Pool().QueryRow(ctx, "select ("+sql+")", args...).Scan(&ok); err != nil {
			var state []byte
			_ = w.store.Pool().QueryRow(context.Background(), `select jsonb_build_object(
				'head', es.head(), 'events', (select count(*) from es.event), 'reactions', (select jsonb_agg(to_jsonb(r) - 'definition' - 'hash') from es.reaction r),
				'views', (select jsonb_agg(to_jsonb(v) - 'definition' - 'hash') from es.view v))`).Scan(&state)
			t.Fatalf("wait until %s: %v; the store: %s", what, err, state)
		}
		if ok {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// reacted waits until a reaction has come to the end of the log, and nothing more
// follows from it.
func (w *world) reacted(t testing.TB, reaction string) {
	t.Helper()
	w.until(t, reaction+" has reached the head", `select r.pos = es.head() and not exists (select from es.event e where not exists (select from es.log l where l.event = e.id))
		from es.reaction r where r.name = $1`, reaction)
}

// university is the example of the documentation.
func university() intent.Definitions {
	course := []intent.Field{{Name: "course", Type: intent.TypeString}, {Name: "student", Type: intent.TypeString}}
	event := func(name string) intent.EventType {
		return intent.EventType{Name: name, Stream: "course/{course}", Schema: 1, Fields: course}
	}
	return intent.Definitions{
		Events: []intent.EventType{event("enrolment-cancelled"), event("place-offered"), event("student-waitlisted")},
		Views: []intent.View{{
			Name: "waiting", Mode: intent.Async, Table: "course text, student text, since bigint, primary key (course, student)",
			When: map[string]string{
				"student-waitlisted": "insert into waiting values (:course, :student, :pos) on conflict do nothing",
				"place-offered":      "delete from waiting where course = :course and student = :student",
			},
		}},
		Reactions: []intent.Reaction{{
			Name: "offer-freed-place", After: "waiting", When: []string{"enrolment-cancelled"}, From: intent.FromEnd,
			Append: `select 'place-offered' as type, jsonb_build_object('course', :course, 'student', student) as data
				from views.waiting where course = :course order by since limit 1`,
		}},
	}
}

func (w *world) waitlist(t testing.TB, course string, students ...string) {
	t.Helper()
	for _, s := range students {
		w.add(t, "course/"+course, "student-waitlisted", fmt.Sprintf(`{"course": %q, "student": %q}`, course, s))
	}
}

func (w *world) cancel(t testing.TB, course, student string) intent.ID {
	t.Helper()
	return w.add(t, "course/"+course, "enrolment-cancelled", fmt.Sprintf(`{"course": %q, "student": %q}`, course, student))
}
