package intent

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"cdc/internal/cdc"
)

// Event is a stored event. It never changes.
type Event struct {
	ID       ID              `json:"id"`
	Stream   string          `json:"stream"`
	Version  int64           `json:"version"` // in its stream: 1, 2, 3, … without a gap
	Type     string          `json:"type"`
	Schema   int             `json:"schema"` // version of the type's fields Data was written in
	Data     json.RawMessage `json:"data"`
	Meta     json.RawMessage `json:"meta"` // see Why
	Subjects []string        `json:"subjects,omitempty"`
	At       time.Time       `json:"at"`
	// Position in the log: 1, 2, 3, … in commit order, without a gap. 0: not
	// numbered yet.
	Position int64 `json:"position,omitempty"`
	// Tx is the id of the transaction that appended it, LSN the start of that
	// transaction's commit record; both 0 where Position is.
	Tx  uint32  `json:"tx,omitempty"`
	LSN cdc.LSN `json:"lsn,omitempty"`
}

// Category is the part of a stream's name before the first '/': the whole name
// where there is none. Events of one category share a topic and a fold.
func Category(stream string) string {
	c, _, _ := strings.Cut(stream, "/")
	return c
}

// The keys of Meta that have a meaning here; others are the application's.
const (
	MetaActor       = "actor"       // who did it
	MetaCorrelation = "correlation" // id of what it all belongs to: a request, a process
	MetaCausation   = "causation"   // id of the event or command it followed from
	MetaDepth       = "depth"       // how many reactions lie between it and what they began with
)

// NewEvent is an event to be appended.
type NewEvent struct {
	ID       ID // chosen by the caller: appending it again changes nothing
	Type     string
	Schema   int             // 0: the version declared now, or 1
	Data     json.RawMessage // an object
	Meta     json.RawMessage // an object, or nil
	Subjects []string        // opaque ids of the people inside
}

// Batch is what is appended to one stream. Without Events the stream is only
// checked.
type Batch struct {
	Stream string
	Expect Expect
	Events []NewEvent
}

// Expect is the version a stream must have for an append to happen: a number, or
// one of the words below.
type Expect int64

// The words. The zero value is None as a number: a stream without events.
const (
	None Expect = 0  // the stream has no events
	Some Expect = -1 // it has at least one
	Any  Expect = -2 // whatever it has
)

// ParseExpect reads what users write: a number, none, some or any.
func ParseExpect(s string) (Expect, error) {
	switch s {
	case "any", "":
		return Any, nil
	case "none":
		return None, nil
	case "some":
		return Some, nil
	}
	var n int64
	if err := json.Unmarshal([]byte(s), &n); err != nil || n < 0 {
		return 0, fmt.Errorf("expected version %q: write a number from 0, or none, some or any", s)
	}
	return Expect(n), nil
}

func (e Expect) String() string {
	switch e {
	case Any:
		return "any"
	case Some:
		return "some"
	case None:
		return "none"
	}
	return fmt.Sprint(int64(e))
}

// Receipt is the answer to an append, the same when it is repeated.
type Receipt struct {
	Streams   []StreamVersion `json:"streams"` // of every batch, sorted by name
	Duplicate bool            `json:"duplicate"`
	// Token waits for views: the id of the event of this append that stands last
	// in the log. Zero where nothing was appended.
	Token ID `json:"token,omitzero"`
}

// StreamVersion is a stream and the version it has after an append.
type StreamVersion struct {
	Stream  string `json:"stream"`
	Version int64  `json:"version"`
}

// ConflictError is an append that found another version than expected, or some of
// its events stored already and others not. SQLSTATE ES409.
type ConflictError struct {
	Stream   string
	Expected Expect
	Actual   int64
	Text     string // the store's sentence
}

func (e *ConflictError) Error() string { return e.Text }

// ClosedError is an append to a stream that was closed. SQLSTATE ES410.
type ClosedError struct{ Stream string }

func (e *ClosedError) Error() string { return fmt.Sprintf("stream %q is closed", e.Stream) }

// InvalidError is an append that can never succeed as it is: an undeclared type,
// a wrong field, a name too long. SQLSTATE ES422 (or of class 22 or 54).
type InvalidError struct {
	Path string // of the field, as in data.course; "" where it is not one field
	Text string
}

func (e *InvalidError) Error() string { return e.Text }
