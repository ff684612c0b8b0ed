package sink

import (
	"encoding/binary"
	"net"
	"time"

	"github.com/segmentio/kafka-go/protocol"
)

// Versions of Produce that we speak: record batches (KIP-98) to the last one
// that is not flexible. zstd needs 7.
const (
	produceMin     = 3
	produceMinZstd = 7
	produceMax     = 8
)

// request is one Produce: batches of one set whose partitions have one leader.
type request struct {
	set     *set
	batches []*batch // sorted by topic
}

// produced is the answer for one batch.
type produced struct {
	code    int16
	message string // what the broker says to an error, "" mostly
}

// appendProduce frames a Produce (v3 to v8) around the batches: bufs gets pieces
// of head and the batches' own bytes in turn, for one writev. head is written
// anew from its beginning; the pieces are cut when it has its final place.
func (k *conn) appendProduce(head []byte, bufs net.Buffers, v int16, batches []*batch, timeout time.Duration) ([]byte, net.Buffers) {
	be := binary.BigEndian
	head = k.request(head[:0], protocol.Produce, v)
	head = be.AppendUint16(head, 0xffff) // transactional id: none, the batches are not transactional
	head = be.AppendUint16(head, 0xffff) // acks: all in-sync replicas
	head = be.AppendUint32(head, uint32(timeout/time.Millisecond))
	topics := 0
	for i := range batches {
		if i == 0 || batches[i].target.tp.Topic != batches[i-1].target.tp.Topic {
			topics++
		}
	}
	head = be.AppendUint32(head, uint32(topics))
	total := 0
	first := len(bufs)
	for i := 0; i < len(batches); {
		topic, n := batches[i].target.tp.Topic, 1
		for i+n < len(batches) && batches[i+n].target.tp.Topic == topic {
			n++
		}
		head = appendString(head, topic)
		head = be.AppendUint32(head, uint32(n))
		for ; n > 0; n, i = n-1, i+1 {
			b := batches[i]
			head = be.AppendUint32(head, uint32(b.target.tp.Partition))
			head = be.AppendUint32(head, uint32(len(b.wire)))
			total += len(b.wire)
			// head may move while it grows: only the length of its piece is right so far.
			bufs = append(bufs, head[:len(head):len(head)], b.wire)
		}
	}
	be.PutUint32(head, uint32(len(head)-4+total))
	at := 0
	for i := first; i < len(bufs); i += 2 {
		end := len(bufs[i])
		bufs[i] = head[at:end:end]
		at = end
	}
	return head, bufs
}

// parseProduce reads a Produce answer (v3 to v8) into out, one for each batch.
func parseProduce(frame []byte, v int16, corr int32, batches []*batch, out []produced) ([]produced, error) {
	out = out[:0]
	for range batches {
		out = append(out, produced{code: unanswered})
	}
	d := decoder{b: frame}
	if got := d.int32(); d.err == nil && got != corr {
		d.fail("answer to request %d, want %d", got, corr)
	}
	hint := 0
	for topics := d.array(6); topics > 0 && d.err == nil; topics-- {
		topic := d.string()
		for parts := d.array(22); parts > 0 && d.err == nil; parts-- {
			partition := d.int32()
			p := produced{code: d.int16()}
			d.int64() // base offset
			d.int64() // log append time
			if v >= 5 {
				d.int64() // log start offset
			}
			if v >= 8 {
				for n := d.array(6); n > 0; n-- {
					d.int32() // index of a record in the batch
					d.string()
				}
				p.message = string(d.string())
			}
			if d.err != nil {
				break
			}
			i := findBatch(batches, hint, topic, partition)
			if i < 0 {
				d.fail("answer for a partition that was not sent to")
				break
			}
			out[i] = p
			hint = i + 1
		}
	}
	d.int32() // throttle: the broker mutes the connection itself (KIP-219)
	d.end()
	if d.err == nil {
		for i := range out {
			if out[i].code == unanswered {
				d.fail("answer leaves out %s", batches[i].target.tp)
				break
			}
		}
	}
	return out, d.err
}

// unanswered marks a batch that an answer has not named; no error code is this low.
const unanswered int16 = -1 << 15

func findBatch(batches []*batch, hint int, topic []byte, partition int32) int {
	is := func(b *batch) bool {
		return b.target.tp.Partition == partition && b.target.tp.Topic == string(topic)
	}
	if hint < len(batches) && is(batches[hint]) {
		return hint
	}
	for i, b := range batches {
		if is(b) {
			return i
		}
	}
	return -1
}
