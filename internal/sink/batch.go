package sink

import (
	"encoding/binary"
	"hash/crc32"

	"cdc/internal/cdc"
)

// headerLen is the length of a record batch's header (magic 2).
const headerLen = 61

// leastRoom is what a batch of a partition has room for of which nothing is known.
const leastRoom = 512

// Places in the header of a record batch.
const (
	atLength          = 8 // of what follows it
	atLeaderEpoch     = 12
	atMagic           = 16
	atCRC             = 17 // CRC-32C of everything from atAttributes on
	atAttributes      = 21
	atLastOffsetDelta = 23
	atBaseTime        = 27
	atMaxTime         = 35
	atProducerID      = 43
	atProducerEpoch   = 51
	atSequence        = 53
	atCount           = 57
)

// Bits of a batch's attributes above the codec.
const (
	attrCodec         = 0x07
	attrLogAppendTime = 1 << 3 // the broker's time, in the batch's maximum, counts for every record
	attrTransactional = 1 << 4
	attrControl       = 1 << 5 // a marker: commit or abort
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// batch is a record batch being filled, then sealed and sent for one partition.
// It is filled by the appending goroutine, sealed by the sender, and is nobody's
// once its set is acknowledged. Sealed bytes never change: a resend is the same.
type batch struct {
	target *Target
	buf    []byte // header (written by seal) and records
	packed []byte // header and compressed records; its capacity is kept
	wire   []byte // what is sent: buf or packed; nil until sealed
	count  int32
	first  int64 // time of the first record
	max    int64 // newest time
	acked  bool  // guarded by Writer.mu once the set is closed
	unsure bool  // likewise: refused in a way that leaves open whether it is in the log
	via    *pipe // that carried it last; the sender's
}

// reset makes b an empty batch of t, with room for as much as t's last batch held
// and a little more: a quiet partition's stay small, and a busy one's do not grow
// step by step, which would leave four times their size as garbage.
func (b *batch) reset(t *Target) {
	if room := max(leastRoom, min(t.room+t.room/8, t.limit)); cap(b.buf) < room {
		b.buf = make([]byte, headerLen, room)
	}
	*b = batch{target: t, buf: b.buf[:headerLen], packed: b.packed[:0]}
}

// stampHeaderLen is the length of the stamp as a record header: key length, key,
// value length, value.
const stampHeaderLen = 1 + len(cdc.StampHeader) + 1 + cdc.StampSize

// recordLen is the length of the body of a record and of all of it, the body's
// length included.
func (b *batch) recordLen(r *cdc.Record, stamped bool) (body, all int) {
	var dt int64
	if b.count > 0 {
		dt = r.Time - b.first
	}
	headers := len(r.Headers)
	body = 1 + varintLen(dt) + varintLen(int64(b.count)) + bytesLen(r.Key) + bytesLen(r.Value)
	if stamped {
		headers++
		body += stampHeaderLen
	}
	body += varintLen(int64(headers))
	for i := range r.Headers {
		h := &r.Headers[i]
		body += varintLen(int64(len(h.Key))) + len(h.Key) + bytesLen(h.Value)
	}
	return body, varintLen(int64(body)) + body
}

// bytesLen is the length of b with its length in front; nil is -1.
func bytesLen(b []byte) int {
	if b == nil {
		return 1
	}
	return varintLen(int64(len(b))) + len(b)
}

// add appends a record whose body has the length recordLen gave.
func (b *batch) add(r *cdc.Record, s cdc.Stamp, stamped bool, body int) {
	if b.count == 0 {
		b.first, b.max = r.Time, r.Time
	} else if r.Time > b.max {
		b.max = r.Time
	}
	p := binary.AppendVarint(b.buf, int64(body))
	p = append(p, 0) // attributes, unused
	p = binary.AppendVarint(p, r.Time-b.first)
	p = binary.AppendVarint(p, int64(b.count))
	p = appendVarbytes(p, r.Key)
	p = appendVarbytes(p, r.Value)
	headers := len(r.Headers)
	if stamped {
		headers++
	}
	p = binary.AppendVarint(p, int64(headers))
	if stamped {
		p = binary.AppendVarint(p, int64(len(cdc.StampHeader)))
		p = append(p, cdc.StampHeader...)
		p = binary.AppendVarint(p, cdc.StampSize)
		p = cdc.AppendStamp(p, s)
	}
	for i := range r.Headers {
		h := &r.Headers[i]
		p = binary.AppendVarint(p, int64(len(h.Key)))
		p = append(p, h.Key...)
		p = appendVarbytes(p, h.Value)
	}
	b.buf = p
	b.count++
}

func appendVarbytes(dst, b []byte) []byte {
	if b == nil {
		return binary.AppendVarint(dst, -1)
	}
	dst = binary.AppendVarint(dst, int64(len(b)))
	return append(dst, b...)
}

// producer is what makes a batch idempotent. Its zero value is not valid: a
// batch without a producer carries noProducer.
type producer struct {
	id    int64
	epoch int16
}

var noProducer = producer{id: -1, epoch: -1}

// pack compresses the records, or leaves them where that gains nothing. Batches
// are packed concurrently.
func (b *batch) pack(c codec) {
	b.wire = b.buf
	attributes := codecNone
	if c != codecNone {
		b.packed = append(b.packed[:0], b.buf[:headerLen]...)
		b.packed = c.compress(b.packed, b.buf[headerLen:])
		if len(b.packed) < len(b.buf) {
			b.wire, attributes = b.packed, c
		}
	}
	binary.BigEndian.PutUint16(b.wire[atAttributes:], uint16(attributes))
}

// seal writes the header of a packed batch. From here on its bytes are final.
func (b *batch) seal(p producer, sequence int32) {
	be, h := binary.BigEndian, b.wire
	be.PutUint64(h, 0) // base offset: the broker's
	be.PutUint32(h[atLength:], uint32(len(h)-atLeaderEpoch))
	be.PutUint32(h[atLeaderEpoch:], 0xffffffff)
	h[atMagic] = 2
	be.PutUint32(h[atLastOffsetDelta:], uint32(b.count-1))
	be.PutUint64(h[atBaseTime:], uint64(b.first))
	be.PutUint64(h[atMaxTime:], uint64(b.max))
	be.PutUint64(h[atProducerID:], uint64(p.id))
	be.PutUint16(h[atProducerEpoch:], uint16(p.epoch))
	be.PutUint32(h[atSequence:], uint32(sequence))
	be.PutUint32(h[atCount:], uint32(b.count))
	be.PutUint32(h[atCRC:], crc32.Checksum(h[atAttributes:], castagnoli))
}

// nextSequence is the sequence behind n records that begin at s: 31 bits, after
// the highest comes 0 (DefaultRecordBatch.incrementSequence).
func nextSequence(s, n int32) int32 {
	return int32((uint32(s) + uint32(n)) & 0x7fffffff)
}
