package main

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"cdc/internal/cdctest"
)

// viewRows is a pipeline of rows that captures the views.
func (r *rig) viewRows(more ...string) string {
	return r.pipeline(r.db.Name, append([]string{`tables: ["views.*"]`}, more...)...)
}

func (r *rig) viewTopic(name string) string { return r.db.Name + ".views." + name }

// One transaction through both lenses: found by an event, by its id and by a
// position, it shows what was meant and the rows of the views that followed.
func TestTxShowsIntentsAndRows(t *testing.T) {
	t.Parallel()
	u := newUniversity(t, courses)
	u.yaml = u.yamlOf(u.events(courses), u.viewRows())
	u.path = file(t, u.yaml)
	u.do(t, 0, "es", "init")
	u.run()
	ada := u.appended(t, "student-enrolled", "ddia", "ada").Token.String()
	u.published(t)
	u.records(u.viewTopic("enrolments"), 1)
	// Two streams and a table of its own, at once.
	tx := u.db.Value(t, fmt.Sprintf(`with a as (select * from es.append('[
		{"stream": "course/ddia", "events": [{"id": "%s", "type": "enrolment-cancelled", "data": %s}]},
		{"stream": "course/cs", "expect": "none", "events": [{"id": "%s", "type": "student-enrolled", "data": %s}]}]'))
		select pg_current_xact_id()::text from a limit 1`,
		"00000000-0000-4000-8000-00000000000a", data("ddia", "ada"), "00000000-0000-4000-8000-00000000000b", data("cs", "ada")))
	if n := u.published(t); n != 3 {
		t.Errorf("%d events, want 3: nobody waits for a place", n)
	}
	u.records(u.viewTopic("enrolments"), 3) // insert, delete's tombstone, insert

	for _, id := range []string{tx, "00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b", "position:2", "position:3"} {
		t.Run(id, func(t *testing.T) {
			var a action
			u.json(t, 0, &a, "tx", id)
			if fmt.Sprint(a.Tx) != tx || len(a.Intents) != 2 || a.Intents[0].Type != "enrolment-cancelled" || a.Intents[1].Stream != "course/cs" {
				t.Errorf("intents of %s: %+v, want two of transaction %s", id, a.Intents, tx)
			}
			var rows []string
			for _, r := range a.Rows {
				value := "tombstone"
				if r.Value != nil {
					value = *r.Value
				}
				rows = append(rows, r.Op+" "+r.Key+" "+value)
			}
			if got, want := strings.Join(rows, "\n"), "delete "+data("ddia", "ada")+" tombstone\ninsert "+data("cs", "ada")+" "+data("cs", "ada"); got != want {
				t.Errorf("rows of %s:\n got %s\nwant %s", id, got, want)
			}
		})
	}
	out, _ := u.do(t, 0, "tx", tx)
	for _, want := range []string{
		"transaction " + tx + ", committed at ", "what was meant\n", "course/ddia @2  enrolment-cancelled", "course/cs @1  student-enrolled",
		"what it did to rows\n", "delete   " + u.viewTopic("enrolments") + "  " + data("ddia", "ada") + "\n    (tombstone)\n", "insert   " + u.viewTopic("enrolments") + "  " + data("cs", "ada") + "\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("tx lacks %q:\n%s", want, out)
		}
	}
	var first action
	if u.json(t, 0, &first, "tx", ada); len(first.Intents) != 1 || len(first.Rows) != 1 || first.Rows[0].Op != "insert" {
		t.Errorf("tx of the enrolment: %+v", first)
	}
	for _, tt := range []struct {
		id, want string
		code     int
	}{
		{"position:99", "the log has no position 99 yet", exitFailed},
		{"position:x", "positions are numbers from 1", exitUsage},
		{"position:0", "positions are numbers from 1", exitUsage},
		{"ada", "no event's id, no transaction id", exitUsage},
		{"2", "transaction 2 appended no event", exitFailed},
		{"00000000-0000-4000-8000-0000000000ff", "not found", exitFailed},
	} {
		t.Run(tt.id, func(t *testing.T) {
			if _, errOut := u.do(t, tt.code, "tx", tt.id); !strings.Contains(errOut, tt.want) {
				t.Errorf("%q is not in %q", tt.want, errOut)
			}
		})
	}
	t.Run("switched view", func(t *testing.T) { u.switchedView(t) })
}

// switchedView: a table that a pipeline of rows captures is not taken from under it.
// Out of its publication it is, and the next start makes the topic equal to the new one.
func (u *university) switchedView(t *testing.T) {
	u.db.Exec(t, "insert into views.enrolments values ('forged', 'eve')")
	u.built(t, "enrolments")
	if _, errOut := u.do(t, exitFailed, "views", "switch", "enrolments"); !strings.Contains(errOut, "publication "+u.db.Name) {
		t.Errorf("switch of a table that is captured: %s", errOut)
	}
	u.db.Exec(t, "alter publication "+u.db.Name+" drop table views.enrolments")
	u.do(t, 0, "views", "switch", "enrolments")
	u.daemon.Stop(t)
	u.run()
	u.appended(t, "student-enrolled", "cs", "grace")
	want := map[string]string{}
	for _, row := range u.db.Query(t, "select course, student from views.enrolments") {
		want[data(row[0], row[1])] = data(row[0], row[1])
	}
	cdctest.WaitRecords(t, u.brokers, u.viewTopic("enrolments"), func(records []cdctest.Record) bool {
		return maps.Equal(cdctest.Fold(records), want)
	})
	if want[data("cs", "grace")] == "" || want[data("forged", "eve")] != "" {
		t.Errorf("the view holds %v", want)
	}
	u.daemon.Stop(t)
}
