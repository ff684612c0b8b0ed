package sink

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"

	"cdc/internal/cdc"
)

// Limits of a Reader.
const (
	// fetchWait is how long a broker holds a fetch back at the end of the log: it
	// answers at once when something arrives.
	fetchWait = 500 * time.Millisecond
	// fetchBytes is what one fetch asks for; a batch larger than that still comes whole.
	fetchBytes = 1 << 20
	// internLimit bounds the header keys a Reader keeps as strings; topics use a handful.
	internLimit = 128
)

// Message is a record read from a topic. It and everything in it is valid until
// the next one is asked for.
type Message struct {
	Offset        int64
	Time          int64 // milliseconds since 1970-01-01 UTC
	Key           []byte
	Value         []byte // nil: a tombstone
	Headers       []cdc.Header
	ProducerID    int64 // -1: written without idempotence
	ProducerEpoch int16
}

// Stamp is the position in the message's header. ok is false where it has none.
func (m *Message) Stamp() (s cdc.Stamp, ok bool, err error) { return stampOf(m.Headers) }

// Reader reads one partition in order, over a connection of its own. Records of
// aborted transactions are left out, transaction markers never show. It is used
// by one goroutine; HighWatermark may be asked by any.
type Reader struct {
	c         *Client
	tp        cdc.TopicPartition
	next      int64 // offset the next message has at least
	committed bool
	high      atomic.Int64
	stable    int64 // how far this reader may see: last stable offset, or high where not committed
	drained   bool  // the last fetch brought nothing
	restale   bool  // the leader is to be asked for again

	k       *conn
	frame   []byte // memory of the last answer; records alias it
	rest    []byte // batches of it that are not yet read
	scratch []byte // memory of a decompressed batch
	head    batchHead
	it      recordIter
	inBatch bool
	aborted []abortedTxn   // of the last answer, not yet begun
	open    map[int64]bool // producers inside an aborted transaction
	msg     Message
	keys    map[string]string
}

// NewReader reads a partition from an offset on (0 or below: from the first
// record there is). Nothing is sent before Next.
func (c *Client) NewReader(tp cdc.TopicPartition, from int64) *Reader {
	r := &Reader{c: c, tp: tp, next: max(0, from), committed: true, open: map[int64]bool{}, keys: map[string]string{}}
	r.high.Store(-1)
	return r
}

// HighWatermark is the end of the partition as of the last fetch, -1 before the first.
func (r *Reader) HighWatermark() int64 { return r.high.Load() }

// Close gives the reader's connection up. The reader may be used again.
func (r *Reader) Close() error {
	if r.k != nil {
		r.k.close()
		r.k = nil
	}
	return nil
}

// Next returns the next record; at the end of the log it blocks until one
// arrives or ctx is done. Errors that can pass (a leader moves, a connection is
// cut) are retried inside for half a minute at most.
func (r *Reader) Next(ctx context.Context) (*Message, error) {
	for {
		m, err := r.buffered()
		if m != nil || err != nil {
			return m, err
		}
		if err := r.fill(ctx, fetchWait); err != nil {
			return nil, err
		}
	}
}

// ReadAll calls fn with each record of [from, to) and returns when it has read up
// to `to`, also where compaction or an abort has left nothing there. It blocks
// where `to` lies beyond the end of the log, or behind an open transaction.
func (c *Client) ReadAll(ctx context.Context, tp cdc.TopicPartition, from, to int64, fn func(*Message) error) error {
	r := c.NewReader(tp, from)
	defer func() { _ = r.Close() }() // never fails
	return r.until(ctx, to, fn)
}

// until is ReadAll on a reader.
func (r *Reader) until(ctx context.Context, to int64, fn func(*Message) error) error {
	for r.next < to {
		m, err := r.buffered()
		if err != nil {
			return err
		}
		if m == nil {
			// What was fetched may have ended in markers; and a stretch of the log that
			// is all hole up to its end brings nothing, ever.
			if r.next >= to || r.drained && r.stable >= to {
				return nil
			}
			if err := r.fill(ctx, fetchWait); err != nil {
				return err
			}
			continue
		}
		if m.Offset >= to {
			return nil
		}
		if err := fn(m); err != nil {
			return err
		}
	}
	return nil
}

// buffered returns the next record of what was fetched, nil where it is used up.
func (r *Reader) buffered() (*Message, error) {
	for {
		if r.inBatch {
			for r.it.next(&r.msg, r.intern) {
				if r.msg.Offset >= r.next { // a fetch inside a batch brings all of it
					r.next = r.msg.Offset + 1
					return &r.msg, nil
				}
			}
			if err := r.it.err(); err != nil {
				return nil, fmt.Errorf("read %s: %w", r.tp, err)
			}
			r.inBatch = false
			r.next = max(r.next, r.head.last+1)
		}
		h, rest, ok, err := splitBatch(r.rest)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", r.tp, err)
		}
		if !ok {
			r.rest = nil
			return nil, nil
		}
		r.rest = rest
		if err := r.enter(h); err != nil {
			return nil, fmt.Errorf("read %s: %w", r.tp, err)
		}
	}
}

// enter begins a batch, or passes it by: markers, aborted records, and what lies
// before the offset that was asked for.
func (r *Reader) enter(h batchHead) error {
	skip := h.control() || h.last < r.next
	if r.committed {
		for len(r.aborted) > 0 && r.aborted[0].first <= h.last {
			r.open[r.aborted[0].producer] = true
			r.aborted = r.aborted[1:]
		}
		if h.control() {
			if commit, ok := h.marker(); ok && !commit {
				delete(r.open, h.producer.id)
			}
		} else if h.transactional() && r.open[h.producer.id] {
			skip = true
		}
	}
	r.head = h
	if skip {
		r.next = max(r.next, h.last+1)
		return nil
	}
	it, scratch, err := r.head.iterate(r.scratch)
	if err != nil {
		return err
	}
	r.it, r.scratch, r.inBatch = it, scratch, true
	return nil
}

// fill fetches from r.next on. It may bring nothing.
func (r *Reader) fill(ctx context.Context, wait time.Duration) error {
	r.inBatch, r.rest, r.drained = false, nil, false
	err := r.c.retry(ctx, controlDeadline, func(int) error {
		err := r.fetch(ctx, wait)
		if err != nil && transient(err) {
			_ = r.Close() // never fails; the next attempt asks for the leader
			r.restale = true
		}
		return err
	})
	if err != nil {
		return denied(fmt.Errorf("read %s from offset %d: %w", r.tp, r.next, err), rightRead, r.c.user(), "", r.tp.Topic)
	}
	return nil
}

func (r *Reader) fetch(ctx context.Context, wait time.Duration) error {
	if r.k == nil || r.k.broken() {
		id, err := r.c.leaderOf(ctx, r.tp, r.restale)
		if err != nil {
			return err
		}
		if r.k, err = r.c.dialNode(ctx, id); err != nil {
			return err
		}
		r.restale = false
	}
	req := &fetchRequest{
		parts: []fetchPart{{r.tp, r.next, fetchBytes}}, wait: wait,
		maxBytes: fetchBytes, committed: r.committed,
	}
	fs, frame, err := r.k.fetch(ctx, req, r.frame)
	r.frame = frame
	if err != nil {
		return err
	}
	if len(fs) != 1 {
		return fmt.Errorf("%w: answer for %d partitions, want 1", errMalformed, len(fs))
	}
	f := fs[0]
	if errors.Is(f.err, kafka.OffsetOutOfRange) {
		return r.outOfRange(ctx)
	}
	if f.err != nil {
		return f.err
	}
	r.high.Store(f.high)
	r.stable = f.high
	if r.committed && f.stable >= 0 {
		r.stable = f.stable
	}
	clear(r.open)
	slices.SortFunc(f.aborted, func(a, b abortedTxn) int { return cmp.Compare(a.first, b.first) })
	r.aborted, r.rest = f.aborted, f.records
	r.drained = len(f.records) == 0
	if h, _, ok, err := splitBatch(r.rest); err == nil && !r.drained && (!ok || h.last < r.next) {
		return fmt.Errorf("%w: %d bytes without a whole record batch at offset %d", errMalformed, len(r.rest), r.next)
	}
	return nil
}

// outOfRange goes on at the first record where retention or DeleteRecords took
// what lies before it. Beyond the end it is an error: the log was cut, or is another.
func (r *Reader) outOfRange(ctx context.Context) error {
	start, end, err := r.c.Offsets(ctx, []cdc.TopicPartition{r.tp})
	if err != nil {
		return err
	}
	switch {
	case r.next < start[r.tp]:
		r.next = start[r.tp]
		return nil
	case r.next <= end[r.tp]:
		return kafka.OffsetNotAvailable // the replica that answered lags behind: again
	}
	return fmt.Errorf("offset %d lies beyond the end of the log at %d: the topic was made anew or has lost records: %w", r.next, end[r.tp], kafka.OffsetOutOfRange)
}

// intern makes a header key a string without an allocation a record.
func (r *Reader) intern(b []byte) string {
	if s, ok := r.keys[string(b)]; ok {
		return s
	}
	s := string(b)
	if len(r.keys) < internLimit {
		r.keys[s] = s
	}
	return s
}
