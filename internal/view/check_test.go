package view

import (
	"errors"
	"strings"
	"testing"

	"cdc/internal/intent"
)

func TestCheckRefuses(t *testing.T) {
	t.Parallel()
	db, store := openStore(t)
	db.Exec(t, "create table public.other (a int); grant all on public.other to public")
	for _, tc := range []struct {
		name      string
		table     string
		statement string
		path      string // "": accepted
		text      string
	}{
		{"good", "", "insert into v values (:course)", "", ""},
		{"good with a data-modifying with", "", "with gone as (delete from v where course = :course returning course) insert into v select course || '!' from gone", "", ""},
		{"good with every placeholder", "", "insert into v values (:id || :stream || :version || :type || :schema || :data || :meta || :at || :pos || :course)", "", ""},
		{"syntax", "", "insert into v value (:course)", "views[v].when[student-enrolled]", "syntax error"},
		{"no such column", "", "delete from v where student = :student", "views[v].when[student-enrolled]", "student"},
		{"writes another table", "", "insert into public.other values (1)", "views[v].when[student-enrolled]", "public.other"},
		{"reads another table", "", "insert into v select a::text from public.other", "views[v].when[student-enrolled]", "public.other"},
		{"reads the events", "", "insert into v select type from es.event", "views[v].when[student-enrolled]", ""},
		{"clock", "", "insert into v values (now()::text)", "views[v].when[student-enrolled]", "clock"},
		{"chance", "", "insert into v values (random()::text)", "views[v].when[student-enrolled]", "random"},
		{"two statements", "", "delete from v; delete from v", "views[v].when[student-enrolled]", "more than one statement"},
		{"select", "", "select :course", "views[v].when[student-enrolled]", "changes nothing"},
		{"returning", "", "delete from v where course = :course returning course", "views[v].when[student-enrolled]", "returning"},
		{"drop", "", "drop table v", "views[v].when[student-enrolled]", ""},
		{"a name of ours", "", "insert into v values (cdc_event_data)", "views[v].when[student-enrolled]", "cdc_event_data"},
		{"table: syntax", "course text,, x int", "delete from v", "views[v].table", "syntax error"},
		{"table: clock", "course text, at timestamptz default now()", "insert into v (course) values (:course)", "views[v].table", "clock"},
		{"table: sequence", "course text, n bigint generated always as identity", "insert into v (course) values (:course)", "views[v].table", "sequence"},
		{"table: another one", "course text, a int references public.other", "insert into v (course) values (:course)", "views[v].table", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := intent.View{Name: "v", Mode: intent.Async, Table: tc.table, When: map[string]string{"student-enrolled": tc.statement}}
			if v.Table == "" {
				v.Table = "course text"
			}
			err := Check(testContext(t), store.Pool(), intent.Definitions{Events: universityTypes, Views: []intent.View{v}})
			var faults FaultsError
			switch {
			case tc.path == "" && err == nil:
				return
			case !errors.As(err, &faults):
				t.Fatalf("got %v, want %q", err, tc.path)
			case tc.path == "":
				t.Fatalf("got %v, want no fault", err)
			}
			if len(faults) != 1 || faults[0].Path != tc.path || !strings.Contains(strings.ToLower(faults[0].Text), tc.text) {
				t.Errorf("got %v\nwant %s: …%s…", err, tc.path, tc.text)
			}
		})
	}
	if got := db.Value(t, "select count(*) from pg_namespace where nspname like 'es\\_%'"); got != "0" {
		t.Errorf("%s schemas are left behind", got)
	}
}

// Every fault of every view is told at once, and nothing is installed.
func TestCheckTellsAll(t *testing.T) {
	t.Parallel()
	_, store := openStore(t)
	bad := enrolments("one", intent.Async)
	bad.When["student-enrolled"] = "insert into one values (now()::text, random()::text)"
	bad.When["enrolment-cancelled"] = "delete from nowhere"
	alsoBad := enrolments("two", intent.Inline)
	alsoBad.When["student-enrolled"] = "insert into two values (:course, :student, :pos, 1)"
	_, err := Install(testContext(t), store, intent.Definitions{Events: universityTypes, Views: []intent.View{bad, alsoBad, enrolments("three", intent.Async)}})
	var faults FaultsError
	if !errors.As(err, &faults) {
		t.Fatalf("got %v, want faults", err)
	}
	for _, want := range []string{"views[one].when[enrolment-cancelled]: ", "now()", "random()", "views[two].when[student-enrolled]: :pos"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in\n%v", want, err)
		}
	}
	all, err := List(testContext(t), store)
	if err != nil || len(all) != 0 {
		t.Errorf("got %v, %v; want no view", all, err)
	}
}
