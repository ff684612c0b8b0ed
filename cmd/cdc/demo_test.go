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

// mustEqual fails the test unless a run ended with every topic equal to its table.
func mustEqual(t *testing.T, res *demo.Result, err error, out string) {
	t.Helper()
	if err != nil {
		t.Fatalf("demo: %v\n%s", err, out)
	}
	if !res.Equal || len(res.Tables) != 5 {
		t.Fatalf("result: got %+v, want five tables, all equal\n%s", res, out)
	}
	for _, r := range res.Tables {
		if r.Rows == 0 || int64(r.Keys) != r.Rows || r.Records < r.Compacted || r.Compacted < r.Rows {
			t.Errorf("table %s: got %+v, want rows = keys ≤ compacted ≤ records", r.Table, r)
		}
	}
}

// One folder, run after run: from nothing, continued, interrupted, with the
// database and then a topic changed behind the pipeline's back.
func TestDemo(t *testing.T) {
	dir := demoDir(t)
	t.Run("from nothing", func(t *testing.T) {
		var out bytes.Buffer
		res, err := demo.Run(t.Context(), demoOptions(dir, &out, 150))
		mustEqual(t, res, err, out.String())
		if res.Transactions < 75 {
			t.Errorf("transactions: got %d of 150, want more than half", res.Transactions)
		}
		for _, want := range []string{"started from nothing", " = ", " + ", " - ", " ~ ", "Every topic, compacted, is its table"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("output lacks %q:\n%s", want, out.String())
			}
		}
	})
	if t.Failed() {
		return
	}
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
		if !strings.Contains(errOut, "continued where the last run stopped") || strings.Contains(errOut, " = ") && strings.Count(errOut, " = ") > 1 {
			t.Errorf("a continued run reads the snapshot again, or does not say that it continues:\n%s", errOut)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		out := &watcher{see: " feedback ", then: cancel}
		res, err := demo.Run(ctx, demoOptions(dir, out, 0))
		mustEqual(t, res, err, out.text.String())
	})
	t.Run("table changed", func(t *testing.T) {
		var out bytes.Buffer
		o := demoOptions(dir, &out, 20)
		o.Hook = func(string) {
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
	t.Run("topic changed", func(t *testing.T) {
		var out bytes.Buffer
		o := demoOptions(dir, &out, 20)
		o.Hook = func(string) {
			produce(t, dir, "university.courses", `{"id":"logic"}`, `{"id":"logic","title":"Made up","capacity":20,"credits":4.5,"syllabus":""}`)
		}
		res, err := demo.Run(t.Context(), o)
		if !errors.Is(err, demo.ErrDifferent) || res == nil {
			t.Fatalf("demo: got %v, want %v\n%s", err, demo.ErrDifferent, out.String())
		}
		if r := res.Tables[1]; r.Different+r.Ghosts == 0 || r.Equal || !strings.Contains(strings.Join(r.Samples, "\n"), `{"id":"logic"}`) {
			t.Errorf("table courses: got %+v, want logic named as different", r)
		}
	})
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

// demoChildVariable has the test binary be `cdc demo` in the folder it names.
const demoChildVariable = "CDC_TEST_DEMO_DIR"

// TestDemoChild is the process that TestDemoKilled kills.
func TestDemoChild(t *testing.T) {
	dir := os.Getenv(demoChildVariable)
	if dir == "" {
		t.Skip("runs as a child of TestDemoKilled")
	}
	os.Exit(execute(context.Background(), []string{"demo", "--dir", dir, "--rate", "200", "--lines", "0",
		"--broker", "127.0.0.1:0", "--admin", "127.0.0.1:0"}, os.Stdin, os.Stdout, os.Stderr))
}

// A demo that is killed in the middle leaves no process behind, and the next run
// brings every topic to its table.
func TestDemoKilled(t *testing.T) {
	dir := demoDir(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestDemoChild$")
	cmd.Env = append(os.Environ(), demoChildVariable+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	streamed := 0
	lines := bufio.NewScanner(out)
	for streamed < 50 && lines.Scan() {
		if strings.Contains(lines.Text(), "ms") {
			streamed++
		}
	}
	pid := postmaster(t, dir)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, out)
	_ = cmd.Wait() // killed
	if streamed < 50 {
		t.Fatalf("the demo ended by itself after %d changes", streamed)
	}
	for deadline := time.Now().Add(30 * time.Second); syscall.Kill(pid, 0) == nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("PostgreSQL (pid %d) is still there 30 s after its demo was killed", pid)
		}
	}
	var text bytes.Buffer
	res, err := demo.Run(t.Context(), demoOptions(dir, &text, 50))
	mustEqual(t, res, err, text.String())
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
