package eventpipe

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cdc/internal/admin"
	"cdc/internal/cdc"
	"cdc/internal/cdctest"
	"cdc/internal/intent"
)

// verify gives the verdicts by subject.
func (r *rig) verify() map[string]cdc.Verification {
	r.t.Helper()
	all, err := Verify(r.t.Context(), r.cfg, VerifyOptions{Patience: waitLimit})
	if err != nil {
		r.t.Fatal(err)
	}
	found := map[string]cdc.Verification{}
	for _, v := range all {
		if v.Pipeline != r.cfg.Name || v.At.IsZero() {
			r.t.Errorf("of what and when: %+v", v)
		}
		found[v.Subject] = v
	}
	if len(found) != len(all) {
		r.t.Errorf("a subject is there twice: %+v", all)
	}
	return found
}

// verdict fails unless a subject has a verdict and the text of it has the words.
func verdict(t *testing.T, found map[string]cdc.Verification, subject string, want cdc.Verdict, words ...string) cdc.Verification {
	t.Helper()
	v := found[subject]
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if v.Verdict != want {
		t.Errorf("%s is %q, want %q: %s", subject, v.Verdict, want, text)
	}
	for _, word := range words {
		if !strings.Contains(string(text), word) {
			t.Errorf("%s does not say %q: %s", subject, word, text)
		}
	}
	return v
}

// busy appends until it is told to stop, or the test ends.
func (r *rig) busy() (quiet func()) {
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
			data := fmt.Appendf(nil, `{"course":"c%d","student":"%d"}`, i%5, i)
			_, err := r.store.Append(context.Background(), []intent.Batch{{
				Stream: "course/c" + strconv.Itoa(i%5), Expect: intent.Any,
				Events: []intent.NewEvent{{ID: intent.NewID(), Type: []string{"student-enrolled", "student-waitlisted"}[i%2], Data: data}},
			}})
			if err != nil {
				r.t.Errorf("append: %v", err)
				return
			}
		}
	}()
	quiet = sync.OnceFunc(func() { close(stop); <-stopped })
	r.t.Cleanup(quiet)
	return quiet
}

// Everything is equal while events come and the daemon runs, and when it does not;
// each kind of damage is seen where it is.
func TestVerifyEverythingThatFollowsFromTheLog(t *testing.T) {
	t.Parallel()
	k := cdctest.Kafka(t)
	r := newRig(t, k.Brokers, k.Prefix)
	topic := "topic " + r.topic
	if found := r.verify(); len(found) != 4 { // before anything ran
		t.Errorf("got %+v", found)
	} else {
		verdict(t, found, "log", cdc.VerdictEqual)
		verdict(t, found, topic, cdc.VerdictUnchecked, "cdc run")
		verdict(t, found, "view waiting", cdc.VerdictUnchecked, "cdc es init")
	}
	r.start()
	r.until("ready, new views live", func(s cdc.Status) bool { return s.Ready && r.live() == 2 })
	quiet := r.busy()
	r.until("events come", func(s cdc.Status) bool {
		return s.Log.Published > 20 && partOf(s, "view waiting").Position > 20
	})
	found := r.verify()
	for _, subject := range []string{"log", topic, "view enrolments", "view waiting"} {
		v := verdict(t, found, subject, cdc.VerdictEqual)
		if v.Rows == 0 || v.Records == 0 || v.Position < 20 || v.Differences() != 0 {
			t.Errorf("%+v", v)
		}
	}
	quiet()

	r.db.Exec(t, `update views.waiting set since = -1 where student = '1'`)
	found = r.verify()
	v := verdict(t, found, "view waiting", cdc.VerdictDifferent, `\"since\": -1`, "cdc views build waiting, then cdc views switch waiting")
	if v.Missing != 1 || v.Ghosts != 1 || len(v.Samples) != 2 {
		t.Errorf("%+v", v)
	}
	verdict(t, found, "log", cdc.VerdictEqual)
	verdict(t, found, topic, cdc.VerdictEqual)

	// Somebody takes a position away, and changes an event.
	r.db.Exec(t, `alter table es.log disable trigger append_only; delete from es.log where pos = 5; alter table es.log enable always trigger append_only`,
		`alter table es.event disable trigger append_only;
		update es.event set data = jsonb_set(data, '{student}', '"forged"') where id = (select event from es.log where pos = 7);
		alter table es.event enable always trigger append_only`)
	found = r.verify()
	v = verdict(t, found, "log", cdc.VerdictDifferent, `"position 5"`, "Restore the schema es")
	if v.Missing != 1 || v.Different != 1 {
		t.Errorf("%+v", v)
	}
	v = verdict(t, found, topic, cdc.VerdictDifferent, `"data.student"`, `\"forged\"`, "cdc es republish")
	if v.Ghosts != 1 || v.Different != 1 || v.Missing != 0 {
		t.Errorf("%+v", v)
	}
}

// A running pipeline verifies itself from time to time; what it found is in its status,
// without values of rows, and in the metrics.
func TestVerifyEvery(t *testing.T) {
	t.Parallel()
	k := cdctest.Kafka(t)
	r := newRig(t, k.Brokers, k.Prefix)
	r.cfg.VerifyEvery = 100 * time.Millisecond
	r.start()
	r.append("student-enrolled", "ddia", "ada")
	r.append("student-waitlisted", "ddia", "bob")
	r.append("student-enrolled", "ddia", "eve")
	subjects := []string{"log", "topic " + r.topic, "view enrolments", "view waiting"}
	r.until("all are equal", func(s cdc.Status) bool {
		equal := 0
		for i, v := range s.Verified {
			if len(s.Verified) == len(subjects) && v.Subject == subjects[i] && v.Pipeline == r.cfg.Name && v.Verdict == cdc.VerdictEqual && v.Position == 3 {
				equal++
			}
		}
		return equal == len(subjects)
	})

	differs := func(i int) func(cdc.Status) bool {
		return func(s cdc.Status) bool {
			return len(s.Verified) == len(subjects) && s.Verified[i].Verdict == cdc.VerdictDifferent
		}
	}
	r.db.Exec(t, `update views.waiting set since = -1`)
	s := r.until("the view differs", differs(3))
	if v := s.Verified[3]; v.Mend == "" || v.Missing != 1 || v.Ghosts != 1 || v.Samples != nil {
		t.Errorf("got %+v, want a row that was changed and no sample: it would be the row", v)
	}
	if s.State != cdc.StateStreaming {
		t.Errorf("a difference ended the pipeline: %+v", s)
	}
	metrics := httptest.NewRecorder()
	admin.New(statuses{s}, r.cfg.Logger).Handler().ServeHTTP(metrics, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for _, want := range []string{`cdc_verify_age_seconds{pipeline=%q,subject="log"} `, `cdc_verify_unchecked{pipeline=%q,subject="view enrolments"} 0`,
		`cdc_verify_differences{kind="missing",pipeline=%q,subject="view waiting"} 1`} {
		if want = fmt.Sprintf(want, r.cfg.Name); !strings.Contains(metrics.Body.String(), want) {
			t.Errorf("%s is not in\n%s", want, metrics.Body)
		}
	}
	r.db.Exec(t, `alter table es.log disable trigger append_only; delete from es.log where pos = 1; alter table es.log enable always trigger append_only`)
	s = r.until("the log differs", differs(0))
	if v := s.Verified[0]; v.Mend == "" || len(v.Samples) == 0 || v.Samples[0].Key != "position 1" || v.Samples[0].Columns != nil {
		t.Errorf("got %+v, want the hole, without values", v)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
}

// statuses is what admin shows.
type statuses []cdc.Status

func (s statuses) Status() []cdc.Status { return s }
func (statuses) Version() string        { return "test" }

// Without a daemon everything can be verified that does not wait for one, and without
// Kafka everything but the topics.
func TestVerifyWithoutDaemonAndKafka(t *testing.T) {
	t.Parallel()
	k := cdctest.Kafka(t)
	r := newRig(t, k.Brokers, k.Prefix)
	topic := "topic " + r.topic
	r.start()
	r.append("student-enrolled", "ddia", "ada")
	r.append("student-waitlisted", "ddia", "bob")
	r.until("ready, new views live", func(s cdc.Status) bool { return s.Ready && r.live() == 2 && s.Log.Published == 2 })
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r.until("stopped", func(s cdc.Status) bool { return s.State == cdc.StateStopped })
	found := r.verify()
	for _, subject := range []string{"log", topic, "view enrolments", "view waiting"} {
		verdict(t, found, subject, cdc.VerdictEqual)
	}
	r.append("student-enrolled", "ddia", "eve")
	r.cfg.Publication.Sink.Brokers = []string{fmt.Sprintf("127.0.0.1:%d", cdctest.FreePort(t))}
	found = r.verify()
	verdict(t, found, "log", cdc.VerdictUnchecked, "1 events without a position", "cdc run")
	verdict(t, found, "view enrolments", cdc.VerdictUnchecked, "cdc run")
	verdict(t, found, "view waiting", cdc.VerdictEqual)
	verdict(t, found, "topic "+r.cfg.Publication.Topic, cdc.VerdictUnchecked)
}
