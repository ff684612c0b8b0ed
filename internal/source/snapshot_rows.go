package source

import (
	"bytes"
	"errors"

	"cdc/internal/cdc"
)

// chunk is whole rows of one table in COPY's text format, on their way from a
// worker to Next.
type chunk struct {
	table  int    // index in Snapshot.tables
	data   []byte // rows, each with its newline
	rows   int
	weight int64 // bytes taken from the budget
	done   bool  // the last of its piece
}

// sequence turns chunks, in the order they arrive, into rows with their marks.
// It is pure: what it needs next it asks for by returning needChunk.
//
// A row is the last of its table only when every piece of the table has ended,
// and the last of all only when every table has: so one row per table is held
// back until another of its table arrives, and the last row of the newest
// complete table until another row of any table does. A held row is a copy;
// chunks go back to the workers at once.
type sequence struct {
	tables  []sequenceTable
	current *chunk
	rest    []byte // rows of current not yet delivered
	pending heldRow
	started bool // a row was delivered
}

type sequenceTable struct {
	pieces  int // not yet ended
	started bool
	held    heldRow
}

type heldRow struct {
	data  []byte
	table int
	full  bool
}

// snapshotRow is one row that is due.
type snapshotRow struct {
	data  []byte // without newline
	table int
	mark  cdc.SnapshotMark
}

// want is what a sequence asks its caller for.
type want int

const (
	haveRow   want = iota // the row is due
	needChunk             // call add with the next chunk
	freeChunk             // current was delivered: take it back with release
)

var errTornRow = errors.New("chunk of COPY ends inside a row")

// add takes the next chunk.
func (q *sequence) add(c *chunk) { q.current, q.rest = c, c.data }

// release gives the delivered chunk back.
func (q *sequence) release() *chunk {
	c := q.current
	q.current, q.rest = nil, nil
	return c
}

// next returns the next row, or what must be done first. Its data is valid until
// the next call.
func (q *sequence) next() (snapshotRow, want, error) {
	if q.current == nil {
		return snapshotRow{}, needChunk, nil
	}
	t := &q.tables[q.current.table]
	if len(q.rest) > 0 && q.pending.full {
		q.pending.full = false
		return q.deliver(q.pending.data, q.pending.table, true), haveRow, nil
	}
	if len(q.rest) > 0 && t.held.full {
		t.held.full = false
		return q.deliver(t.held.data, q.current.table, false), haveRow, nil
	}
	if len(q.rest) > 0 {
		end := bytes.IndexByte(q.rest, '\n')
		if end < 0 {
			return snapshotRow{}, haveRow, errTornRow
		}
		line := q.rest[:end:end]
		q.rest = q.rest[end+1:]
		if len(q.rest) > 0 {
			return q.deliver(line, q.current.table, false), haveRow, nil
		}
		t.held = heldRow{data: append(t.held.data[:0], line...), table: q.current.table, full: true}
	}
	if q.current.done {
		q.current.done = false
		t.pieces--
		if t.pieces == 0 && t.held.full {
			due := q.pending
			q.pending, t.held = t.held, heldRow{}
			if due.full {
				return q.deliver(due.data, due.table, true), haveRow, nil
			}
		}
	}
	return snapshotRow{}, freeChunk, nil
}

// last returns the last row of all, once every chunk was added; false where
// there is none.
func (q *sequence) last() (snapshotRow, bool) {
	if !q.pending.full {
		return snapshotRow{}, false
	}
	q.pending.full = false
	r := q.deliver(q.pending.data, q.pending.table, true)
	r.mark = cdc.MarkLast
	return r, true
}

func (q *sequence) deliver(data []byte, table int, last bool) snapshotRow {
	mark := cdc.MarkTrue
	t := &q.tables[table]
	if !t.started {
		mark, t.started = max(mark, cdc.MarkFirstInTable), true
	}
	if last {
		mark = max(mark, cdc.MarkLastInTable)
	}
	if !q.started {
		mark, q.started = max(mark, cdc.MarkFirst), true
	}
	return snapshotRow{data: data, table: table, mark: mark}
}
