package broker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

const (
	// maxConns leaves room under the usual limit of 1,024 files for segments.
	maxConns = 512
	// frameTime is how long a request may take from its header to its end, so
	// that a stuck client does not hold its share of frameMemory for ever.
	frameTime = time.Minute
	// frameMemory is what requests being received may take together, two of
	// the greatest that Kafka allows.
	frameMemory = 2 * maxFrame
	// acceptPause is the wait after an Accept that failed for want of files.
	acceptPause = 50 * time.Millisecond
	// warnEvery keeps a health check that speaks HTTP from filling the log.
	warnEvery = time.Minute
)

// guard is kfake's listener. The connections it hands out let only requests
// through whose header makes sense.
type guard struct {
	net.Listener
	log    *slog.Logger
	disk   *disk
	ctx    context.Context // ends with the guard
	cancel context.CancelFunc
	memory *semaphore.Weighted

	known  atomic.Pointer[versions] // nil until learn is done
	silent atomic.Bool              // no response leaves any more
	warned atomic.Int64             // time of the last warning, Unix nanoseconds

	mu    sync.Mutex
	conns map[*guardConn]struct{}
}

func listen(ctx context.Context, address string, d *disk) (*guard, error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s (stop the program that has the port, or configure another): %w", address, err)
	}
	g := &guard{Listener: ln, log: d.log, disk: d, memory: semaphore.NewWeighted(frameMemory), conns: make(map[*guardConn]struct{})}
	g.ctx, g.cancel = context.WithCancel(context.WithoutCancel(ctx))
	return g, nil
}

// Accept implements net.Listener. kfake stops listening at the first error, so
// those that pass are waited out here.
func (g *guard) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil, err
			}
			g.warn("cannot accept a connection, trying again", "error", err)
			select {
			case <-g.ctx.Done():
				return nil, net.ErrClosed
			case <-time.After(acceptPause):
			}
			continue
		}
		if conn := g.admit(c); conn != nil {
			return conn, nil
		}
	}
}

func (g *guard) admit(c net.Conn) *guardConn {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.conns) >= maxConns || g.ctx.Err() != nil {
		c.Close()
		g.warn("refused a connection: too many are open", "limit", maxConns, "peer", c.RemoteAddr())
		return nil
	}
	conn := &guardConn{Conn: c, guard: g}
	g.conns[conn] = struct{}{}
	return conn
}

// shut closes the listener and every connection.
func (g *guard) shut() {
	g.cancel()
	g.Listener.Close()
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := range g.conns {
		c.Conn.Close()
	}
	clear(g.conns)
}

// warn logs at most once in warnEvery.
func (g *guard) warn(message string, args ...any) {
	now := time.Now().UnixNano()
	last := g.warned.Load()
	if now-last < int64(warnEvery) || !g.warned.CompareAndSwap(last, now) {
		return
	}
	g.log.Warn(message, args...)
}

// guardConn checks each request's header before kfake reads its first byte.
// kfake calls Read from one goroutine at a time, and until it fails: so what Read
// has taken of the guard's memory it also gives back.
type guardConn struct {
	net.Conn
	guard *guard
	once  sync.Once

	head    [headSize]byte
	pending []byte // of head, not handed out yet
	body    int64  // bytes of the frame behind head that are still to come
	taken   int64  // of guard.memory
}

// Read implements net.Conn.
func (c *guardConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(c.pending) == 0 && c.body == 0 {
		if err := c.next(); err != nil {
			c.release()
			return 0, err
		}
	}
	if len(c.pending) > 0 {
		n := copy(p, c.pending)
		c.pending = c.pending[n:]
		return n, nil
	}
	if int64(len(p)) > c.body {
		p = p[:c.body]
	}
	n, err := c.Conn.Read(p)
	c.body -= int64(n)
	if c.body == 0 || err != nil {
		c.release()
	}
	return n, err
}

// next waits for a request and checks its header. An idle connection may wait
// for ever; a request that has begun may not.
func (c *guardConn) next() error {
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	// Every request is longer than head, so this never reads into the next.
	if _, err := io.ReadFull(c.Conn, c.head[:]); err != nil {
		return err
	}
	size, err := c.guard.check(c.head)
	if err != nil {
		c.guard.warn("closed a connection that does not speak Kafka's protocol", "peer", c.RemoteAddr(), "error", err)
		return err
	}
	if err := c.guard.disk.admit(int16(binary.BigEndian.Uint16(c.head[sizeBytes:])), size); err != nil {
		return err
	}
	if err := c.guard.memory.Acquire(c.guard.ctx, size); err != nil {
		return err
	}
	c.taken = size
	c.pending, c.body = c.head[:], size-(headSize-sizeBytes)
	return c.SetReadDeadline(time.Now().Add(frameTime))
}

func (c *guardConn) release() {
	if c.taken > 0 {
		c.guard.memory.Release(c.taken)
		c.taken = 0
	}
}

// Write implements net.Conn.
func (c *guardConn) Write(p []byte) (int, error) {
	if c.guard.silent.Load() {
		return 0, errSilent
	}
	return c.Conn.Write(p)
}

var errSilent = errors.New("broker has failed and answers no more")

// Close implements net.Conn.
func (c *guardConn) Close() error {
	c.once.Do(func() {
		c.guard.mu.Lock()
		delete(c.guard.conns, c)
		c.guard.mu.Unlock()
	})
	return c.Conn.Close()
}
