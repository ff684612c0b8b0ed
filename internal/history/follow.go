package history

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/intent"
	"cdc/internal/sink"
)

// set is a callback of Log.
func (p *place) set(ev *intent.Event) error {
	p.pos, p.id, p.at = ev.Position, ev.ID, ev.At
	return nil
}

// follow publishes from the progress on until ctx ends or something breaks. parent
// is the caller's context: its end is an order to stop, any other end of ctx is not.
func (l *life) follow(ctx, parent context.Context) error {
	l.hook(HookFollow)
	l.p.enter(cdc.StateReplaying, nil)
	l.catchUp()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if parent.Err() != nil {
			return l.stop(parent)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := l.keepHouse(ctx, time.Now()); err != nil {
			return err
		}
		wake := l.w.Space()
		if !l.w.Full() {
			if l.cfg.Head.Pos() > l.read.pos {
				err := l.chunk(ctx)
				if errors.Is(err, errCategories) {
					if stopErr := l.rest(ctx, false); stopErr != nil {
						return stopErr
					}
				}
				if err != nil {
					return err
				}
				l.catchUp()
				continue
			}
			wake = l.cfg.Head.After(l.read.pos)
		}
		l.w.Handover()
		timer.Reset(l.due())
		select {
		case <-ctx.Done():
		case <-l.w.Failed():
			return l.failure()
		case <-l.w.Changed():
		case <-wake:
		case <-timer.C:
		}
	}
}

// catchUp notes when everything that was there at the start has been read.
func (l *life) catchUp() {
	if !l.caughtUp && l.read.pos >= l.replayTo {
		l.caughtUp = true
		l.p.enter(cdc.StateStreaming, nil)
	}
}

// errChunk ends the reading of the log when enough was read.
var errChunk = errors.New("enough")

// chunk reads a piece of the log and appends it. The statement behind Log is never
// kept waiting for Kafka: what the piece needs to know of partitions or topics is
// gathered, asked behind it, and the rest of the piece read again.
func (l *life) chunk(ctx context.Context) error {
	l.strange, l.unasked = l.strange[:0], l.unasked[:0]
	seen, events, bytes := l.read.pos, 0, 0
	var bad error
	_, err := l.cfg.Store.Log(ctx, l.read.pos, l.limit, nil, func(ev *intent.Event) error {
		if ev.Position != seen+1 {
			bad = cdc.Terminal("log-gap", "Restore the store: positions in es.log are given without a gap.",
				"behind position %d the log goes on at %d", seen, ev.Position)
			return bad
		}
		seen = ev.Position
		events++
		bytes += len(ev.Data) + len(ev.Meta) + len(ev.Stream)
		if bad = l.take(ev); bad != nil {
			return bad
		}
		if bytes >= chunkBytes {
			return errChunk
		}
		return nil
	})
	switch {
	case bad != nil:
		return bad
	case bytes >= chunkBytes:
		l.limit = max(1, events) // rows behind the last one were sent for nothing
	case err != nil:
		return fmt.Errorf("read the log behind position %d: %w", l.read.pos, err)
	case events == 0:
		// Somebody has told of a later position, and Log sees none.
		return fmt.Errorf("the log ends at position %d, events up to %d were numbered", l.read.pos, l.cfg.Head.Pos())
	default:
		l.limit = min(2*l.limit, chunkEvents)
	}
	l.mark()
	l.show()
	if len(l.strange) > 0 {
		for _, category := range l.strange {
			l.p.found[category] = true
		}
		return errCategories
	}
	return l.ask(ctx)
}

// take appends one event, or leaves it out. Behind one whose topic or partition is
// not known yet nothing is appended, only looked at.
func (l *life) take(ev *intent.Event) error {
	category := intent.Category(ev.Stream)
	t := l.categories[category]
	if t == nil {
		if !slices.Contains(l.strange, category) && len(l.strange) < maxTopics {
			l.strange = append(l.strange, category)
		}
		return nil
	}
	rec := l.enc.encode(ev)
	p := t.partitions[sink.Partition(rec.Key, int32(len(t.partitions)))]
	if !p.asked {
		if !p.queued {
			p.queued = true
			l.unasked = append(l.unasked, p)
		}
		return nil
	}
	if len(l.strange)+len(l.unasked) > 0 {
		return nil
	}
	if ev.Position > p.last {
		err := l.w.Append(p.target, rec, cdc.Stamp{Generation: l.p.generation, Position: cdc.Position{Tx: cdc.LSN(ev.Position)}})
		if err != nil {
			return l.explain(fmt.Errorf("event %s at position %d: %w", ev.ID, ev.Position, err))
		}
		l.tally.records++
	} else {
		l.tally.skipped++
	}
	return l.read.set(ev)
}

// mark tells the writer how far everything was appended.
func (l *life) mark() {
	if l.read.pos == l.marked || len(l.places) >= maxPlaces {
		return // later: a mark may come in the place of others
	}
	l.places = append(l.places, l.read)
	l.marked = l.read.pos
	l.w.Mark(l.markOf(l.read))
}

func (l *life) markOf(p place) sink.Mark {
	return sink.Mark{
		Position: cdc.Position{Tx: cdc.LSN(p.pos)}, End: cdc.LSN(p.pos), CommitTime: p.at.UnixMicro(),
		Recorded: cdc.LSN(l.progress.Position),
	}
}

// keepHouse is everything that is not done per event.
func (l *life) keepHouse(ctx context.Context, now time.Time) error {
	select {
	case <-l.w.Failed():
		return l.failure()
	default:
	}
	l.advance()
	l.mark()
	l.watch(now)
	switch since := now.Sub(l.wrote); {
	case since >= heartbeat:
		if err := l.askHead(ctx); err != nil {
			return err
		}
	case since < progressEvery || l.acked.pos == l.progress.Position:
		return nil
	}
	return l.putProgress(l.acked, false)
}

// advance takes over what was acknowledged.
func (l *life) advance() {
	newest := l.w.Acked()
	acked := int64(newest.End)
	l.recorded = int64(newest.Recorded)
	n := 0
	for n < len(l.places) && l.places[n].pos <= acked {
		l.acked = l.places[n]
		n++
	}
	l.places = slices.Delete(l.places, 0, n)
}

// due is when keepHouse has to write.
func (l *life) due() time.Duration {
	every := heartbeat
	if l.acked.pos != l.progress.Position {
		every = progressEvery
	}
	return max(0, time.Until(l.wrote.Add(every)))
}

// putProgress appends a progress record.
func (l *life) putProgress(at place, released bool) error {
	l.hook(HookProgress)
	now := time.Now()
	next := Progress{
		Format: progressFormat, Store: l.cfg.StoreID, Generation: l.p.generation,
		Position: at.pos, Event: at.id, Released: released, At: now.UTC(),
	}
	rec, err := encode(progressKey, next, now)
	if err != nil {
		return err
	}
	if err := l.w.Append(l.progressTo, rec, cdc.Stamp{}); err != nil {
		return fmt.Errorf("write progress record: %w", err)
	}
	l.progress, l.wrote = next, now
	l.w.Mark(l.markOf(l.read))
	return nil
}

// stop ends a life in order: what was read is acknowledged and recorded, and whoever
// waits may take over.
func (l *life) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
	defer cancel()
	if err := l.rest(ctx, true); err != nil {
		return err
	}
	l.hook(HookStop)
	l.log.Info("publication stopped in order", "position", l.acked.pos)
	return nil
}

// rest waits until everything is acknowledged, and records it.
func (l *life) rest(ctx context.Context, released bool) error {
	if err := l.flush(ctx); err != nil {
		return err
	}
	l.places = l.places[:0]
	l.acked, l.marked = l.read, l.read.pos
	if err := l.putProgress(l.acked, released); err != nil {
		return err
	}
	if err := l.flush(ctx); err != nil {
		return err
	}
	l.p.note(func(s *Status) { s.Position, s.Recorded = l.acked.pos, l.acked.pos })
	return nil
}

func (l *life) flush(ctx context.Context) error {
	err := l.w.Flush(ctx)
	if err != nil && l.w.Err() != nil {
		return l.failure()
	}
	return err
}

// show publishes what was counted.
func (l *life) show() {
	l.p.note(func(s *Status) {
		s.Records += l.tally.records
		s.Skipped += l.tally.skipped
	})
	l.tally = tally{}
}

// watch publishes how far the acknowledgements are.
func (l *life) watch(now time.Time) {
	buffered := l.w.Stats().Buffered
	var behind time.Time
	if len(l.places) > 0 {
		behind = l.places[0].at
	}
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	s, v := &l.p.status, l.p.now
	switch {
	case buffered == 0:
		v.waited = time.Time{}
	case v.waited.IsZero() || s.Position != l.acked.pos:
		v.waited = now
	}
	s.Position, s.Recorded, v.behind = l.acked.pos, l.recorded, behind
}
