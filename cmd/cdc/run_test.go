package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"cdc/internal/cdctest"
	"cdc/internal/config"
)

// stopPromise is how long an orderly stop may take; the tests run beside others,
// so they ask for it only where nothing else can be measured.
const stopPromise = 10 * time.Second

// progressEnd is the end LSN of the newest progress record.
func progressEnd(t *testing.T, value string) string {
	t.Helper()
	var p struct {
		End string `json:"end"`
	}
	if err := json.Unmarshal([]byte(value), &p); err != nil || p.End == "" {
		t.Fatalf("progress record %q: %v", value, err)
	}
	return p.End
}

// A stop that comes while the broker inside starts is as orderly as any other.
func TestStopWhileTheBrokerStarts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg, err := config.Parse("cdc.yaml", fmt.Appendf(nil, "postgres: {url: \"postgres://127.0.0.1:1/none\"}\nkafka: {embedded: {dir: %q, listen: %q}}\npipelines: {p: {tables: [\"public.*\"]}}\n", dir, address(cdctest.FreePort(t))), os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := runDaemon(ctx, cfg, slog.New(slog.DiscardHandler), io.Discard); err != nil {
		t.Errorf("got %v, want no error", err)
	}
}

// 121: with the broker inside, the rows are in the topics, SIGTERM ends the
// program in order, and the slot is confirmed as far as the progress record says.
func TestCase121RunEmbeddedBroker(t *testing.T) {
	t.Parallel()
	r := embedded(t)
	r.db.Exec(t, "CREATE TABLE students(id int PRIMARY KEY, name text)", "INSERT INTO students SELECT i, 'n' || i FROM generate_series(1, 50) i")
	p := r.start(r.yaml())
	r.db.Exec(t, "INSERT INTO students SELECT i, 'n' || i FROM generate_series(51, 100) i", "DELETE FROM students WHERE id = 1")
	records := r.records(r.topic("students"), 101)
	once(t, records)
	if state := cdctest.Fold(records); len(state) != 99 || state[`{"id":100}`] != `{"id":100,"name":"n100"}` {
		t.Errorf("%d live keys, want 99; key 100 is %q", len(state), state[`{"id":100}`])
	}
	began := time.Now()
	p.Signal(t, syscall.SIGTERM)
	if code := p.Wait(t, 3*stopPromise); code != 0 {
		t.Fatalf("exit code %d after SIGTERM\n%s", code, p.Output())
	}
	if took := time.Since(began); took > stopPromise {
		t.Errorf("the stop took %v, want at most %v", took, stopPromise)
	}
	out := p.Output()
	if strings.Contains(out, "level=WARN") || strings.Contains(out, "level=ERROR") {
		t.Errorf("a run without trouble warns:\n%s", out)
	}
	for _, step := range []string{"publication changed", "copying tables", "tables copied", "replication started", "stopped in order"} {
		if n := strings.Count(out, "level=INFO msg=\""+step); n != 1 {
			t.Errorf("step %q is told %d times, want once:\n%s", step, n, out)
		}
	}
	if strings.Contains(out, "level=INFO msg=\"snapshot") {
		t.Errorf("the source tells again what the pipeline tells:\n%s", out)
	}
	// The broker went with the program: the command has it for its own time.
	code, tailed, errOut := command(t, "tail", "_cdc.progress."+r.db.Name, "--config", p.Config, "--from-beginning", "--follow=false", "-o", "json")
	if code != 0 {
		t.Fatalf("tail exits with %d: %s", code, errOut)
	}
	var newest tailLine
	for line := range strings.Lines(tailed) {
		var l tailLine
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		if l.Key == "progress" {
			newest = l
		}
	}
	if newest.Value == nil {
		t.Fatalf("no progress record in %q", tailed)
	}
	confirmed := r.db.Value(t, "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '"+r.db.Name+"'")
	if end := progressEnd(t, *newest.Value); end != confirmed {
		t.Errorf("the slot is confirmed at %s, the progress record says %s", confirmed, end)
	}
}

// Killed in the middle of a load and started again, again and again: nothing is
// lost and nothing is there twice.
func TestG1RunKilledAndStartedAgain(t *testing.T) {
	t.Parallel()
	r := onCluster(t)
	r.db.Exec(t, "CREATE TABLE t(id int PRIMARY KEY, n int)")
	yaml := r.yaml()
	rows := 0
	for round := range 3 {
		p := r.start(yaml)
		r.db.Exec(t, fmt.Sprintf("INSERT INTO t SELECT i, %d FROM generate_series(%d, %d) i", round, rows+1, rows+2000))
		r.records(r.topic("t"), rows+1) // some of them have arrived, most are on their way
		p.Kill9()
		rows += 2000
	}
	p := r.start(yaml)
	r.records(r.topic("t"), rows)
	p.Stop(t)
	records := cdctest.Read(t, r.brokers, r.topic("t"))
	once(t, records)
	if len(records) != rows || len(cdctest.Fold(records)) != rows {
		t.Errorf("%d records of %d keys, want %d of each", len(records), len(cdctest.Fold(records)), rows)
	}
}

// 128: a second program with the same pipeline waits, is not ready, and goes on
// where the first ends.
func TestCase128SecondProgramWaits(t *testing.T) {
	t.Parallel()
	r := onCluster(t)
	r.db.Exec(t, "CREATE TABLE t(id int PRIMARY KEY)")
	first := r.start(r.yaml())
	other := *r
	other.admin = address(cdctest.FreePort(t))
	second := cdctest.StartCDC(t, other.yaml())
	second.WaitOutput(t, "waiting: another instance reads the slot")
	if code, body := other.get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "waiting") {
		t.Errorf("the second answers %d %s, want 503 and waiting", code, body)
	}
	r.db.Exec(t, "INSERT INTO t VALUES (1)")
	r.records(r.topic("t"), 1)
	first.Stop(t)
	second.WaitReady(t, other.admin)
	r.db.Exec(t, "INSERT INTO t VALUES (2)")
	once(t, r.records(r.topic("t"), 2))
	second.Stop(t)
}

// 83: a pipeline that fails for good leaves the other running, and /readyz says
// which and why; the failure is told once, with the SQL on lines of its own.
func TestCase083OnePipelineFails(t *testing.T) {
	t.Parallel()
	r := onCluster(t)
	r.db.Exec(t, "CREATE TABLE good(id int PRIMARY KEY)", "CREATE TABLE audit(a int)", "INSERT INTO good VALUES (1)")
	bad := r.db.Name + "-bad"
	p := cdctest.StartCDC(t, r.yamlOf(
		r.pipeline(r.db.Name, `tables: ["public.good"]`),
		r.pipeline(bad, `tables: ["public.audit"]`),
	))
	r.records(r.topic("good"), 1)
	p.WaitOutput(t, `ALTER TABLE "public"."audit"`)
	code, body := r.get("/readyz")
	if code != http.StatusServiceUnavailable || !strings.Contains(body, bad) || !strings.Contains(body, "public.audit has no primary key") || !strings.Contains(body, "ALTER TABLE") {
		t.Errorf("readyz: %d %s", code, body)
	}
	r.db.Exec(t, "INSERT INTO good VALUES (2)")
	r.records(r.topic("good"), 2)
	p.Signal(t, syscall.SIGTERM)
	if code := p.Wait(t, 3*stopPromise); code != exitFailed {
		t.Errorf("exit code %d, want %d: a pipeline failed", code, exitFailed)
	}
	toldOnce(t, p.Output(), bad)
}

// All pipelines have failed: the program ends with 1.
func TestRunEndsWhenAllPipelinesFailed(t *testing.T) {
	t.Parallel()
	r := onCluster(t)
	r.db.Exec(t, "CREATE TABLE audit(a int)")
	p := cdctest.StartCDC(t, r.yaml())
	if code := p.Wait(t, time.Minute); code != exitFailed {
		t.Errorf("exit code %d, want %d\n%s", code, exitFailed, p.Output())
	}
	toldOnce(t, p.Output(), r.db.Name)
}

// toldOnce wants one failure of a pipeline over public.audit in the output.
func toldOnce(t *testing.T, out, pipeline string) {
	t.Helper()
	if n := strings.Count(out, "public.audit has no primary key"); n != 1 {
		t.Errorf("the failure is told %d times, want once:\n%s", n, out)
	}
	if !strings.Contains(out, "\nALTER TABLE \"public\".\"audit\" ADD COLUMN") {
		t.Errorf("what mends it is not on a line of its own:\n%s", out)
	}
	if !strings.HasSuffix(out, "cdc: failed for good: "+pipeline+"\n") {
		t.Errorf("the end does not say which failed:\n%s", out)
	}
}

// In a JSON log the failure is one object, and nothing else stands between.
func TestFailureInAJSONLog(t *testing.T) {
	t.Parallel()
	r := onCluster(t)
	r.db.Exec(t, "CREATE TABLE audit(a int)")
	p := cdctest.StartCDC(t, strings.Replace(r.yaml(), "log: {level: debug}", "log: {format: json}", 1))
	p.Wait(t, time.Minute)
	found := false
	for line := range strings.Lines(p.Output()) {
		var l map[string]string
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			if line != "cdc: failed for good: "+r.db.Name+"\n" {
				t.Errorf("%v in %q", err, line)
			}
			continue
		}
		if l["reason"] == "unkeyed-table" {
			found = l["level"] == "ERROR" && l["pipeline"] == r.db.Name && strings.HasPrefix(l["mend"], "ALTER TABLE") && !strings.Contains(l["error"], "ALTER TABLE")
		}
	}
	if !found {
		t.Errorf("no entry of level ERROR with reason, error and mend:\n%s", p.Output())
	}
}

// A port that is taken is something around the program.
func TestRunPortsTaken(t *testing.T) {
	t.Parallel()
	r := embedded(t)
	for name, yaml := range map[string]string{
		"admin":  strings.Replace(r.yaml(), r.admin, cdctest.Kafka(t).Brokers[0], 1),
		"broker": strings.Replace(r.yaml(), r.brokers[0], cdctest.Kafka(t).Brokers[0], 1),
	} {
		t.Run(name, func(t *testing.T) {
			p := cdctest.StartCDC(t, yaml)
			if code := p.Wait(t, time.Minute); code != exitEnvironment || !strings.Contains(p.Output(), "listen") {
				t.Errorf("exit code %d, want %d\n%s", code, exitEnvironment, p.Output())
			}
		})
	}
}

// 168: neither a password nor the data of a row is in anything that is written,
// at debug level, through success, retries and failures.
func TestCase168NoSecretsNoRowData(t *testing.T) {
	t.Parallel()
	const password, marker = "g3heim&wort", "marker7f3a"
	r := onCluster(t)
	role := r.db.Name + "_role"
	r.db.Exec(t,
		fmt.Sprintf("CREATE ROLE %s LOGIN SUPERUSER REPLICATION PASSWORD '%s'", role, password),
		"CREATE TABLE t(id text PRIMARY KEY, v text)", fmt.Sprintf("INSERT INTO t VALUES ('%[1]s-1', '%[1]s')", marker))
	t.Cleanup(func() { r.db.Exec(t, "REASSIGN OWNED BY "+role+" TO postgres", "DROP ROLE "+role) })
	r.url = strings.Replace(r.url, "postgres://postgres", "postgres://"+role+":g3heim%26wort", 1)
	if !strings.Contains(r.url, role) {
		t.Fatalf("URL %q has no role in it", r.url)
	}
	yaml := r.yaml(`toast: refuse`)
	p := r.start(yaml)
	r.db.Exec(t, fmt.Sprintf("INSERT INTO t VALUES ('%[1]s-2', '%[1]s')", marker), fmt.Sprintf("UPDATE t SET id = '%[1]s-3' WHERE id = '%[1]s-2'", marker))
	r.records(r.topic("t"), 4)
	r.db.Exec(t, "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '"+r.db.Name+"'")
	p.WaitOutput(t, "pipeline starts again")
	p.WaitReady(t, r.admin)
	_, status := r.get("/v1/status")
	_, metrics := r.get("/metrics")
	// A value too large to be in the update of another column: refused, for good.
	r.db.Exec(t, "ALTER TABLE t ADD big text, ADD n int", "ALTER TABLE t ALTER big SET STORAGE EXTERNAL",
		fmt.Sprintf("INSERT INTO t(id, v, big) VALUES ('%[1]s-9', '%[1]s', repeat('%[1]s', 1000))", marker), "UPDATE t SET n = 1")
	if code := p.Wait(t, time.Minute); code != exitFailed {
		t.Errorf("exit code %d, want %d", code, exitFailed)
	}
	_, checkOut, checkErr := command(t, "check", "--config", p.Config)
	wrong := strings.Replace(yaml, "%26wort", "%26wort-falsch", 1) // trust lets it in; the text must not come out
	_, wrongOut, wrongErr := command(t, "check", "--config", file(t, wrong))
	for name, text := range map[string]string{
		"run": p.Output(), "status": status, "metrics": metrics, "check": checkOut + checkErr, "wrong password": wrongOut + wrongErr,
	} {
		for _, secret := range []string{password, "g3heim", marker} {
			if strings.Contains(text, secret) {
				t.Errorf("%s shows %q:\n%s", name, secret, text)
			}
		}
	}
}
