package view

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
	"cdc/internal/eventstore"
	"cdc/internal/intent"
)

// newCampusElsewhere is a campus with inline views in another database of its
// server. While a transaction is prepared no slot can be made there, so tests that
// leave one have it recovered at once.
func newCampusElsewhere(t *testing.T, views ...intent.View) *campus {
	t.Helper()
	c := newCampus(t, cdctest.Postgres(t))
	url := c.elsewhere(c.db.Server)
	for i := range views {
		views[i].Database = url
	}
	install(t, c.store, c.define(views...))
	stop := c.follow()
	for _, v := range views {
		awaitLive(t, c.store, v.Name, 0)
	}
	stop()
	return c
}

func (c *campus) coordinator(hook func(string)) *Coordinator {
	c.t.Helper()
	k, err := NewCoordinator(c.store, slices.Collect(maps.Values(c.urls)), CoordinatorOptions{MaxConns: 4, hook: hook}) // the server takes 20 prepared transactions of all tests
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(k.Close)
	return k
}

// prepared are the prepared transactions of both databases.
func (c *campus) prepared() []string {
	var all []string
	for _, row := range c.db.Query(c.t, fmt.Sprintf(`select gid from pg_prepared_xacts where database in ('%s', '%s') order by 1`, c.db.Name, c.there.Name)) {
		all = append(all, row[0])
	}
	return all
}

func enrol(course, student string) []intent.Batch {
	return []intent.Batch{{Stream: "course/" + course, Expect: intent.Any, Events: []intent.NewEvent{{ID: intent.NewID(), Type: "student-enrolled",
		Data: fmt.Appendf(nil, `{"course":%q,"student":%q}`, course, student), Meta: []byte(`{}`)}}}}
}

// What is appended is in both databases at once, whoever repeats it, and only
// through a Coordinator.
func TestInlineElsewhere(t *testing.T) {
	t.Parallel()
	c := newCampusElsewhere(t, enrolments("enrolments", intent.Inline))
	k := c.coordinator(nil)
	u := newUniversity(t, newSeed())
	for _, b := range u.events(40) {
		r, err := k.Append(testContext(t), []intent.Batch{b})
		if err != nil {
			t.Fatal(err)
		}
		again, err := k.Append(testContext(t), []intent.Batch{b})
		if err != nil || !again.Duplicate || again.Token != r.Token {
			t.Fatalf("the same append again: got %+v, %v; want a duplicate of %+v", again, err, r)
		}
	}
	checkRows(t, "enrolments", tableRows(t, c.there, "views.enrolments"), u.enrolmentRows())
	c.equal("enrolments")
	if left := c.prepared(); len(left) > 0 {
		t.Errorf("prepared transactions left: %s", left)
	}
	if n := c.db.Value(t, `select count(*) from es.decision`); n != "0" {
		t.Errorf("%s decisions left", n)
	}

	_, err := c.store.Append(testContext(t), enrol("c", "s"))
	var invalid *intent.InvalidError
	if !errors.As(err, &invalid) || !strings.Contains(invalid.Text, "POST /v1/append") {
		t.Errorf("plain SQL: got %v, want a refusal that names POST /v1/append", err)
	}
	app := login(t, c.db, "app_"+c.db.Name, "in role es_writer")
	conn, err := pgx.Connect(testContext(t), app)
	if err != nil {
		t.Fatal(err)
	}
	_, err = conn.Exec(testContext(t), `set es.coordinated = 'on'; select * from es.append(array['course/c'], array[null::bigint], array['course/c'], array[gen_random_uuid()], array['student-enrolled'], array['{"course": "c", "student": "s"}'::jsonb])`)
	if !hasCode(err, codeInvalidEvent) {
		t.Errorf("plain SQL of an application that says it is a coordinator: got %v, want %s", err, codeInvalidEvent)
	}
	closeConn(conn)
	if _, err := c.store.Append(testContext(t), []intent.Batch{{Stream: "other/1", Events: []intent.NewEvent{{ID: intent.NewID(), Type: "other", Data: []byte(`{}`)}}}}); err != nil {
		t.Errorf("a type the view does not take, by plain SQL: %v", err)
	}
	if _, err := k.Append(testContext(t), []intent.Batch{{Stream: "other/2", Events: []intent.NewEvent{{ID: intent.NewID(), Type: "other", Data: []byte(`{}`)}}}}); err != nil {
		t.Errorf("a type the view does not take, by the coordinator: %v", err)
	}
	conflict := enrol("c'0\\", "s")
	conflict[0].Expect = 9999
	var con *intent.ConflictError
	if _, err := k.Append(testContext(t), conflict); !errors.As(err, &con) {
		t.Errorf("a wrong version: got %v, want a conflict", err)
	}
	c.there.Exec(t, `update views.enrolments set changes = changes + 1 where ctid = (select ctid from views.enrolments limit 1)`)
	if r := c.verify("enrolments", 0); r.Missing.Count != 1 || r.Extra.Count != 1 {
		t.Errorf("a tampered row: missing %d, extra %d; want 1, 1", r.Missing.Count, r.Extra.Count)
	}
}

// An event the view refuses is in neither database.
func TestInlineElsewhereRefused(t *testing.T) {
	t.Parallel()
	v := intent.View{Name: "numbers", Mode: intent.Inline, Table: "n int primary key", When: map[string]string{"n": "insert into numbers values ((:data->>'n')::int)"}}
	c := newCampusElsewhere(t, v)
	k := c.coordinator(nil)
	add := func(stream, n string) error {
		_, err := k.Append(testContext(t), []intent.Batch{{Stream: stream, Events: []intent.NewEvent{{ID: intent.NewID(), Type: "n", Data: fmt.Appendf(nil, `{"n":%s}`, n)}}}})
		return err
	}
	if err := add("n/1", "1"); err != nil {
		t.Fatal(err)
	}
	var invalid *intent.InvalidError
	if err := add("n/2", `"x"`); !errors.As(err, &invalid) {
		t.Errorf("data that does not fit: got %v, want an InvalidError", err)
	}
	if err := add("n/3", "1"); err == nil || !strings.Contains(err.Error(), "23505") {
		t.Errorf("a row that is there: got %v, want SQLSTATE 23505", err)
	}
	if n := c.db.Value(t, `select count(*) from es.event`); n != "1" {
		t.Errorf("%s events are stored, want 1", n)
	}
	if left := c.prepared(); len(left) > 0 {
		t.Errorf("prepared transactions left: %s", left)
	}
	if err := add("n/4", "4"); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	c.equal("numbers")
}

// Sixteen writers meet in the same rows of the other database: the order is that of
// the log.
func TestInlineElsewhereWhileAppending(t *testing.T) {
	t.Parallel()
	c := newCampusElsewhere(t, enrolments("enrolments", intent.Inline), places("places", intent.Inline), totals("totals", intent.Inline))
	k := c.coordinator(nil)
	openCourses(t, k.Append)
	w := c.crowd(16, k.Append)
	for range 2 {
		w.passed(t, 20)
		c.equal("totals")
		c.equal("enrolments")
	}
	w.end()
	for _, name := range []string{"enrolments", "places", "totals"} {
		c.equal(name)
	}
}

// totals has one row that every event changes, in an order that shows. Each makes
// it where it is missing: a row that is not there yet cannot be locked, so an UPDATE
// alone would miss the one that another append is about to make.
func totals(name string, mode intent.ViewMode) intent.View {
	add := "insert into " + name + " values (1, 1, :id::text) on conflict (one) do update set n = " + name + ".n + 1, trace = md5(" + name + ".trace || excluded.trace)"
	return intent.View{Name: name, Mode: mode, Table: "one int primary key, n bigint, trace text",
		When: map[string]string{"student-enrolled": add, "enrolment-cancelled": add}}
}

// Killed at every step of an append in two databases: whatever recovery does, the
// event is in the store exactly if its row is in the view.
func TestCoordinatorKilledAtEachPoint(t *testing.T) {
	t.Parallel()
	c := newCampusElsewhere(t, enrolments("enrolments", intent.Inline))
	for _, tc := range []struct {
		point string
		there bool // the event, in the end
	}{
		{"applied", false}, {"prepared-0", false}, {"prepared-1", false},
		{"decided", true}, {"committed-0", true}, {"committed-1", true},
	} {
		student := tc.point
		c.killAt(tc.point, enrol("c", student))
		k := c.coordinator(nil)
		await(t, "recovery of "+tc.point, func() bool { // the server takes a moment to see that the process is gone
			if err := k.Recover(testContext(t)); err != nil {
				t.Fatal(err)
			}
			return len(c.prepared()) == 0 && c.db.Value(t, `select count(*) from pg_locks where locktype = 'advisory' and not granted`) == "0" &&
				c.db.Value(t, `select count(*) from es.decision`) == "0"
		})
		event := c.db.Value(t, `select count(*) from es.event where data->>'student' = '`+student+`'`)
		row := c.there.Value(t, `select count(*) from views.enrolments where student = '`+student+`'`)
		want := "0"
		if tc.there {
			want = "1"
		}
		if event != want || row != want {
			t.Errorf("killed at %s: %s events and %s rows, want %s of each", tc.point, event, row, want)
		}
		if _, err := k.Append(testContext(t), enrol("c", "after "+student)); err != nil {
			t.Errorf("killed at %s: the next append: %v", tc.point, err)
		}
		k.Close()
	}
	c.equal("enrolments")
}

// Recovery leaves alone what belongs to a session that lives, and waits for a
// database that is away.
func TestRecoverLeavesTheLivingAlone(t *testing.T) {
	t.Parallel()
	c := newCampusElsewhere(t, enrolments("enrolments", intent.Inline))
	other := c.coordinator(nil)
	for _, point := range []string{"prepared-0", "prepared-1", "decided", "committed-0"} {
		seen := 0
		k := c.coordinator(func(at string) {
			if at != point {
				return
			}
			if err := other.Recover(testContext(t)); err != nil {
				t.Errorf("at %s: %v", point, err)
			}
			seen = len(c.prepared())
		})
		if _, err := k.Append(testContext(t), enrol("c", point)); err != nil {
			t.Errorf("at %s: %v", point, err)
		}
		if seen == 0 {
			t.Errorf("at %s: recovery of another ended a living append's transactions", point)
		}
	}
	if n := c.there.Value(t, `select count(*) from views.enrolments`); n != "4" {
		t.Errorf("%s rows, want 4", n)
	}
	c.equal("enrolments")
}

// The other database goes away, or the deciding session does, at every step: the
// caller is told what is known, and in the end both databases agree.
func TestCoordinatorLosesAConnection(t *testing.T) {
	t.Parallel()
	c := newCampus(t, cdctest.Postgres(t))
	direct, err := url.Parse(c.elsewhere(cdctest.Postgres(t)))
	if err != nil {
		t.Fatal(err)
	}
	proxy := cdctest.NewProxy(t, direct.Host)
	direct.Host = proxy.Addr
	v := enrolments("enrolments", intent.Inline)
	v.Database = direct.String()
	c.urls = map[string]string{v.DatabaseName(): v.Database}
	install(t, c.store, c.define(v))
	stop := c.follow()
	awaitLive(t, c.store, v.Name, 0)
	stop()

	away := func() {
		proxy.Refuse()
		proxy.Cut()
	}
	undecided := func() {
		c.db.Exec(t, `select pg_terminate_backend(pid, 10000) from pg_locks where locktype = 'advisory' and objsubid = 1 and mode = 'ExclusiveLock' and granted and pid is not null
			and database = (select oid from pg_database where datname = current_database()) and pid in (select pid from pg_stat_activity where query ~ '^(prepare transaction|insert into es.decision)')`)
	}
	for _, tc := range []struct {
		point string
		fault func()
		want  string // of the error
		there bool   // the event, in the end
	}{
		{"applied", away, "other", false},
		{"prepared-0", away, "other", false},
		{"prepared-1", undecided, "undecided", false},
		{"decided", undecided, "undecided", true},
		{"committed-0", away, "behind", true},
	} {
		done := false
		k := c.coordinator(func(at string) {
			if at == tc.point && !done {
				done = true
				tc.fault()
			}
		})
		batches := enrol("c", tc.point)
		_, err := k.Append(testContext(t), batches)
		var behind *BehindError
		var open *UndecidedError
		got := "other"
		switch {
		case err == nil:
			got = "none"
		case errors.As(err, &behind):
			got = "behind"
		case errors.As(err, &open):
			got = "undecided"
		}
		if got != tc.want {
			t.Errorf("at %s: got %s (%v), want %s", tc.point, got, err, tc.want)
		}
		if tc.want == "behind" {
			if err := k.Recover(testContext(t)); err == nil {
				t.Errorf("at %s: recovery says nothing of a database that is away", tc.point)
			}
			if n := c.db.Value(t, `select count(*) from es.decision`); n != "1" {
				t.Errorf("at %s: %s decisions while a database is away, want 1", tc.point, n)
			}
			if _, err := k.Append(testContext(t), enrol("other", "s")); err == nil {
				t.Errorf("at %s: an append while the other database is away succeeds", tc.point)
			}
		}
		proxy.Heal()
		await(t, "recovery of "+tc.point, func() bool {
			return k.Recover(testContext(t)) == nil && len(c.prepared()) == 0 && c.db.Value(t, `select count(*) from es.decision`) == "0"
		})
		event := c.db.Value(t, `select count(*) from es.event where data->>'student' = '`+tc.point+`'`)
		row := c.there.Value(t, `select count(*) from views.enrolments where student = '`+tc.point+`'`)
		want := map[bool]string{true: "1", false: "0"}[tc.there]
		if event != want || row != want {
			t.Errorf("at %s: %s events and %s rows, want %s of each", tc.point, event, row, want)
		}
		again, err := k.Append(testContext(t), batches)
		if err != nil || again.Duplicate != tc.there {
			t.Errorf("at %s: the same append again: got %+v, %v; want a duplicate: %t", tc.point, again, err, tc.there)
		}
	}
	c.equal("enrolments")
}

func TestTwoPhaseIsRefusedWhereItIsOff(t *testing.T) {
	t.Parallel()
	off := cdctest.PrivatePostgres(t, map[string]string{"max_prepared_transactions": "0"})
	db, store := openStore(t)
	err := CheckTwoPhase(testContext(t), store.Pool(), off.Database(t).URL)
	var terminal *cdc.TerminalError
	if !errors.As(err, &terminal) || !strings.Contains(terminal.Mend, "max_prepared_transactions") {
		t.Errorf("off in the other Postgres: got %v", err)
	}
	if err := CheckTwoPhase(testContext(t), store.Pool(), db.URL); err != nil {
		t.Errorf("on in both: %v", err)
	}
	c := newCampus(t, off)
	if err := CheckTwoPhase(testContext(t), c.store.Pool()); !errors.As(err, &terminal) {
		t.Errorf("off in the store: got %v", err)
	}
	inline := enrolments("e", intent.Inline)
	inline.Database = c.elsewhere(off)
	if _, err := Build(testContext(t), c.store, inline, universityTypes); err == nil || !strings.Contains(err.Error(), "max_prepared_transactions") {
		t.Errorf("an inline view there: got %v, want a fault that names the setting", err)
	}

	// An async view is switched without: there first. Cut off in between, it is
	// finished by the next switch.
	async := enrolments("e", intent.Async)
	async.Database = inline.Database
	install(t, c.store, c.define(async))
	stop := c.follow()
	newUniversity(t, newSeed()).append(t, c.store, 50)
	c.applied("e")
	stop()
	changed := wide("e", intent.Async)
	changed.Database = inline.Database
	build := c.build(changed)
	c.killSwitchAt("committed-1", "e")
	if live := c.db.Value(t, `select build from es.view where state = 'live'`); live == fmt.Sprint(build) {
		t.Error("the switch was not cut off before the store's commit")
	}
	c.switchTo("e")
	c.follow()
	newUniversity(t, newSeed()).append(t, c.store, 10)
	c.applied("e")
	if r := c.equal("e"); r.Build != build || r.Position != 60 {
		t.Errorf("live is build %d at %d, want %d at 60", r.Build, r.Position, build)
	}
}

func TestGIDs(t *testing.T) {
	g := gid{store: intent.NewID(), owner: -5, id: intent.NewID()}
	back, part, ok := parseGID(g.part(3))
	if !ok || back != g || part != 3 {
		t.Errorf("got %v %d %v, want %v 3", back, part, ok, g)
	}
	if n := len(g.part(999)); n > 200 {
		t.Errorf("a name has %d bytes, Postgres takes 200", n)
	}
	for _, s := range []string{"", "es:", "x", g.decision(), g.part(1) + "x", "ES" + g.part(1)[2:], strings.ToUpper(g.part(1))} {
		if _, _, ok := parseGID(s); ok {
			t.Errorf("%q was taken for one of ours", s)
		}
	}
}

// killAt appends in a process of its own that kills itself at a point.
func (c *campus) killAt(point string, batches []intent.Batch) {
	c.t.Helper()
	c.kill(coordinatorChild{Point: point, Batches: batches})
}

// killSwitchAt switches a view in such a process.
func (c *campus) killSwitchAt(point, view string) {
	c.t.Helper()
	c.kill(coordinatorChild{Point: point, Switch: view})
}

func (c *campus) kill(child coordinatorChild) {
	t := c.t
	t.Helper()
	child.Store, child.Databases = c.store.Pool().Config().ConnString(), c.urls
	b, err := json.Marshal(child)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), coordinatorVariable+"="+string(b))
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(testLimit, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	_ = cmd.Wait()
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || ws.Signal() != syscall.SIGKILL {
		t.Fatalf("the process ended by itself before %s: %s\n%s", child.Point, cmd.ProcessState, out.String())
	}
}

// coordinatorVariable makes this binary a Coordinator that appends and kills itself.
const coordinatorVariable = "CDC_TEST_COORDINATOR_CHILD"

type coordinatorChild struct {
	Store     string
	Databases map[string]string
	Point     string
	Batches   []intent.Batch
	Switch    string // a view, instead of Batches
}

func runCoordinator() int {
	var c coordinatorChild
	if err := json.Unmarshal([]byte(os.Getenv(coordinatorVariable)), &c); err != nil {
		fmt.Println(err)
		return 2
	}
	store, err := eventstore.Open(context.Background(), eventstore.Config{URL: c.Store})
	if err != nil {
		fmt.Println(err)
		return 2
	}
	hook := func(at string) {
		if at == c.Point {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	if c.Switch != "" {
		fmt.Println(Switch(context.Background(), store, c.Switch, SwitchOptions{Databases: c.Databases, hook: hook}))
		return 1
	}
	k, err := NewCoordinator(store, slices.Collect(maps.Values(c.Databases)), CoordinatorOptions{hook: hook})
	if err != nil {
		fmt.Println(err)
		return 2
	}
	r, err := k.Append(context.Background(), c.Batches)
	fmt.Println(r, err)
	return 1
}

// G9 elsewhere: between the commits in the store and in the other database the event
// can be read and its row cannot; who waits with the token waits for the row.
func TestReadYourOwnWriteElsewhere(t *testing.T) {
	t.Parallel()
	c := newCampusElsewhere(t, enrolments("enrolments", intent.Inline))
	batch := append(enrol("c", "first"), enrol("d", "last")...)
	var early []error
	k := c.coordinator(func(point string) {
		if point != "committed-0" {
			return
		}
		for _, b := range batch {
			_, err := c.store.Wait(testContext(t), "enrolments", b.Events[0].ID, 50*time.Millisecond)
			early = append(early, err)
		}
	})
	r, err := k.Append(testContext(t), batch)
	if err != nil {
		t.Fatal(err)
	}
	for i, err := range early {
		if !errors.Is(err, eventstore.ErrTimeout) {
			t.Errorf("event %d, before its row was there: got %v, want the wait to go on", i, err)
		}
	}
	if len(early) != len(batch) {
		t.Fatalf("waited %d times between the commits, want %d", len(early), len(batch))
	}
	if _, err := c.store.Wait(testContext(t), "enrolments", r.Token, testLimit); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
