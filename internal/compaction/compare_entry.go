package compaction

import (
	"encoding/binary"
	"errors"
)

// The flags of a compareEntry. A record that is neither alive nor behind is dead.
const (
	entryRow byte = 1 << iota
	entryAlive
	entryOlder
	entryBehind
)

// compareEntry is a row or a record, as it lies in a bucket:
//
//	flags, hash (8), length of key, key, and
//	  of a row:    length of id, id, digest (16)
//	  of a record: partition, offset, and if alive: digest (16)
//
// Lengths, partition and offset are varints.
type compareEntry struct {
	flags     byte
	hash      uint64
	key       []byte
	id        []byte
	dig       [16]byte
	partition int32
	offset    int64
}

func (e *compareEntry) append(dst []byte) []byte {
	dst = append(dst, e.flags)
	dst = binary.LittleEndian.AppendUint64(dst, e.hash)
	dst = binary.AppendUvarint(dst, uint64(len(e.key)))
	dst = append(dst, e.key...)
	if e.flags&entryRow != 0 {
		dst = binary.AppendUvarint(dst, uint64(len(e.id)))
		dst = append(dst, e.id...)
		return append(dst, e.dig[:]...)
	}
	dst = binary.AppendVarint(dst, int64(e.partition))
	dst = binary.AppendVarint(dst, e.offset)
	if e.flags&entryAlive != 0 {
		dst = append(dst, e.dig[:]...)
	}
	return dst
}

var errEntryMalformed = errors.New("an entry is malformed")

// parse reads the entry at the front of b, into which key and id then point, and
// says how long it is.
func (e *compareEntry) parse(b []byte) (int, error) {
	r := entryReader{b: b}
	e.flags = 0
	if head := r.bytes(9); head != nil {
		e.flags, e.hash = head[0], binary.LittleEndian.Uint64(head[1:])
	}
	e.key, e.id = r.bytes(r.length()), nil
	switch {
	case e.flags&entryRow != 0:
		e.id = r.bytes(r.length())
	default:
		e.partition, e.offset = int32(r.varint()), r.varint()
	}
	if e.flags&(entryRow|entryAlive) != 0 {
		copy(e.dig[:], r.bytes(len(e.dig)))
	}
	if r.failed {
		return 0, errEntryMalformed
	}
	return r.at, nil
}

// entryReader never reads beyond b; the first failure sticks.
type entryReader struct {
	b      []byte
	at     int
	failed bool
}

func (r *entryReader) bytes(n int) []byte {
	if r.failed || n > len(r.b)-r.at {
		r.failed = true
		return nil
	}
	r.at += n
	return r.b[r.at-n : r.at : r.at]
}

func (r *entryReader) length() int {
	v, n := binary.Uvarint(r.b[r.at:])
	if n <= 0 || v > maxComparePart {
		r.failed = true
		return 0
	}
	r.at += n
	return int(v)
}

func (r *entryReader) varint() int64 {
	v, n := binary.Varint(r.b[r.at:])
	if n <= 0 {
		r.failed = true
		return 0
	}
	r.at += n
	return v
}
