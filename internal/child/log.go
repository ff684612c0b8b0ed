package child

import (
	"bytes"
	"io"
	"strings"
	"sync"
)

// tailSize is how much of a child's log is kept for error messages.
const tailSize = 4096

// Log passes a child's output on and keeps its end. It may be used concurrently.
type Log struct {
	mu  sync.Mutex
	out io.Writer
	buf []byte // at most tailSize bytes
}

// NewLog makes a log that passes everything to out, which may be nil.
func NewLog(out io.Writer) *Log {
	if out == nil {
		out = io.Discard
	}
	return &Log{out: out}
}

// Write keeps the end of p and passes it on.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf = append(l.buf, p...)
	if over := len(l.buf) - tailSize; over > 0 {
		l.buf = append(l.buf[:0], l.buf[over:]...)
	}
	return l.out.Write(p)
}

// Reset forgets what was kept.
func (l *Log) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf = l.buf[:0]
}

// Contains says that the kept end holds s.
func (l *Log) Contains(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Contains(l.buf, []byte(s))
}

// Tail returns the kept end.
func (l *Log) Tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.TrimSpace(string(l.buf))
}
