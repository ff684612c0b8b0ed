package source

import (
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// gatherer waits until many bytes have arrived on a TCP socket: SO_RCVLOWAT
// tells the kernel how many make it readable, poll bounds the wait. Unix
// sockets ignore the mark, so they are read plainly.
type gatherer struct {
	conn syscall.RawConn // nil: plain reads only
	mark int             // the SO_RCVLOWAT that is set

	// The operands of the step that runs with the file descriptor; fields, so
	// that a read allocates nothing.
	step func(fd uintptr)
	buf  []byte
	want int
	n    int
	err  error
	fds  [1]unix.PollFd
}

func newGatherer(c net.Conn) gatherer {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return gatherer{}
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return gatherer{}
	}
	return gatherer{conn: raw, mark: 1}
}

// read waits up to gatherWait for want bytes and reads what is there: 0 bytes
// without an error where there is nothing, or where gathering is not possible.
func (g *gatherer) read(p []byte, want int) (int, error) {
	if g.conn == nil {
		return 0, nil
	}
	if g.step == nil {
		g.step = g.pollAndRead
	}
	g.buf, g.want, g.n, g.err = p, want, 0, nil
	if err := g.conn.Control(g.step); err != nil {
		return 0, err
	}
	g.buf = nil
	return g.n, g.err
}

func (g *gatherer) pollAndRead(fd uintptr) {
	if !g.setMark(int(fd), g.want) {
		return
	}
	g.fds[0] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	// An interrupted poll reads what is there; it need not wait again.
	_, _ = unix.Poll(g.fds[:], int(gatherWait.Milliseconds()))
	n, err := unix.Read(int(fd), g.buf)
	switch {
	case n > 0:
		g.n = n
	case err == nil, errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		// Nothing there, or the end: the plain read that follows says which.
	default:
		g.err = err
	}
}

// setMark rounds down to 4 KiB, so that a steady rate sets the mark seldom.
func (g *gatherer) setMark(fd, want int) bool {
	if want > gatherLeast {
		want &^= gatherLeast - 1
	}
	if g.mark == want {
		return true
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, want); err != nil {
		return false
	}
	g.mark = want
	return true
}

// relax lets the next plain read return with the first byte. Where the mark
// cannot be taken back nothing is lost: the read ends at its deadline.
func (g *gatherer) relax() {
	if g.conn == nil || g.mark == 1 {
		return
	}
	_ = g.conn.Control(func(fd uintptr) { g.setMark(int(fd), 1) })
}
