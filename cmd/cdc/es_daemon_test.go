package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
	"cdc/internal/eventstore"
	"cdc/internal/intent"
)

// The log, its follower, status, alarms and HTTP of a running daemon; then a topic
// that is lost while it is stopped, and the pipeline dropped.
func TestEventsOfARunningDaemon(t *testing.T) {
	t.Parallel()
	u := newUniversity(t, courses)
	u.do(t, 0, "es", "init")
	u.run()
	follower := cdctest.StartCommand(t, t.TempDir(), "es", "log", "--follow", "--type", "student-enrolled,place-offered", "-o", "json", "--config", u.path)
	u.appended(t, "student-enrolled", "ddia", "ada")
	u.appended(t, "student-waitlisted", "ddia", "bob")
	token := u.appended(t, "enrolment-cancelled", "ddia", "ada").Token.String()
	var offered intent.Event
	line := follower.WaitOutput(t, "place-offered")
	if err := json.Unmarshal([]byte(line), &offered); err != nil || offered.Position != 4 || whyOf(&offered).Causation != token {
		t.Errorf("the offer: %v %s, want position 4 and causation %s", err, line, token)
	}
	if strings.Contains(follower.Output(), "student-waitlisted") || !strings.Contains(follower.Output(), "student-enrolled") {
		t.Errorf("--type lets through\n%s", follower.Output())
	}
	follower.Stop(t)
	u.do(t, 0, "views", "wait", "waiting", offered.ID.String())
	if n := u.published(t); n != 4 {
		t.Errorf("%d events, want 4", n)
	}

	t.Run("log", func(t *testing.T) {
		out, _ := u.do(t, 0, "es", "log", "--after", "1", "--limit", "2", "-o", "json")
		var got []string
		for line := range strings.Lines(out) {
			var e intent.Event
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatalf("%v in %q", err, line)
			}
			got = append(got, fmt.Sprintf("%d %s", e.Position, e.Type))
		}
		if want := []string{"2 student-waitlisted", "3 enrolment-cancelled"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		out, _ = u.do(t, 0, "es", "log", "--type", "place-offered")
		if !strings.Contains(out, "(position 4, transaction ") || !strings.Contains(out, "    why   enrolment-cancelled (course/ddia @3)\n") || strings.Count(out, "what  ") != 1 {
			t.Errorf("log --type:\n%s", out)
		}
	})
	t.Run("status", func(t *testing.T) { u.statusOfEvents(t) })
	t.Run("topics", func(t *testing.T) {
		var plans []topicPlan
		u.json(t, 0, &plans, "topics")
		policies := map[string]string{}
		for _, p := range plans {
			if p.Step != "" {
				t.Errorf("%s of a running pipeline is not in order: %s", p.Topic, p.Step)
			}
			policies[p.Topic] = p.Policy
		}
		if policies[u.history()] != cdc.PolicyHistory.String() || len(plans) != 2 {
			t.Errorf("topics %+v", plans)
		}
	})
	t.Run("http", func(t *testing.T) { u.overHTTP(t) })
	t.Run("alarms", func(t *testing.T) { u.alarms(t, token) })

	n := u.published(t)
	t.Run("republish", func(t *testing.T) { u.republished(t, n) })
	t.Run("drop", func(t *testing.T) {
		u.do(t, exitFailed, "drop", u.db.Name+"_es", "--yes") // it runs
		u.daemon.Stop(t)
		u.do(t, 0, "drop", u.db.Name+"_es", "--yes")
		if left := u.db.Value(t, "SELECT (SELECT count(*) FROM pg_publication) + (SELECT count(*) FROM pg_replication_slots WHERE database = current_database())"); left != "0" {
			t.Errorf("%s publications and slots are left", left)
		}
		u.appended(t, "student-enrolled", "cs", "grace") // while nothing holds its WAL
		u.run()
		if got := u.published(t); got != n+1 {
			t.Errorf("%d events, want %d", got, n+1)
		}
		u.whole(t, n+1)
		u.daemon.Stop(t)
	})
}

// statusOfEvents asks the daemon in both forms.
func (u *university) statusOfEvents(t *testing.T) {
	out, _ := u.do(t, 0, "status")
	for _, want := range []string{": log at position 4, published to 4\n", "\n  numbering ", "\n  publication ", "\n  views ", "\n  view waiting ", "\n  reaction offer-freed-place ", "\n  recovery "} {
		if !strings.Contains(out, want) {
			t.Errorf("status lacks %q:\n%s", want, out)
		}
	}
	s := u.status(t)
	if !s.Ready || s.State != cdc.StateStreaming || s.Log.Alarms != 0 || s.Changes != 4 {
		t.Errorf("status %+v", s)
	}
	for _, part := range s.Log.Parts {
		if part.State != cdc.StateStreaming || part.Error != "" {
			t.Errorf("part %+v", part)
		}
	}
	_, metrics := u.get("/metrics")
	if !strings.Contains(metrics, `pipeline="`+u.db.Name+`_es"`) {
		t.Errorf("no metrics of the pipeline:\n%s", metrics)
	}
}

// overHTTP uses every path of the API once, and reads its own write.
func (u *university) overHTTP(t *testing.T) {
	t.Helper()
	var token string
	for i, name := range []string{"waiting", "enrolments"} {
		typ := []string{"student-waitlisted", "student-enrolled"}[i]
		body := fmt.Sprintf(`{"batches":[{"stream":"course/http","expect":%d,"events":[{"type":%q,"data":{"course":"http","student":"zoe"}}]}]}`, i, typ)
		code, answer := u.post("/v1/append", body)
		var r intent.Receipt
		if err := json.Unmarshal([]byte(answer), &r); err != nil || code != http.StatusOK || r.Token.IsZero() || r.Streams[0].Version != int64(i+1) {
			t.Fatalf("append: %d %s", code, answer)
		}
		token = r.Token.String()
		code, rows := u.get("/v1/views/" + name + "?course=http&token=" + token)
		if code != http.StatusOK || strings.Count(rows, "\n") != 1 || !strings.Contains(rows, "zoe") {
			t.Errorf("view %s does not show the append: %d %s", name, code, rows)
		}
	}
	if code, answer := u.post("/v1/append", `{"batches":[{"stream":"course/http","expect":"none","events":[{"type":"student-enrolled","data":{"course":"http","student":"eve"}}]}]}`); code != http.StatusConflict || !strings.Contains(answer, `"conflict"`) {
		t.Errorf("conflict: %d %s", code, answer)
	}
	if code, answer := u.post("/v1/append", `{"batches":[{"stream":"course/http","events":[{"type":"student-enrolled","data":{"course":"http","student":5}}]}]}`); code != http.StatusUnprocessableEntity || !strings.Contains(answer, "data.student") {
		t.Errorf("wrong field: %d %s", code, answer)
	}
	for path, want := range map[string]string{
		"/v1/streams/course/http":                       `"student-waitlisted"`,
		"/v1/streams/course/http/state":                 `"enrolled"`,
		"/v1/log?after=5&type=student-enrolled&wait=5s": `"position":6`,
	} {
		if code, body := u.get(path); code != http.StatusOK || !strings.Contains(strings.ReplaceAll(body, ": ", ":"), want) {
			t.Errorf("%s: %d %s, want %s in it", path, code, body, want)
		}
	}
	if code, body := u.get("/v1/views/waiting/wait?token=" + token); code != http.StatusNoContent {
		t.Errorf("wait: %d %s", code, body)
	}
	u.follow(t, 5, "id: 6\nevent: student-enrolled\ndata: {")
}

// follow reads the log as server-sent events until text has come.
func (u *university) follow(t *testing.T, after int, text string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+u.admin+"/v1/log?after="+strconv.Itoa(after), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var got []byte
	for buf := make([]byte, 4096); !strings.Contains(string(got), text); {
		n, err := res.Body.Read(buf)
		got = append(got, buf[:n]...)
		if err != nil {
			t.Fatalf("%v behind %q, want %q", err, got, text)
		}
	}
}

// post sends a body to the daemon and returns status and answer.
func (r *rig) post(path, body string) (int, string) {
	r.t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Post("http://"+r.admin+path, "application/json", strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res.StatusCode, string(answer)
}

// alarms changes a stored event as a superuser who switched the triggers off.
func (u *university) alarms(t *testing.T, event string) {
	t.Helper()
	if out, _ := u.do(t, 0, "es", "alarms"); out != "no alarms\n" {
		t.Errorf("alarms: %q", out)
	}
	u.db.Exec(t, fmt.Sprintf(`alter table es.event disable trigger append_only;
		update es.event set data = jsonb_set(data, '{reason}', '"forged"') where id = '%s';
		alter table es.event enable always trigger append_only`, event))
	await(t, "readiness is red", func() bool { code, _ := u.get("/readyz"); return code == http.StatusServiceUnavailable })
	if _, body := u.get("/readyz"); !strings.Contains(body, "cdc es alarms") {
		t.Errorf("readyz: %s", body)
	}
	if out, _ := u.do(t, 0, "status"); !strings.Contains(out, "cdc es alarms") {
		t.Errorf("status does not say what mends it:\n%s", out)
	}
	var list []eventstore.Alarm
	u.json(t, exitDifference, &list, "es", "alarms")
	if len(list) != 1 || list[0].Operation != "update" || list[0].Event.String() != event || !list[0].Acknowledged.IsZero() {
		t.Errorf("alarms %+v", list)
	}
	if out, errOut := u.do(t, exitDifference, "es", "alarms"); !strings.Contains(out, event) || !strings.Contains(errOut, "--acknowledge") {
		t.Errorf("alarms: %s%s", out, errOut)
	}
	if out, _ := u.do(t, 0, "es", "alarms", "--acknowledge"); out != "1 alarm acknowledged\n" {
		t.Errorf("acknowledge: %q", out)
	}
	await(t, "readiness is green", func() bool { code, _ := u.get("/readyz"); return code == http.StatusOK })
	if out, _ := u.do(t, 0, "es", "alarms"); out != "no alarms\n" {
		t.Errorf("alarms behind it: %q", out)
	}
	u.json(t, 0, &list, "es", "alarms", "--all")
	if len(list) != 1 || list[0].Acknowledged.IsZero() {
		t.Errorf("alarms --all: %+v", list)
	}
}

// republished loses the topic while the daemon is stopped: it says so and which
// command mends it; behind that the topic is whole.
func (u *university) republished(t *testing.T, n int64) {
	t.Helper()
	u.whole(t, n)
	u.daemon.Stop(t)
	if _, err := u.admins().DeleteTopics(t.Context(), u.history()); err != nil {
		t.Fatal(err)
	}
	u.daemon = cdctest.StartCDC(t, u.yaml)
	await(t, "the publication has failed", func() bool {
		code, out, _ := command(t, "status", "-o", "json", "--config", u.path)
		return code == 0 && strings.Contains(out, "cdc es republish --from 1")
	})
	s := u.status(t)
	if s.Ready || s.Log.Head != n {
		t.Errorf("status %+v", s)
	}
	u.daemon.Stop(t)
	for _, answer := range []string{"", "no\n"} {
		if code, _, errOut := answered(t, answer, "es", "republish", "--from", "1", "--config", u.path); code != exitFailed || !strings.Contains(errOut, "nothing was changed") {
			t.Errorf("answer %q: %d %s", answer, code, errOut)
		}
	}
	u.do(t, exitUsage, "es", "republish", "--from", "0", "--yes")
	u.do(t, exitFailed, "es", "republish", "--from", "1000", "--yes")
	u.do(t, 0, "es", "republish", "--from", "1", "--yes")
	u.run()
	if got := u.published(t); got != n {
		t.Errorf("%d events, want %d", got, n)
	}
	u.whole(t, n)
}

// A second daemon of the same store waits and disturbs nothing, and goes on where the
// first ends.
func TestSecondDaemonOfEventsWaits(t *testing.T) {
	t.Parallel()
	u := newUniversity(t, courses)
	u.do(t, 0, "es", "init")
	u.run()
	u.appended(t, "student-enrolled", "ddia", "ada")
	u.published(t)
	other := *u.rig
	other.admin = address(cdctest.FreePort(t))
	second := cdctest.StartCDC(t, other.yamlOf(other.events(courses)))
	second.WaitOutput(t, "waiting: another instance numbers the events")
	if code, body := other.get("/readyz"); code != http.StatusServiceUnavailable {
		t.Errorf("the second answers %d %s, want 503", code, body)
	}
	for i := range 20 {
		u.appended(t, "student-waitlisted", "ddia", fmt.Sprint(i))
	}
	u.appended(t, "enrolment-cancelled", "ddia", "ada")
	await(t, "the offer", func() bool { return u.db.Value(t, "select count(*) from es.event where type = 'place-offered'") == "1" })
	u.whole(t, u.published(t))
	if s := u.status(t); s.TakeOvers != 1 || s.Restarts != 0 || !s.Ready {
		t.Errorf("the first is disturbed: %+v", s)
	}
	u.daemon.Stop(t)
	second.WaitReady(t, other.admin)
	u.admin, u.path = other.admin, second.Config
	u.appended(t, "student-enrolled", "ddia", "eve")
	u.whole(t, u.published(t))
	second.Stop(t)
}
