package sink

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"cdc/internal/cdc"
)

// batchHead is the header of a record batch as a fetch brings it.
type batchHead struct {
	base       int64 // offset of the first record, also where compaction removed it
	last       int64 // offset of the last one, likewise
	attributes int16
	firstTime  int64
	maxTime    int64
	producer   producer
	count      int32 // records that are still there
	records    []byte
}

func (h *batchHead) codec() codec        { return codec(h.attributes & attrCodec) }
func (h *batchHead) control() bool       { return h.attributes&attrControl != 0 }
func (h *batchHead) transactional() bool { return h.attributes&attrTransactional != 0 }

// splitBatch takes the first record batch off b. ok is false when b ends inside
// it: a fetch may cut the last batch off.
func splitBatch(b []byte) (h batchHead, rest []byte, ok bool, err error) {
	const magicEnd = atMagic + 1
	if len(b) < magicEnd {
		return h, nil, false, nil
	}
	if magic := int8(b[atMagic]); magic >= 0 && magic < 2 {
		return h, nil, false, fmt.Errorf("offset %d holds a message of format v%d, written before Kafka 0.11: only record batches (v2) can be read",
			int64(binary.BigEndian.Uint64(b)), magic)
	} else if magic != 2 {
		return h, nil, false, fmt.Errorf("%w: record batch format %d", errMalformed, magic)
	}
	length := int64(int32(binary.BigEndian.Uint32(b[atLength:])))
	if length < headerLen-atLeaderEpoch {
		return h, nil, false, fmt.Errorf("%w: record batch of %d bytes", errMalformed, length)
	}
	if length > int64(len(b)-atLeaderEpoch) {
		return h, nil, false, nil
	}
	whole := b[: atLeaderEpoch+length : atLeaderEpoch+length]
	rest = b[len(whole):]
	if want, got := binary.BigEndian.Uint32(whole[atCRC:]), crc32.Checksum(whole[atAttributes:], castagnoli); want != got {
		return h, nil, false, fmt.Errorf("%w: checksum of a record batch is %08x, its bytes have %08x", errMalformed, want, got)
	}
	d := decoder{b: whole[atAttributes:]}
	h.base = int64(binary.BigEndian.Uint64(whole))
	h.attributes = d.int16()
	delta := d.int32()
	h.firstTime = d.int64()
	h.maxTime = d.int64()
	h.producer = producer{id: d.int64(), epoch: d.int16()}
	d.int32() // base sequence
	h.count = d.int32()
	h.records = d.b
	h.last = h.base + int64(delta)
	if delta < 0 || h.count < 0 || h.base < 0 || h.last < h.base || int64(h.count) > int64(delta)+1 {
		return h, nil, false, fmt.Errorf("%w: record batch of %d records at offset %d to +%d", errMalformed, h.count, h.base, delta)
	}
	return h, rest, true, nil
}

// marker reads a control batch's record: whether it is a transaction's commit.
// Other control records (leader changes of KRaft) are not markers.
func (h *batchHead) marker() (commit, isMarker bool) {
	it, _, err := h.iterate(nil)
	var m Message
	if err != nil || !it.next(&m, nil) || len(m.Key) < 4 {
		return false, false
	}
	switch binary.BigEndian.Uint16(m.Key[2:]) {
	case 0:
		return false, true
	case 1:
		return true, true
	}
	return false, false
}

// recordIter walks the records of one batch.
type recordIter struct {
	head *batchHead
	left int32
	prev int64 // offset delta of the record before, to see that they rise
	d    decoder
}

// iterate begins with the first record of h. scratch, which may be nil, is
// memory to decompress into; the memory used is returned.
func (h *batchHead) iterate(scratch []byte) (recordIter, []byte, error) {
	it := recordIter{head: h, left: h.count, prev: -1}
	if h.codec() == codecNone {
		it.d.b = h.records
		return it, scratch, nil
	}
	out, err := h.codec().decompress(scratch[:0], h.records)
	if err != nil {
		return it, scratch, fmt.Errorf("record batch at offset %d: %w", h.base, err)
	}
	it.d.b = out
	return it, out, nil
}

// next reads one record into m, whose header slice it uses again. intern turns
// a header's key into a string. False: the batch ended, or err says what is wrong.
func (it *recordIter) next(m *Message, intern func([]byte) string) bool {
	if it.d.err != nil {
		return false
	}
	if it.left == 0 {
		it.d.end()
		return false
	}
	it.left--
	d := decoder{b: it.d.varbytes()}
	if it.d.err != nil {
		return false
	}
	d.int8() // attributes, unused
	dt := d.varint()
	delta := d.varint()
	if d.err == nil && (delta <= it.prev || delta > it.head.last-it.head.base) {
		d.fail("record at offset delta %d after %d in a batch to %d", delta, it.prev, it.head.last-it.head.base)
	}
	it.prev = delta
	headers := m.Headers[:0]
	*m = Message{
		Offset: it.head.base + delta, Time: it.head.firstTime + dt,
		Key: d.varbytes(), Value: d.varbytes(),
		ProducerID: it.head.producer.id, ProducerEpoch: it.head.producer.epoch,
	}
	if it.head.attributes&attrLogAppendTime != 0 {
		m.Time = it.head.maxTime
	}
	n := d.varint()
	if d.err == nil && (n < 0 || n > int64(len(d.b)/2)) { // a header has two bytes at least
		d.fail("%d headers in %d bytes", n, len(d.b))
	}
	for ; n > 0 && d.err == nil; n-- {
		k := d.varbytes()
		v := d.varbytes()
		if intern != nil && d.err == nil {
			headers = append(headers, cdc.Header{Key: intern(k), Value: v})
		}
	}
	m.Headers = headers
	d.end()
	if d.err != nil {
		it.d.err = fmt.Errorf("record batch at offset %d: %w", it.head.base, d.err)
		it.d.b = nil
		return false
	}
	return true
}

// err says why next stopped before the end of the batch.
func (it *recordIter) err() error { return it.d.err }

// stampOf finds a record's stamp among its headers.
func stampOf(headers []cdc.Header) (s cdc.Stamp, ok bool, err error) {
	for i := range headers {
		if headers[i].Key == cdc.StampHeader {
			s, err = cdc.ParseStamp(headers[i].Value)
			return s, err == nil, err
		}
	}
	return s, false, nil
}
