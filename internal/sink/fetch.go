package sink

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go/protocol"

	"cdc/internal/cdc"
)

// Versions of Fetch that we speak: from record batches (KIP-98) to the last one
// that is not flexible.
const (
	fetchMin = 4
	fetchMax = 11
)

// fetchRequest asks one broker for the records of some of its partitions.
type fetchRequest struct {
	parts     []fetchPart
	wait      time.Duration // how long the broker may hold the answer back where there is nothing
	maxBytes  int32         // of the whole answer; its first batch always comes whole
	committed bool
}

type fetchPart struct {
	tp       cdc.TopicPartition
	offset   int64
	maxBytes int32
}

// fetched is the answer for one partition. records aliases the frame.
type fetched struct {
	index   int // in fetchRequest.parts
	err     error
	high    int64 // high watermark
	stable  int64 // last stable offset
	start   int64 // first offset, -1 where the broker does not tell
	aborted []abortedTxn
	records []byte
}

// abortedTxn is a transaction whose records a committed reader must leave out:
// those of producer id from first up to its abort marker.
type abortedTxn struct {
	producer int64
	first    int64
}

// fetch sends one Fetch and reads its answer into frame, which it returns: the
// records of the partitions alias it.
func (k *conn) fetch(ctx context.Context, req *fetchRequest, frame []byte) ([]fetched, []byte, error) {
	v, err := k.version(protocol.Fetch, fetchMin)
	if err != nil {
		return nil, frame, err
	}
	v = min(v, fetchMax)
	var out []fetched
	err = k.exchange(ctx, func() error {
		if _, err := k.pc.Write(k.appendFetch(nil, v, req)); err != nil {
			return err
		}
		var err error
		if frame, err = readFrame(k.pc, frame[:0]); err != nil {
			return err
		}
		out, err = parseFetch(frame, v, k.corr, req)
		return err
	})
	if err != nil {
		return nil, frame, fmt.Errorf("fetch: %w", err)
	}
	return out, frame, nil
}

func (k *conn) appendFetch(b []byte, v int16, req *fetchRequest) []byte {
	be := binary.BigEndian
	b = k.request(b, protocol.Fetch, v)
	b = be.AppendUint32(b, 0xffffffff) // replica: a consumer
	b = be.AppendUint32(b, uint32(req.wait/time.Millisecond))
	b = be.AppendUint32(b, 1) // at least one byte, or the wait
	b = be.AppendUint32(b, uint32(req.maxBytes))
	isolation := byte(0)
	if req.committed {
		isolation = 1
	}
	b = append(b, isolation)
	if v >= 7 {
		b = be.AppendUint32(b, 0)          // session id: none
		b = be.AppendUint32(b, 0xffffffff) // epoch: full fetch, no session
	}
	runs := 0
	for i := range req.parts {
		if i == 0 || req.parts[i].tp.Topic != req.parts[i-1].tp.Topic {
			runs++
		}
	}
	b = be.AppendUint32(b, uint32(runs))
	for i := 0; i < len(req.parts); {
		topic, n := req.parts[i].tp.Topic, 1
		for i+n < len(req.parts) && req.parts[i+n].tp.Topic == topic {
			n++
		}
		b = appendString(b, topic)
		b = be.AppendUint32(b, uint32(n))
		for ; n > 0; n, i = n-1, i+1 {
			p := &req.parts[i]
			b = be.AppendUint32(b, uint32(p.tp.Partition))
			if v >= 9 {
				b = be.AppendUint32(b, 0xffffffff) // leader epoch: do not check
			}
			b = be.AppendUint64(b, uint64(p.offset))
			if v >= 5 {
				b = be.AppendUint64(b, ^uint64(0)) // log start: followers only
			}
			b = be.AppendUint32(b, uint32(p.maxBytes))
		}
	}
	if v >= 7 {
		b = be.AppendUint32(b, 0) // forgotten topics
	}
	if v >= 11 {
		b = appendString(b, "") // rack
	}
	be.PutUint32(b, uint32(len(b)-4))
	return b
}

// parseFetch reads a Fetch answer (v4 to v11).
func parseFetch(frame []byte, v int16, corr int32, req *fetchRequest) ([]fetched, error) {
	d := decoder{b: frame}
	if got := d.int32(); d.err == nil && got != corr {
		d.fail("answer to request %d, want %d", got, corr)
	}
	d.int32() // throttle
	var code int16
	if v >= 7 {
		code = d.int16()
		d.int32() // session
	}
	if d.err == nil && code != 0 {
		return nil, codeError(code)
	}
	var out []fetched
	for topics := d.array(6); topics > 0 && d.err == nil; topics-- {
		topic := d.string()
		for parts := d.array(30); parts > 0 && d.err == nil; parts-- {
			partition := d.int32()
			f := fetched{err: codeError(d.int16()), high: d.int64(), stable: d.int64(), start: -1}
			if v >= 5 {
				f.start = d.int64()
			}
			for n := d.array(16); n > 0; n-- {
				f.aborted = append(f.aborted, abortedTxn{producer: d.int64(), first: d.int64()})
			}
			if v >= 11 {
				d.int32() // preferred replica: we named no rack
			}
			f.records = d.bytes()
			if d.err != nil {
				break
			}
			if f.index = findPart(req.parts, len(out), topic, partition); f.index < 0 {
				d.fail("answer for a partition that was not asked for")
				break
			}
			out = append(out, f)
		}
	}
	d.end()
	return out, d.err
}

// findPart finds a partition of an answer in its request: brokers keep the
// order mostly, so hint is looked at first.
func findPart(parts []fetchPart, hint int, topic []byte, partition int32) int {
	if hint < len(parts) && parts[hint].tp.Partition == partition && parts[hint].tp.Topic == string(topic) {
		return hint
	}
	for i := range parts {
		if parts[i].tp.Partition == partition && parts[i].tp.Topic == string(topic) {
			return i
		}
	}
	return -1
}
