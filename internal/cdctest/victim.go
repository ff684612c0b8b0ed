package cdctest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	// victimVariable holds the configuration of a process that Spawn has begun.
	victimVariable = "CDC_TEST_VICTIM"
	// victimLimit bounds the wait for a victim's end; reaching it is a failure.
	victimLimit = 3 * time.Minute
	// freezeTakes is far longer than a signal to the own process.
	freezeTakes = 500 * time.Millisecond
	// logEnd is how much of a victim's log a test that failed shows.
	logEnd = 4000
)

// Point says where a victim is hit: it kills itself (SIGKILL), or with Freeze stops
// itself (SIGSTOP), at the Count-th passing of the point Kill. The zero Point: never.
type Point struct {
	Kill   string
	Count  int
	Freeze bool
}

// Hook is to be called at every point; it may be called concurrently.
func (p Point) Hook() func(point string) {
	var mu sync.Mutex
	passed := 0
	return func(point string) {
		mu.Lock()
		defer mu.Unlock()
		if point != p.Kill {
			return
		}
		if passed++; passed != p.Count {
			return
		}
		if !p.Freeze {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		// The signal may find another thread first, and this one goes on for a
		// moment: long enough to send what it was to be frozen with.
		time.Sleep(freezeTakes)
	}
}

// RunVictim is the first statement of the TestMain of a package that spawns victims:
// in one it runs child instead of the tests and does not return. The context ends
// when the test calls Stop, or is gone.
func RunVictim[C any](child func(ctx context.Context, config C) error) {
	text := os.Getenv(victimVariable)
	if text == "" {
		return
	}
	var config C
	err := json.Unmarshal([]byte(text), &config)
	if err == nil {
		ctx, cancel := context.WithCancel(context.Background())
		go func() { // the test's end of the pipe
			_, _ = os.Stdin.Read(make([]byte, 1))
			cancel()
		}()
		err = child(ctx, config)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Victim is this test binary in a process of its own, which a test can kill as hard
// as it likes.
type Victim struct {
	cmd   *exec.Cmd
	stdin io.Closer
	log   *output
	done  chan struct{}
}

// Spawn starts a victim; config is what RunVictim gives its child. It is killed with
// the test. When the test fails the end of its log is printed.
func Spawn(t testing.TB, config any) *Victim {
	t.Helper()
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatalf("spawn: %v", err)
	}
	v := &Victim{cmd: exec.Command(os.Args[0], "-test.run=^$"), log: newOutput(), done: make(chan struct{})}
	v.cmd.Env = append(os.Environ(), victimVariable+"="+string(text))
	v.cmd.Stderr = v.log
	if v.stdin, err = v.cmd.StdinPipe(); err != nil {
		t.Fatalf("spawn: %v", err)
	}
	if err := v.cmd.Start(); err != nil {
		t.Fatalf("spawn: %v", err)
	}
	go func() {
		_ = v.cmd.Wait()
		close(v.done)
	}()
	t.Cleanup(func() {
		v.Kill()
		if log := v.Log(); t.Failed() {
			t.Logf("end of the log of process %d:\n%s", v.cmd.Process.Pid, log[max(0, len(log)-logEnd):])
		}
	})
	return v
}

// Log is what it has written to standard error so far.
func (v *Victim) Log() string { return v.log.String() }

// Done is closed when it has ended.
func (v *Victim) Done() <-chan struct{} { return v.done }

// Success says, of one that is done, that it ended without an error.
func (v *Victim) Success() bool { return v.cmd.ProcessState.Success() }

// Kill ends it with SIGKILL, frozen or not, and blocks until it is gone.
func (v *Victim) Kill() {
	_ = v.cmd.Process.Kill()
	<-v.done
}

// Stop has it end in order, and blocks until it has.
func (v *Victim) Stop() {
	_ = v.stdin.Close()
	<-v.done
}

// Signal sends it a signal.
func (v *Victim) Signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if err := v.cmd.Process.Signal(sig); err != nil {
		t.Fatalf("signal process %d: %v", v.cmd.Process.Pid, err)
	}
}

// Killed blocks until it has killed itself at its point.
func (v *Victim) Killed(t testing.TB, point string) {
	t.Helper()
	select {
	case <-v.done:
	case <-time.After(victimLimit):
		t.Fatalf("point %q was never reached", point)
	}
	if ws, ok := v.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !ws.Signaled() {
		t.Fatalf("the process ended by itself before point %q: %s", point, v.cmd.ProcessState)
	}
}

// Frozen blocks until it has stopped itself at its point.
func (v *Victim) Frozen(t testing.TB) {
	t.Helper()
	for deadline := time.Now().Add(victimLimit); ; time.Sleep(pollEvery) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", v.cmd.Process.Pid))
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("process %d was never frozen: %v", v.cmd.Process.Pid, err)
		}
		if _, state, _ := strings.Cut(string(stat), ") "); strings.HasPrefix(state, "T") {
			return
		}
	}
}
