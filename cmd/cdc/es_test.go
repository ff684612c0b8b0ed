package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"cdc/internal/admin"
	"cdc/internal/cdc"
	"cdc/internal/cdctest"
	"cdc/internal/eventstore"
	"cdc/internal/intent"
)

// courses are the definitions of the documentation's example: an inline view, an
// asynchronous one, and a reaction that reads it.
const courses = `
    events:
      student-enrolled: {stream: "course/{course}", data: {course: string, student: string}}
      student-waitlisted: {stream: "course/{course}", data: {course: string, student: string}}
      enrolment-cancelled: {stream: "course/{course}", data: {course: string, student: string, reason: "string?"}}
      place-offered: {stream: "course/{course}", data: {course: string, student: string}}
    state:
      course:
        initial: '{"enrolled": []}'
        when:
          student-enrolled: "jsonb_set(:state, '{enrolled}', (:state -> 'enrolled') || to_jsonb(:student))"
          enrolment-cancelled: "jsonb_set(:state, '{enrolled}', (:state -> 'enrolled') - :student)"
    snapshots: {every: 200}
    views:
      enrolments:
        mode: inline
        table: "course text, student text, primary key (course, student)"
        when:
          student-enrolled: "insert into enrolments values (:course, :student) on conflict do nothing"
          enrolment-cancelled: "delete from enrolments where course = :course and student = :student"
      waiting:
        mode: async
        table: "course text, student text, since bigint, primary key (course, student)"
        when:
          student-waitlisted: "insert into waiting values (:course, :student, :pos) on conflict do nothing"
          place-offered: "delete from waiting where course = :course and student = :student"
    reactions:
      offer-freed-place:
        after: waiting
        when: [enrolment-cancelled]
        append: |
          select 'place-offered' as type, jsonb_build_object('course', :course, 'student', student) as data
          from views.waiting where course = :course order by since limit 1
`

// events is a pipeline of mode: events with these definitions. Its slot is left
// behind by a daemon that stops.
func (r *rig) events(definitions string) string {
	name := r.db.Name + "_es"
	r.db.KeepSlot(name)
	return fmt.Sprintf("  %s:\n    mode: events\n    partitions: 3\n    topic: \"%s.events.{category}\"\n%s", name, r.db.Name, strings.TrimPrefix(definitions, "\n"))
}

// history is the topic of the courses' events.
func (r *rig) history() string { return r.db.Name + ".events.course" }

// university is a store with its configuration, and the daemon where one runs.
type university struct {
	*rig
	yaml, path string
	daemon     *cdctest.Proc
}

// newUniversity makes a database with a store, and its configuration.
func newUniversity(t *testing.T, definitions string, rows ...string) *university {
	t.Helper()
	r := onCluster(t)
	u := &university{rig: r, yaml: r.yamlOf(append([]string{r.events(definitions)}, rows...)...)}
	u.path = file(t, u.yaml)
	return u
}

// run starts the daemon and waits until it is ready.
func (u *university) run() {
	u.t.Helper()
	u.daemon = cdctest.StartCDC(u.t, u.yaml)
	u.daemon.WaitReady(u.t, u.admin)
}

// do runs a command, wants this exit code, and gives what it wrote to its outputs.
func (u *university) do(t *testing.T, code int, args ...string) (out, errOut string) {
	t.Helper()
	got, out, errOut := command(t, append(args, "--config", u.path)...)
	if got != code {
		t.Fatalf("cdc %s exits with %d, want %d\n%s%s", strings.Join(args, " "), got, code, out, errOut)
	}
	return out, errOut
}

// json runs a command with -o json and reads its answer.
func (u *university) json(t *testing.T, code int, v any, args ...string) {
	t.Helper()
	out, _ := u.do(t, code, append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(out), v); err != nil {
		t.Fatalf("cdc %s: %v in %s", strings.Join(args, " "), err, out)
	}
}

// appended appends one event of a course by the command and gives its receipt.
func (u *university) appended(t *testing.T, typ, course, student string, flags ...string) intent.Receipt {
	t.Helper()
	var r intent.Receipt
	u.json(t, 0, &r, append([]string{"es", "append", "course/" + course, typ, data(course, student)}, flags...)...)
	return r
}

func data(course, student string) string {
	return fmt.Sprintf(`{"course":%q,"student":%q}`, course, student)
}

// status is that of the pipeline of events.
func (u *university) status(t *testing.T) cdc.Status {
	t.Helper()
	var report admin.Report
	u.json(t, 0, &report, "status")
	for _, s := range report.Pipelines {
		if s.Mode == "events" {
			return s
		}
	}
	t.Fatalf("no pipeline of mode events in %+v", report)
	return cdc.Status{}
}

// published waits until everything in the log is, and gives how much that is.
func (u *university) published(t *testing.T) int64 {
	t.Helper()
	var all int64
	await(t, "everything numbered and published", func() bool {
		n, err := strconv.ParseInt(u.db.Value(t, "select count(*) from es.event"), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		s := u.status(t)
		all = n
		return s.Log != nil && s.Log.Head == n && s.Log.Published == n
	})
	return all
}

// whole checks the topic of the courses against the log: every event once, with its
// position, in order within its partition.
func (u *university) whole(t *testing.T, n int64) {
	t.Helper()
	records := u.records(u.history(), int(n))
	seen := map[string]bool{}
	last := map[int32]int{}
	for _, rec := range records {
		text, _ := rec.Header("position")
		pos, err := strconv.Atoi(string(text))
		if err != nil || pos <= last[rec.Partition] || seen[string(text)] {
			t.Errorf("partition %d offset %d: position %q behind %d (%v)", rec.Partition, rec.Offset, text, last[rec.Partition], err)
		}
		seen[string(text)], last[rec.Partition] = true, pos
	}
	if int64(len(records)) != n {
		t.Errorf("%d records, want %d", len(records), n)
	}
}

// await polls until ok; the limit is for a busy machine.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// Without a store check, run, topics and every command say which command makes one;
// made twice it is made once.
func TestEsInit(t *testing.T) {
	t.Parallel()
	u := newUniversity(t, courses)
	wrong := findings(t, u.path, exitEnvironment)
	if len(wrong) != 1 || !strings.Contains(wrong[0].What, "event store") || !strings.Contains(wrong[0].Mend, "cdc es init") {
		t.Errorf("check without a store finds %+v", wrong)
	}
	for _, args := range [][]string{{"run"}, {"topics"}, {"es", "read", "course/ddia"}, {"views", "ls"}, {"tx", "1"}} {
		if _, errOut := u.do(t, exitFailed, args...); !strings.Contains(errOut, "cdc es init") {
			t.Errorf("%v without a store: %s", args, errOut)
		}
	}

	var first, second setUp
	u.json(t, 0, &first, "es", "init")
	if first.From != 0 || first.To != eventstore.Version || first.Database != u.db.Name || len(first.Notes) != 0 {
		t.Errorf("init: %+v", first)
	}
	for _, want := range []string{
		"event type student-enrolled: declared", "state of course: folded by a new expression", "view enrolments", "view waiting", "reaction offer-freed-place: new",
	} {
		if !slices.ContainsFunc(first.Definitions, func(s string) bool { return strings.HasPrefix(s, want) }) {
			t.Errorf("%q is not told by init: %q", want, first.Definitions)
		}
	}
	u.json(t, 0, &second, "es", "init")
	if second.From != eventstore.Version || len(second.Definitions) != 0 {
		t.Errorf("init again: %+v", second)
	}
	if out, _ := u.do(t, 0, "es", "init"); out != fmt.Sprintf("database %s: schema es is in order, version %d\n", u.db.Name, eventstore.Version) {
		t.Errorf("init a third time: %q", out)
	}
	if out, _ := u.do(t, 0, "es", "init", "--print"); out != "-- nothing to do\n" {
		t.Errorf("--print where all is done: %q", out)
	}
	if _, errOut := u.do(t, exitFailed, "es", "init", "--app", "nobody-of-that-name"); !strings.Contains(errOut, `CREATE ROLE "nobody-of-that-name" LOGIN`) {
		t.Errorf("init for a login that is not there: %s", errOut)
	}

	// The SQL that --print gives makes the same store, run as it is.
	other := newUniversity(t, courses)
	sql, _ := other.do(t, 0, "es", "init", "--print")
	if n := other.db.Value(t, "select count(*) from pg_namespace where nspname = 'es'"); n != "0" {
		t.Error("--print made schema es")
	}
	other.db.Exec(t, sql)
	var printed setUp
	other.json(t, 0, &printed, "es", "init")
	if printed.From != eventstore.Version || len(printed.Definitions) != len(first.Definitions) {
		t.Errorf("init behind the printed SQL: %+v", printed)
	}

	// A file without such a pipeline.
	none := file(t, u.yamlOf(u.pipeline("rows", `tables: ["public.*"]`)))
	if code, _, errOut := command(t, "es", "init", "--config", none); code != exitUsage || !strings.Contains(errOut, "mode: events") {
		t.Errorf("init without a pipeline of events: %d %s", code, errOut)
	}
}

// Faults of definitions: check tells every one with its path, run refuses.
func TestCheckFindsFaultsOfDefinitions(t *testing.T) {
	t.Parallel()
	u := newUniversity(t, courses)
	u.do(t, 0, "es", "init")
	if wrong := findings(t, u.path, 0); len(wrong) != 0 {
		t.Errorf("check of what was installed finds %+v", wrong)
	}
	faulty := strings.NewReplacer(
		"values (:course, :student) on", "values (:course, now()::text) on",
		"delete from waiting where", "delete waiting where",
		"(:state -> 'enrolled') - :student", "(:state -> 'enrolled') - without(:student)",
		"order by since limit 1", "order by since limit (select count(*) from es.event)",
	).Replace(u.yaml)
	// A type that could be declared is not: definitions are installed as a whole.
	faulty = strings.Replace(faulty, "    state:\n", "      course-moved: {stream: \"course/{course}\", data: {course: string}}\n    state:\n", 1)
	path := file(t, faulty)
	wrong := findings(t, path, exitEnvironment)
	all := []string{"views[enrolments].when[student-enrolled]: ", "views[waiting].when[place-offered]: ", "state[course].when[enrolment-cancelled]: ", "reactions[offer-freed-place].append: "}
	for _, want := range all {
		n := 0
		for _, f := range wrong {
			if strings.HasPrefix(f.What, want) {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%d findings of %s, want 1: %+v", n, want, wrong)
		}
	}
	for _, args := range [][]string{{"run"}, {"es", "init"}} {
		code, _, errOut := command(t, append(args, "--config", path)...)
		if code != exitFailed || !strings.Contains(errOut, "cdc check") {
			t.Errorf("%v with faulty definitions: %d %s", args, code, errOut)
		}
		for _, want := range all {
			if !strings.Contains(errOut, want) {
				t.Errorf("%v does not tell %q: %s", args, want, errOut)
			}
		}
	}
	if n := u.db.Value(t, "select count(*) from es.declared"); n != "4" {
		t.Errorf("%s types are declared, want the 4 from before", n)
	}
}

// Logins that are no superusers: what init gave each is enough for what it does, and
// is all it has.
func TestEventsWithoutASuperuser(t *testing.T) {
	t.Parallel()
	u := newUniversity(t, courses)
	daemon, app := u.db.Name+"_daemon", u.db.Name+"_app"
	u.db.Exec(t, fmt.Sprintf("CREATE ROLE %s LOGIN REPLICATION", daemon), fmt.Sprintf("CREATE ROLE %s LOGIN", app))
	t.Cleanup(func() {
		u.db.Exec(t, fmt.Sprintf("DROP OWNED BY %s, %s CASCADE", daemon, app), "DROP ROLE "+daemon, "DROP ROLE "+app)
	})
	u.do(t, 0, "es", "init", "--daemon", daemon, "--app", app)
	if out, _ := u.do(t, 0, "es", "init", "--daemon", daemon, "--app", app, "--print"); out != "-- nothing to do\n" {
		t.Errorf("--print behind it: %q", out)
	}
	super := u.url
	as := func(login string) string {
		return strings.Replace(super, "postgres://postgres", "postgres://"+login, 1)
	}
	u.url = as(daemon)
	u.yaml = u.yamlOf(u.events(courses), u.viewRows())
	u.path = file(t, u.yaml)
	if wrong := findings(t, u.path, 0); len(wrong) != 0 {
		t.Errorf("check as the daemon finds %+v", wrong)
	}
	u.run()

	conn, err := pgx.Connect(t.Context(), as(app))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	for i, typ := range []string{"student-enrolled", "student-waitlisted", "enrolment-cancelled"} {
		student := []string{"ada", "bob", "ada"}[i]
		var version int64
		batch := fmt.Sprintf(`[{"stream":"course/ddia","expect":%d,"events":[{"id":%q,"type":%q,"data":%s}]}]`, i, intent.NewID(), typ, data("ddia", student))
		if err := conn.QueryRow(t.Context(), "select version from es.append($1::jsonb)", batch).Scan(&version); err != nil || version != int64(i+1) {
			t.Fatalf("append as the application: version %d, %v", version, err)
		}
	}
	for sql, want := range map[string]string{
		"select count(*) from views.enrolments":                       "",
		"select count(*) from es.read('course/ddia')":                 "",
		"select es.head()":                                            "",
		"select * from es.state('course/ddia')":                       "",
		"select count(*) from es.event":                               "42501",
		"insert into es.log values (99, gen_random_uuid(), '0/1', 1)": "42501",
		"update es.event set data = '{}'":                             "42501",
		"delete from es.event":                                        "42501",
		"truncate es.event":                                           "42501",
		"insert into views.enrolments values ('x', 'y')":              "42501",
		"delete from views.waiting":                                   "42501",
		"select es.refuse()":                                          "42501",
		"alter table es.event disable trigger all":                    "42501",
		"set role es_owner":                                           "42501",
		"insert into es.decision values ('x')":                        "42501",
		"create table es.mine (a int)":                                "42501",
	} {
		_, err := conn.Exec(t.Context(), sql)
		var pe *pgconn.PgError
		if got := ""; errors.As(err, &pe) {
			if got = pe.Code; got != want {
				t.Errorf("%s as the application: %v, want SQLSTATE %q", sql, err, want)
			}
		} else if err != nil || want != "" {
			t.Errorf("%s as the application: %v, want SQLSTATE %q", sql, err, want)
		}
	}
	await(t, "the offer", func() bool { return u.db.Value(t, "select count(*) from es.event where type = 'place-offered'") == "1" })
	u.whole(t, u.published(t))
	u.records(u.viewTopic("enrolments"), 2)
	u.do(t, 0, "views", "verify")
	u.built(t, "waiting")
	u.do(t, 0, "es", "log")
	var a action
	if u.json(t, 0, &a, "tx", "position:1"); len(a.Intents) != 1 || len(a.Rows) != 1 {
		t.Errorf("tx as the daemon's login: %+v", a)
	}
	u.daemon.Stop(t)

	// An application may use the commands that are for it.
	u.url = as(app)
	u.path = file(t, u.yamlOf(u.events(courses)))
	u.appended(t, "student-enrolled", "cs", "eve")
	u.do(t, 0, "es", "read", "course/cs")
	u.do(t, 0, "es", "state", "course/cs")
	u.do(t, 0, "es", "close", "course/cs")
	if _, errOut := u.do(t, exitEnvironment, "es", "alarms"); !strings.Contains(errOut, "permission denied") {
		t.Errorf("alarms as an application: %s", errOut)
	}
}

// The commands about events, without a daemon: what they take, answer and refuse.
func TestEsAppendReadStateClose(t *testing.T) {
	t.Parallel()
	u := newUniversity(t, courses)
	u.do(t, 0, "es", "init")
	const id, next = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"
	ada := data("ddia", "ada")

	out, _ := u.do(t, 0, "es", "append", "course/ddia", "student-enrolled", ada, "--id", id, "--expect", "none", "--actor", "ada", "--correlation", "request-7")
	if want := "course/ddia is at version 1\ntoken " + id + "\n"; out != want {
		t.Errorf("append: got %q, want %q", out, want)
	}
	out, _ = u.do(t, 0, "es", "append", "course/ddia", "student-enrolled", ada, "--id", id, "--expect", "none")
	if want := "course/ddia is at version 1, stored already\ntoken " + id + "\n"; out != want {
		t.Errorf("append again: got %q, want %q", out, want)
	}
	code, out, errOut := answered(t, ada, "es", "append", "course/ddia", "enrolment-cancelled", "-", "--id", next,
		"--expect", "1", "--causation", id, "--meta", `{"desk":3}`, "--config", u.path, "-o", "json")
	var receipt intent.Receipt
	if err := json.Unmarshal([]byte(out), &receipt); err != nil || code != 0 || receipt.Token.String() != next || receipt.Duplicate || len(receipt.Streams) != 1 || receipt.Streams[0].Version != 2 {
		t.Errorf("append from standard input: %d %s%s", code, out, errOut)
	}

	for _, tt := range []struct {
		name string
		code int
		want string
		args []string
	}{
		{"conflict", exitFailed, "cdc: append: stream \"course/ddia\" has version 2, expected was none\n", []string{"append", "course/ddia", "student-enrolled", ada, "--expect", "none"}},
		{"conflict of a number", exitFailed, "has version 2, expected was 7", []string{"append", "course/ddia", "student-enrolled", ada, "--expect", "7"}},
		{"id of another event", exitFailed, "stored already", []string{"append", "course/other", "student-enrolled", data("other", "ada"), "--id", id}},
		{"undeclared type", exitFailed, "student-vanished", []string{"append", "course/ddia", "student-vanished", ada}},
		{"missing field", exitFailed, "student", []string{"append", "course/ddia", "student-enrolled", `{"course":"ddia"}`}},
		{"stream of another course", exitFailed, "course/ddia", []string{"append", "course/x", "student-enrolled", ada}},
		{"data that is no object", exitFailed, "object", []string{"append", "course/ddia", "student-enrolled", "[1]"}},
		{"data that is no JSON", exitUsage, "DATA is not JSON", []string{"append", "course/ddia", "student-enrolled", "{course}"}},
		{"id that is none", exitUsage, "--id", []string{"append", "course/ddia", "student-enrolled", ada, "--id", "7"}},
		{"expect that is none", exitUsage, "none, some or any", []string{"append", "course/ddia", "student-enrolled", ada, "--expect", "-1"}},
		{"meta that is no object", exitUsage, "--meta", []string{"append", "course/ddia", "student-enrolled", ada, "--meta", "3"}},
		{"read of nothing", exitFailed, `stream "course/none" has no events`, []string{"read", "course/none"}},
		{"state of a version below 1", exitUsage, "versions begin at 1", []string{"state", "course/ddia", "--version", "-1"}},
		{"state of both", exitUsage, "exclude each other", []string{"state", "course/ddia", "--version", "1", "--at", "1m"}},
		{"state of a time that is none", exitUsage, `--at "noon"`, []string{"state", "course/ddia", "--at", "noon"}},
		{"log behind less than nothing", exitUsage, "--after", []string{"log", "--after", "-1"}},
		{"log of less than nothing", exitUsage, "--limit", []string{"log", "--limit", "-1"}},
		{"republish from nowhere", exitUsage, "1 is the beginning", []string{"republish", "--yes"}},
		{"close of nothing", exitFailed, "course/none", []string{"close", "course/none"}},
		{"close of another version", exitFailed, "has version 2, expected was 9", []string{"close", "course/ddia", "--expect", "9"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, errOut := u.do(t, tt.code, append([]string{"es"}, tt.args...)...); !strings.Contains(errOut, tt.want) {
				t.Errorf("%q is not in %q", tt.want, errOut)
			}
		})
	}

	u.appended(t, "student-enrolled", "ddia", "bob", "--causation", next)
	out, _ = u.do(t, 0, "es", "read", "course/ddia")
	for _, want := range []string{
		"course/ddia @1  student-enrolled\n", "    what  " + `{"course":"ddia","student":"ada"}` + "\n    who   ada\n    part of request-7\n    id    " + id,
		"course/ddia @2  enrolment-cancelled\n", "    why   student-enrolled (course/ddia @1)\n",
		"course/ddia @3  student-enrolled\n", "    why   enrolment-cancelled (course/ddia @2), which followed from student-enrolled (course/ddia @1)\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("read lacks %q:\n%s", want, out)
		}
	}
	out, _ = u.do(t, 0, "es", "read", "course/ddia", "--from", "2", "--to", "2", "-o", "json")
	var e intent.Event
	if err := json.Unmarshal([]byte(out), &e); err != nil || e.Version != 2 || e.Position != 0 || !strings.Contains(string(e.Meta), `"desk": 3`) && !strings.Contains(string(e.Meta), `"desk":3`) {
		t.Errorf("read -o json: %v %s", err, out)
	}

	enrolled := func(flags ...string) string {
		t.Helper()
		var st eventstore.State
		u.json(t, 0, &st, append([]string{"es", "state", "course/ddia"}, flags...)...)
		return fmt.Sprintf("@%d %s", st.Version, compact(st.State))
	}
	for _, tt := range []struct {
		want  string
		flags []string
	}{
		{`@3 {"enrolled":["bob"]}`, nil},
		{`@1 {"enrolled":["ada"]}`, []string{"--version", "1"}},
		{`@2 {"enrolled":[]}`, []string{"--version", "2"}},
		{`@3 {"enrolled":["bob"]}`, []string{"--at", "0s"}},
		{`@2 {"enrolled":[]}`, []string{"--at", e.At.Format(time.RFC3339Nano)}},
	} {
		if got := enrolled(tt.flags...); got != tt.want {
			t.Errorf("state %v: got %s, want %s", tt.flags, got, tt.want)
		}
	}
	if out, _ := u.do(t, 0, "es", "state", "course/ddia"); !strings.HasPrefix(out, "course/ddia @3\n{\n  \"enrolled\": [\n") {
		t.Errorf("state: %s", out)
	}

	if out, _ := u.do(t, 0, "es", "close", "course/ddia", "--expect", "3"); out != "course/ddia is closed\n" {
		t.Errorf("close: %q", out)
	}
	if _, errOut := u.do(t, exitFailed, "es", "append", "course/ddia", "student-enrolled", data("ddia", "eve")); errOut != "cdc: append: stream \"course/ddia\" is closed\n" {
		t.Errorf("append to what is closed: %q", errOut)
	}
	// The first answer, whatever has come since.
	if r := u.appended(t, "student-enrolled", "ddia", "ada", "--id", id); !r.Duplicate || r.Streams[0].Version != 1 {
		t.Errorf("append again after the close: %+v", r)
	}
}
