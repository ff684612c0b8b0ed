//go:build unix

package child

import (
	"errors"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// drainLimit bounds how long the output of a dead child is still read: its own
// children may hold the pipe until they notice that it is gone.
const drainLimit = 5 * time.Second

// User is who a child runs as. The zero value is the user of this process.
type User struct {
	Drop     bool // run as UID and GID; needs root
	UID, GID uint32
}

// Process is a started child.
type Process struct {
	PID  int
	done chan struct{}
	err  error // valid after done
}

// Start runs cmd as user. The child is in a session of its own, so that a ^C at
// the terminal reaches this process alone, which then ends the child in order.
// On Linux the kernel sends it death when this process dies.
func Start(cmd *exec.Cmd, user User, death syscall.Signal) (*Process, error) {
	attr := &syscall.SysProcAttr{Setsid: true}
	if user.Drop {
		attr.Credential = &syscall.Credential{Uid: user.UID, Gid: user.GID}
	}
	dieWithParent(attr, death)
	cmd.SysProcAttr = attr
	cmd.WaitDelay = drainLimit
	p := &Process{done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The parent-death signal is tied to the thread that forked, not to the
		// process (prctl(2), PR_SET_PDEATHSIG), so that thread is kept until the
		// child has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		p.PID = cmd.Process.Pid
		started <- nil
		p.err = cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// Done is closed when the child has ended and its output has been read.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err blocks until the child has ended and says how: nil for exit status 0, else
// an *exec.ExitError.
func (p *Process) Err() error {
	<-p.done
	return p.err
}

// Signal reaches the child while it runs; afterwards it does nothing.
func (p *Process) Signal(sig syscall.Signal) error {
	select {
	case <-p.done:
		return nil
	default:
	}
	if err := syscall.Kill(p.PID, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

// KillTree kills the child and its own children with SIGKILL, and blocks until
// it is gone. The child is stopped first, so that it starts no more of them
// meanwhile.
func (p *Process) KillTree() {
	_ = p.Signal(syscall.SIGSTOP)
	for _, pid := range childrenOf(p.PID) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	_ = p.Signal(syscall.SIGKILL)
	<-p.done
}

// ExitCode blocks until the child has ended and returns its exit status; -1 when
// a signal ended it.
func (p *Process) ExitCode() int {
	<-p.done
	if p.err == nil {
		return 0
	}
	var exit *exec.ExitError
	if errors.As(p.err, &exit) {
		return exit.ExitCode()
	}
	return -1
}
