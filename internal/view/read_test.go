package view

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"cdc/internal/cdctest"
	"cdc/internal/eventstore"
	"cdc/internal/intent"
)

func TestRows(t *testing.T) {
	t.Parallel()
	_, store := openStore(t)
	other := cdctest.Database(t)
	u := newUniversity(t, newSeed())
	there := enrolments("there", intent.Async)
	there.Database = other.URL
	plain := intent.View{Name: "plain", Mode: intent.Async, Table: `"Course" text, n bigint, j json`,
		When: map[string]string{"student-enrolled": "insert into plain values (:course, :version, :data::json)"}}
	install(t, store, intent.Definitions{Events: universityTypes, Views: []intent.View{enrolments("e", intent.Inline), plain, there}})
	u.append(t, store, 100)
	startNumbering(t, store)
	r, _ := startRunner(t, Config{Store: store, Databases: map[string]string{there.DatabaseName(): other.URL}})
	head := number(t, store)
	awaitLive(t, store, "there", head)
	awaitLive(t, store, "plain", head)

	type read func(view string, where map[string]string, limit int, fn func(json.RawMessage) error) error
	local := &Runner{cfg: Config{Store: store}} // knows no other database
	here := func(view string, where map[string]string, limit int, fn func(json.RawMessage) error) error {
		return local.Rows(testContext(t), view, where, limit, fn)
	}
	anywhere := func(view string, where map[string]string, limit int, fn func(json.RawMessage) error) error {
		return r.Rows(testContext(t), view, where, limit, fn)
	}
	all := func(f read, view string, where map[string]string, limit int) (rows []string, err error) {
		err = f(view, where, limit, func(row json.RawMessage) error {
			var e struct {
				Course, Student string
				Since, Changes  int64
			}
			rows = append(rows, string(row))
			if view != "plain" {
				err := json.Unmarshal(row, &e)
				rows[len(rows)-1] = fmt.Sprint(e.Course, " ", e.Student, " ", e.Since, " ", e.Changes)
				return err
			}
			return nil
		})
		return rows, err
	}
	course := u.courses[0]
	var of []string
	for _, row := range u.enrolmentRows() {
		if strings.HasPrefix(row, course+" ") {
			of = append(of, row)
		}
	}
	for _, tc := range []struct {
		name  string
		read  read
		view  string
		where map[string]string
		limit int
		want  []string
	}{
		{"all", here, "e", nil, 0, u.enrolmentRows()},
		{"all, elsewhere", anywhere, "there", nil, 0, u.enrolmentRows()},
		{"a text", here, "e", map[string]string{"course": course}, 0, of},
		{"a text, elsewhere", anywhere, "there", map[string]string{"course": course}, 0, of},
		{"a number and a text", here, "e", map[string]string{"changes": "0", "course": course}, 0, nil},
		{"what looks like SQL", here, "e", map[string]string{"course": "x' or true --"}, 0, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := all(tc.read, tc.view, tc.where, tc.limit)
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(got)
			checkRows(t, "rows", got, tc.want)
		})
	}
	got, err := all(here, "e", nil, 3)
	if len(got) != 3 || err != nil {
		t.Errorf("limit 3: got %d rows, %v", len(got), err)
	}
	if got, err := all(here, "plain", map[string]string{"Course": course}, 1); len(got) != 1 || err != nil || !strings.Contains(got[0], `"Course"`) {
		t.Errorf("a quoted column: got %s, %v", got, err)
	}
	if first, err := all(here, "e", nil, 1000); err != nil || len(first) < 2 || !sortedByKey(first) {
		t.Errorf("in the order of the key: got %v, %v", first, err)
	}

	var unknown *UnknownColumnError
	if _, err := all(here, "e", map[string]string{"course or 1=1": "x"}, 0); !errors.As(err, &unknown) || !slices.Contains(unknown.Columns, "since") {
		t.Errorf("an unknown column: got %v", err)
	}
	var invalid *intent.InvalidError
	if _, err := all(here, "e", map[string]string{"since": "yesterday"}, 0); !errors.As(err, &invalid) || invalid.Path != "" {
		t.Errorf("not a number: got %v", err)
	}
	if _, err := all(here, "plain", map[string]string{"j": "{}"}, 0); !errors.As(err, &invalid) {
		t.Errorf("a type without equality: got %v", err)
	}
	if _, err := all(here, "nothing", nil, 0); !errors.Is(err, ErrNoView) {
		t.Errorf("no such view: got %v", err)
	}
	if _, err := all(here, "there", nil, 0); err == nil || !strings.Contains(err.Error(), "no URL") {
		t.Errorf("elsewhere, without its URL: got %v", err)
	}
	stop := errors.New("enough")
	if err := here("e", nil, 0, func(json.RawMessage) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the caller's error: got %v", err)
	}
}

// sortedByKey says that rows of enrolments are in the order of course and student.
func sortedByKey(rows []string) bool {
	return slices.IsSortedFunc(rows, func(a, b string) int {
		x, y := strings.Fields(a), strings.Fields(b)
		return slices.Compare(x[:2], y[:2])
	})
}

// Applications read live views and write none; nobody reads builds.
func TestGrants(t *testing.T) {
	t.Parallel()
	db, store := openStore(t)
	u := newUniversity(t, newSeed())
	defs := intent.Definitions{Events: universityTypes, Views: []intent.View{enrolments("e", intent.Async), places("p", intent.Inline)}}
	install(t, store, defs)
	u.append(t, store, 50)
	number(t, store)
	// A first build over events that are there: live by a switch.
	defs.Views = append(defs.Views, enrolments("late", intent.Async))
	install(t, store, defs)
	build := db.Value(t, `select 'es_b' || build from es.view where name = 'late'`)

	open := func(role string) *eventstore.Store {
		s, err := eventstore.Open(testContext(t), eventstore.Config{URL: db.URL, Role: role, MaxConns: 2})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		return s
	}
	for _, role := range []string{"es_reader", "es_writer"} {
		s := open(role)
		try := func(text string) error {
			_, err := s.Pool().Exec(testContext(t), text)
			return err
		}
		for _, text := range []string{
			"delete from views.e", "insert into views.p (course) values ('x')", "update views.e set since = 0", "truncate views.e",
			"drop table views.e", "create table views.mine (a int)", "select * from " + build + ".late",
			"select " + build + ".apply(null,null,null,null,null,null,null,null,null)",
		} {
			if err := try(text); !hasCode(err, "42501") {
				t.Errorf("%s: %s: got %v, want a refusal", role, text, err)
			}
		}
		for _, text := range []string{"select * from views.e", "select * from views.p"} {
			if err := try(text); err != nil {
				t.Errorf("%s: %s: %v", role, text, err)
			}
		}
	}
	startNumbering(t, store)
	startRunner(t, Config{Store: store})
	awaitLive(t, store, "late", number(t, store))
	for _, role := range []string{"es_reader", "es_writer"} {
		if _, err := open(role).Pool().Exec(testContext(t), "select * from views.late"); err != nil {
			t.Errorf("%s: %v", role, err)
		}
	}
}
