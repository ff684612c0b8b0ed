package eventstore

import "sync"

// Head tells the goroutines of a process how far the log reaches.
type Head struct {
	mu      sync.Mutex
	pos     int64
	changed chan struct{}
}

// NewHead makes a Head at position 0.
func NewHead() *Head { return &Head{changed: make(chan struct{})} }

// Set says that every event up to pos is in the log. A lower position than before
// is ignored.
func (h *Head) Set(pos int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if pos <= h.pos {
		return
	}
	h.pos = pos
	close(h.changed)
	h.changed = make(chan struct{})
}

// Pos is the position last set.
func (h *Head) Pos() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.pos
}

// After returns at once a channel that is closed when the head is, or gets, beyond
// pos.
func (h *Head) After(pos int64) <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.pos > pos {
		done := make(chan struct{})
		close(done)
		return done
	}
	return h.changed
}
