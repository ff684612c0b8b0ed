package chunk

import (
	"hash/maphash"

	"cdc/internal/cdc"
)

// Row is a row of a chunk: the bytes of its key in the topic, and what the caller
// writes for it.
type Row[R any] struct {
	Key    []byte
	Record R
}

// Refusal is why a chunk is to be read again.
type Refusal uint8

// The refusals.
const (
	NotRefused Refusal = iota
	// NotVisible: a transaction whose events were written before Open was not
	// visible in the chunk's snapshot. It will be: read again, not at once.
	NotVisible
	// Spoiled: the table changed its shape.
	Spoiled
	// TooMany: more keys changed while the chunk was read than may be tracked. A
	// smaller chunk is read faster.
	TooMany
)

func (r Refusal) String() string {
	switch r {
	case NotVisible:
		return "a transaction already written is not visible to readers yet"
	case Spoiled:
		return "the table was altered"
	case TooMany:
		return "too many rows changed while it was read"
	}
	return "not refused"
}

// Window puts the rows of one chunk of a table in their place among the table's
// events; see the package's documentation. It is used by the one goroutine that
// writes both.
type Window[R any] struct {
	maxTracked int
	seeds      [2]maphash.Seed
	stage      stage

	// before has the transactions of events written before Open, since those of
	// events since. With no chunk open, since is empty.
	before, since notes

	// Opened: the last transaction of each key with events since Open, of the last
	// truncation, and whether the chunk cannot be used whatever it holds.
	tracked     map[digest]uint32
	truncated   bool
	truncatedBy uint32
	refused     Refusal
	refusedBy   uint32

	// Arrived: the rows, of which those not gone are found in index.
	snapshot Snapshot
	high     cdc.LSN
	rows     []Row[R]
	gone     []bool
	index    map[digest]int32
}

type stage uint8

const (
	closed  stage = iota
	opened        // a reader is under way
	arrived       // the rows wait for the stream to pass high
	passed        // it has
)

// digest stands for a key: two keys of one chunk have the same with a probability
// of n²/2^129, and seeds that differ each time.
type digest [2]uint64

// NewWindow is a window without a chunk that tracks at most maxTracked keys (24
// bytes each, and what a map adds) while a chunk is read. It is made before
// Source.Settle, see the package's documentation.
func NewWindow[R any](maxTracked int) *Window[R] {
	return &Window[R]{
		maxTracked: maxTracked,
		seeds:      [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
		before:     notes{limit: maxNoted},
		since:      notes{limit: maxNoted},
		tracked:    map[digest]uint32{},
		index:      map[digest]int32{},
	}
}

func (w *Window[R]) digest(key []byte) digest {
	return digest{maphash.Bytes(w.seeds[0], key), maphash.Bytes(w.seeds[1], key)}
}

// Open begins a chunk. It is called before the chunk's reader takes its snapshot,
// and when no reader of an earlier chunk is under way: its rows would be taken for
// those of this one.
func (w *Window[R]) Open() {
	if w.stage != closed {
		panic("chunk: a window opened twice")
	}
	w.stage, w.refused = opened, NotRefused
}

// Active says that a chunk was opened and is neither taken nor dropped. One that
// was active and is not, without Take, is to be read again.
func (w *Window[R]) Active() bool { return w.stage != closed }

// Why tells why the last chunk opened is to be read again, and of NotVisible the
// transaction that stands in the way.
func (w *Window[R]) Why() (why Refusal, xid uint32) { return w.refused, w.refusedBy }

// Event says that an event of key by the transaction xid is about to be written,
// whether a chunk is open or not. If first, r is written before it: the event may
// have columns that are not known but from r. It does not allocate while no
// chunk is being read, and does not keep key.
func (w *Window[R]) Event(key []byte, xid uint32) (r R, first bool) {
	switch w.stage {
	case closed:
		w.before.note(xid)
		return r, false
	case opened:
		w.since.note(xid)
		w.track(key, xid)
		return r, false
	}
	if w.snapshot.Visible(xid) {
		return r, false // the row is this state or a later one
	}
	w.since.note(xid)
	if len(w.index) == 0 {
		return r, false
	}
	d := w.digest(key)
	i, ok := w.index[d]
	if !ok {
		return r, false
	}
	r = w.rows[i].Record
	delete(w.index, d)
	w.rows[i], w.gone[i] = Row[R]{}, true
	return r, true
}

func (w *Window[R]) track(key []byte, xid uint32) {
	if w.refused != NotRefused {
		return
	}
	w.tracked[w.digest(key)] = xid
	if len(w.tracked) > w.maxTracked {
		w.refuse(TooMany, 0)
	}
}

// Truncate says that the truncation of the table by the transaction xid is about
// to be written, whether a chunk is open or not.
func (w *Window[R]) Truncate(xid uint32) {
	switch w.stage {
	case closed:
		w.before.note(xid)
	case opened:
		w.since.note(xid)
		w.truncated, w.truncatedBy = true, xid
	default:
		if w.snapshot.Visible(xid) {
			return // the rows were inserted after it
		}
		w.since.note(xid)
		clear(w.index)
		clear(w.rows)
		w.rows, w.gone = w.rows[:0], w.gone[:0]
	}
}

// Spoil says that from here on events of the table have another shape. A chunk
// whose rows have arrived is dropped, one under way is refused when it arrives.
func (w *Window[R]) Spoil() {
	switch w.stage {
	case closed:
	case opened:
		w.refuse(Spoiled, 0)
	default:
		w.refuse(Spoiled, 0)
		w.Drop()
	}
}

func (w *Window[R]) refuse(why Refusal, xid uint32) {
	w.refused, w.refusedBy = why, xid
	w.untrack()
}

// keepTracked is the size of map worth keeping for the next chunk, a few MiB.
const keepTracked = 1 << 16

func (w *Window[R]) untrack() {
	if len(w.tracked) > keepTracked {
		w.tracked = map[digest]uint32{}
	}
	clear(w.tracked)
}

// Arrive takes the rows that the reader has read since Open: those visible in the
// snapshot s, in their order, each key once (of a key that comes twice the last
// row stands); high is the position of the log's end, asked for after the rows.
// It owns rows from then on. False: the chunk has been dropped, Why tells why, or
// was dropped before; it is to be read again, with a new snapshot.
func (w *Window[R]) Arrive(s Snapshot, high cdc.LSN, rows []Row[R]) bool {
	switch {
	case w.stage == closed:
		return false
	case w.stage != opened:
		panic("chunk: a chunk arrived twice")
	case high == 0 || s.xmax == 0:
		panic("chunk: a chunk arrived without its snapshot and position")
	}
	w.before.prune(&s)
	w.since.prune(&s)
	if xid, ok := w.before.pending(); ok && w.refused == NotRefused {
		w.refuse(NotVisible, xid)
	}
	if w.refused != NotRefused {
		w.Drop()
		return false
	}
	w.snapshot, w.high, w.stage = s, high, arrived
	w.buffer(rows)
	w.untrack()
	return true
}

// buffer keeps the rows of which no later state was written.
func (w *Window[R]) buffer(rows []Row[R]) {
	if w.truncated && !w.snapshot.Visible(w.truncatedBy) {
		return
	}
	w.rows, w.gone = rows, append(w.gone[:0], make([]bool, len(rows))...)
	for i := range rows {
		d := w.digest(rows[i].Key)
		if xid, ok := w.tracked[d]; ok && !w.snapshot.Visible(xid) {
			w.gone[i] = true
			continue
		}
		if earlier, ok := w.index[d]; ok {
			w.gone[earlier] = true
		}
		w.index[d] = int32(i)
	}
}

// Ready says that the rows can be taken: their stream has passed the chunk's
// position, so that every event visible in the snapshot was handed to Event. All
// that committed before end must have been.
func (w *Window[R]) Ready(end cdc.LSN) bool {
	if w.stage == arrived && end >= w.high {
		w.stage = passed
	}
	return w.stage == passed
}

// Take gives the rows that are left, in their order, to be written before the next
// event; the chunk is over. It is called after Ready has said so.
func (w *Window[R]) Take() []Row[R] {
	if w.stage != passed {
		panic("chunk: a chunk taken before the stream has passed it")
	}
	left := w.rows[:0]
	for i, gone := range w.gone {
		if !gone {
			left = append(left, w.rows[i])
		}
	}
	clear(w.rows[len(left):])
	w.rows = nil
	w.Drop()
	return left
}

// Drop ends the chunk without its rows. What was noted of transactions stays.
func (w *Window[R]) Drop() {
	w.before.move(&w.since)
	w.untrack()
	clear(w.index)
	w.stage, w.truncated = closed, false
	w.snapshot, w.high, w.rows, w.gone = Snapshot{}, 0, nil, w.gone[:0]
}
