package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"cdc/internal/admin"
	"cdc/internal/cdc"
	"cdc/internal/config"
)

// command runs a command line and gives its exit code and what it wrote.
func command(t *testing.T, args ...string) (code int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	code = execute(t.Context(), args, strings.NewReader(""), &o, &e)
	return code, o.String(), e.String()
}

// file writes a configuration and gives its path.
func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cdc.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestExitCodes(t *testing.T) {
	faulty := file(t, "kafka: {}\nlgo: {}\n")
	for _, tc := range []struct {
		name string
		args []string
		code int
		err  string // part of what goes to standard error
	}{
		{"no command prints help", nil, exitDone, ""},
		{"help", []string{"--help"}, exitDone, ""},
		{"unknown command", []string{"stats"}, exitUsage, `cdc: unknown command "stats" for "cdc"`},
		{"unknown flag", []string{"version", "--wat"}, exitUsage, "cdc: unknown flag: --wat\nsee cdc version --help"},
		{"bad output", []string{"version", "-o", "xml"}, exitUsage, "write table or json"},
		{"too many arguments", []string{"version", "x"}, exitUsage, "see cdc version --help"},
		{"too few arguments", []string{"tail"}, exitUsage, "see cdc tail --help"},
		{"no configuration", []string{"run", "--config", "/none/cdc.yaml"}, exitUsage, "cdc: read configuration: open /none/cdc.yaml"},
		{"faulty configuration", []string{"check", "--config", faulty}, exitUsage, faulty + `:2:1: lgo: unknown key "lgo"; did you mean "log"?`},
		{"no daemon", []string{"status", "--addr", "127.0.0.1:1"}, exitEnvironment, "is it running"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			code, out, errOut := command(t, tc.args...)
			if code != tc.code || !strings.Contains(errOut, tc.err) {
				t.Errorf("exit code %d, want %d\n got %q\nwant %q in it", code, tc.code, errOut, tc.err)
			}
			if tc.code != exitDone && out != "" {
				t.Errorf("standard output has %q: results only", out)
			}
		})
	}
}

func TestExitCode(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("x"), 1},
		{fmt.Errorf("x: %w", usageError("y")), 2},
		{&config.Error{}, 2},
		{environmentError("x: %w", errors.New("y")), 3},
		{&exitError{exitDifference, errors.New("x")}, 4},
		{cdc.Terminal("gap", "cdc drop x", "gap"), 1},
	} {
		if got := exitCode(tc.err); got != tc.want {
			t.Errorf("exitCode(%v) = %d, want %d", tc.err, got, tc.want)
		}
	}
}

// The lines of a configuration's faults begin with the file, for editors.
func TestFaultsOfAConfigurationAreLinesOfTheirOwn(t *testing.T) {
	path := file(t, "lgo: {}\nkfka: {}\n")
	_, _, errOut := command(t, "check", "--config", path)
	for line := range strings.Lines(errOut) {
		if !strings.HasPrefix(line, path+":") {
			t.Errorf("line %q does not begin with the file", line)
		}
	}
	if strings.Count(errOut, "\n") < 3 {
		t.Errorf("not all faults at once: %q", errOut)
	}
}

func TestMendIsPrintedBelowTheError(t *testing.T) {
	got := describeError(fmt.Errorf("pipeline rows: %w", cdc.Terminal("slot-missing", "cdc drop rows", "slot %q is gone", "rows")))
	if want := "cdc: pipeline rows: slot \"rows\" is gone\ncdc drop rows"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestVersion(t *testing.T) {
	code, out, _ := command(t, "version")
	if code != 0 || !strings.HasPrefix(out, "cdc ") || strings.Count(out, "\n") != 1 {
		t.Errorf("%d %q", code, out)
	}
	code, out, _ = command(t, "version", "-o", "json")
	var b buildInfo
	if err := json.Unmarshal([]byte(out), &b); err != nil || code != 0 || b.Version == "" || b.Go == "" {
		t.Errorf("%d %q: %v", code, out, err)
	}
	if version() == "" {
		t.Error("no version")
	}
}

// Every command says what it does, and `cdc completion` works.
func TestEveryCommandIsDescribed(t *testing.T) {
	root := newRootCommand(&globals{output: outputTable})
	for _, c := range root.Commands() {
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: short text %q", c.Name(), c.Short)
		}
		if c.PersistentPreRun != nil || c.PersistentPreRunE != nil {
			t.Errorf("%s: a hook of its own hides the root's, and its errors would all be of usage", c.Name())
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if code, out, errOut := command(t, "completion", shell); code != 0 || out == "" {
			t.Errorf("completion %s: %d %q", shell, code, errOut)
		}
	}
}

func TestPrint(t *testing.T) {
	type line struct {
		A string `json:"a"`
	}
	for _, tc := range []struct {
		output      output
		print, line string
	}{
		{outputTable, "table\n", "table\n"},
		{outputJSON, "{\n  \"a\": \"<x>\"\n}\n", "{\"a\":\"<x>\"}\n"},
	} {
		g := &globals{output: tc.output}
		var out bytes.Buffer
		cmd := &cobra.Command{}
		cmd.SetOut(&out)
		table := func(w io.Writer) error { _, err := w.Write([]byte("table\n")); return err }
		if err := g.print(cmd, line{"<x>"}, table); err != nil || out.String() != tc.print {
			t.Errorf("print %s: %v %q, want %q", tc.output, err, out.String(), tc.print)
		}
		out.Reset()
		if err := g.printLine(cmd, line{"<x>"}, table); err != nil || out.String() != tc.line {
			t.Errorf("printLine %s: %v %q, want %q", tc.output, err, out.String(), tc.line)
		}
	}
}

func TestLogger(t *testing.T) {
	var out bytes.Buffer
	l := newLogger(&out, config.Log{Level: "warn", Format: "json"})
	l.Info("quiet")
	l.Warn("loud", "pipeline", "rows")
	var entry map[string]any
	if err := json.Unmarshal(out.Bytes(), &entry); err != nil || entry["msg"] != "loud" || entry["pipeline"] != "rows" {
		t.Errorf("%q: %v", out.String(), err)
	}
	out.Reset()
	newLogger(&out, config.Log{Level: "debug", Format: "text"}).Debug("all")
	if !strings.Contains(out.String(), "level=DEBUG msg=all") {
		t.Errorf("%q", out.String())
	}
}

// fixed is a daemon that shows what it is given.
type fixed []cdc.Status

func (f fixed) Status() []cdc.Status { return f }
func (f fixed) Version() string      { return "1" }

func TestStatusOfARunningDaemon(t *testing.T) {
	s := admin.New(fixed{{Name: "rows", State: cdc.StateStreaming, Ready: true, Changes: 42}}, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, "127.0.0.1:0") }()
	<-s.Bound()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()

	path := file(t, `postgres: {url: "postgres://u@db/uni"}
kafka: {embedded: {}}
admin: {listen: "`+s.Addr()+`"}
pipelines: {rows: {tables: ["public.*"]}}
`)
	code, out, errOut := command(t, "status", "--config", path)
	if code != 0 || !strings.Contains(out, "PIPELINE") || !strings.Contains(out, "streaming") {
		t.Errorf("%d %q %q", code, out, errOut)
	}
	code, out, errOut = command(t, "status", "--addr", s.Addr(), "-o", "json")
	var r admin.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 || len(r.Pipelines) != 1 || r.Pipelines[0].Changes != 42 {
		t.Errorf("%d %q %q: %v", code, out, errOut, err)
	}
	off := file(t, "postgres: {url: \"postgres://u@db/uni\"}\nkafka: {embedded: {}}\nadmin: {listen: \"\"}\npipelines: {rows: {tables: [\"public.*\"]}}\n")
	if code, _, errOut := command(t, "status", "--config", off); code != exitUsage || !strings.Contains(errOut, "admin.listen is empty") {
		t.Errorf("%d %q", code, errOut)
	}
}

func TestWriteStatus(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	r := admin.Report{Version: "1", Pipelines: []cdc.Status{
		{Name: "rows", State: cdc.StateStreaming, Ready: true, Since: now.Add(-90 * time.Minute), Tables: 3, Transactions: 10, Changes: 20, Records: 21,
			LagBytes: 1536, LagSeconds: .25, SlotBytes: 3 << 30, Confirmed: 0x1_0000_0001, SlotStatus: "extended", SlotSafe: 512, Slot: "rows", DeadLetters: 2},
		{Name: "copy", State: cdc.StateSnapshot, Since: now.Add(-10 * time.Second), SlotSafe: -1, Snapshot: []cdc.TableProgress{
			{Table: "public.a", Rows: 100, RowsTotal: 90, Bytes: 2048, Done: true}, {Table: "public.b", Rows: 50, RowsTotal: 200, Bytes: 10}}},
		{Name: "bad", State: cdc.StateFailed, Error: "slot is gone", Reason: "slot-missing", Mend: "cdc drop bad"},
		{Name: "soon", State: cdc.StateBackingOff, Error: "no broker", RetryAt: now.Add(3 * time.Second), Stalled: "no acknowledgement"},
	}}
	want := `PIPELINE  STATE        FOR      READY  TABLES  TRANSACTIONS  CHANGES  RECORDS  LAG             WAL HELD  CONFIRMED
rows      streaming    1h30m0s  yes    3       10            20       21       1.5 KiB, 250ms  3.0 GiB   1/1
copy      snapshot     10s      no     0       0             0        0        0 B, 0s         0 B       0/0
bad       failed       -        no     0       0             0        0        0 B, 0s         0 B       0/0
soon      backing-off  -        no     0       0             0        0        0 B, 0s         0 B       0/0

rows: slot rows is extended, 512 B of WAL until it may be lost

rows: 2 records went to the dead-letter topic

copy: snapshot: 150 rows, 15 rows/s, about 10s left
  public.a: 100 rows, done, 2.0 KiB
  public.b: 50 rows of about 200, 10 B

bad: slot is gone (slot-missing)
  cdc drop bad

soon: no broker
  tried again in 3s

soon: stalled: no acknowledgement
`
	var out bytes.Buffer
	if err := writeStatus(&out, r, now); err != nil || out.String() != want {
		t.Errorf("%v\n got\n%s\nwant\n%s", err, out.String(), want)
	}
}
