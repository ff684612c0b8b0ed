package view

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"cdc/internal/cdctest"
	"cdc/internal/eventstore"
	"cdc/internal/intent"
)

// testLimit bounds every wait of a test.
const testLimit = 60 * time.Second

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testLimit)
	t.Cleanup(cancel)
	return ctx
}

// openStore is a fresh store of the test.
func openStore(t testing.TB) (*cdctest.DB, *eventstore.Store) {
	t.Helper()
	db := cdctest.Database(t)
	return db, openIn(t, db)
}

func openIn(t testing.TB, db *cdctest.DB) *eventstore.Store {
	t.Helper()
	ctx := testContext(t)
	if _, err := eventstore.Init(ctx, db.URL, eventstore.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	return openAs(t, db.URL)
}

func openAs(t testing.TB, url string) *eventstore.Store {
	t.Helper()
	store, err := eventstore.Open(testContext(t), eventstore.Config{URL: url, MaxConns: 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	return store
}

// number numbers what is committed, as the slot's reader does, and returns the head.
// Within a stream, and between appends one after the other, the order is that of the
// commits.
func number(t testing.TB, store *eventstore.Store) int64 {
	t.Helper()
	head, err := numberNow(testContext(t), store)
	if err != nil {
		t.Fatal(err)
	}
	return head
}

func numberNow(ctx context.Context, store *eventstore.Store) (head int64, err error) {
	err = pgx.BeginFunc(ctx, store.Pool(), func(tx pgx.Tx) error {
		var end string // what was committed before it is visible to the next statement
		if _, err := tx.Exec(ctx, `lock table es.reader`); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, `select pg_current_wal_insert_lsn()::text`).Scan(&end); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `
			insert into es.log (pos, event, lsn, tx)
			select es.head() + row_number() over (order by e.at, e.stream, e.version), e.id, '0/1', 1
			from es.event e where not exists (select from es.log l where l.event = e.id)`)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `insert into es.reader (slot, system, timeline, lsn) values ('test', '1', 1, $1::text::pg_lsn)
			on conflict (one) do update set lsn = excluded.lsn`, end)
		if err != nil {
			return err
		}
		return tx.QueryRow(ctx, `select es.head()`).Scan(&head)
	})
	return head, err
}

// startNumbering numbers to the end of the test.
func startNumbering(t testing.TB, store *eventstore.Store) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			if _, err := numberNow(ctx, store); err != nil && ctx.Err() == nil {
				t.Errorf("number: %v", err)
				return
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

// startRunner runs a Runner to the end of the test, or until stop is called.
func startRunner(t testing.TB, c Config) (r *Runner, stop func()) {
	t.Helper()
	c.Logger = slog.New(slog.NewTextHandler(testWriter{t}, nil))
	r = New(c)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = r.Run(ctx)
	}()
	stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	return r, stop
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", strings.TrimSpace(string(b)))
	return len(b), nil
}

// await asks until the condition holds.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(testLimit)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("in vain waited for: %s", what)
		}
	}
}

// awaitLive waits until the view is live and, where it follows the log, has applied
// everything up to pos.
func awaitLive(t testing.TB, store *eventstore.Store, name string, pos int64) {
	t.Helper()
	await(t, fmt.Sprintf("view %s at %d", name, pos), func() bool {
		var ok bool
		err := store.Pool().QueryRow(testContext(t), `select exists (select from es.view where name = $1 and state = 'live' and (mode = 'inline' or pos >= $2))`, name, pos).Scan(&ok)
		if err != nil {
			t.Fatal(err)
		}
		return ok
	})
}

func install(t testing.TB, store *eventstore.Store, d intent.Definitions) Report {
	t.Helper()
	r, err := Install(testContext(t), store, d)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// The university: courses with a number of places. Statements add and subtract, so
// that an event that is applied twice, or never, shows.

var universityTypes = []intent.EventType{
	{Name: "course-opened", Stream: "course/{course}", Schema: 1, Fields: []intent.Field{{Name: "course", Type: intent.TypeString}, {Name: "places", Type: intent.TypeInt}}},
	{Name: "student-enrolled", Stream: "course/{course}", Schema: 1, Fields: []intent.Field{{Name: "course", Type: intent.TypeString}, {Name: "student", Type: intent.TypeString}}},
	{Name: "enrolment-cancelled", Stream: "course/{course}", Schema: 1, Fields: []intent.Field{{Name: "course", Type: intent.TypeString}, {Name: "reason", Type: intent.TypeString, Optional: true}, {Name: "student", Type: intent.TypeString}}},
}

// enrolments has a row per student and course.
func enrolments(name string, mode intent.ViewMode) intent.View {
	return intent.View{Name: name, Mode: mode,
		Table:   "course text, student text, since bigint, changes int not null, primary key (course, student)",
		Indexes: []string{"student, course"},
		When: map[string]string{
			"student-enrolled": "insert into " + name + " values (:course, :student, :version, 1) -- again and again\n" +
				"on conflict (course, student) do update set since = excluded.since, changes = " + name + ".changes + 1",
			"enrolment-cancelled": "delete from " + name + " where course = :course and student = :student;",
		}}
}

// places has a row per course.
func places(name string, mode intent.ViewMode) intent.View {
	return intent.View{Name: name, Mode: mode,
		Table: "course text primary key, places bigint, taken bigint not null default 0, events bigint not null default 1, last uuid",
		When: map[string]string{
			"course-opened":       "insert into " + name + " (course, places, last) values (:course, :places, :id)",
			"student-enrolled":    "update " + name + " set taken = taken + 1, events = events + 1, last = :id where course = :course",
			"enrolment-cancelled": "update " + name + " set taken = taken - 1, events = events + 1, last = :id where course = :course",
		}}
}

// university makes events, and knows what the views must hold after them.
type university struct {
	rand    *rand.Rand
	next    int
	courses []string
	rows    map[string]map[string][2]int64 // course, student: since, changes
	places  map[string]*[3]int64           // course: places, taken, events
	last    map[string]intent.ID
	version map[string]int64
}

func newUniversity(t testing.TB, seed uint64) *university {
	t.Logf("seed %d", seed)
	return &university{rand: rand.New(rand.NewPCG(seed, 1)), rows: map[string]map[string][2]int64{},
		places: map[string]*[3]int64{}, last: map[string]intent.ID{}, version: map[string]int64{}}
}

func newSeed() uint64 { return uint64(time.Now().UnixNano()) }

// events are the next n, each in its stream.
func (u *university) events(n int) []intent.Batch {
	var all []intent.Batch
	for range n {
		kind, course, student := "student-enrolled", "", "stu_"+strconv.Itoa(u.rand.IntN(20))
		if len(u.courses) == 0 || len(u.courses) < 10 && u.rand.IntN(20) == 0 {
			course = fmt.Sprintf("c'%d\\", u.next)
			u.next++
			u.courses = append(u.courses, course)
			kind = "course-opened"
		} else {
			course = u.courses[u.rand.IntN(len(u.courses))]
			if _, in := u.rows[course][student]; in && u.rand.IntN(2) == 0 {
				kind = "enrolment-cancelled"
			}
		}
		data := map[string]any{"course": course, "student": student, "places": 30}
		if kind == "course-opened" {
			delete(data, "student")
		} else {
			delete(data, "places")
		}
		raw, _ := json.Marshal(data)
		e := intent.NewEvent{ID: intent.NewID(), Type: kind, Data: raw}
		u.apply(kind, course, student, e.ID)
		all = append(all, intent.Batch{Stream: "course/" + course, Expect: intent.Any, Events: []intent.NewEvent{e}})
	}
	return all
}

func (u *university) apply(kind, course, student string, id intent.ID) {
	u.version[course]++
	u.last[course] = id
	switch kind {
	case "course-opened":
		u.rows[course], u.places[course] = map[string][2]int64{}, &[3]int64{30, 0, 1}
		return
	case "student-enrolled":
		u.rows[course][student] = [2]int64{u.version[course], u.rows[course][student][1] + 1}
		u.places[course][1]++
	case "enrolment-cancelled":
		delete(u.rows[course], student)
		u.places[course][1]--
	}
	u.places[course][2]++
}

// append appends n events, one after the other.
func (u *university) append(t testing.TB, store *eventstore.Store, n int) intent.Receipt {
	t.Helper()
	var last intent.Receipt
	for _, b := range u.events(n) {
		var err error
		if last, err = store.Append(testContext(t), []intent.Batch{b}); err != nil {
			t.Fatal(err)
		}
	}
	return last
}

// enrolmentRows and placesRows are what those views must hold.
func (u *university) enrolmentRows() (rows []string) {
	for course, students := range u.rows {
		for student, v := range students {
			rows = append(rows, fmt.Sprint(course, " ", student, " ", v[0], " ", v[1]))
		}
	}
	slices.Sort(rows)
	return rows
}

func (u *university) placesRows() (rows []string) {
	for course, p := range u.places {
		rows = append(rows, fmt.Sprint(course, " ", p[0], " ", p[1], " ", p[2], " ", u.last[course]))
	}
	slices.Sort(rows)
	return rows
}

// tableRows is a table, each row's columns separated by spaces.
func tableRows(t testing.TB, db *cdctest.DB, table string) (rows []string) {
	t.Helper()
	for _, row := range db.Query(t, "select * from "+table) {
		rows = append(rows, strings.Join(row, " "))
	}
	slices.Sort(rows)
	return rows
}

func checkRows(t testing.TB, what string, got, want []string) {
	t.Helper()
	if slices.Equal(got, want) {
		return
	}
	t.Errorf("%s: got %d rows, want %d", what, len(got), len(want))
	for _, row := range got {
		if !slices.Contains(want, row) {
			t.Errorf("  got  %s", row)
		}
	}
	for _, row := range want {
		if !slices.Contains(got, row) {
			t.Errorf("  want %s", row)
		}
	}
}

// A child is this binary as a Runner that kills itself at a point:
// "store-URL other-URL point n" in childVariable.
const childVariable = "CDC_TEST_VIEW_CHILD"

func runChild() int {
	var url, other, point string
	var n int
	if _, err := fmt.Sscan(os.Getenv(childVariable), &url, &other, &point, &n); err != nil {
		fmt.Println(err)
		return 2
	}
	store, err := eventstore.Open(context.Background(), eventstore.Config{URL: url, MaxConns: 10})
	if err != nil {
		fmt.Println(err)
		return 2
	}
	count := make(chan int, 1)
	count <- 0
	r := New(Config{Store: store, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Databases: map[string]string{intent.View{Database: other}.DatabaseName(): other},
		Hook: func(at string) {
			if at != point {
				return
			}
			c := <-count
			if c++; c == n {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
			count <- c
		}})
	fmt.Println(r.Run(context.Background()))
	return 1
}
