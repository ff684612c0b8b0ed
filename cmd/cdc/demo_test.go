package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"cdc/internal/cdc"
	"cdc/internal/config"
	"cdc/internal/demo"
)

// demoDir is a data folder that PostgreSQL's user can enter, which t.TempDir is not.
func demoDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cdc-demo-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(dir, "cdc.log"))
			t.Logf("log of the last run:\n%s", log)
		}
		_ = os.RemoveAll(dir)
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// demoOptions are those of a short run on free ports.
func demoOptions(dir string, out io.Writer, transactions int) demo.Options {
	return demo.Options{
		Dir: dir, Transactions: transactions, Rate: 200, Seed: uint64(transactions),
		Broker: "127.0.0.1:0", Admin: "127.0.0.1:0", Out: out, Start: startForDemo,
	}
}

// runConfig is the configuration that the run in dir wrote.
func runConfig(t *testing.T, dir string) *config.Config {
	t.Helper()
	cfg, err := config.Load(filepath.Join(dir, "cdc.yaml"))
	if err != nil {
		t.Fatalf("configuration of the demo: %v", err)
	}
	return cfg
}

// mustEqual fails the test unless a run ended with every topic equal to its table or
// its events, and every view equal to a replay.
func mustEqual(t *testing.T, res *demo.Result, err error, out string) {
	t.Helper()
	if err != nil {
		t.Fatalf("demo: %v\n%s", err, out)
	}
	views := 2
	if res.Added {
		views++
	}
	if !res.Equal || len(res.Tables) != 5 || len(res.Intents) != 1 || len(res.Views) != views {
		t.Fatalf("result: got %+v, want five tables, one topic of intents and %d views, all equal\n%s", res, views, out)
	}
	for _, r := range res.Tables {
		if r.Rows == 0 || int64(r.Keys) != r.Rows || r.Records < r.Compacted || r.Compacted < r.Rows {
			t.Errorf("table %s: got %+v, want rows = keys ≤ compacted ≤ records", r.Table, r)
		}
	}
	for _, r := range res.Intents {
		if r.Events == 0 || r.Records != r.Events || r.Compacted != r.Events {
			t.Errorf("topic %s: got %+v, want records = compacted = events", r.Topic, r)
		}
	}
}

// One folder, run after run: from nothing, interrupted once the reaction was added
// and works, continued, with the database, a view and then topics changed behind the
// pipelines' back.
func TestDemo(t *testing.T) {
	t.Parallel()
	dir := demoDir(t)
	t.Run("from nothing, too short for the addition", func(t *testing.T) {
		var out bytes.Buffer
		o := demoOptions(dir, &out, 150)
		o.Add = time.Hour
		res, err := demo.Run(t.Context(), o)
		mustEqual(t, res, err, out.String())
		if res.Added || res.Offers != 0 {
			t.Errorf("result: got %+v, want nothing added", res)
		}
		if res.Transactions < 75 {
			t.Errorf("transactions: got %d of 150, want more than half", res.Transactions)
		}
		for _, want := range []string{"started from nothing", " = ", " + ", " - ", " ~ ", " ! ", "one action, seen both ways", "Every state topic, compacted, is its table", "Every intent is in its topic"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("output lacks %q:\n%s", want, out.String())
			}
		}
	})
	if t.Failed() {
		return
	}
	t.Run("interrupted when the added reaction has offered a place", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		out := &watcher{see: " reaction     ! place-offered ", then: cancel}
		o := demoOptions(dir, out, 0)
		o.Add = 100 * time.Millisecond
		res, err := demo.Run(ctx, o)
		mustEqual(t, res, err, out.text.String())
		if !res.Added || res.Offers == 0 {
			t.Errorf("result: got %+v, want offers of the added reaction", res)
		}
		if text := out.text.String(); !strings.Contains(text, "+       offer-freed-place:") || !strings.Contains(text, "reaction offer-freed-place: new") || !strings.Contains(text, "view popularity is live") {
			t.Errorf("the addition is not shown:\n%s", text)
		}
		if d := runConfig(t, dir).Pipelines["intents"].Definitions(); len(d.Reactions) != 1 || len(d.Views) != 3 {
			t.Errorf("the configuration in the folder: got %d reactions and %d views, want 1 and 3", len(d.Reactions), len(d.Views))
		}
	})
	t.Run("continued, from the command line", func(t *testing.T) {
		code, out, errOut := command(t, "demo", "--dir", dir, "--transactions", "60", "--rate", "200",
			"--broker", "127.0.0.1:0", "--admin", "127.0.0.1:0", "-o", "json")
		if code != exitDone {
			t.Fatalf("exit code: got %d, want 0\n%s", code, errOut)
		}
		var res demo.Result
		if err := json.Unmarshal([]byte(out), &res); err != nil {
			t.Fatalf("standard output is not the result alone: %v\n%s", err, out)
		}
		mustEqual(t, &res, nil, errOut)
		if !res.Added {
			t.Errorf("result: got %+v, want what an earlier run has added", res)
		}
		if !strings.Contains(errOut, "continued where the last run stopped") || !strings.Contains(errOut, "were added by an earlier run") || strings.Count(errOut, " = ") > 1 {
			t.Errorf("a continued run reads the snapshot again, adds again, or does not say that it continues:\n%s", errOut)
		}
	})
	t.Run("table changed", func(t *testing.T) {
		var out bytes.Buffer
		o := demoOptions(dir, &out, 20)
		o.Hook = func(point string) {
			if point != demo.HookStopped {
				return
			}
			sql(t, dir, `UPDATE courses SET title = 'Another' WHERE id = 'ddia'`,
				`DELETE FROM feedback WHERE id = (SELECT max(id) FROM feedback)`,
				`INSERT INTO students (name, email, essay) VALUES ('New', 'new@example.edu', '')`)
		}
		res, err := demo.Run(t.Context(), o)
		if !errors.Is(err, demo.ErrDifferent) || res == nil {
			t.Fatalf("demo: got %v, want %v\n%s", err, demo.ErrDifferent, out.String())
		}
		for _, r := range res.Tables {
			got := [3]int{r.Missing, r.Ghosts, r.Different}
			want := map[string][3]int{"courses": {0, 0, 1}, "feedback": {0, 1, 0}, "students": {1, 0, 0}}[r.Table]
			if got != want || r.Disturbed != 0 || r.Equal != (want == [3]int{}) {
				t.Errorf("table %s: got %+v, want missing, ghosts, different = %v", r.Table, r, want)
			}
		}
	})
	t.Run("and caught up with", func(t *testing.T) {
		var out bytes.Buffer
		res, err := demo.Run(t.Context(), demoOptions(dir, &out, 20))
		mustEqual(t, res, err, out.String())
	})
	// It is then what its topic says, and not what a replay gives.
	t.Run("view changed", func(t *testing.T) {
		var out bytes.Buffer
		o := demoOptions(dir, &out, 20)
		o.Hook = func(point string) {
			if point == demo.HookIdle {
				sql(t, dir, `DELETE FROM views.enrolments WHERE (course, student) = (SELECT course, student FROM views.enrolments LIMIT 1)`)
			}
		}
		res, err := demo.Run(t.Context(), o)
		if !errors.Is(err, demo.ErrDifferent) || res == nil {
			t.Fatalf("demo: got %v, want %v\n%s", err, demo.ErrDifferent, out.String())
		}
		for _, v := range res.Views {
			if changed := v.View == "enrolments"; v.Equal == changed || changed && (v.Missing != 1 || v.Extra != 0) {
				t.Errorf("view %s: got %+v, want one row missing of enrolments and nothing else", v.View, v)
			}
		}
		for _, r := range res.Tables {
			if !r.Equal {
				t.Errorf("table %s: got %+v, want it equal: the pipeline has captured the change", r.Table, r)
			}
		}
	})
	t.Run("topics changed", func(t *testing.T) {
		var out bytes.Buffer
		o := demoOptions(dir, &out, 20)
		o.Hook = func(point string) {
			if point == demo.HookStopped {
				produce(t, dir, "university.courses", `{"id":"logic"}`, `{"id":"logic","title":"Made up","capacity":20,"credits":4.5,"syllabus":""}`)
				produce(t, dir, "university.events.course", "course/logic", `{"course": "logic", "student": 1}`)
			}
		}
		res, err := demo.Run(t.Context(), o)
		if !errors.Is(err, demo.ErrDifferent) || res == nil {
			t.Fatalf("demo: got %v, want %v\n%s", err, demo.ErrDifferent, out.String())
		}
		if r := res.Tables[1]; r.Different+r.Ghosts == 0 || r.Equal || !strings.Contains(strings.Join(r.Samples, "\n"), `{"id":"logic"}`) {
			t.Errorf("table courses: got %+v, want logic named as different", r)
		}
		if r := res.Intents[0]; r.Ghosts != 1 || r.Missing+r.Doubled+r.Different+r.Disorder+r.Disturbed != 0 || r.Equal {
			t.Errorf("topic of intents: got %+v, want one ghost and nothing else", r)
		}
	})
}

// untilCancelled is a pipeline that runs, or fails at once.
type untilCancelled struct{ err error }

func (p untilCancelled) Run(ctx context.Context) error {
	if p.err == nil {
		<-ctx.Done()
	}
	return p.err
}

func (untilCancelled) Status() cdc.Status { return cdc.Status{Name: "one"} }

// One pipeline that fails ends the demo, though the other would run on.
func TestDemoEndsWithAPipeline(t *testing.T) {
	broken := errors.New("broken")
	d := &demoDaemon{daemon: daemon{stack: &stack{pipelines: []runner{untilCancelled{}, untilCancelled{broken}}}, log: discard()}}
	if err := d.Run(t.Context()); !errors.Is(err, broken) {
		t.Errorf("run: got %v, want %v", err, broken)
	}
	d = &demoDaemon{daemon: daemon{stack: &stack{pipelines: []runner{untilCancelled{}, untilCancelled{}}}, log: discard()}}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.Run(ctx); err != nil {
		t.Errorf("run that was ended: got %v, want nil", err)
	}
}

func TestDemoExitCodes(t *testing.T) {
	for _, tc := range []struct {
		name string
		err  error
		code int
	}{
		{"equal", nil, exitDone},
		{"different", demo.ErrDifferent, exitDifference},
		{"different, and the output fails", errors.Join(demo.ErrDifferent, io.ErrClosedPipe), exitDifference},
		{"did not start", &demo.StartError{Err: errors.New("no PostgreSQL")}, exitEnvironment},
		{"failed", errors.New("pipeline failed"), exitFailed},
	} {
		if got := exitCode(demoError(tc.err)); got != tc.code {
			t.Errorf("%s: got exit code %d, want %d", tc.name, got, tc.code)
		}
	}
	for _, args := range [][]string{{"--rate", "-1"}, {"--for", "-1s"}, {"extra"}} {
		if code, _, errOut := command(t, append([]string{"demo"}, args...)...); code != exitUsage {
			t.Errorf("demo %v: got exit code %d, want %d\n%s", args, code, exitUsage, errOut)
		}
	}
}

func TestDemoPrintsItsConfiguration(t *testing.T) {
	code, out, errOut := command(t, "demo", "--print-config")
	if code != exitDone {
		t.Fatalf("exit code: got %d\n%s", code, errOut)
	}
	if _, err := config.Parse("cdc.yaml", []byte(out), os.LookupEnv); err != nil {
		t.Errorf("what is printed is no configuration: %v\n%s", err, out)
	}
}

// These have the test binary be `cdc demo` in a folder, with so many transactions.
const (
	demoChildVariable   = "CDC_TEST_DEMO_DIR"
	demoNumbersVariable = "CDC_TEST_DEMO_TRANSACTIONS"
)

// TestDemoChild is the process that TestDemoKilled kills.
func TestDemoChild(t *testing.T) {
	dir := os.Getenv(demoChildVariable)
	if dir == "" {
		t.Skip("runs as a child of TestDemoKilled")
	}
	os.Exit(execute(context.Background(), []string{"demo", "--dir", dir, "--rate", "200", "--lines", "0", "--transactions", os.Getenv(demoNumbersVariable),
		"--broker", "127.0.0.1:0", "--admin", "127.0.0.1:0"}, os.Stdin, os.Stdout, os.Stderr))
}

// A demo that is killed in the middle, before and behind the addition, leaves no
// process behind, and the next run brings every topic to its table and its events.
func TestDemoKilled(t *testing.T) {
	t.Parallel()
	dir := demoDir(t)
	killDemo(t, dir, 100_000, "ms", 50)
	killDemo(t, dir, 400, "added to ", 1)
	var text bytes.Buffer
	res, err := demo.Run(t.Context(), demoOptions(dir, &text, 50))
	mustEqual(t, res, err, text.String())
	if !res.Added {
		t.Errorf("result: got %+v, want what the killed run has added", res)
	}
}

// killDemo starts a demo of so many transactions, kills it when it has shown a text so many times, and waits
// until its PostgreSQL has noticed.
func killDemo(t *testing.T, dir string, transactions int, text string, times int) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestDemoChild$")
	cmd.Env = append(os.Environ(), demoChildVariable+"="+dir, fmt.Sprintf("%s=%d", demoNumbersVariable, transactions))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	seen := 0
	lines := bufio.NewScanner(out)
	for seen < times && lines.Scan() {
		if strings.Contains(lines.Text(), text) {
			seen++
		}
	}
	pid := 0
	if seen == times {
		pid = postmaster(t, dir)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, out)
	_ = cmd.Wait() // killed
	if seen < times {
		t.Fatalf("the demo ended by itself after it had shown %q %d times", text, seen)
	}
	for deadline := time.Now().Add(30 * time.Second); syscall.Kill(pid, 0) == nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("PostgreSQL (pid %d) is still there 30 s after its demo was killed", pid)
		}
	}
}

// postmaster is the process of the cluster in dir.
func postmaster(t *testing.T, dir string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "postgres", "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// watcher keeps what is written and does something when it first sees a text.
type watcher struct {
	text bytes.Buffer // not embedded: io.WriteString would go round Write
	see  string
	then func()
}

func (w *watcher) Write(p []byte) (int, error) {
	if w.then != nil && bytes.Contains(p, []byte(w.see)) && !bytes.Contains(p, []byte("topics")) {
		w.then()
		w.then = nil
	}
	return w.text.Write(p)
}

// sql runs statements in the database of the run in dir.
func sql(t *testing.T, dir string, statements ...string) {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), runConfig(t, dir).Postgres.URL)
	if err != nil {
		t.Error(err)
		return
	}
	defer func() { _ = conn.Close(context.Background()) }()
	for _, s := range statements {
		if tag, err := conn.Exec(context.Background(), s); err != nil || tag.RowsAffected() != 1 {
			t.Errorf("%s: %v %v", s, tag, err)
		}
	}
}

// produce appends a record as somebody else would.
func produce(t *testing.T, dir, topic, key, value string) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(runConfig(t, dir).Kafka.Embedded.Listen))
	if err != nil {
		t.Error(err)
		return
	}
	defer client.Close()
	r := &kgo.Record{Topic: topic, Key: []byte(key), Value: []byte(value)}
	if err := client.ProduceSync(context.Background(), r).FirstErr(); err != nil {
		t.Error(fmt.Errorf("produce: %w", err))
	}
}
