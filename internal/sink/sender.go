package sink

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"

	"cdc/internal/cdc"
)

// Waits between resends.
const (
	resendFirst = 5 * time.Millisecond
	resendMost  = time.Second
)

type job byte

const (
	jobWait   job = iota
	jobSend       // a set for the first time
	jobResend     // everything in flight that is not acknowledged
	jobStale      // find out whose the newer epoch is
	jobEnd
)

// run is the sender: the only goroutine that seals, sends and opens pipes.
func (w *Writer) run(ctx context.Context) {
	defer close(w.done)
	defer w.shutPipes()
	linger := time.NewTimer(time.Hour)
	defer linger.Stop()
	unwatch := context.AfterFunc(ctx, func() { w.fail(fmt.Errorf("writer: %w", context.Cause(ctx))) })
	defer unwatch()
	for {
		j, s, wait := w.next()
		switch j {
		case jobEnd:
			return
		case jobSend:
			w.pack(s)
			w.seal(s)
			if w.cfg.Discard {
				w.discard(s)
				continue
			}
			w.transmit(ctx, s, s.batches)
		case jobResend:
			w.resend(ctx)
		case jobStale:
			w.whose(ctx)
		case jobWait:
			linger.Reset(wait)
			select {
			case <-w.failed:
			case <-w.wake:
			case <-linger.C:
			}
		}
	}
}

// next decides what the sender does.
func (w *Writer) next() (j job, s *set, wait time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	wait = time.Hour // something wakes the sender earlier
	switch {
	case w.err != nil:
		return jobEnd, nil, 0
	case w.stale != nil:
		return jobStale, nil, 0
	case w.trouble != nil:
		if w.unanswered > 0 { // drain: what was answered meanwhile need not go out again
			return jobWait, nil, wait
		}
		return jobResend, nil, 0
	case len(w.flight) >= w.cfg.InFlight:
		return jobWait, nil, wait
	case len(w.queue) > 0:
		if w.unprovenLocked(w.queue[0]) {
			return jobWait, nil, wait // an answer wakes the sender
		}
		s = w.queue[0]
		w.queue = slices.Delete(w.queue, 0, 1)
	case w.slot != nil && len(w.flight) == 0:
		if w.cfg.Linger > 0 {
			if left := w.cfg.Linger - time.Since(w.slot.born); left > 0 {
				return jobWait, nil, left
			}
		}
		s, w.slot = w.slot, nil
	default:
		return jobWait, nil, wait
	}
	s.left = len(s.batches)
	s.sent = time.Now()
	for _, b := range s.batches {
		b.target.unacked++
	}
	w.flight = append(w.flight, s)
	return jobSend, s, 0
}

// provenFor is how long after an acknowledgement a partition is believed to know
// this producer's sequence. Brokers forget after producer.id.expiration.ms, a day
// unless configured otherwise.
const provenFor = 10 * time.Minute

// unprovenLocked says that a batch of s must not follow one that is in flight. A
// broker that knows no sequence of this producer in the partition takes any for
// the first: if it refused the batch in flight and took the one behind it, the
// partition would no longer be a prefix of its share of the stream, and its last
// stamp would lie. So the first batch of a partition, and the first after a long
// pause, travels alone.
func (w *Writer) unprovenLocked(s *set) bool {
	if len(w.flight) == 0 {
		return false
	}
	now := time.Now()
	for _, b := range s.batches {
		if t := b.target; t.unacked > 0 && now.Sub(t.proven) > provenFor {
			return true
		}
	}
	return false
}

// pack compresses the batches of a set, on as many cores as there are.
func (w *Writer) pack(s *set) {
	workers := min(runtime.GOMAXPROCS(0), len(s.batches))
	if w.codec == codecNone || workers == 1 {
		for _, b := range s.batches {
			b.pack(w.codec)
		}
		return
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := next.Add(1) - 1; int(i) < len(s.batches); i = next.Add(1) - 1 {
				s.batches[i].pack(w.codec)
			}
		})
	}
	wg.Wait()
}

// seal gives the batches of a set their sequences, in the order of the sets.
func (w *Writer) seal(s *set) {
	for _, b := range s.batches {
		sequence := int32(-1)
		if w.owned {
			sequence = b.target.sequence
			b.target.sequence = nextSequence(sequence, b.count)
		}
		b.seal(w.owner, sequence)
	}
}

// transmit sends batches of a set, one request to each leader. What cannot be
// sent is trouble.
func (w *Writer) transmit(ctx context.Context, s *set, batches []*batch) {
	if err := w.lead(ctx, batches); err != nil {
		w.troubleWith(err)
		return
	}
	slices.SortFunc(batches, func(a, b *batch) int {
		x, y := a.target, b.target
		return cmp.Or(cmp.Compare(x.leader, y.leader), cmp.Compare(x.tp.Topic, y.tp.Topic), cmp.Compare(x.tp.Partition, y.tp.Partition))
	})
	for len(batches) > 0 {
		n := 1
		for n < len(batches) && batches[n].target.leader == batches[0].target.leader {
			n++
		}
		p, err := w.pipe(ctx, batches[0].target.leader)
		if err != nil {
			w.troubleWith(err)
			return
		}
		w.mu.Lock()
		w.unanswered++
		w.mu.Unlock()
		p.send(&request{set: s, batches: batches[:n:n]})
		batches = batches[n:]
	}
}

// discard takes a set for acknowledged that was never sent.
func (w *Writer) discard(s *set) {
	w.mu.Lock()
	s.left = 0
	w.advanceLocked()
	w.mu.Unlock()
}

// lead fills in the leaders that are not known.
func (w *Writer) lead(ctx context.Context, batches []*batch) error {
	var missing []cdc.TopicPartition
	for _, b := range batches {
		if b.target.leader < 0 {
			missing = append(missing, b.target.tp)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	by, err := w.c.group(ctx, missing, false)
	if err != nil {
		return err
	}
	leaders := make(map[cdc.TopicPartition]int32, len(missing))
	for id, tps := range by {
		for _, tp := range tps {
			leaders[tp] = id
		}
	}
	for _, b := range batches {
		if b.target.leader < 0 {
			b.target.leader = leaders[b.target.tp]
		}
	}
	return nil
}

// pipe is the pipe to a node, opened where there is none that works.
func (w *Writer) pipe(ctx context.Context, id int32) (*pipe, error) {
	w.mu.Lock()
	p := w.pipes[id]
	w.mu.Unlock()
	if p != nil {
		if !p.k.broken() && time.Since(p.used) < pipeIdle {
			return p, nil
		}
		w.mu.Lock()
		delete(w.pipes, id)
		w.mu.Unlock()
		p.shut()
	}
	k, err := w.c.dialNode(ctx, id)
	if err != nil {
		return nil, err
	}
	if p, err = newPipe(w, k); err != nil {
		k.close()
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pipes[id] = p
	if w.err != nil {
		k.close() // fail has been here already
	}
	return p, nil
}

func (w *Writer) shutPipes() {
	w.mu.Lock()
	pipes := w.pipes
	w.pipes = nil
	w.mu.Unlock()
	for _, p := range pipes {
		p.shut()
	}
}

// troubleWith notes trouble from the sender itself.
func (w *Writer) troubleWith(err error) {
	if !transient(err) {
		w.fail(w.explain(err))
		return
	}
	w.mu.Lock()
	w.troubleLocked(err)
	w.mu.Unlock()
}

func (w *Writer) troubleLocked(err error) {
	if w.trouble == nil {
		w.trouble = err
	}
	if w.troubled.IsZero() {
		w.troubled = time.Now()
	}
}

// answered takes the answer to a request, or why there is none, from a pipe.
func (w *Writer) answered(req *request, res []produced, err error) {
	now := time.Now()
	w.mu.Lock()
	w.unanswered--
	var fatal error
	if err != nil {
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
	case code == kafka.UnsupportedCompressionType:
		return cdc.Terminal("compression", "Choose another compression for the pipeline, or allow this one on the broker.", "%w", err)
	}
	return w.explain(err, tp.Topic)
}

// explain makes refusals that no resending mends terminal.
func (w *Writer) explain(err error, topics ...string) error {
	if d := denied(err, w.c.user(), w.cfg.TransactionalID, topics...); cdc.IsTerminal(d) {
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

// resend sends everything in flight again that is not acknowledged: the same
// bytes, in the same order, to the leaders of now. Nothing is on the wire.
func (w *Writer) resend(ctx context.Context) {
	w.mu.Lock()
	reason, since, tries := w.trouble, w.troubled, w.tries
	w.trouble = nil
	w.tries++
	type part struct {
		s       *set
		batches []*batch
	}
	var parts []part
	var tps []cdc.TopicPartition
	for _, s := range w.flight {
		p := part{s: s}
		for _, b := range s.batches {
			if !b.acked {
				p.batches = append(p.batches, b)
				tps = append(tps, b.target.tp)
			}
		}
		if len(p.batches) > 0 {
			parts = append(parts, p)
		}
	}
	w.stats.Resends += uint64(len(tps))
	w.mu.Unlock()

	if lasted := time.Since(since); !since.IsZero() && lasted > w.cfg.RetryDeadline {
		w.fail(fmt.Errorf("%d batches were sent again for %s and not acknowledged: %w", len(tps), lasted.Round(time.Second), reason))
		return
	}
	if tries == 0 {
		w.log.Info("kafka: sending unacknowledged batches again", "batches", len(tps), "reason", reason)
	}
	sleep(ctx, min(resendFirst<<min(tries, 10), resendMost))
	if err := w.c.learn(ctx, tps); err != nil {
		w.troubleWith(err)
		return
	}
	for _, p := range parts {
		for _, b := range p.batches {
			b.target.leader = -1
		}
	}
	for _, p := range parts {
		if w.inTrouble() {
			return // what follows must not overtake what could not be sent
		}
		w.transmit(ctx, p.s, p.batches)
	}
}

func (w *Writer) inTrouble() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.trouble != nil || w.err != nil
}

// whose asks the coordinator whether the newer epoch belongs to another owner:
// then our own id and epoch are refused. Either way this Writer has ended.
func (w *Writer) whose(ctx context.Context) {
	w.mu.Lock()
	cause := w.stale
	w.mu.Unlock()
	err := w.c.initProducer(ctx, w.cfg.TransactionalID, w.owner)
	switch {
	case err == nil:
		err = fmt.Errorf("%w (%w)", ErrNeedTakeOver, cause)
	case staleEpoch(codeOf(err)):
		err = w.c.fenced(w.cfg.TransactionalID, cause)
	default:
		err = fmt.Errorf("%w (%w; asking for the owner: %w)", ErrNeedTakeOver, cause, err)
	}
	w.fail(err)
}

// shrink remembers that a topic takes no larger batches than n.
func (c *Client) shrink(topic string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old, ok := c.limits[topic]; !ok || n < old {
		c.limits[topic] = n
	}
}
