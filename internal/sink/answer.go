package sink

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"

	"cdc/internal/cdc"
)

// answered takes the answer to a request, or why there is none, from a pipe.
func (w *Writer) answered(req *request, res []produced, err error) {
	now := time.Now()
	w.mu.Lock()
	w.unanswered--
	var fatal error
	switch {
	case err == nil:
	case w.owned:
		// No answer: the batches are in the log or not. Sending them again would be
		// right only if the broker knew them again, and one that was killed does not
		// always (Apache Kafka 3.9 and 4.4: the last batch of a partition, once in a
		// few kills). The log itself is asked instead.
		fatal = fmt.Errorf("%w (%w)", ErrNeedTakeOver, err)
	default:
		w.troubleLocked(err)
	}
	for i := range res {
		b := req.batches[i]
		switch code := kafka.Error(res[i].code); code {
		case 0, codeDuplicateSequence:
			b.acked = true
			b.target.unacked--
			b.target.proven = now
			req.set.left--
			w.troubled, w.tries = time.Time{}, 0
		default:
			if err := w.judgeLocked(b, code, res[i].message); err != nil && fatal == nil {
				fatal = err
			}
		}
	}
	w.advanceLocked()
	w.mu.Unlock()
	if fatal != nil {
		w.fail(fatal)
	}
	signal(w.wake)
}

// judgeLocked decides what a refusal of a batch means: trouble that resending
// mends, or the error to fail with.
func (w *Writer) judgeLocked(b *batch, code kafka.Error, message string) error {
	tp := b.target.tp
	err := fmt.Errorf("produce to %s: %w", tp, withMessage(code, message))
	switch {
	case transientCode(code) || code == kafka.Unknown:
		b.unsure = b.unsure || code == kafka.RequestTimedOut || code == kafka.NotEnoughReplicasAfterAppend || code == kafka.Unknown
		w.troubleLocked(err)
		return nil
	case code == kafka.OutOfOrderSequenceNumber || code == kafka.UnknownProducerId:
		if w.olderLocked(b) { // of course: the batch before it is not there yet
			w.troubleLocked(err)
			return nil
		}
		return fmt.Errorf("%w (%w)", ErrNeedTakeOver, err)
	case staleEpoch(code):
		w.stale = err
		return nil
	case code == kafka.InvalidTransactionState || code == kafka.InvalidProducerIDMapping:
		return fmt.Errorf("%w (%w)", ErrNeedTakeOver, err)
	case code == kafka.MessageSizeTooLarge || code == kafka.RecordListTooLarge:
		if b.count == 1 {
			return &RecordTooLargeError{Topic: tp.Topic, Partition: tp.Partition, Size: len(b.wire)}
		}
		// Splitting would need other sequences, and batches behind this one may be
		// on their way. The next Writer makes smaller batches.
		w.c.shrink(tp.Topic, len(b.buf)/2)
		return fmt.Errorf("%w (batches of %d records are too large for the topic and will be smaller: %w)", ErrNeedTakeOver, b.count, err)
	case code == kafka.InvalidTimestamp: // not of the record but of clocks: they may be set right
		return fmt.Errorf("%w (a record's time is further from the broker's clock than the topic's message.timestamp.after.max.ms or message.timestamp.before.max.ms allow: set the clocks of this host, of Postgres and of the broker right; it is tried again until then)", err)
	case code == kafka.UnsupportedCompressionType:
		return cdc.Terminal("compression", "Choose another compression for the pipeline, or allow this one on the broker.", "%w", err)
	}
	return w.explain(err, tp.Topic)
}

// explain makes refusals that no resending mends terminal.
func (w *Writer) explain(err error, topics ...string) error {
	if d := denied(err, rightWrite, w.c.user(), w.cfg.TransactionalID, topics...); cdc.IsTerminal(d) {
		return d
	}
	switch {
	case errors.Is(err, ErrClosed):
		return err
	case errors.Is(err, errVersion):
		return cdc.Terminal("broker-too-old", "Use Kafka 2.5 or newer.", "%w", err)
	}
	return cdc.Terminal("broker-refuses", "See the broker's log and the topic's settings for why it refuses the records.", "%w", err)
}

// olderLocked says that an older batch of the same partition is unacknowledged.
func (w *Writer) olderLocked(b *batch) bool {
	for _, s := range w.flight {
		for _, o := range s.batches {
			if o == b {
				return false
			}
			if o.target == b.target && !o.acked {
				return true
			}
		}
	}
	return false
}

// advanceLocked retires the acknowledged sets at the front.
func (w *Writer) advanceLocked() {
	n := 0
	for n < len(w.flight) && w.flight[n].left == 0 {
		s := w.flight[n]
		n++
		if s.marked {
			w.acked = s.mark
			signal(w.changed)
		}
		took := time.Since(s.sent)
		w.stats.LastAck = took
		w.stats.Acks.Observe(took)
		w.stats.Batches += uint64(len(s.batches))
		for _, b := range s.batches {
			w.stats.Records += uint64(b.count)
			w.stats.Bytes += uint64(len(b.buf))
			w.stats.Wire += uint64(len(b.wire))
		}
		w.buffered.Add(-s.bytes)
		w.pool.put(s)
	}
	if n == 0 {
		return
	}
	w.flight = slices.Delete(w.flight, 0, n)
	signal(w.space)
	if len(w.flight)+len(w.queue) == 0 && w.slot == nil {
		for _, ch := range w.idle {
			close(ch)
		}
		w.idle = w.idle[:0]
	}
}

// shrink remembers that a topic takes no larger batches than n.
func (c *Client) shrink(topic string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old, ok := c.limits[topic]; !ok || n < old {
		c.limits[topic] = n
	}
}
