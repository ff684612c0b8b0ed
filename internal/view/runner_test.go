package view

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
	"cdc/internal/child"
	"cdc/internal/eventstore"
	"cdc/internal/intent"
)

// A statement that fails stops its view and no other, before the event, and the view
// goes on when what it failed at is mended.
func TestFailingStatement(t *testing.T) {
	t.Parallel()
	db, store := openStore(t)
	other := cdctest.Database(t)
	u := newUniversity(t, newSeed())
	narrow := func(name string) intent.View {
		v := enrolments(name, intent.Async)
		v.Table += ", constraint few check (student <> 'stu_7')"
		return v
	}
	there := narrow("narrow_there")
	there.Database = other.URL
	install(t, store, intent.Definitions{Events: universityTypes, Views: []intent.View{enrolments("good", intent.Async), narrow("narrow"), there}})
	u.append(t, store, 20)
	number(t, store)
	r, _ := startRunner(t, Config{Store: store, Databases: map[string]string{there.DatabaseName(): other.URL}})
	u.append(t, store, 400) // one of them enrols stu_7
	head := number(t, store)
	awaitLive(t, store, "good", head)
	checkRows(t, "good", tableRows(t, db, "views.good"), u.enrolmentRows())

	at := db.Query(t, `select l.pos, l.event from es.log l join es.event e on e.id = l.event
		where e.type = 'student-enrolled' and e.data->>'student' = 'stu_7' order by l.pos limit 1`)[0]
	for _, name := range []string{"narrow", "narrow_there"} {
		status := func() (s cdc.PartStatus) {
			for _, p := range r.Status() {
				if p.Name == "view "+name {
					s = p
				}
			}
			return s
		}
		await(t, name+" stands still", func() bool { return status().Reason == "statement-failed" })
		if s := status(); s.State != cdc.StateBackingOff || !strings.Contains(s.Error, at[1]) || !strings.Contains(s.Error, "few") || s.Mend == "" {
			t.Errorf("%s: got status %+v, want one that names event %s and constraint few", name, s, at[1])
		}
		stored := db.Query(t, `select pos + 1, error->>'event', error->>'type', error->>'statement', error->>'message' like '%few%', error->>'position' from es.view where name = '`+name+`'`)[0]
		want := fmt.Sprint([]string{at[0], at[1], "student-enrolled", narrow(name).When["student-enrolled"], "t", at[0]})
		if fmt.Sprint(stored) != want {
			t.Errorf("%s: got  %s\nwant %s", name, stored, want)
		}
	}
	all, err := List(testContext(t), store)
	if err != nil || len(all) != 3 || all[1].Event != at[1] || !strings.Contains(all[1].Error, "few") || all[0].Error != "" {
		t.Errorf("got %+v, %v", all, err)
	}

	db.Exec(t, `alter table `+tableOf(t, db, "narrow")+` drop constraint few`)
	other.Exec(t, `alter table `+tableOf(t, other, "narrow_there")+` drop constraint few`)
	awaitLive(t, store, "narrow", head)
	awaitLive(t, store, "narrow_there", head)
	checkRows(t, "narrow", tableRows(t, db, "views.narrow"), u.enrolmentRows())
	checkRows(t, "narrow_there", tableRows(t, other, "views.narrow_there"), u.enrolmentRows())
	if got := db.Value(t, `select count(*) from es.view where error is not null`); got != "0" {
		t.Errorf("%s views still have an error", got)
	}
}

// tableOf is where the table of a view is, live or not.
func tableOf(t testing.TB, db *cdctest.DB, name string) string {
	t.Helper()
	return db.Value(t, `select oid::regclass from pg_class where relname = '`+name+`' and relkind = 'r'`)
}

// Killed at any point, a view holds what its position says, and goes on from there.
func TestKilled(t *testing.T) {
	t.Parallel()
	for _, point := range []string{HookBeforeApply, HookApplied, HookCommitted} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			db, store := openStore(t)
			other := cdctest.Database(t)
			u := newUniversity(t, newSeed())
			there := places("there", intent.Async)
			there.Database = other.URL
			install(t, store, intent.Definitions{Events: universityTypes, Views: []intent.View{places("here", intent.Async), there, enrolments("rows", intent.Async)}})
			u.append(t, store, 30)
			number(t, store)
			for life := 1; life <= 4; life++ {
				kill := startChild(t, db.URL, other.URL, point, life)
				for !kill.dead() { // under load, until it kills itself
					u.append(t, store, 10)
					number(t, store)
				}
				checkPrefix(t, db, store, "here")
				checkPrefix(t, other, store, "there")
			}
			head := number(t, store)
			startRunner(t, Config{Store: store, Databases: map[string]string{there.DatabaseName(): other.URL}})
			for _, name := range []string{"here", "there", "rows"} {
				awaitLive(t, store, name, head)
			}
			checkRows(t, "here", tableRows(t, db, "views.here"), u.placesRows())
			checkRows(t, "there", tableRows(t, other, "views.there"), u.placesRows())
			checkRows(t, "rows", tableRows(t, db, "views.rows"), u.enrolmentRows())
		})
	}
}

// checkPrefix checks that a places view holds as many events as its position says:
// every event counts once.
func checkPrefix(t testing.TB, db *cdctest.DB, store *eventstore.Store, name string) {
	t.Helper()
	position := `select pos from es.view where name = '` + name + `'`
	if name == "there" {
		position = `select pos from es_remote.view where name = '` + name + `'`
	}
	row := db.Query(t, `select coalesce(sum(events), 0), (`+position+`) from `+tableOf(t, db, name))[0]
	if row[0] != row[1] {
		t.Errorf("%s: got %s events in the table, position %s", name, row[0], row[1])
	}
	if name == "there" {
		var here string
		err := store.Pool().QueryRow(testContext(t), `select pos::text from es.view where name = 'there'`).Scan(&here)
		if err != nil || len(here) > len(row[1]) || len(here) == len(row[1]) && here > row[1] {
			t.Errorf("the store says position %s (%v), which is ahead of %s", here, err, row[1])
		}
	}
}

type killed struct {
	t    testing.TB
	proc *child.Process
}

func startChild(t testing.TB, url, other, point string, n int) *killed {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %s %d", childVariable, url, other, point, n))
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	proc, err := child.Start(cmd, child.User{}, syscall.SIGKILL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = proc.Signal(syscall.SIGKILL)
		<-proc.Done()
	})
	return &killed{t, proc}
}

// dead says that the child has killed itself; it fails where it ended otherwise.
func (k *killed) dead() bool {
	select {
	case <-k.proc.Done():
		if code := k.proc.ExitCode(); code != -1 {
			k.t.Fatalf("the child ended with %d instead of being killed", code)
		}
		return true
	default:
		return false
	}
}

// Two runners at once apply every event once.
func TestTwoRunners(t *testing.T) {
	t.Parallel()
	db, store := openStore(t)
	other := cdctest.Database(t)
	u := newUniversity(t, newSeed())
	there := places("there", intent.Async)
	there.Database = other.URL
	install(t, store, intent.Definitions{Events: universityTypes, Views: []intent.View{places("here", intent.Async), there}})
	u.append(t, store, 10)
	number(t, store)
	databases := map[string]string{there.DatabaseName(): other.URL}
	heads := []*eventstore.Head{eventstore.NewHead(), eventstore.NewHead()}
	for _, h := range heads {
		startRunner(t, Config{Store: store, Head: h, Databases: databases})
	}
	awaitLive(t, store, "there", 10)
	var head int64
	for range 100 {
		u.append(t, store, 4)
		head = number(t, store)
		for _, h := range heads { // both at once
			h.Set(head)
		}
	}
	awaitLive(t, store, "here", head)
	awaitLive(t, store, "there", head)
	checkRows(t, "here", tableRows(t, db, "views.here"), u.placesRows())
	checkRows(t, "there", tableRows(t, other, "views.there"), u.placesRows())
}

// Who holds the token of his own write sees it, and who does not wait may not.
func TestReadYourOwnWrite(t *testing.T) {
	t.Parallel()
	db, store := openStore(t)
	u := newUniversity(t, newSeed())
	install(t, store, intent.Definitions{Events: universityTypes, Views: []intent.View{places("p", intent.Async)}})
	head := eventstore.NewHead()
	behind := make(chan struct{}) // the runner applies nothing until told to
	startRunner(t, Config{Store: store, Head: head, Hook: func(point string) {
		if point == HookBeforeApply {
			<-behind
		}
	}})
	events := func() string { return db.Value(t, "select coalesce(sum(events), 0) from views.p") }
	for n := 1; n <= 20; n++ {
		receipt := u.append(t, store, 1)
		head.Set(number(t, store))
		if got := events(); got == fmt.Sprint(n) {
			t.Fatalf("event %d is in the view before it was applied: the test shows nothing", n)
		}
		go func() { behind <- struct{}{} }()
		pos, err := store.Wait(testContext(t), "p", receipt.Token, testLimit)
		if err != nil || pos != int64(n) {
			t.Fatalf("wait: got %d, %v; want %d", pos, err, n)
		}
		if got := events(); got != fmt.Sprint(n) {
			t.Fatalf("after the wait: got %s events in the view, want %d", got, n)
		}
	}
	close(behind)
	if _, err := store.Wait(testContext(t), "nowhere", intent.NewID(), testLimit); !errors.Is(err, eventstore.ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
}

// Of two that apply the same batch at the same time, one waits and then applies
// nothing.
func TestSameBatchTwice(t *testing.T) {
	t.Parallel()
	for _, elsewhere := range []bool{false, true} {
		t.Run(fmt.Sprint("elsewhere ", elsewhere), func(t *testing.T) {
			t.Parallel()
			db, store := openStore(t)
			u := newUniversity(t, newSeed())
			u.append(t, store, 30)
			number(t, store)
			v := places("p", intent.Async)
			if elsewhere {
				db = cdctest.Database(t)
				v.Database = db.URL
			}
			build := install(t, store, intent.Definitions{Events: universityTypes, Views: []intent.View{v}})[0].Build
			row, err := findBuild(testContext(t), store.Pool(), "p", build)
			if err != nil {
				t.Fatal(err)
			}
			c, err := compile(v, universityTypes)
			if err != nil {
				t.Fatal(err)
			}
			open := func(hook func(string)) (s source) {
				s = newLocal(store, c, row, hook)
				if elsewhere {
					s = newRemote(store, c, row, v.Database, hook)
				}
				t.Cleanup(s.close)
				if pos, err := s.position(testContext(t)); pos != 0 || err != nil {
					t.Fatalf("got position %d, %v", pos, err)
				}
				return s
			}
			second := open(func(string) {})
			ended := make(chan string, 1)
			first := open(func(point string) {
				if point != HookApplied {
					return
				}
				go func() {
					pos, err := second.step(testContext(t), 0, maxPosition)
					ended <- fmt.Sprint(pos, " ", err)
				}()
				await(t, "the second to wait for the first", func() bool {
					return db.Value(t, "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'") == "1"
				})
			})
			if pos, err := first.step(testContext(t), 0, maxPosition); pos != 30 || err != nil {
				t.Errorf("the first: got %d, %v; want 30", pos, err)
			}
			if got := <-ended; got != "0 <nil>" {
				t.Errorf("the second: got %s, want 0 and no error", got)
			}
			if pos, err := second.position(testContext(t)); pos != 30 || err != nil {
				t.Errorf("position: got %d, %v; want 30", pos, err)
			}
			checkRows(t, "p", tableRows(t, db, row.table()), u.placesRows())
		})
	}
}
