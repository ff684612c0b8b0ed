package cdctest

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"cdc/internal/child"
)

const (
	// buildLimit bounds a build with a cold cache on a small machine.
	buildLimit = 5 * time.Minute
	// readyLimit bounds WaitReady.
	readyLimit = 60 * time.Second
	// stopLimit is the promise of SIGTERM (10 s) with room for a loaded machine.
	stopLimit = 30 * time.Second
	// lineLimit is the longest line of output that is kept.
	lineLimit = 1 << 20
)

var built struct {
	once sync.Once
	path string
	err  error
}

// BuildCDC builds the program once per test binary, with the race detector where
// the test has it, and returns its path.
func BuildCDC(t testing.TB) string {
	t.Helper()
	built.once.Do(func() {
		var dir string
		if dir, built.err = os.MkdirTemp("", "cdc-build-"); built.err != nil {
			return
		}
		AtExit(func() { _ = os.RemoveAll(dir) })
		built.path = filepath.Join(dir, "cdc")
		ctx, cancel := context.WithTimeout(context.Background(), buildLimit)
		defer cancel()
		args := []string{"build", "-o", built.path}
		if raceEnabled {
			args = append(args, "-race")
		}
		out, err := exec.CommandContext(ctx, "go", append(args, "cdc/cmd/cdc")...).CombinedOutput()
		if err != nil {
			built.err = fmt.Errorf("%w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatalf("build cdc: %v", built.err)
	}
	return built.path
}

// Proc is a running cdc.
type Proc struct {
	Dir    string // its working directory
	Config string // path of its configuration

	proc   *child.Process
	output *output
}

// StartCDC runs `cdc run` with that configuration, in a directory of its own. It
// is killed with the test. When the test fails its output is printed.
func StartCDC(t testing.TB, configYAML string) *Proc {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "cdc.yaml")
	if err := os.WriteFile(config, []byte(configYAML), 0o600); err != nil {
		t.Fatalf("write configuration: %v", err)
	}
	return StartCommand(t, dir, "run", "--config", config)
}

// StartCommand runs cdc with these arguments in dir.
func StartCommand(t testing.TB, dir string, args ...string) *Proc {
	t.Helper()
	p := &Proc{Dir: dir, output: newOutput()}
	for i, arg := range args {
		if arg == "--config" && i+1 < len(args) {
			p.Config = args[i+1]
		}
	}
	cmd := exec.Command(BuildCDC(t), args...)
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = p.output, p.output
	proc, err := child.Start(cmd, child.User{}, syscall.SIGKILL)
	if err != nil {
		t.Fatalf("start cdc: %v", err)
	}
	p.proc = proc
	go func() {
		<-proc.Done()
		p.output.end()
	}()
	t.Cleanup(func() {
		p.Kill9()
		if t.Failed() {
			t.Logf("output of cdc (pid %d):\n%s", p.PID(), p.Output())
		}
	})
	return p
}

// RunCDC runs a command of cdc to its end and returns what it printed and its
// exit code.
func RunCDC(t testing.TB, dir string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), buildLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, BuildCDC(t), args...)
	cmd.Dir = dir
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if cmd.ProcessState == nil || !cmd.ProcessState.Exited() {
		t.Fatalf("run cdc %s: %v\n%s", strings.Join(args, " "), err, errs.String())
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// PID is its process id.
func (p *Proc) PID() int { return p.proc.PID }

// Output is what it has written so far to both of its outputs.
func (p *Proc) Output() string { return p.output.String() }

// Kill9 ends it with SIGKILL and blocks until it is gone.
func (p *Proc) Kill9() { p.proc.KillTree() }

// Signal sends it a signal.
func (p *Proc) Signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if err := p.proc.Signal(sig); err != nil {
		t.Fatalf("signal cdc (pid %d): %v", p.PID(), err)
	}
}

// Stop ends it with SIGTERM and fails the test when it does not exit with 0.
func (p *Proc) Stop(t testing.TB) {
	t.Helper()
	p.Signal(t, syscall.SIGTERM)
	if code := p.Wait(t, stopLimit); code != 0 {
		t.Fatalf("cdc exited with %d after SIGTERM, want 0\n%s", code, p.Output())
	}
}

// Wait blocks until it has exited and returns its exit code; -1 for a signal.
func (p *Proc) Wait(t testing.TB, limit time.Duration) int {
	t.Helper()
	select {
	case <-p.proc.Done():
	case <-time.After(limit):
		t.Fatalf("cdc (pid %d) still runs after %v\n%s", p.PID(), limit, p.Output())
	}
	return p.proc.ExitCode()
}

// WaitOutput blocks until a line of its output contains text, and returns the
// line. It fails the test when the process ends first, or after a minute.
func (p *Proc) WaitOutput(t testing.TB, text string) string {
	t.Helper()
	line, err := p.output.await(text, readyLimit)
	if err != nil {
		t.Fatalf("wait for %q in the output of cdc: %v\n%s", text, err, p.Output())
	}
	return line
}

// WaitReady blocks until GET http://addr/readyz answers 200, and fails the test
// when the process ends first, or after a minute.
func (p *Proc) WaitReady(t testing.TB, addr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), readyLimit)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	last := "no answer"
	for {
		if req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", nil); err != nil {
			t.Fatalf("ask cdc at %s: %v", addr, err)
		} else if res, err := client.Do(req); err == nil {
			body, _ := io.ReadAll(io.LimitReader(res.Body, lineLimit))
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return
			}
			last = res.Status + " " + string(body)
		}
		select {
		case <-tick.C:
		case <-p.proc.Done():
			t.Fatalf("cdc exited with %d before it was ready\n%s", p.proc.ExitCode(), p.Output())
		case <-ctx.Done():
			t.Fatalf("cdc is not ready after %v: %s\n%s", readyLimit, last, p.Output())
		}
	}
}

// output collects lines and wakes those who wait for one.
type output struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{} // closed and replaced at every write
	ended   bool
}

func newOutput() *output { return &output{changed: make(chan struct{})} }

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(b)
	close(o.changed)
	o.changed = make(chan struct{})
	return len(b), nil
}

func (o *output) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	close(o.changed)
	o.changed = make(chan struct{})
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func (o *output) await(text string, limit time.Duration) (string, error) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		o.mu.Lock()
		all, changed, ended := o.text.String(), o.changed, o.ended
		o.mu.Unlock()
		lines := bufio.NewScanner(strings.NewReader(all))
		lines.Buffer(nil, lineLimit)
		for lines.Scan() {
			if strings.Contains(lines.Text(), text) {
				return lines.Text(), nil
			}
		}
		if ended {
			return "", fmt.Errorf("it ended")
		}
		select {
		case <-changed:
		case <-timer.C:
			return "", fmt.Errorf("not there after %v", limit)
		}
	}
}
