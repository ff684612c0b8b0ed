package admin

import (
	"net"
	"sync"
)

// limited is a listener with at most so many connections open; the next client
// waits in the kernel's queue.
type limited struct {
	net.Listener
	free   chan struct{} // a token for each connection that may still be opened
	closed chan struct{}
	once   sync.Once
}

func newLimited(l net.Listener, n int) net.Listener {
	free := make(chan struct{}, n)
	for range n {
		free <- struct{}{}
	}
	return &limited{Listener: l, free: free, closed: make(chan struct{})}
}

// Accept waits for a connection and for room for it.
func (l *limited) Accept() (net.Conn, error) {
	select {
	case <-l.free:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		l.free <- struct{}{}
		return nil, err
	}
	return &limitedConn{Conn: c, release: func() { l.free <- struct{}{} }}, nil
}

// Close ends a waiting Accept too.
func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	once    sync.Once
	release func()
}

// Close gives the connection's place to the next.
func (c *limitedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.release)
	return err
}
