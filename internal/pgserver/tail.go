package pgserver

import (
	"bytes"
	"io"
	"strings"
	"sync"
)

// tailSize is how much of the server's log is kept for error messages.
const tailSize = 4096

// tail passes the server's log on and keeps its end.
type tail struct {
	mu  sync.Mutex
	out io.Writer
	buf []byte // at most tailSize bytes
}

func newTail(out io.Writer) *tail {
	if out == nil {
		out = io.Discard
	}
	return &tail{out: out}
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - tailSize; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return t.out.Write(p)
}

func (t *tail) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = t.buf[:0]
}

func (t *tail) contains(s string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return bytes.Contains(t.buf, []byte(s))
}

func (t *tail) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.buf))
}
