package cdc

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// LSN is a byte position in Postgres' write-ahead log. Zero means "none".
type LSN uint64

// String writes an LSN as Postgres does: two hexadecimal halves, "16/B374D848".
func (l LSN) String() string {
	return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l))
}

// ParseLSN reads Postgres' text form and accepts nothing behind it.
func ParseLSN(s string) (LSN, error) {
	hi, lo, ok := strings.Cut(s, "/")
	if !ok {
		return 0, fmt.Errorf("parse LSN %q: want the form 16/B374D848", s)
	}
	h, errHi := strconv.ParseUint(hi, 16, 32)
	l, errLo := strconv.ParseUint(lo, 16, 32)
	if errHi != nil || errLo != nil {
		return 0, fmt.Errorf("parse LSN %q: want the form 16/B374D848", s)
	}
	return LSN(h<<32 | l), nil
}

// MarshalText and UnmarshalText give an LSN the same form in JSON.
func (l LSN) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (l *LSN) UnmarshalText(b []byte) (err error) {
	*l, err = ParseLSN(string(b))
	return err
}

// Position says where in the stream a record stands. Positions are totally
// ordered and strictly increase within a Kafka partition, so the last record of
// a partition says exactly what the partition holds.
//
// Tx is the start of the transaction's commit record (final_lsn of Begin), which
// is unique and increases in stream order. It is never the LSN of a row: rows of
// one COPY share theirs, and rows of a later transaction may have lower ones.
// Change counts the changes of the transaction from 1. Record counts the records
// of the change from 1: a key change writes several. Record 0 stands before the
// change (the unfinished records of a TRUNCATE carry it).
//
// Rows of the initial snapshot carry Tx = consistent point − 1, which no commit
// record can have (WAL records are aligned to 8 bytes) and which lies before
// every transaction of the stream and after every one in the snapshot; Change
// and Record together are then one running 64-bit number.
type Position struct {
	Tx     LSN
	Change uint32
	Record uint32
}

// IsZero says that there is no position.
func (p Position) IsZero() bool { return p == Position{} }

// Compare orders positions: -1, 0 or +1.
func (p Position) Compare(q Position) int {
	if c := cmp.Compare(p.Tx, q.Tx); c != 0 {
		return c
	}
	if c := cmp.Compare(p.Change, q.Change); c != 0 {
		return c
	}
	return cmp.Compare(p.Record, q.Record)
}

// Before says that p stands before q.
func (p Position) Before(q Position) bool { return p.Compare(q) < 0 }

func (p Position) String() string { return fmt.Sprintf("%s:%d:%d", p.Tx, p.Change, p.Record) }

// EndOf is a position behind every record of the transaction committed at tx.
func EndOf(tx LSN) Position { return Position{Tx: tx, Change: math.MaxUint32, Record: math.MaxUint32} }

// SnapshotPosition is the position of the n-th row (from 1) of the initial
// snapshot taken at a consistent point.
func SnapshotPosition(consistent LSN, n uint64) Position {
	return Position{Tx: consistent - 1, Change: uint32(n >> 32), Record: uint32(n)}
}

// Generation names one life of a pipeline's positions: it is chosen when a
// snapshot begins and kept in the progress record. Positions of another
// generation, left in a topic by a pipeline that was dropped or by another
// server, say nothing about this stream.
type Generation uint32

// Stamp is what a record carries in its header StampHeader.
type Stamp struct {
	Generation Generation
	Position   Position
}

const (
	// StampHeader is the key of the header that holds a record's Stamp.
	StampHeader = "p"
	// StampSize is the length of its value: big-endian generation (4 bytes),
	// transaction (8), change (4), record (4).
	StampSize = 20
)

// AppendStamp appends the binary form of s to dst.
func AppendStamp(dst []byte, s Stamp) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(s.Generation))
	dst = binary.BigEndian.AppendUint64(dst, uint64(s.Position.Tx))
	dst = binary.BigEndian.AppendUint32(dst, s.Position.Change)
	return binary.BigEndian.AppendUint32(dst, s.Position.Record)
}

// ParseStamp reads the value of a StampHeader.
func ParseStamp(b []byte) (Stamp, error) {
	if len(b) != StampSize {
		return Stamp{}, fmt.Errorf("position header has %d bytes, want %d", len(b), StampSize)
	}
	return Stamp{
		Generation: Generation(binary.BigEndian.Uint32(b)),
		Position: Position{
			Tx:     LSN(binary.BigEndian.Uint64(b[4:])),
			Change: binary.BigEndian.Uint32(b[12:]),
			Record: binary.BigEndian.Uint32(b[16:]),
		},
	}, nil
}
