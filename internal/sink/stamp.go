package sink

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/segmentio/kafka-go"

	"cdc/internal/cdc"
)

// Steps back from the end of a partition in search of its last data record.
const (
	// firstStepBack: the last batch is our marker, the one before it holds data mostly.
	firstStepBack = 2
	// stepFactor makes the steps longer where there are only markers or holes.
	stepFactor = 8
	// tailBytes is what is asked for of each partition when a marker is looked
	// for in many at once: a marker has 78 bytes.
	tailBytes = 512
	// tailChunk keeps the answer to such a question below a few megabytes.
	tailChunk = 500
)

// LastStamp is the stamp of the last data record of a partition: looked for from
// the high watermark backwards, over markers and the holes of compaction. Found
// is false where the partition holds no data record. It may be believed after
// TakeOver only, and for a partition to which this Writer has not yet written. A
// record that this service did not write is a ForeignRecordError.
func (w *Writer) LastStamp(ctx context.Context, tp cdc.TopicPartition) (stamp cdc.Stamp, found bool, err error) {
	ends, err := w.c.listOffsets(ctx, []cdc.TopicPartition{tp}, offsetEnd, controlDeadline)
	if err != nil {
		return stamp, false, fmt.Errorf("last record: %w", err)
	}
	starts, err := w.c.listOffsets(ctx, []cdc.TopicPartition{tp}, offsetStart, controlDeadline)
	if err != nil {
		return stamp, false, fmt.Errorf("last record: %w", err)
	}
	start, to := starts[tp], ends[tp]
	for back := int64(firstStepBack); to > start; back *= stepFactor {
		from := max(start, ends[tp]-back)
		stamp, found, err = w.c.lastIn(ctx, tp, from, to)
		if found || err != nil {
			return stamp, found, err
		}
		to = from
	}
	return stamp, false, nil
}

// lastIn is the stamp of the last data record in [from, to). The batch that holds
// from is read whole, so a record before from may be the one.
func (c *Client) lastIn(ctx context.Context, tp cdc.TopicPartition, from, to int64) (stamp cdc.Stamp, found bool, err error) {
	var m Message
	var scratch []byte
	var offset int64
	reason := ""
	err = c.scan(ctx, tp, from, to, func(h *batchHead) error {
		if h.control() || h.count == 0 {
			return nil
		}
		var it recordIter
		if it, scratch, err = h.iterate(scratch); err != nil {
			return err
		}
		for it.next(&m, func(b []byte) string { return string(b) }) {
			if m.Offset >= to {
				continue
			}
			var ok bool
			var bad error
			stamp, ok, bad = m.Stamp()
			found, offset, reason = true, m.Offset, ""
			if bad != nil {
				reason = bad.Error()
			} else if !ok {
				reason = "it has no position header"
			}
		}
		return it.err()
	})
	if err != nil {
		return cdc.Stamp{}, false, fmt.Errorf("last record of %s: %w", tp, err)
	}
	if reason != "" {
		return cdc.Stamp{}, false, &ForeignRecordError{Topic: tp.Topic, Partition: tp.Partition, Offset: offset, Reason: reason}
	}
	return stamp, found, nil
}

// scan calls f with every batch that has an offset in [from, to), uncommitted
// and markers alike. h is valid during the call.
func (c *Client) scan(ctx context.Context, tp cdc.TopicPartition, from, to int64, f func(h *batchHead) error) error {
	var frame []byte
	fresh := false
	for at := from; at < to; {
		var got fetched
		err := c.retry(ctx, controlDeadline, func(int) error {
			id, err := c.leaderOf(ctx, tp, fresh)
			if err != nil {
				return err
			}
			fresh = true
			k, err := c.brokerConn(ctx, id)
			if err != nil {
				return err
			}
			var fs []fetched
			fs, frame, err = k.fetch(ctx, &fetchRequest{parts: []fetchPart{{tp, at, fetchBytes}}, wait: fetchWait, maxBytes: fetchBytes}, frame)
			if err != nil {
				return err
			}
			if len(fs) != 1 {
				return fmt.Errorf("%w: answer for %d partitions, want 1", errMalformed, len(fs))
			}
			got = fs[0]
			if got.err == nil && len(got.records) == 0 && got.high < to {
				return kafka.OffsetNotAvailable // a new leader that does not know the high watermark yet
			}
			fresh = got.err != nil
			return got.err
		})
		if errors.Is(err, kafka.OffsetOutOfRange) { // retention moved the start
			return nil
		}
		if err != nil {
			return denied(fmt.Errorf("read %s from offset %d: %w", tp, at, err), rightRead, c.user(), "", tp.Topic)
		}
		n, began := 0, at
		for rest := got.records; ; n++ {
			h, left, ok, err := splitBatch(rest)
			if err != nil {
				return fmt.Errorf("read %s: %w", tp, err)
			}
			if !ok {
				break
			}
			rest = left
			if h.last < at {
				continue
			}
			if h.base >= to {
				return nil
			}
			if err := f(&h); err != nil {
				return err
			}
			at = h.last + 1
		}
		if n == 0 { // a hole up to the end
			return nil
		}
		if at == began {
			return fmt.Errorf("read %s: %w: batches before offset %d that was asked for", tp, errMalformed, at)
		}
	}
	return nil
}

// tails calls f with the last batch of each partition that ends in a batch of a
// single record, as markers are; of the others it may come or not.
func (c *Client) tails(ctx context.Context, tps []cdc.TopicPartition, ends map[cdc.TopicPartition]int64, f func(tp cdc.TopicPartition, h *batchHead)) error {
	return c.perLeader(ctx, tps, controlDeadline, func(id int32, tps []cdc.TopicPartition) error {
		k, err := c.brokerConn(ctx, id)
		if err != nil {
			return err
		}
		var frame []byte
		for chunk := range slices.Chunk(tps, tailChunk) {
			req := &fetchRequest{maxBytes: int32(tailBytes * len(chunk))}
			for _, tp := range chunk {
				req.parts = append(req.parts, fetchPart{tp, ends[tp] - 1, tailBytes})
			}
			var fs []fetched
			if fs, frame, err = k.fetch(ctx, req, frame); err != nil {
				return err
			}
			for _, p := range fs {
				if p.err != nil {
					if errors.Is(p.err, kafka.OffsetOutOfRange) {
						continue
					}
					tp := chunk[p.index]
					return denied(fmt.Errorf("read %s: %w", tp, p.err), rightRead, c.user(), "", tp.Topic)
				}
				h, _, ok, err := splitBatch(p.records)
				if err != nil {
					return fmt.Errorf("read %s: %w", chunk[p.index], err)
				}
				if ok && h.last == ends[chunk[p.index]]-1 {
					f(chunk[p.index], &h)
				}
			}
		}
		return nil
	})
}
