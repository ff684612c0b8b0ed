package pipeline

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/format"
	"cdc/internal/sink"
)

// follow streams from the progress record until ctx ends or something breaks.
func (l *life) follow(ctx context.Context) error {
	l.hook("stream-start")
	st, err := l.src.Stream(ctx, l.progress.End, l.progress.PrevEnd)
	if err != nil {
		return err
	}
	l.stream = st
	st.Confirm(l.confirmed)
	st.BeforeRead(l.w.Handover)
	l.w.Mark(l.mark)
	l.view.mu.Lock()
	l.view.stream = st
	l.view.mu.Unlock()
	l.replayTo = l.system.End
	l.at.reach(l.mark.End, 0)
	l.p.enter(cdc.StateReplaying, nil)
	for {
		ev, err := st.Next(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return l.stop(ctx)
			}
			return err
		}
		if err := l.event(ctx, ev); err != nil {
			if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
				return l.stop(ctx)
			}
			return err
		}
	}
}

func (l *life) event(ctx context.Context, ev *cdc.Event) error {
	switch ev.Kind {
	case cdc.EventChange:
		if err := l.take(ctx, ev.Change); err != nil {
			return err
		}
		if c := ev.Change; c.Tx != nil && c.Op != cdc.OpMessage {
			l.at.reach(c.Tx.Final, c.Index)
		}
		if err := l.room(ctx); err != nil {
			return err
		}
		// Rows look at the clock every few hundred only.
		if l.ticks++; l.ticks&0xff != 0 {
			return nil
		}
	case cdc.EventCommit:
		l.tally.transactions++
		l.mark.Position, l.mark.End, l.mark.PrevEnd, l.mark.CommitTime = cdc.EndOf(ev.Tx.Final), ev.End, ev.End, ev.Tx.CommitTime
		l.w.Mark(l.mark)
		l.at.reach(l.mark.End, 0)
	case cdc.EventIdle:
		l.idle(ev)
	}
	if now := time.Now(); now.Sub(l.house) >= houseEvery {
		return l.keepHouse(ctx, now)
	}
	return nil
}

// idle takes the server's own position over: everything before it was sent, and
// once every record is acknowledged it may be confirmed, so that a slot whose
// tables rest holds no WAL.
func (l *life) idle(ev *cdc.Event) {
	if ev.End <= l.mark.End || l.w.Acked().End != l.mark.End {
		return
	}
	l.mark.End = ev.End
	l.w.Mark(l.mark)
	l.at.reach(l.mark.End, 0)
	if ev.Asked { // Postgres is shutting down: it waits until we confirm all it sent
		l.wrote = time.Time{}
		l.house = time.Time{}
	}
}

// take handles one change of the stream.
func (l *life) take(ctx context.Context, c *cdc.Change) error {
	if c.Op == cdc.OpMessage {
		return l.message(c)
	}
	captured := l.captures[c.Relation.ID]
	if captured == nil {
		return l.foreign(c)
	}
	if c.Tx.Final < captured.since {
		return nil // in the table's own snapshot, perhaps under another key
	}
	r, err := l.routeOf(c.Relation)
	if err != nil {
		return l.unroutable(ctx, captured, err)
	}
	l.tally.changes++
	l.change, l.capture, l.record = c, r.capture, 0
	if err := l.copier.overtake(r, c); err != nil {
		return err
	}
	if c.Op == cdc.OpTruncate {
		return l.truncate(ctx, r)
	}
	if err := l.complete(ctx, r, c); err != nil {
		return err
	}
	return l.encode(r, c)
}

// foreign is a change of a table that is published and not captured. A table that
// was dropped and made again under a captured name is one at first: the life ends,
// and the next one finds the new table and copies it. What the stream still holds
// of the old one lies before that copy, so this happens once.
func (l *life) foreign(c *cdc.Change) error {
	if c.Relation == l.passed {
		return nil
	}
	for _, own := range l.order {
		same := own.table.Namespace == c.Relation.Namespace && own.table.Name == c.Relation.Name
		if same && c.Tx.Final >= own.since && l.cfg.Snapshot != SnapshotNever {
			return fmt.Errorf("table %s was dropped and made again: starting over, to copy the new one", own.table.FullName())
		}
	}
	l.passed = c.Relation
	return nil
}

// unroutable ends a life at a change that cannot be written. Where the key is
// another one the table's record goes too: the next start then copies the table
// and passes over the changes under the other key, also where the key has become
// the recorded one again by then.
func (l *life) unroutable(ctx context.Context, c *capture, cause error) error {
	var t *cdc.TerminalError
	if !errors.As(cause, &t) || t.Reason != reasonKeyChanged {
		return cause
	}
	if err := l.append(tablePrefix+c.table.FullName(), nil); err != nil {
		return err
	}
	if err := l.flush(ctx); err != nil {
		return err
	}
	return cause
}

// encode writes the records of a change. A value that cannot be said in the
// format stops the pipeline: trying again gives the same, and leaving it out
// would be a silent null.
func (l *life) encode(r *route, c *cdc.Change) error {
	if err := r.enc.Encode(c, l); err != nil {
		return unsayable(c, err)
	}
	return nil
}

// unsayable stands apart from encode because what errors.As fills in is
// allocated where it is declared: once a row there.
func unsayable(c *cdc.Change, err error) error {
	var bad *format.ValueError
	if !errors.As(err, &bad) {
		return err
	}
	return cdc.Terminal("value",
		"Mend the row, leave the column out (columns: of the pipeline), or choose another format.",
		"change at %s: %w", c.LSN, err)
}

// message publishes a logical message. A transactional one stands between the
// changes of its transaction, so it takes the number of the change before it and
// a record number no change has: leaving messages out, or letting more of them
// in, renumbers nothing.
func (l *life) message(c *cdc.Change) error {
	if l.messageTo == nil {
		return nil
	}
	l.change, l.record = c, 0
	at := cdc.Position{Tx: c.LSN, Record: 1}
	if c.Tx != nil {
		at = cdc.Position{Tx: c.Tx.Final, Change: c.Index, Record: 1<<31 + c.MessageIndex}
	}
	return l.format.EncodeMessage(c, emitTo(func(r *cdc.Record) error { return l.put(l.messageTo, r, at) }))
}

type emitTo func(*cdc.Record) error

func (f emitTo) Emit(r *cdc.Record) error { return f(r) }

// room waits until the writer has room again. The socket is not read meanwhile:
// that is the back-pressure; Postgres still hears from us.
func (l *life) room(ctx context.Context) error {
	if !l.w.Full() {
		return nil
	}
	l.w.Handover()
	tick := time.NewTicker(houseEvery)
	defer tick.Stop()
	for l.w.Full() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.w.Failed():
			return l.failure()
		case <-l.w.Space():
		case now := <-tick.C:
			if err := l.tickStream(ctx); err != nil {
				return err
			}
			if err := l.keepHouse(ctx, now); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *life) tickStream(ctx context.Context) error {
	if l.stream == nil {
		return nil
	}
	return l.stream.Tick(ctx)
}

// keepHouse is everything that is not done per row: it writes the progress
// record, confirms, and lets others see how far the life has come.
func (l *life) keepHouse(ctx context.Context, now time.Time) error {
	l.house = now
	select {
	case <-l.w.Failed():
		return l.failure()
	default:
	}
	acked := l.w.Acked()
	if l.stream != nil && acked.Recorded > l.confirmed {
		l.hook("confirm")
		l.confirmed, l.advanced = acked.Recorded, true
		l.stream.Confirm(l.confirmed)
	}
	every := idleProgressEvery
	if acked.Position.Tx != l.progress.Tx {
		every = progressEvery
	}
	if acked.End > l.progress.End && now.Sub(l.wrote) >= every {
		if err := l.writeProgress(acked, now); err != nil {
			return err
		}
	}
	if l.stream != nil && l.replayTo != 0 && (l.mark.End >= l.replayTo || l.stream.ServerEnd() >= l.replayTo && acked.End == l.mark.End) {
		l.replayTo = 0
		l.p.enter(cdc.StateStreaming, nil)
	}
	if err := l.redeem(acked.Ticket); err != nil {
		return err
	}
	if err := l.copier.step(ctx); err != nil {
		return err
	}
	l.obey()
	l.show(acked, now)
	return ctx.Err()
}

// current: the stream has passed everything that earlier lives wrote.
func (l *life) current() bool {
	return l.stream != nil && l.replayTo == 0 && l.mark.End >= l.system.End
}

// passedTo is the position up to which every commit was delivered.
func (l *life) passedTo() cdc.LSN { return max(l.mark.End, l.at.tx) }

// writeProgress appends a progress record for an acknowledged mark. It is
// confirmed to the slot when the record itself is acknowledged.
func (l *life) writeProgress(acked sink.Mark, now time.Time) error {
	l.hook("progress")
	next := l.progress
	next.Tx, next.End, next.PrevEnd = acked.Position.Tx, acked.End, acked.PrevEnd
	return l.putProgress(next, now)
}

func (l *life) putProgress(next Progress, now time.Time) error {
	next.Format, next.At = progressFormat, now.UTC()
	next.System, next.Timeline, next.Database, next.Slot = l.system.ID, l.system.Timeline, l.system.Database, l.cfg.Source.Slot
	rec, err := encode(progressKey, next)
	if err != nil {
		return err
	}
	if err := l.w.Append(l.progressTo.target, rec, cdc.Stamp{}); err != nil {
		return fmt.Errorf("write progress record: %w", err)
	}
	l.progress, l.wrote = next, now
	l.mark.Recorded = next.End
	l.w.Mark(l.mark)
	return nil
}

// failure is the writer's error as the pipeline sees it.
func (l *life) failure() error {
	err := l.w.Err()
	if errors.Is(err, sink.ErrRecordTooLarge) {
		return cdc.Terminal("record-too-large", mendTooLarge, "publish: %w", err)
	}
	return fmt.Errorf("publish: %w", err)
}

// stop ends a life in order: what was read is acknowledged, recorded and
// confirmed, so that the next start has nothing to replay.
func (l *life) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
	defer cancel()
	ctx, end := context.WithCancelCause(ctx)
	var guard sync.WaitGroup
	guard.Go(func() { l.guardStop(ctx, end) })
	defer guard.Wait()
	defer end(nil)
	if err := l.flush(ctx); err != nil {
		return err
	}
	if acked := l.w.Acked(); acked.End > l.progress.End {
		if err := l.writeProgress(acked, time.Now()); err != nil {
			return err
		}
		if err := l.flush(ctx); err != nil {
			return err
		}
	}
	l.hook("stop-confirm")
	if l.stream == nil {
		return nil
	}
	l.confirmed = max(l.confirmed, l.w.Acked().Recorded)
	l.stream.Confirm(l.confirmed)
	if err := l.stream.ConfirmNow(ctx); err != nil {
		return err
	}
	l.log.Info("stopped in order", "confirmed", l.confirmed)
	return nil
}

// guardStop ends a stop that takes longer because a topic is gone: nothing that is
// sent to it again will be acknowledged.
func (l *life) guardStop(ctx context.Context, end context.CancelCauseFunc) {
	select {
	case <-ctx.Done():
	case <-time.After(stopGuardEvery):
		if err := l.guard(stopGuardEvery).Run(ctx); err != nil {
			end(err)
		}
	}
}

// flush waits until everything appended is acknowledged, and answers Postgres
// meanwhile.
func (l *life) flush(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- l.w.Flush(ctx) }()
	return l.await(ctx, done)
}

// await waits for work that another goroutine does for this one.
func (l *life) await(ctx context.Context, done <-chan error) error {
	tick := time.NewTicker(houseEvery)
	defer tick.Stop()
	var broken error
	for {
		select {
		case err := <-done:
			if broken != nil {
				return broken
			}
			if err != nil && l.w.Err() != nil {
				return l.failure()
			}
			return err
		case <-tick.C:
			if broken == nil {
				broken = l.tickStream(ctx)
			}
		}
	}
}
