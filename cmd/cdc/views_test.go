package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"cdc/internal/cdctest"
	"cdc/internal/intent"
	"cdc/internal/view"
)

// builds are what `cdc views ls` shows, as name, build and state.
func (u *university) builds(t *testing.T) []intent.ViewStatus {
	t.Helper()
	var list []intent.ViewStatus
	u.json(t, 0, &list, "views", "ls")
	return list
}

// built makes a new build of a view and waits until it has caught up.
func (u *university) built(t *testing.T, name string) {
	t.Helper()
	if out, _ := u.do(t, 0, "views", "build", name); !strings.HasPrefix(out, "view "+name+": build ") {
		t.Errorf("build: %q", out)
	}
	await(t, "the build of "+name+" has caught up", func() bool {
		return slices.ContainsFunc(u.builds(t), func(v intent.ViewStatus) bool {
			return v.Name == name && v.State == "building" && v.Lag == 0 && v.Position > 0
		})
	})
}

// Views are listed, waited for, verified, found to differ, built anew beside the live
// one, switched, changed and dropped, while the daemon runs.
func TestViewsOfARunningDaemon(t *testing.T) {
	t.Parallel()
	u := newUniversity(t, courses)
	u.do(t, 0, "es", "init")
	u.run()
	for i := range 5 {
		u.appended(t, "student-enrolled", "ddia", fmt.Sprint("s", i))
	}
	token := u.appended(t, "student-waitlisted", "ddia", "zoe").Token.String()
	u.do(t, 0, "views", "wait", "waiting", token)
	u.do(t, 0, "views", "wait", "enrolments", token)
	u.published(t)

	t.Run("ls", func(t *testing.T) {
		var got []string
		for _, v := range u.builds(t) {
			got = append(got, fmt.Sprintf("%s %s %s %d %s%s", v.Name, v.Mode, v.State, v.Lag, v.Database, v.Error))
		}
		if want := []string{"enrolments inline live 0 ", "waiting async live 0 "}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		out, _ := u.do(t, 0, "views", "ls")
		if lines := strings.Split(out, "\n"); len(lines) != 4 || !strings.HasPrefix(lines[0], "VIEW ") || !strings.HasPrefix(lines[1], "enrolments ") || !strings.HasSuffix(lines[2], "the store's") {
			t.Errorf("ls:\n%s", out)
		}
	})
	for _, tt := range []struct {
		name string
		code int
		want string
		args []string
	}{
		{"wait for an unknown event", exitFailed, "not found", []string{"wait", "waiting", "00000000-0000-4000-8000-000000000009"}},
		{"wait for an unknown view", exitFailed, "not found", []string{"wait", "nope", token}},
		{"wait for no token", exitUsage, "TOKEN", []string{"wait", "waiting", "soon"}},
		{"build an unknown view", exitUsage, `no view "nope"`, []string{"build", "nope"}},
		{"verify an unknown view", exitUsage, `no view "nope"`, []string{"verify", "nope"}},
		{"verify a build that is not there", exitUsage, `no view "waiting" that is building`, []string{"verify", "waiting", "--building"}},
		{"switch to a build that is not there", exitFailed, "cdc views build waiting", []string{"switch", "waiting"}},
		{"switch an unknown view", exitFailed, "no such view", []string{"switch", "nope"}},
		{"drop an unknown view", exitFailed, "no such view", []string{"drop", "nope", "--yes"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, errOut := u.do(t, tt.code, append([]string{"views"}, tt.args...)...); !strings.Contains(errOut, tt.want) {
				t.Errorf("%q is not in %q", tt.want, errOut)
			}
		})
	}

	t.Run("verify", func(t *testing.T) {
		out, _ := u.do(t, 0, "views", "verify")
		if !strings.Contains(out, "enrolments: equal to a replay (5 rows, ") || !strings.Contains(out, "waiting: equal to a replay (1 rows, ") {
			t.Errorf("verify: %s", out)
		}
		u.db.Exec(t, "insert into views.enrolments values ('forged', 'eve'); delete from views.enrolments where student = 's3'")
		out, errOut := u.do(t, exitDifference, "views", "verify", "enrolments")
		for _, want := range []string{"enrolments: DIFFERENT: 1 rows missing, 1 rows too many", "    missing   ", "    too many  ", "forged", "s3"} {
			if !strings.Contains(out, want) {
				t.Errorf("verify lacks %q: %s", want, out)
			}
		}
		if !strings.Contains(errOut, "cdc views build") {
			t.Errorf("verify does not say what mends it: %s", errOut)
		}
		var reports []view.VerifyReport
		u.json(t, exitDifference, &reports, "views", "verify", "--samples", "1")
		if len(reports) != 2 || reports[0].View != "enrolments" || reports[0].Missing.Count != 1 || reports[0].Extra.Count != 1 || !reports[1].Equal() {
			t.Errorf("verify -o json: %+v", reports)
		}
	})
	t.Run("build and switch", func(t *testing.T) {
		u.built(t, "enrolments")
		if out, _ := u.do(t, 0, "views", "verify", "--building"); strings.Count(out, "equal to a replay") != 1 {
			t.Errorf("verify --building: %s", out)
		}
		u.do(t, exitDifference, "views", "verify") // the live one still is what it was
		if out, _ := u.do(t, 0, "views", "switch", "enrolments"); out != "view enrolments: switched\n" {
			t.Errorf("switch: %q", out)
		}
		u.do(t, 0, "views", "verify")
		u.appended(t, "enrolment-cancelled", "ddia", "s0") // the new table's trigger; the offer follows
		if got := u.db.Value(t, "select string_agg(student, ',' order by student) from views.enrolments"); got != "s1,s2,s3,s4" {
			t.Errorf("enrolled: %s", got)
		}
		if list := u.builds(t); len(list) != 2 {
			t.Errorf("builds left: %+v", list)
		}
	})
	t.Run("changed", func(t *testing.T) {
		u.path = file(u.t, strings.NewReplacer(
			"since bigint, primary key", "since bigint, offers int not null default 0, primary key",
			"values (:course, :student, :pos) on conflict", "values (:course, :student, :pos, 7) on conflict",
		).Replace(u.yaml))
		u.appended(t, "student-waitlisted", "ddia", "max")
		if out, _ := u.do(t, 0, "es", "init"); !strings.Contains(out, "view waiting") || !strings.Contains(out, "cdc views build waiting") {
			t.Errorf("init with a changed view: %s", out)
		}
		u.built(t, "waiting")
		u.do(t, 0, "views", "switch", "waiting")
		token := u.appended(t, "student-waitlisted", "ddia", "kim").Token.String()
		u.do(t, 0, "views", "wait", "waiting", token)
		if got := u.db.Value(t, "select string_agg(student || offers, ',' order by student) from views.waiting"); got != "kim7,max7" {
			t.Errorf("waiting: %s", got)
		}
		u.do(t, 0, "views", "verify")
		if out, _ := u.do(t, 0, "es", "init"); strings.Contains(out, "waiting") {
			t.Errorf("init behind the switch: %s", out)
		}
	})
	t.Run("drop", func(t *testing.T) {
		code, out, errOut := answered(t, "no\n", "views", "drop", "enrolments", "--config", u.path)
		if code != exitFailed || !strings.Contains(out, "go on? [yes/no]") || !strings.Contains(errOut, "nothing was dropped") || len(u.builds(t)) != 2 {
			t.Errorf("drop and no: %d %s%s", code, out, errOut)
		}
		if out, _ := u.do(t, 0, "views", "drop", "enrolments", "--yes"); !strings.HasSuffix(out, "dropped\n") {
			t.Errorf("drop: %s", out)
		}
		if list := u.builds(t); len(list) != 1 || list[0].Name != "waiting" {
			t.Errorf("views left: %+v", list)
		}
		u.appended(t, "student-enrolled", "ddia", "late") // no trigger is left to fail
		if out, _ := u.do(t, 0, "es", "init"); !strings.Contains(out, "view enrolments") {
			t.Errorf("init behind the drop: %s", out)
		}
		await(t, "enrolments is live again", func() bool {
			return slices.ContainsFunc(u.builds(t), func(v intent.ViewStatus) bool { return v.Name == "enrolments" && v.State == "live" })
		})
		u.do(t, 0, "views", "verify")
	})
	t.Run("wait for a daemon that is stopped", func(t *testing.T) {
		u.daemon.Stop(t)
		token := u.appended(t, "student-waitlisted", "ddia", "late").Token.String()
		u.do(t, exitFailed, "views", "wait", "waiting", token, "--timeout", "20ms")
		u.do(t, 0, "views", "wait", "enrolments", token, "--timeout", "20ms") // inline: part of the append
	})
}

// Views in another database through the program: an asynchronous one follows, an
// inline one is written by POST /v1/append alone, and nothing else may append what
// feeds it.
func TestViewsInAnotherDatabase(t *testing.T) {
	t.Parallel()
	there := cdctest.Database(t)
	definitions := strings.NewReplacer(
		"mode: inline\n", "mode: inline\n        database: \""+there.URL+"\"\n",
		"mode: async\n", "mode: async\n        database: \""+there.URL+"\"\n",
	).Replace(courses[:strings.Index(courses, "    reactions:")])
	u := newUniversity(t, definitions)
	u.do(t, 0, "es", "init")
	if wrong := findings(t, u.path, 0); len(wrong) != 0 {
		t.Errorf("check finds %+v", wrong)
	}
	u.run()
	await(t, "both are live", func() bool {
		return !slices.ContainsFunc(u.builds(t), func(v intent.ViewStatus) bool { return v.State != "live" })
	})
	if _, errOut := u.do(t, exitFailed, "es", "append", "course/ddia", "student-enrolled", data("ddia", "ada")); !strings.Contains(errOut, "POST /v1/append") {
		t.Errorf("append by the command: %s", errOut)
	}
	code, answer := u.post("/v1/append", `{"batches":[{"stream":"course/ddia","expect":"none","events":[
		{"type":"student-enrolled","data":{"course":"ddia","student":"ada"}},{"type":"student-waitlisted","data":{"course":"ddia","student":"bob"}}]}]}`)
	var r intent.Receipt
	if err := json.Unmarshal([]byte(answer), &r); err != nil || code != http.StatusOK {
		t.Fatalf("append: %d %s", code, answer)
	}
	if got := there.Value(t, "select string_agg(student, ',') from views.enrolments"); got != "ada" {
		t.Errorf("the inline view has %s", got)
	}
	for name, student := range map[string]string{"enrolments": "ada", "waiting": "bob"} {
		u.do(t, 0, "views", "wait", name, r.Token.String())
		if code, rows := u.get("/v1/views/" + name + "?token=" + r.Token.String()); code != http.StatusOK || !strings.Contains(rows, student) {
			t.Errorf("view %s: %d %s", name, code, rows)
		}
	}
	out, _ := u.do(t, 0, "views", "verify")
	if strings.Count(out, "equal to a replay (1 rows") != 2 {
		t.Errorf("verify: %s", out)
	}
	there.Exec(t, "delete from views.waiting")
	u.do(t, exitDifference, "views", "verify", "waiting")
	u.built(t, "waiting")
	u.do(t, 0, "views", "switch", "waiting")
	u.do(t, 0, "views", "verify")
	if out, _ := u.do(t, 0, "views", "ls"); strings.Contains(out, "the store's") || strings.Count(out, there.Name) != 2 {
		t.Errorf("ls: %s", out)
	}
	u.do(t, 0, "views", "drop", "waiting", "--yes")
	if n := there.Value(t, "select count(*) from pg_tables where schemaname = 'views'"); n != "1" {
		t.Errorf("%s tables are left there, want the inline view's", n)
	}
	u.daemon.Stop(t)
}
