package source

import (
	"net"
	"os"
	"time"
)

// The walsender sends every row as a small message of its own and each wakes
// its reader. A reader that lets bytes gather in the socket under load makes
// both sides cheaper: a few thousand reads in place of a million.
const (
	// readBuffer takes what one gathered read brings.
	readBuffer = 256 << 10
	// gatherMost is the most a read waits for: half the buffer, so that what
	// arrives between the wake-up and the read fits too.
	gatherMost = 128 << 10
	// gatherLeast is the rate, in bytes a gatherWait, below which a read waits
	// for nothing: a trickle is delivered as it comes.
	gatherLeast = 4 << 10
	// gatherWait is the longest that bytes which have arrived are held back.
	gatherWait = time.Millisecond
	// gatherMemory is how many gatherWaits the rate is measured over.
	gatherMemory = 4
)

// errTick is what a read returns when the time for housekeeping has come. It
// calls itself temporary: crypto/tls then keeps its state, as pgproto3 does
// after a timeout, and the next read goes on in the middle of the message.
var errTick error = tickError{}

type tickError struct{}

func (tickError) Error() string   { return "nothing arrived before the tick" }
func (tickError) Timeout() bool   { return true }
func (tickError) Temporary() bool { return true }

// socket is a connection's net.Conn below TLS. Until begin is called it does
// nothing of its own. Reads come from one goroutine; the fields are its.
type socket struct {
	net.Conn
	gather gatherer // waits for many bytes at once, where the system can

	streaming  bool
	due        time.Time // reads return errTick from then on
	armed      time.Time // the read deadline set on Conn
	tick       time.Duration
	beforeWait func() error // called when nothing is at hand, before each wait for bytes

	rate   rate
	silent time.Duration // spent waiting since the last byte came
	rest   []byte        // read in excess of what the caller took
	buf    []byte        // what rest lies in
}

// newSocket wraps a connection that was just dialled.
func newSocket(c net.Conn) *socket { return &socket{Conn: c, gather: newGatherer(c)} }

// begin turns on ticks, gathering and beforeWait.
func (s *socket) begin(tick time.Duration, beforeWait func() error) {
	s.streaming, s.tick, s.beforeWait = true, tick, beforeWait
	s.due = time.Now().Add(tick)
}

// end turns them off again: reads are plain and fail at the deadline.
func (s *socket) end(deadline time.Time) error {
	s.streaming = false
	s.gather.relax()
	return s.Conn.SetReadDeadline(deadline)
}

// Read reads what has arrived. While streaming it returns errTick once due has
// come, whether bytes flow or not.
func (s *socket) Read(p []byte) (int, error) {
	if len(s.rest) > 0 {
		n := copy(p, s.rest)
		s.rest = s.rest[n:]
		return n, nil
	}
	if !s.streaming {
		return s.Conn.Read(p)
	}
	now := time.Now()
	if !now.Before(s.due) {
		return 0, errTick
	}
	if err := s.beforeWait(); err != nil {
		return 0, err
	}
	if want := s.rate.want(now); want > 0 {
		n, err := s.gathered(p, want)
		if n > 0 || err != nil {
			s.heard(n)
			return n, err
		}
		// A whole gatherWait without a byte: wait for the first one as if idle.
	}
	s.gather.relax()
	if s.armed != s.due {
		if err := s.Conn.SetReadDeadline(s.due); err != nil {
			return 0, err
		}
		s.armed = s.due
	}
	n, err := s.Conn.Read(p)
	if n > 0 {
		s.heard(n)
		return n, nil // an error that came with bytes comes again
	}
	if err != nil && os.IsTimeout(err) {
		// A process that was stopped for minutes has not waited for them.
		s.silent += min(time.Since(now), 2*s.tick)
		return 0, errTick
	}
	return n, err
}

// gathered reads through a buffer of its own where the caller's is small (TLS
// asks for a record at a time).
func (s *socket) gathered(p []byte, want int) (int, error) {
	if len(p) >= gatherMost {
		return s.gather.read(p, want)
	}
	if s.buf == nil {
		s.buf = make([]byte, readBuffer)
	}
	n, err := s.gather.read(s.buf, want)
	m := copy(p, s.buf[:n])
	s.rest = s.buf[m:n]
	return m, err
}

func (s *socket) heard(n int) {
	s.silent = 0
	s.rate.add(time.Now(), n+len(s.rest))
}

// rate is a decaying count of bytes: about what arrived in the newest
// gatherMemory×gatherWait.
type rate struct {
	bytes int64
	at    time.Time
}

func (r *rate) add(now time.Time, n int) {
	r.decay(now)
	r.bytes += int64(n)
}

func (r *rate) decay(now time.Time) {
	passed := now.Sub(r.at)
	r.at = now
	if passed >= gatherMemory*gatherWait {
		r.bytes = 0
		return
	}
	r.bytes -= r.bytes * int64(passed) / int64(gatherMemory*gatherWait)
}

// want is how many bytes a read should wait for, 0 for a trickle: twice what a
// gatherWait brings, so that a steady load is read once in that time and only a
// surge wakes the reader early.
func (r *rate) want(now time.Time) int {
	r.decay(now)
	n := r.bytes / gatherMemory
	if n < gatherLeast {
		return 0
	}
	return int(min(2*n, gatherMost))
}
