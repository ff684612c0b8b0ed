package sink

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

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
		if err := w.carry(p, batches[:n]); err != nil {
			w.fail(err)
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

// carry notes which pipe carries batches. One that may be in the log already is
// sent again over the same connection alone: another broker, or the same after a
// restart, need not know it again.
func (w *Writer) carry(p *pipe, batches []*batch) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, b := range batches {
		if w.owned && b.unsure && b.via != p {
			return fmt.Errorf("%w (a batch for %s may be there, and its broker is another)", ErrNeedTakeOver, b.target.tp)
		}
		b.via = p
	}
	return nil
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
