package view

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cdc/internal/cdctest"
	"cdc/internal/eventlog"
	"cdc/internal/eventstore"
	"cdc/internal/intent"
	pgsource "cdc/internal/source"
)

// campus is a store with a daemon: what is appended is numbered, and views follow.
type campus struct {
	t     *testing.T
	db    *cdctest.DB
	store *eventstore.Store
	there *cdctest.DB // another Postgres; nil until elsewhere is called
	urls  map[string]string
}

var campuses atomic.Int64

// newCampus starts numbering in a fresh database of a server.
func newCampus(t *testing.T, pg *cdctest.PG) *campus {
	t.Helper()
	c := &campus{t: t, db: pg.Database(t), urls: map[string]string{}}
	slot := fmt.Sprintf("campus_%d", campuses.Add(1))
	daemon := login(t, c.db, slot, "REPLICATION")
	if _, err := eventstore.Init(testContext(t), c.db.URL, eventstore.InitOptions{Daemon: slot}); err != nil {
		t.Fatal(err)
	}
	var err error
	if c.store, err = eventstore.Open(testContext(t), eventstore.Config{URL: daemon, MaxConns: 30}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.store.Close)
	c.db.KeepSlot(slot)
	n := eventlog.New(eventlog.Config{
		Source: pgsource.Config{URL: daemon, Slot: slot, Publication: slot, Tick: 5 * time.Millisecond},
		Store:  c.store, Head: eventstore.NewHead(), Logger: slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelError})),
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = n.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	c.barrier()
	return c
}

// login makes a login that may make schemas in the database, and returns its URL.
func login(t *testing.T, db *cdctest.DB, name, options string) string {
	t.Helper()
	db.Exec(t, "create role "+name+" login "+options, "grant create on database "+db.Name+" to "+name)
	u, err := url.Parse(db.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.User(name)
	return u.String()
}

// elsewhere makes another database that holds views, as another Postgres.
func (c *campus) elsewhere(pg *cdctest.PG) string {
	c.there = pg.Database(c.t)
	keeper := login(c.t, c.there, fmt.Sprintf("keeper_%d", campuses.Add(1)), "")
	c.urls[intent.View{Database: keeper}.DatabaseName()] = keeper
	return keeper
}

// barrier waits until all that is committed is numbered.
func (c *campus) barrier() {
	c.t.Helper()
	if err := eventstore.Barrier(testContext(c.t), c.store.Pool()); err != nil {
		c.t.Fatal(err)
	}
}

func (c *campus) define(views ...intent.View) intent.Definitions {
	return intent.Definitions{Events: universityTypes, Undeclared: true, Views: views}
}

// follow runs a Runner.
func (c *campus) follow() (stop func()) {
	_, stop = startRunner(c.t, Config{Store: c.store, Databases: c.urls})
	return stop
}

// applied waits until the live view shows everything that is committed.
func (c *campus) applied(name string) {
	c.t.Helper()
	c.barrier()
	head, err := c.store.Head(testContext(c.t))
	if err != nil {
		c.t.Fatal(err)
	}
	awaitLive(c.t, c.store, name, head)
}

func (c *campus) verify(name string, build int64) VerifyReport {
	c.t.Helper()
	r, err := Verify(testContext(c.t), c.store, name, VerifyOptions{Build: build, Databases: c.urls})
	if err != nil {
		c.t.Fatal(err)
	}
	return r
}

// equal fails unless the view is what a replay gives.
func (c *campus) equal(name string) VerifyReport {
	c.t.Helper()
	r := c.verify(name, 0)
	if !r.Equal() {
		c.t.Errorf("view %s (build %d, %s, position %d, %d events): %d rows are missing and %d too many: missing %s, extra %s",
			name, r.Build, r.Mode, r.Position, r.Events, r.Missing.Count, r.Extra.Count, r.Missing.Rows, r.Extra.Rows)
	}
	return r
}

func (c *campus) build(v intent.View) int64 {
	c.t.Helper()
	b, err := Build(testContext(c.t), c.store, v, universityTypes)
	if err != nil {
		c.t.Fatal(err)
	}
	return b
}

func (c *campus) switchTo(name string) {
	c.t.Helper()
	if err := Switch(testContext(c.t), c.store, name, SwitchOptions{Databases: c.urls, Pause: 10 * time.Millisecond}); err != nil {
		c.t.Fatal(err)
	}
}

// appender is Store.Append or Coordinator.Append.
type appender func(context.Context, []intent.Batch) (intent.Receipt, error)

// crowd appends from many goroutines to few courses, until stopped. It goes no
// faster than events are numbered.
type crowd struct {
	ahead chan struct{} // a token for each append that is not numbered
	stop  chan struct{}
	wg    sync.WaitGroup
	count atomic.Int64
}

// courses of a crowd; few, so that its writers meet.
const crowdCourses = 8

func openCourses(t *testing.T, add appender) {
	t.Helper()
	for i := range crowdCourses {
		course := fmt.Sprintf("x%d", i)
		batch := intent.Batch{Stream: "course/" + course, Events: []intent.NewEvent{{ID: intent.NewID(), Type: "course-opened",
			Data: fmt.Appendf(nil, `{"course":%q,"places":%d}`, course, 30)}}}
		if _, err := add(testContext(t), []intent.Batch{batch}); err != nil {
			t.Fatal(err)
		}
	}
}

// crowdAhead is how many events of a crowd may be without a number.
const crowdAhead = 200

func (c *campus) crowd(writers int, add appender) *crowd {
	t := c.t
	t.Helper()
	w := &crowd{stop: make(chan struct{}), ahead: make(chan struct{}, crowdAhead)}
	w.wg.Go(func() { w.pace(t, c.store) })
	for i := range writers {
		w.wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-w.stop:
					return
				case w.ahead <- struct{}{}:
				}
				kind := "student-enrolled"
				if (n+i)%3 == 0 {
					kind = "enrolment-cancelled"
				}
				course := fmt.Sprintf("x%d", (n*7+i)%crowdCourses)
				batch := intent.Batch{Stream: "course/" + course, Expect: intent.Any, Events: []intent.NewEvent{{ID: intent.NewID(), Type: kind,
					Data: fmt.Appendf(nil, `{"course":%q,"student":"s%d"}`, course, (n+i)%5)}}}
				ctx, cancel := context.WithTimeout(context.Background(), testLimit)
				_, err := add(ctx, []intent.Batch{batch})
				cancel()
				if err != nil {
					t.Errorf("append: %v", err)
					return
				}
				w.count.Add(1)
			}
		})
	}
	t.Cleanup(w.end)
	return w
}

// pace takes tokens back as events are numbered.
func (w *crowd) pace(t *testing.T, store *eventstore.Store) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	last, err := store.Head(context.Background())
	for err == nil {
		select {
		case <-w.stop:
			return
		case <-tick.C:
		}
		var head int64
		head, err = store.Head(context.Background())
		for ; err == nil && last < head; last++ {
			select {
			case <-w.ahead:
			default:
			}
		}
	}
	t.Errorf("read the head: %v", err)
}

// passed waits until n more events were appended.
func (w *crowd) passed(t *testing.T, n int64) {
	t.Helper()
	from := w.count.Load()
	await(t, fmt.Sprintf("%d appends", n), func() bool { return t.Failed() || w.count.Load() >= from+n })
}

var ended sync.Map

func (w *crowd) end() {
	if _, done := ended.LoadOrStore(w, true); !done {
		close(w.stop)
	}
	w.wg.Wait()
}

// A view that was tampered with is found out, row by row, in every way a view is
// kept.
func TestVerifyFindsWhatWasTamperedWith(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		mode  intent.ViewMode
		there bool
	}{
		{"async", intent.Async, false}, {"inline", intent.Inline, false}, {"async elsewhere", intent.Async, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := newCampus(t, cdctest.Postgres(t))
			holder := c.db
			v := places("places", tc.mode)
			if tc.there {
				v.Database = c.elsewhere(cdctest.Postgres(t))
				holder = c.there
			}
			install(t, c.store, c.define(v))
			c.follow()
			u := newUniversity(t, newSeed())
			u.append(t, c.store, 300)
			c.applied("places")
			r := c.equal("places")
			if r.Events != 300 || r.Rows != int64(len(u.courses)) || r.Position != 300 {
				t.Errorf("replayed %d events to position %d and saw %d rows, want 300, 300, %d", r.Events, r.Position, r.Rows, len(u.courses))
			}
			holder.Exec(t,
				`update views.places set taken = taken + 1 where course = (select min(course) from views.places)`,
				`delete from views.places where course = (select max(course) from views.places)`,
				`insert into views.places select 'ghost ' || i, 1, 0, 1, null from generate_series(1, 30) i`)
			r = c.verify("places", 0)
			if r.Missing.Count != 2 || r.Extra.Count != 31 {
				t.Errorf("missing %d, extra %d; want 2 (changed, deleted), 31 (changed, 30 inserted)", r.Missing.Count, r.Extra.Count)
			}
			if len(r.Missing.Rows) != 2 || len(r.Extra.Rows) != DefaultSamples {
				t.Errorf("%d and %d rows shown, want 2 and %d", len(r.Missing.Rows), len(r.Extra.Rows), DefaultSamples)
			}
			if len(r.Missing.Rows) > 0 && !strings.Contains(string(r.Missing.Rows[0]), `"course"`) {
				t.Errorf("a sample is %s, want the row", r.Missing.Rows[0])
			}
			for _, row := range holder.Query(t, `select nspname from pg_namespace where nspname like 'es\_verify%'`) {
				t.Errorf("schema %s was left behind", row[0])
			}
		})
	}
}

// What cannot be checked is an error of its own kind.
func TestVerifyCannotCheck(t *testing.T) {
	t.Parallel()
	db, store := openStore(t)
	install(t, store, intent.Definitions{Events: universityTypes, Undeclared: true, Views: []intent.View{places("places", intent.Inline)}})
	newUniversity(t, newSeed()).append(t, store, 3)
	_, err := Verify(testContext(t), store, "places", VerifyOptions{Patience: 100 * time.Millisecond})
	var late *eventstore.BarrierError
	if !errors.As(err, &late) {
		t.Errorf("events without numbers: got %v, want a BarrierError", err)
	}
	number(t, store)
	db.Exec(t, `drop table views.places cascade`)
	_, err = Verify(testContext(t), store, "places", VerifyOptions{})
	var not *NotCheckedError
	if !errors.As(err, &not) || !strings.Contains(err.Error(), "is not there") {
		t.Errorf("without the table: got %v, want a NotCheckedError", err)
	}
	if _, err := Verify(testContext(t), store, "nothing", VerifyOptions{}); !errors.Is(err, ErrNoView) {
		t.Errorf("no view: got %v, want ErrNoView", err)
	}
}

// A switch does not wait for a check that is under way, and is not taken for a
// difference by it.
func TestVerifyWhileSwitched(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		mode  intent.ViewMode
		there bool
	}{
		{"async", intent.Async, false}, {"inline", intent.Inline, false}, {"async elsewhere", intent.Async, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := newCampus(t, cdctest.Postgres(t))
			v := enrolments("e", tc.mode)
			if tc.there {
				v.Database = c.elsewhere(cdctest.Postgres(t))
			}
			install(t, c.store, c.define(v))
			c.follow()
			newUniversity(t, newSeed()).append(t, c.store, 50)
			c.applied("e")
			other := wide("e", tc.mode)
			other.Database = v.Database
			c.build(other)
			once := false
			_, err := Verify(testContext(t), c.store, "e", VerifyOptions{Databases: c.urls, Progress: func(VerifyProgress) {
				if !once {
					once = true
					c.switchTo("e")
				}
			}})
			var not *NotCheckedError
			if !errors.As(err, &not) || !errors.Is(err, errReplaced) {
				t.Errorf("got %v, want a NotCheckedError", err)
			}
			c.equal("e")
		})
	}
}

// A view is verified while sixteen writers append.
func TestVerifyWhileAppending(t *testing.T) {
	t.Parallel()
	c := newCampus(t, cdctest.Postgres(t))
	away := places("away", intent.Async)
	away.Database = c.elsewhere(cdctest.Postgres(t))
	install(t, c.store, c.define(enrolments("now", intent.Inline), places("soon", intent.Async), away))
	c.follow()
	openCourses(t, c.store.Append)
	c.applied("away")
	build := c.build(places("soon", intent.Async))
	w := c.crowd(16, c.store.Append)
	for range 2 {
		w.passed(t, 30)
		for _, name := range []string{"now", "soon", "away"} {
			c.equal(name)
		}
		if r := c.verify("soon", build); !r.Equal() {
			t.Errorf("the build under way: missing %s, extra %s", r.Missing.Rows, r.Extra.Rows)
		}
	}
	w.end()
	c.applied("soon")
	r := c.equal("now")
	if want := w.count.Load(); r.Events != want {
		t.Errorf("%d events replayed, want %d", r.Events, want)
	}
}
