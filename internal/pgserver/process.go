//go:build unix

package pgserver

import (
	"errors"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// drainLimit bounds how long the pipe of a dead server's log is still read:
// orphaned backends hold it until they notice that the postmaster is gone.
const drainLimit = 5 * time.Second

// credential makes a child run as id, in a session of its own so that a ^C at
// the terminal reaches this process alone, which then stops the server in order.
func credential(id identity) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setsid: true}
	if id.drop {
		attr.Credential = &syscall.Credential{Uid: id.uid, Gid: id.gid}
	}
	return attr
}

// process is a started child and its end.
type process struct {
	pid  int
	done chan struct{} // closed when the child has been waited for
	err  error         // valid after done
}

// start runs cmd. The parent-death signal is tied to the thread that forked, not
// to the process (prctl(2), PR_SET_PDEATHSIG), so that thread is kept until the
// child has ended.
func start(cmd *exec.Cmd) (*process, error) {
	cmd.WaitDelay = drainLimit
	p := &process{done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		p.pid = cmd.Process.Pid
		started <- nil
		p.err = cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// signal reaches the child while it has not been waited for.
func (p *process) signal(sig syscall.Signal) error {
	select {
	case <-p.done:
		return nil
	default:
	}
	if err := syscall.Kill(p.pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

// killTree kills the child and its own children. The child is stopped first, so
// that it starts no more of them meanwhile.
func (p *process) killTree() {
	_ = p.signal(syscall.SIGSTOP)
	for _, pid := range children(p.pid) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	_ = p.signal(syscall.SIGKILL)
	<-p.done
}
