package main

import (
	"fmt"
	"strings"
	"testing"

	"cdc/internal/cdc"
)

// cdc verify covers the log, the topics and the views of a pipeline of mode: events,
// while its daemon runs and when it does not.
func TestVerifyCommandOfEvents(t *testing.T) {
	t.Parallel()
	u := newUniversity(t, courses)
	u.do(t, 0, "es", "init")
	u.run()
	for i := range 5 {
		u.appended(t, "student-enrolled", "ddia", fmt.Sprint("s", i))
	}
	token := u.appended(t, "student-waitlisted", "ddia", "zoe").Token.String()
	u.do(t, 0, "views", "wait", "waiting", token)

	subjects := []string{"log", "topic " + u.history(), "view enrolments", "view waiting"}
	var report verifyReport
	u.json(t, 0, &report, "verify")
	for i, v := range report.Verified {
		if i >= len(subjects) || v.Subject != subjects[i] || v.Pipeline != u.db.Name+"_es" || v.Verdict != cdc.VerdictEqual || v.Position != 6 {
			t.Errorf("%+v", v)
		}
	}
	if len(report.Verified) != len(subjects) {
		t.Errorf("%d subjects, want %q", len(report.Verified), subjects)
	}
	u.db.Exec(t, "delete from views.enrolments where student = 's3'")
	out, _ := u.do(t, exitDifference, "verify")
	for _, want := range []string{"view enrolments", "different", "s3", "cdc views build enrolments, then cdc views switch enrolments"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	u.built(t, "enrolments")
	u.do(t, 0, "views", "switch", "enrolments")
	u.daemon.Stop(t)
	u.do(t, 0, "verify")
	u.appended(t, "student-enrolled", "ddia", "late")
	if out, _ := u.do(t, exitFailed, "verify"); !strings.Contains(out, "unchecked") || !strings.Contains(out, "cdc run") {
		t.Errorf("an event without a position:\n%s", out)
	}
}
