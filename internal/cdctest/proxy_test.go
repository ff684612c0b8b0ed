package cdctest

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// echo is a server that sends back what it gets, and counts the bytes.
func echo(t *testing.T) (addr string, got *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	got = new(atomic.Int64)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				_, _ = io.Copy(c, io.TeeReader(c, counter{got}))
			}()
		}
	}()
	return l.Addr().String(), got
}

type counter struct{ n *atomic.Int64 }

func (c counter) Write(p []byte) (int, error) { c.n.Add(int64(len(p))); return len(p), nil }

func dial(t *testing.T, p *Proxy) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// exchange sends one byte and waits for an answer no longer than given.
func exchange(c net.Conn, wait time.Duration) error {
	if _, err := c.Write([]byte{'x'}); err != nil {
		return err
	}
	_ = c.SetReadDeadline(time.Now().Add(wait))
	_, err := io.ReadFull(c, make([]byte, 1))
	return err
}

const (
	soon  = 50 * time.Millisecond // no answer within this is "held back"
	ample = 20 * time.Second
)

func timedOut(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

func TestProxyCut(t *testing.T) {
	addr, _ := echo(t)
	p := NewProxy(t, addr)
	c := dial(t, p)
	if err := exchange(c, ample); err != nil {
		t.Fatal(err)
	}
	p.Cut()
	if err := exchange(c, ample); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		t.Errorf("after Cut: got %v, want a reset", err)
	}
	if err := exchange(dial(t, p), ample); err != nil {
		t.Errorf("new connection after Cut: %v", err)
	}
	if err := p.Await(context.Background(), 2); err != nil || p.Connections() != 2 {
		t.Errorf("got %d connections (%v), want 2", p.Connections(), err)
	}
	p.Refuse()
	if c, err := net.Dial("tcp", p.Addr); err == nil { // the reset may come before Dial returns
		if err := exchange(c, ample); err == nil {
			t.Error("a connection is served while refused")
		}
		_ = c.Close()
	}
	p.Heal()
	if err := exchange(dial(t, p), ample); err != nil {
		t.Errorf("new connection after Heal: %v", err)
	}
}

func TestProxyStall(t *testing.T) {
	addr, got := echo(t)
	p := NewProxy(t, addr)
	c := dial(t, p)
	if err := exchange(c, ample); err != nil {
		t.Fatal(err)
	}
	p.Stall()
	if err := exchange(c, soon); !timedOut(err) || got.Load() != 1 {
		t.Errorf("while stalled: got %v and %d bytes at the server, want a timeout and 1", err, got.Load())
	}
	p.Resume()
	if err := exchange(c, ample); err != nil {
		t.Errorf("after Resume: %v", err)
	}
	p.Stall() // close must not hang on a stalled pair
	_ = exchange(c, soon)
}

func TestProxyHalfOpen(t *testing.T) {
	addr, got := echo(t)
	p := NewProxy(t, addr)
	c := dial(t, p)
	p.HalfOpen()
	if err := exchange(c, soon); !timedOut(err) {
		t.Errorf("got %v, want a timeout", err)
	}
	if got.Load() != 1 {
		t.Errorf("the server got %d bytes, want 1", got.Load())
	}
}

func TestProxyDropAnswers(t *testing.T) {
	addr, got := echo(t)
	p := NewProxy(t, addr)
	p.DropAnswers(1)
	if err := exchange(dial(t, p), ample); err == nil || timedOut(err) {
		t.Errorf("got %v, want a cut connection", err)
	}
	if got.Load() != 1 {
		t.Errorf("the server got %d bytes, want 1", got.Load())
	}
	if err := exchange(dial(t, p), ample); err != nil {
		t.Errorf("the next answer: %v", err)
	}
}

func TestProxyDelay(t *testing.T) {
	addr, _ := echo(t)
	p := NewProxy(t, addr)
	p.Delay(time.Hour)
	c := dial(t, p)
	if err := exchange(c, soon); !timedOut(err) {
		t.Errorf("got %v, want a timeout", err)
	}
	p.Cut() // ends the wait
	if err := exchange(c, ample); err == nil || timedOut(err) {
		t.Errorf("got %v, want a cut connection", err)
	}
	p.Delay(time.Millisecond)
	if err := exchange(dial(t, p), ample); err != nil {
		t.Error(err)
	}
}
