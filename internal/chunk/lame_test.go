package chunk

import (
	"slices"

	"cdc/internal/cdc"
)

// lame is a Window with one rule left out.
type lame struct {
	*Window[record]
	blindToTracked, blindBefore, forgetful, boundless, blindAfter, impatient, noTruncate, noSpoil bool

	high cdc.LSN
}

func without(cripple func(w *lame)) habits {
	return habits{window: func(s *sim) window {
		w := &lame{Window: s.realWindow()}
		cripple(w)
		return w
	}}
}

func (w *lame) Open() {
	if w.blindBefore {
		w.before = notes{limit: w.before.limit}
	}
	w.Window.Open()
}

func (w *lame) Event(key []byte, xid uint32) (record, bool) {
	switch {
	case w.blindToTracked && w.stage == opened, w.blindAfter && w.stage > opened:
		return record{}, false
	case w.impatient && w.stage > opened:
		since := w.since
		row, first := w.Window.Event(key, uint32(w.snapshot.xmax))
		w.since = since
		if !w.snapshot.Visible(xid) {
			w.since.note(xid)
		}
		return row, first
	}
	return w.Window.Event(key, xid)
}

func (w *lame) Truncate(xid uint32) {
	if !w.noTruncate {
		w.Window.Truncate(xid)
	}
}

func (w *lame) Spoil() {
	if !w.noSpoil {
		w.Window.Spoil()
	}
}

func (w *lame) Arrive(s Snapshot, high cdc.LSN, rows []Row[record]) bool {
	if w.forgetful {
		w.before.lost = false
	}
	if w.boundless && w.refused == TooMany {
		w.refused = NotRefused
	}
	if w.high > 0 {
		high = w.high
	}
	return w.Window.Arrive(s, high, rows)
}

// told is a Window that is told everything of a chunk when it arrives, with ids
// that make it see a transaction as visible does.
type told struct {
	*Window[record]
	visible func(s *Snapshot, xid uint32) bool
	active  bool
	spoiled bool
	noted   []uint32
	earlier int // of noted, those before Open
	events  []func(id func(uint32) uint32)
}

func toldBy(visible func(s *Snapshot, xid uint32) bool) habits {
	return habits{window: func(s *sim) window { return &told{Window: s.realWindow(), visible: visible} }}
}

// rawVisible compares the 32 bits of the stream with the 64 of a snapshot.
func rawVisible(s *Snapshot, xid uint32) bool {
	return uint64(xid) < s.xmax && !slices.Contains(s.xip, uint64(xid))
}

// id is one that a Window takes as visible says.
func (w *told) id(s *Snapshot) func(uint32) uint32 {
	return func(xid uint32) uint32 {
		if w.visible(s, xid) {
			return uint32(s.xmin) - 1
		}
		return uint32(s.xmax)
	}
}

func (w *told) Open()        { w.active, w.spoiled, w.events, w.earlier = true, false, nil, len(w.noted) }
func (w *told) Active() bool { return w.active }

func (w *told) Spoil() {
	if w.spoiled = true; w.stage > opened {
		w.active = false
		w.Window.Spoil()
	}
}

func (w *told) Drop() {
	w.active = false
	w.Window.Drop()
}

func (w *told) Take() []Row[record] {
	w.active = false
	return w.Window.Take()
}

func (w *told) Event(key []byte, xid uint32) (record, bool) {
	w.tell(xid, func(xid uint32) { w.Window.Event(key, xid) })
	if w.stage > opened {
		return w.Window.Event(key, w.id(&w.snapshot)(xid))
	}
	return record{}, false
}

func (w *told) Truncate(xid uint32) {
	w.tell(xid, w.Window.Truncate)
	if w.stage > opened {
		w.Window.Truncate(w.id(&w.snapshot)(xid))
	}
}

func (w *told) tell(xid uint32, event func(xid uint32)) {
	w.noted = append(w.noted, xid)
	if w.active && w.stage == closed {
		w.events = append(w.events, func(id func(uint32) uint32) { event(id(xid)) })
	}
}

func (w *told) Arrive(s Snapshot, high cdc.LSN, rows []Row[record]) bool {
	id := w.id(&s)
	w.before = notes{limit: w.before.limit}
	for _, xid := range w.noted[:w.earlier] {
		w.before.note(id(xid))
	}
	w.Window.Open()
	for _, event := range w.events {
		event(id)
	}
	if w.spoiled {
		w.Window.Spoil()
	}
	w.active = w.Window.Arrive(s, high, rows)
	return w.active
}

// watermarks is the algorithm of DBLog: marks in the log before and after the
// chunk was read; a row is dropped for any event of its key between the marks, the
// others stand where the second mark stands.
type watermarks struct {
	s         *sim
	stage     stage
	low, high int
	changed   map[string]bool
	truncated bool
	rows      []Row[record]
}

func newWatermarks(s *sim) window { return &watermarks{s: s} }

func (w *watermarks) Open() {
	w.stage, w.low, w.changed, w.truncated = opened, w.s.pg.lsn, map[string]bool{}, false
}

func (w *watermarks) Active() bool { return w.stage != closed }
func (w *watermarks) Drop()        { w.stage, w.rows = closed, nil }
func (w *watermarks) Spoil()       { w.Drop() }

func (w *watermarks) Event(key []byte, _ uint32) (record, bool) {
	at := w.s.pg.log[w.s.tx].start
	switch {
	case w.stage == closed || at < w.low:
	case w.stage == opened:
		w.changed[string(key)] = true
	default:
		for i, row := range w.rows {
			if string(row.Key) == string(key) {
				w.rows = append(w.rows[:i:i], w.rows[i+1:]...)
				return row.Record, at >= w.high // stands where the second mark stood
			}
		}
	}
	return record{}, false
}

func (w *watermarks) Truncate(uint32) {
	if at := w.s.pg.log[w.s.tx].start; w.stage != closed && at >= w.low {
		w.rows, w.truncated = nil, true
	}
}

func (w *watermarks) Arrive(_ Snapshot, high cdc.LSN, rows []Row[record]) bool {
	if w.stage == closed {
		return false
	}
	w.stage, w.high = arrived, int(high)
	for _, row := range rows {
		if !w.changed[string(row.Key)] && !w.truncated {
			w.rows = append(w.rows, row)
		}
	}
	return true
}

func (w *watermarks) Ready(end cdc.LSN) bool { return w.stage == arrived && int(end) >= w.high }

func (w *watermarks) Take() []Row[record] {
	rows := w.rows
	w.Drop()
	return rows
}
