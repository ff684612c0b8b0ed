package cdc

// Op is what happened to a row. The letters are Debezium's.
type Op byte

// The operations.
const (
	OpInsert   Op = 'c'
	OpUpdate   Op = 'u'
	OpDelete   Op = 'd'
	OpRead     Op = 'r' // a row of the snapshot
	OpTruncate Op = 't'
	OpMessage  Op = 'm' // pg_logical_emit_message
)

func (o Op) String() string { return string(rune(o)) }

// ValueKind tells what a Value holds. The letters are pgoutput's.
type ValueKind byte

// The kinds of value.
const (
	Null      ValueKind = 'n'
	Unchanged ValueKind = 'u' // out-of-line value that the update left alone and the stream left out
	Text      ValueKind = 't' // Postgres' text form under the pinned session settings
)

// Value is one column of a row. Data aliases a buffer of the source and is valid
// until the next event is asked for.
type Value struct {
	Data []byte
	Kind ValueKind
}

// SnapshotMark says where in the snapshot a row stands (Debezium's source.snapshot).
type SnapshotMark byte

// The snapshot marks, in rising order of precedence for a row that is several at once.
const (
	MarkNone SnapshotMark = iota // streamed
	MarkTrue
	MarkFirstInTable
	MarkLastInTable
	MarkFirst
	MarkLast
	MarkIncremental // read while the stream went on: a chunk, a repair
)

// Tx is the source transaction a change belongs to.
type Tx struct {
	XID        uint32 // the low 32 bits of the transaction id
	Final      LSN    // start of the commit record
	PrevEnd    LSN    // end of the transaction before it in the stream, 0 until one was seen
	CommitTime int64  // microseconds since 1970-01-01 UTC; an origin's own where Origin is set
	Origin     string // replication origin, "" for none
	OriginLSN  LSN
}

// Change is one change of a row. It and everything it points to, Relation
// excepted, is valid until the next event is asked for: the source reuses it.
type Change struct {
	Op       Op
	Relation *Relation
	Tx       *Tx
	LSN      LSN    // start of the row's own WAL record: for information, never for order
	Index    uint32 // number of the row change in its transaction, from 1
	// Old is the row before. OldFull: all columns (REPLICA IDENTITY FULL);
	// otherwise only identity columns are real and the rest are not NULLs but
	// unknown. Nil: the stream sent none, the key did not change.
	Old     []Value
	OldFull bool
	// New is the row after; nil on delete. The source has already filled
	// Unchanged values from Old where Old has them.
	New  []Value
	Mark SnapshotMark
	// Refilled: Unchanged values were read back from a row whose version may be
	// newer than this change; a later record of the key follows then.
	Refilled bool
	// MessageIndex numbers the messages of a transaction from 1. They do not count
	// as changes: Index is that of the change before them.
	MessageIndex uint32
	// Prefix, Content and Transactional belong to OpMessage alone, which has no Relation.
	Prefix        string
	Content       []byte
	Transactional bool
}

// EventKind tells what an Event is.
type EventKind byte

// The events of a stream.
const (
	// EventChange: Event.Change is set.
	EventChange EventKind = iota + 1
	// EventCommit: every change of Event.Tx was delivered; Event.End is the end
	// of its commit record, the position to resume from and to confirm.
	EventCommit
	// EventIdle: the server has sent everything up to Event.End and nothing is
	// open. Once all delivered changes are acknowledged, End may be confirmed.
	EventIdle
	// EventTick: nothing arrived for a tick of the stream's clock; the caller may
	// do its housekeeping. Nothing else is set.
	EventTick
)

// Event is what a stream delivers. It is valid until the next one is asked for.
type Event struct {
	Kind   EventKind
	Change *Change
	Tx     *Tx
	End    LSN
	// Asked: the server wants an answer now (it is shutting down, or has not heard
	// from us for half of wal_sender_timeout). Only with EventIdle.
	Asked bool
}
