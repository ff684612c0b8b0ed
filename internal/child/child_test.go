//go:build unix

package child

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

// roleVariable makes the test binary one of the processes that the tests need.
const roleVariable = "CHILD_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case "parent":
		// Starts a child as Start does, tells its pid, and waits to be killed.
		p, err := Start(self("sleeper"), User{}, syscall.SIGKILL)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(p.PID)
		<-p.Done()
	case "brood":
		// Has a child of its own, which does not die with it.
		cmd := self("sleeper")
		if err := cmd.Start(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(cmd.Process.Pid)
		select {}
	case "sleeper":
		select {}
	case "failing":
		os.Exit(3)
	default:
		goleak.VerifyTestMain(m)
	}
}

// self is this binary in one of its roles.
func self(role string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	return cmd
}

// startTelling starts a role that prints a pid, and returns that.
func startTelling(t *testing.T, role string) (p *Process, told int) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	cmd := self(role)
	cmd.Stdout = w
	if p, err = Start(cmd, User{}, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.KillTree)
	_ = w.Close()
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatalf("read the pid: %q, %v", line, err)
	}
	if told, err = strconv.Atoi(strings.TrimSpace(line)); err != nil {
		t.Fatal(err)
	}
	return p, told
}

func running(pid int) bool {
	if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && strings.Contains(string(text), ") Z ") {
		return false // dead, not yet collected by init
	}
	return syscall.Kill(pid, 0) == nil
}

func TestChildDiesWithAKilledParent(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux ties the life of a child to its parent's")
	}
	p, child := startTelling(t, "parent")
	if !running(child) {
		t.Fatalf("child %d does not run", child)
	}
	// SIGKILL to the parent alone: nothing of ours runs in it any more.
	if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	waitGone(t, child)
}

func TestKillTreeTakesGrandchildren(t *testing.T) {
	p, grandchild := startTelling(t, "brood")
	p.KillTree()
	waitGone(t, grandchild)
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("signal to a child that is gone: %v", err)
	}
	if got := p.ExitCode(); got != -1 {
		t.Errorf("exit code of a killed child: got %d, want -1", got)
	}
}

// waitGone yields until the kernel has ended the process.
func waitGone(t *testing.T, pid int) {
	t.Helper()
	for n := 0; running(pid); n++ {
		if n > 10_000_000 {
			t.Fatalf("process %d still runs", pid)
		}
		runtime.Gosched()
	}
}

func TestExitCode(t *testing.T) {
	p, err := Start(self("failing"), User{}, syscall.SIGKILL)
	if err != nil {
		t.Fatal(err)
	}
	if got := p.ExitCode(); got != 3 {
		t.Errorf("got %d, want 3", got)
	}
	if _, err := Start(exec.Command("/no/such/program"), User{}, syscall.SIGKILL); err == nil {
		t.Error("a program that does not exist starts")
	}
}

func TestLogKeepsTheEnd(t *testing.T) {
	var all strings.Builder
	l := NewLog(&all)
	for n := range 2000 {
		_, _ = fmt.Fprintf(l, "line %d\n", n)
	}
	if got := l.Tail(); !strings.HasSuffix(got, "line 1999") || len(got) > tailSize || strings.Contains(got, "line 7\n") {
		t.Errorf("got %d bytes ending in %q", len(got), got[max(0, len(got)-20):])
	}
	if !strings.HasPrefix(all.String(), "line 0\n") || !l.Contains("line 1998") {
		t.Error("it did not pass everything on")
	}
	l.Reset()
	if l.Tail() != "" {
		t.Error("something is left after Reset")
	}
}
