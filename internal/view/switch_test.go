package view

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"cdc/internal/cdctest"
	"cdc/internal/eventstore"
	"cdc/internal/intent"
)

// wide is enrolments by another definition: what a new build is made for.
func wide(name string, mode intent.ViewMode) intent.View {
	v := enrolments(name, mode)
	v.Table = "course text, student text, since bigint, changes int not null, note text default 'new', primary key (course, student)"
	v.When["student-enrolled"] = "insert into " + name + " values (:course, :student, :version, 1) " +
		"on conflict (course, student) do update set since = excluded.since, changes = " + name + ".changes + 1"
	return v
}

// reader reads a view again and again: there must be a table at every moment, and
// none may keep it waiting for longer than a switch may take.
type reader struct {
	stop  chan struct{}
	wg    sync.WaitGroup
	count int
}

func (c *campus) read(db *cdctest.DB, view string) *reader {
	c.t.Helper()
	r := &reader{stop: make(chan struct{})}
	conn, err := pgx.Connect(testContext(c.t), db.URL)
	if err != nil {
		c.t.Fatal(err)
	}
	r.wg.Go(func() {
		defer closeConn(conn)
		// Far above what switches are allowed, for a machine that is busy.
		if _, err := conn.Exec(context.Background(), `set lock_timeout = '20s'`); err != nil {
			c.t.Errorf("read: %v", err)
			return
		}
		for {
			select {
			case <-r.stop:
				return
			default:
			}
			var n int
			if err := conn.QueryRow(context.Background(), `select count(*) from views.`+view).Scan(&n); err != nil {
				c.t.Errorf("read %s: %v", view, err)
				return
			}
			r.count++
		}
	})
	return r
}

func (r *reader) end() {
	close(r.stop)
	r.wg.Wait()
}

// Switched while sixteen writers append and others read, in every mode and from
// every mode to the other: the view is there at every moment, and is what a replay
// gives.
func TestSwitchWhileAppending(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		from, to intent.ViewMode
	}{
		{intent.Async, intent.Async}, {intent.Async, intent.Inline}, {intent.Inline, intent.Inline}, {intent.Inline, intent.Async},
	} {
		t.Run(fmt.Sprintf("%s to %s", tc.from, tc.to), func(t *testing.T) {
			t.Parallel()
			c := newCampus(t, cdctest.Postgres(t))
			install(t, c.store, c.define(enrolments("e", tc.from)))
			c.follow()
			openCourses(t, c.store.Append)
			w := c.crowd(4, c.store.Append)
			w.passed(t, 50)
			r := c.read(c.db, "e")
			b := c.build(wide("e", tc.to))
			w.passed(t, 20)
			c.switchTo("e")
			w.passed(t, 20)
			r.end()
			if got := c.equal("e"); got.Build != b || got.Mode != tc.to {
				t.Errorf("live is build %d, %s; want %d, %s", got.Build, got.Mode, b, tc.to)
			}
			w.end()
			c.applied("e")
			if got, want := c.equal("e").Events, w.count.Load(); got != want {
				t.Errorf("%d events in the view, want %d", got, want)
			}
			if r.count == 0 {
				t.Error("nobody read the view")
			}
			if n := c.db.Value(t, `select count(*) from information_schema.columns where table_schema = 'views' and table_name = 'e' and column_name = 'note'`); n != "1" {
				t.Error("the table is not the new one")
			}
			c.clean()
		})
	}
}

// clean fails where something of a retired build is left once cleaning up had its
// chance.
func (c *campus) clean() {
	c.t.Helper()
	await(c.t, "the retired builds to be gone", func() bool { return sweep(testContext(c.t), c.store) == nil })
	for _, row := range c.db.Query(c.t, `select n.nspname from pg_namespace n where n.nspname ~ '^es_b\d+$' and n.nspname not in (select 'es_b' || build from es.view where state <> 'retired')`) {
		c.t.Errorf("schema %s is left", row[0])
	}
	for _, row := range c.db.Query(c.t, `select tgname from pg_trigger where tgrelid = 'es.event'::regclass and tgname ~ '^es_b' and tgname not in (select 'es_b' || build from es.view where state = 'live')`) {
		c.t.Errorf("trigger %s is left", row[0])
	}
}

// The same with a view in another Postgres, where the switch is a transaction in
// both databases.
func TestSwitchElsewhereWhileAppending(t *testing.T) {
	t.Parallel()
	c := newCampusElsewhere(t, enrolments("e", intent.Inline))
	url := slices.Collect(maps.Values(c.urls))[0]
	c.follow()
	k := c.coordinator(nil)
	openCourses(t, k.Append)
	w := c.crowd(4, k.Append)
	for _, mode := range []intent.ViewMode{intent.Inline, intent.Async, intent.Async, intent.Inline} {
		v := wide("e", mode)
		v.Database = url
		r := c.read(c.there, "e")
		b := c.build(v)
		w.passed(t, 10)
		c.switchTo("e")
		w.passed(t, 10)
		r.end()
		if got := c.equal("e"); got.Build != b || got.Mode != mode {
			t.Errorf("live is build %d, %s; want %d, %s", got.Build, got.Mode, b, mode)
		}
	}
	// And home: the table comes into the store's own database, the other is dropped.
	c.build(wide("e", intent.Inline))
	w.passed(t, 10)
	c.switchTo("e")
	w.end()
	c.equal("e")
	if left := c.prepared(); len(left) > 0 {
		t.Errorf("prepared transactions left: %s", left)
	}
	for _, row := range c.there.Query(t, `select to_regclass('views.e')::text union all select build::text from es_remote.view`) {
		if row[0] != "NULL" {
			t.Errorf("left there: %s", row[0])
		}
	}
	c.clean()
}

// A switch between two databases that is killed between their commits is finished
// by recovery.
func TestSwitchElsewhereKilled(t *testing.T) {
	t.Parallel()
	c := newCampusElsewhere(t, enrolments("e", intent.Inline))
	url := slices.Collect(maps.Values(c.urls))[0]
	k := c.coordinator(nil)
	openCourses(t, k.Append)
	for _, tc := range []struct {
		point string
		moved bool
	}{{"prepared-0", false}, {"prepared-1", false}, {"decided", true}, {"committed-0", true}} {
		v := wide("e", intent.Inline)
		v.Database = url
		b := c.build(v)
		c.barrier()
		c.killSwitchAt(tc.point, "e")
		await(t, "recovery", func() bool {
			if err := k.Recover(testContext(t)); err != nil {
				t.Fatal(err)
			}
			return len(c.prepared()) == 0
		})
		live := c.db.Value(t, `select build from es.view where state = 'live'`)
		if moved := live == fmt.Sprint(b); moved != tc.moved {
			t.Errorf("killed at %s: live is build %s, the new one is %d", tc.point, live, b)
		}
		if _, err := k.Append(testContext(t), enrol("x1", "after "+tc.point)); err != nil {
			t.Errorf("killed at %s: the next append: %v", tc.point, err)
		}
		c.equal("e")
	}
}

// What hangs on the old table keeps the switch from happening; rights do not, and
// are those of the new table.
func TestSwitchRefusesDependents(t *testing.T) {
	t.Parallel()
	c := newCampus(t, cdctest.Postgres(t))
	install(t, c.store, c.define(enrolments("e", intent.Async)))
	u := newUniversity(t, newSeed())
	u.append(t, c.store, 30)
	c.follow()
	c.applied("e")
	role := "clerk_" + c.db.Name
	c.db.Exec(t, `create role `+role, `grant select, references on views.e to `+role+` with grant option`, `grant update (since, student) on views.e to `+role, `revoke select on views.e from es_writer`)
	t.Cleanup(func() { c.db.Exec(t, `drop owned by `+role, `drop role `+role) })
	rights := `select grantee, privilege_type, is_grantable from information_schema.table_privileges where table_schema = 'views' and table_name = 'e'
		union all select grantee, privilege_type || ' ' || column_name, is_grantable from information_schema.column_privileges where table_schema = 'views' and table_name = 'e' and column_name <> 'note' order by 1, 2`
	before := fmt.Sprint(c.db.Query(t, rights))

	c.build(wide("e", intent.Async))
	for _, tc := range []struct{ make, drop, name string }{
		{`create view public.mine as select student from views.e`, `drop view public.mine`, "view mine"},
		{`create materialized view public.mat as select * from views.e`, `drop materialized view public.mat`, "materialized view mat"},
		{`create table public.f(c text, s text, constraint fk foreign key (c, s) references views.e)`, `drop table public.f`, "constraint fk on table f"},
		{`create trigger audit before delete on views.e for each row execute function suppress_redundant_updates_trigger()`, `drop trigger audit on views.e`, "trigger audit on table views.e"},
		{`create publication pub for table views.e`, `drop publication pub`, "publication pub"},
		{`create policy p on views.e`, `drop policy p on views.e`, "policy p on table views.e"},
		{`create function public.f() returns bigint language sql begin atomic select count(*) from views.e; end`, `drop function public.f()`, "function f()"},
	} {
		c.db.Exec(t, tc.make)
		err := Switch(testContext(t), c.store, "e", SwitchOptions{Attempts: 1})
		var kept *DependentsError
		if !errors.As(err, &kept) || !slices.Equal(kept.Objects, []string{tc.name}) {
			t.Errorf("%s: got %v, want a DependentsError that names %q", tc.make, err, tc.name)
		}
		c.db.Exec(t, tc.drop)
	}
	c.switchTo("e")
	if after := fmt.Sprint(c.db.Query(t, rights)); after != before {
		t.Errorf("rights on the new table are %s, those on the old one were %s", after, before)
	}
	if err := Switch(testContext(t), c.store, "e", SwitchOptions{Attempts: 1}); !errors.Is(err, ErrNoBuild) {
		t.Errorf("without a build: got %v, want ErrNoBuild", err)
	}
	if err := Switch(testContext(t), c.store, "none", SwitchOptions{Attempts: 1}); !errors.Is(err, ErrNoView) {
		t.Errorf("without a view: got %v, want ErrNoView", err)
	}
	c.equal("e")
}

// A switch gives up where others do not let go, has changed nothing, and keeps
// nobody waiting afterwards.
func TestSwitchGivesUp(t *testing.T) {
	t.Parallel()
	for _, mode := range []intent.ViewMode{intent.Async, intent.Inline} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			c := newCampus(t, cdctest.Postgres(t))
			install(t, c.store, c.define(enrolments("e", mode)))
			c.follow()
			openCourses(t, c.store.Append)
			c.applied("e")
			c.build(wide("e", mode))
			holder := c.db.Conn(t)
			tx, err := holder.Begin(testContext(t))
			if err != nil {
				t.Fatal(err)
			}
			hold := `select count(*) from views.e`
			if mode == intent.Inline {
				hold = `select * from es.append(array['x/1'], array[null::bigint], array['x/1'], array[gen_random_uuid()], array['x'], array['{}'::jsonb])`
			}
			if _, err := tx.Exec(testContext(t), hold); err != nil {
				t.Fatal(err)
			}
			err = Switch(testContext(t), c.store, "e", SwitchOptions{LockTimeout: 50 * time.Millisecond, Attempts: 2, Pause: time.Millisecond})
			var busy *BusyError
			if !errors.As(err, &busy) || busy.Attempts != 2 {
				t.Errorf("got %v, want a BusyError after 2 attempts", err)
			}
			if _, err := c.store.Append(testContext(t), enrol("x1", "s")); err != nil {
				t.Errorf("an append afterwards: %v", err)
			}
			if err := tx.Commit(testContext(t)); err != nil {
				t.Fatal(err)
			}
			c.equal("e")
			c.switchTo("e")
			c.equal("e")
		})
	}
}

// A second build takes the place of the first; Drop takes all there is.
func TestBuildReplacesAndDropRemoves(t *testing.T) {
	t.Parallel()
	c := newCampus(t, cdctest.Postgres(t))
	away := places("away", intent.Async)
	away.Database = c.elsewhere(cdctest.Postgres(t))
	install(t, c.store, c.define(enrolments("e", intent.Inline), away))
	c.follow()
	openCourses(t, c.store.Append)
	c.applied("away")
	first := c.build(wide("e", intent.Inline))
	second := c.build(wide("e", intent.Async))
	if states := fmt.Sprint(c.db.Query(t, `select build, state from es.view where name = 'e' order by build`)); strings.Contains(states, fmt.Sprint(first, " ")) || !strings.Contains(states, fmt.Sprint(second, " building")) {
		t.Errorf("builds are %s, want %d gone and %d building", states, first, second)
	}
	c.build(away)
	c.build(away)
	if n := c.there.Value(t, `select count(*) from es_remote.view`); n != "2" {
		t.Errorf("%s builds there, want the live one and the second", n)
	}
	bad := wide("e", intent.Async)
	bad.When["student-enrolled"] = "insert into e values (:course, :student, now())"
	var faults FaultsError
	if _, err := Build(testContext(t), c.store, bad, universityTypes); !errors.As(err, &faults) {
		t.Errorf("a definition that is wrong: got %v, want a FaultsError", err)
	}
	for _, name := range []string{"e", "away"} {
		if err := Drop(testContext(t), c.store, name, DropOptions{Databases: c.urls, Pause: 10 * time.Millisecond}); err != nil {
			t.Errorf("drop %s: %v", name, err)
		}
	}
	if list, err := List(testContext(t), c.store); err != nil || len(list) > 0 {
		t.Errorf("left: %v %v", list, err)
	}
	for _, db := range []*cdctest.DB{c.db, c.there} {
		if got := db.Query(t, `select relname from pg_class c join pg_namespace n on n.oid = relnamespace where nspname = 'views' or nspname ~ '^es_b'`); len(got) > 0 {
			t.Errorf("left: %v", got)
		}
	}
	if _, err := c.store.Append(testContext(t), enrol("x1", "s")); err != nil {
		t.Errorf("an append afterwards: %v", err)
	}
	c.clean()
}

// A daemon that is killed half-way through a build goes on with it.
func TestBuildKilledHalfWay(t *testing.T) {
	t.Parallel()
	db, store := openStore(t)
	u := newUniversity(t, newSeed())
	install(t, store, intent.Definitions{Events: universityTypes, Views: []intent.View{enrolments("e", intent.Inline)}}) // the runner has the build alone
	fillCourse(t, db, 12_000)
	u.append(t, store, 50)
	head := number(t, store)
	b, err := Build(testContext(t), store, wide("e", intent.Async), universityTypes)
	if err != nil {
		t.Fatal(err)
	}
	victim := startChild(t, db.URL, db.URL, HookApplied, 2)
	await(t, "the runner to be killed", victim.dead)
	if pos := db.Value(t, fmt.Sprintf(`select pos from es.view where build = %d`, b)); pos != fmt.Sprint(batchPositions) {
		t.Errorf("killed within the second batch the build is at %s, want %d", pos, batchPositions)
	}
	startRunner(t, Config{Store: store})
	await(t, "the build to catch up", func() bool {
		return db.Value(t, fmt.Sprintf(`select pos >= %d from es.view where build = %d`, head, b)) == "t"
	})
	r, err := Verify(testContext(t), store, "e", VerifyOptions{Build: b})
	if err != nil || !r.Equal() || r.Position != head {
		t.Errorf("got %+v, %v; want the build to be equal at %d", r, err, head)
	}
	// Nobody numbers here, which a switch of an inline view takes.
	err = Switch(testContext(t), store, "e", SwitchOptions{LockTimeout: 50 * time.Millisecond})
	var late *eventstore.BarrierError
	if !errors.As(err, &late) {
		t.Errorf("a switch without a daemon: got %v, want a BarrierError", err)
	}
}

// fillCourse stores n events at once, and numbers them.
func fillCourse(t *testing.T, db *cdctest.DB, n int) {
	t.Helper()
	db.Exec(t, fmt.Sprintf(`insert into es.stream values ('course/bulk', %[1]d);
		insert into es.event (id, stream, version, type, data)
		select gen_random_uuid(), 'course/bulk', i, 'student-enrolled', jsonb_build_object('course', 'bulk', 'student', 's' || i %% 1000) from generate_series(1, %[1]d) i;
		insert into es.log (pos, event, lsn, tx) select version, id, '0/1', 1 from es.event; analyze es.log; analyze es.event`, n))
}
