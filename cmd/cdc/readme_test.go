package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"cdc/internal/cdctest"
)

const section = "## Event sourcing in five minutes\n"

// TestReadmeEventSourcing does what the README's section says, line by line, and
// compares what is printed with what the README prints. Ports are others; ids, times,
// transactions and durations are compared by whether the same ones are the same.
func TestReadmeEventSourcing(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	yaml, err := os.ReadFile("../../examples/university.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var ports []string
	for _, port := range []string{"54321", "9092", "8083"} {
		if !strings.Contains(string(yaml), ":"+port) {
			t.Fatalf("examples/university.yaml has no port %s", port)
		}
		ports = append(ports, ":"+port, fmt.Sprint(":", cdctest.FreePort(t)))
	}
	mine := strings.NewReplacer(ports...)
	slices.Reverse(ports)
	dir := demoDir(t)
	theirs := strings.NewReplacer(append(ports, dir+"/", "")...) // the README's paths are relative
	admin := strings.TrimPrefix(mine.Replace(":8083"), ":")

	w := &walk{t: t, dir: dir, mine: mine, theirs: theirs, want: mask{}, got: mask{}}
	if err := os.Mkdir(filepath.Join(w.dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(cdctest.BuildCDC(t), filepath.Join(w.dir, "bin", "cdc")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.dir, "cdc.yaml"), []byte(mine.Replace(string(yaml))), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, s := range readmeSteps(t, string(text)) {
		switch s.command {
		case "make build && cp examples/university.yaml cdc.yaml": // done above
		case "bin/cdc demo postgres &":
			port := strings.TrimPrefix(mine.Replace(":54321"), ":")
			p := cdctest.StartCommand(t, w.dir, "demo", "postgres", "--port", port)
			line := p.WaitOutput(t, "postgres://")
			w.compare(s, line+"\n")
			// Asked to stop, it ends the server; killed, it would leave it behind.
			t.Cleanup(func() {
				p.Signal(t, syscall.SIGTERM)
				p.Wait(t, time.Minute)
			})
		case "bin/cdc run &":
			p := cdctest.StartCommand(t, w.dir, "run")
			p.WaitReady(t, "127.0.0.1:"+admin)
			defer p.Stop(t)
		default:
			w.step(s)
		}
		if t.Failed() {
			return
		}
	}
	if w.steps < 10 {
		t.Errorf("%d commands of the section were run", w.steps)
	}
}

// step is a command of the README and what it is said to print.
type step struct {
	line    int
	command string
	output  string
}

// readmeSteps finds the commands in the section's blocks: a line that begins with a
// dollar, and the lines after it as long as a quote is open.
func readmeSteps(t *testing.T, text string) []step {
	t.Helper()
	before, rest, ok := strings.Cut(text, section)
	if !ok {
		t.Fatalf("README.md has no section %q", section)
	}
	rest, _, _ = strings.Cut(rest, "\n## ")
	line := strings.Count(before, "\n") + 1
	var steps []step
	inside, open := false, false
	for text := range strings.Lines(rest) {
		line++
		last := len(steps) - 1
		switch {
		case strings.HasPrefix(text, "```"):
			inside = !inside
		case !inside:
		case open:
			steps[last].command += text
			open = !parses(t, steps[last].command)
		case strings.HasPrefix(text, "$ "):
			steps = append(steps, step{line: line, command: text[2:]})
			open = !parses(t, text[2:])
		case last >= 0:
			steps[last].output += text
		}
	}
	for i := range steps {
		steps[i].command = strings.TrimSuffix(steps[i].command, "\n")
	}
	return steps
}

// parses says whether the shell takes text as whole.
func parses(t *testing.T, text string) bool {
	t.Helper()
	return exec.CommandContext(t.Context(), "bash", "-n", "-c", text).Run() == nil
}

// walk does the steps in a directory.
type walk struct {
	t            *testing.T
	dir          string
	mine, theirs *strings.Replacer // ports of the README by ours, and back
	want, got    mask
	steps        int
}

// step runs a command as the shell does. What only reads is read again until it is
// there: a person is slower than the daemon, this is not.
func (w *walk) step(s step) {
	w.t.Helper()
	w.steps++
	reads := !strings.Contains(s.command, "append") && !strings.Contains(s.command, "update ")
	var out string
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
		out = w.run(ctx, w.mine.Replace(s.command))
		cancel()
		want, got := w.want.clone(), w.got.clone()
		if !reads || want.cover(s.output) == got.cover(w.theirs.Replace(out)) || time.Now().After(deadline) {
			break
		}
	}
	w.compare(s, out)
}

// run gives what a command prints.
func (w *walk) run(ctx context.Context, command string) string {
	w.t.Helper()
	switch {
	case strings.HasPrefix(command, "psql "):
		return asPsql(ctx, w.t, shellWords(w.t, command))
	case strings.HasPrefix(command, "curl "):
		return asCurl(ctx, w.t, shellWords(w.t, command))
	}
	cmd := exec.CommandContext(ctx, "bash", "-c", command)
	cmd.Dir = w.dir
	text, _ := cmd.CombinedOutput() // some are to fail: the text says so
	return string(text)
}

// compare tells what differs from the README.
func (w *walk) compare(s step, out string) {
	w.t.Helper()
	want, got := w.want.cover(s.output), w.got.cover(w.theirs.Replace(out))
	if strings.TrimRight(want, "\n") != strings.TrimRight(got, "\n") {
		w.t.Errorf("README.md:%d: %s\n prints\n%s\nthe README says\n%s", s.line, s.command, got, want)
	}
}

// mask replaces what differs from run to run. What has an identity is numbered in
// the order in which it appears, so that the same stays the same.
type mask map[string]int

var (
	identities = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\btransaction \d+`)
	passing    = []struct {
		pattern *regexp.Regexp
		by      string
	}{
		{regexp.MustCompile(`\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}`), "<time>"},
		{regexp.MustCompile(`\b\d\d:\d\d:\d\d\.\d{3}`), "<clock>"},
		{regexp.MustCompile(`\b\d+(\.\d+)?(ms|µs|s)\b`), "<duration>"},
		{regexp.MustCompile(`\b[0-9A-F]+/[0-9A-F]{7,8}\b`), "<lsn>"},
		{regexp.MustCompile(`PostgreSQL \d+`), "PostgreSQL <version>"},
	}
)

func (m mask) cover(text string) string {
	for _, p := range passing {
		text = p.pattern.ReplaceAllString(text, p.by)
	}
	return identities.ReplaceAllStringFunc(text, func(s string) string {
		n, ok := m[s]
		if !ok {
			n = len(m) + 1
			m[s] = n
		}
		return "<" + strconv.Itoa(n) + ">"
	})
}

func (m mask) clone() mask {
	c := mask{}
	for k, v := range m {
		c[k] = v
	}
	return c
}
