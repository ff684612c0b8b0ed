// Package eventlog gives the events of a store their positions: it reads the slot
// of es.event and writes es.log in the order of the commits in the WAL.
//
// The invariant: es.log has every committed event exactly once, at positions 1, 2,
// 3, … without a gap, in the order of the commit records and inside a transaction
// in the order of its statements. es.reader.lsn is never ahead of es.log (they are
// written in one transaction), and the slot never ahead of es.reader.lsn (it is
// confirmed afterwards). So whatever is killed, the stream begins again at or before
// es.reader.lsn, and what commits before that is left out: a transaction of the
// source is numbered wholly or not at all.
//
//	     ┌ waiting: another instance holds the slot, or the lock of es.log
//	     ▼
//	begin ── the slot can send everything behind es.reader ──────────▶ stream
//	     └── it cannot: first start, slot lost or moved, other server     ▲
//	              └─▶ adopt: temporary slot and its snapshot; the events  │
//	                  without a position get one; then the slot is kept ──┘
//
// A slot that is lost loses nothing here, since the store has every event: only the
// commit order of those in the gap is not known any more.
package eventlog
