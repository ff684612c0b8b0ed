package eventlog

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/eventstore"
	"cdc/internal/intent"
)

// follow numbers what the stream delivers until ctx ends or something breaks.
func (l *life) follow(ctx context.Context) error {
	l.n.hook("stream")
	st, err := l.src.Stream(ctx, l.reader.LSN, 0)
	if err != nil {
		return err
	}
	l.stream, l.seen, l.wrote = st, l.reader.LSN, time.Now()
	l.confirm()
	st.BeforeRead(func() {
		if l.err == nil && !l.inTx && !l.w.Empty() {
			l.err = l.settle()
		}
	})
	l.n.enter(cdc.StateStreaming, "")
	for {
		ev, err := st.Next(ctx)
		if err == nil {
			err = l.err
		}
		if err == nil {
			err = l.event(ctx, ev)
		}
		switch {
		case ctx.Err() != nil:
			return l.stop(ctx)
		case errors.Is(err, eventstore.ErrNumbered):
			l.n.distrust("es.reader stood before events that have a position")
			return err
		case err != nil:
			return err
		}
	}
}

func (l *life) event(ctx context.Context, ev *cdc.Event) error {
	switch ev.Kind {
	case cdc.EventChange:
		l.inTx = true
		return l.take(ctx, ev.Change)
	case cdc.EventCommit:
		return l.commit(ev)
	case cdc.EventIdle:
		l.seen = max(l.seen, ev.End)
		if ev.Asked { // perhaps Postgres shuts down, and waits for us while our own session is gone
			if err := l.w.Ping(l.io); err != nil {
				return err
			}
		}
	}
	if l.inTx {
		return nil
	}
	if !l.w.Empty() { // what the hook could not commit yet
		return l.settle()
	}
	return l.rest()
}

// take puts one change into the batch.
func (l *life) take(ctx context.Context, c *cdc.Change) error {
	if c.Op == cdc.OpMessage {
		l.barrier = true
		return nil
	}
	id := -1
	if c.Op != cdc.OpTruncate {
		if id = column(c.Relation); id < 0 {
			return cdc.Terminal("publication-columns", fmt.Sprintf("ALTER PUBLICATION %q DROP TABLE %s; -- it is added again as it must be", l.n.cfg.Source.Publication, Table),
				"the stream of %s has no column id", Table)
		}
	}
	if c.Op != cdc.OpInsert {
		return l.alarm(c, id)
	}
	event, err := eventID(c.New, id)
	if err != nil {
		return err
	}
	if l.tx != c.Tx.Final {
		l.tx = c.Tx.Final
		l.txs++
	}
	l.w.Add(event, c.Tx.Final, c.Tx.XID)
	if !l.w.Full() {
		return nil
	}
	return l.write(ctx)
}

// write empties the chunk into the open transaction. The stream stands still while
// the commit of its rows is not visible; Postgres still hears from us.
func (l *life) write(ctx context.Context) error {
	pause := time.Millisecond
	for {
		err := l.w.Write(l.io)
		if err == nil {
			l.n.hook("rows")
		}
		if !errors.Is(err, eventstore.ErrNotVisible) {
			return err
		}
		l.notVisible()
		if err := sleep(ctx, pause); err != nil {
			return err
		}
		pause = min(2*pause, visibleAtOnce)
		if err := l.stream.Tick(ctx); err != nil {
			return err
		}
	}
}

// alarm records what should not be possible: a stored event was changed.
func (l *life) alarm(c *cdc.Change, id int) error {
	t := eventstore.Tampering{LSN: c.Tx.Final, Tx: c.Tx.XID, Operation: "truncate", At: time.UnixMicro(c.Tx.CommitTime)}
	if c.Op != cdc.OpTruncate {
		row := c.Old
		if row == nil {
			row = c.New
		}
		var err error
		if t.Event, err = eventID(row, id); err != nil {
			return err
		}
		t.Operation = map[cdc.Op]string{cdc.OpUpdate: "update", cdc.OpDelete: "delete"}[c.Op]
	}
	if l.alarmed != t.LSN { // once a transaction: es.alarm has them all
		l.log.Error("a stored event was changed: somebody went round the triggers of es.event",
			"operation", t.Operation, "event", t.Event, "tx", t.Tx, "lsn", t.LSN)
	}
	l.alarmed = t.LSN
	l.alarms++
	return l.w.Alarm(l.io, t)
}

// commit is the end of a transaction of the source. The batch goes on while more is
// at hand; the stream's hook ends it when nothing is.
func (l *life) commit(ev *cdc.Event) error {
	l.inTx, l.seen = false, ev.End
	barrier := l.barrier
	l.barrier = false
	if barrier || l.w.Size() >= batchEvents {
		return l.settle()
	}
	return nil
}

// settle commits the batch: log, reader, then the slot. A commit that is not
// visible in a moment is tried again at the next tick.
func (l *life) settle() error {
	events, alarms := l.w.Size(), l.alarms
	l.n.hook("commit")
	until := time.Now().Add(visibleAtOnce)
	for pause := 100 * time.Microsecond; ; pause *= 2 {
		err := l.w.Commit(l.io, l.seen)
		if err == nil {
			break
		}
		if !errors.Is(err, eventstore.ErrNotVisible) {
			return err
		}
		if time.Now().After(until) {
			l.notVisible()
			return nil
		}
		if err := sleep(l.io, pause); err != nil {
			return err
		}
	}
	l.n.hook("committed")
	l.late, l.wrote = time.Time{}, time.Now()
	txs := l.txs
	l.txs = 0
	l.moved()
	l.n.show(func(s *Status) {
		s.Events += uint64(events)
		s.Transactions += txs
		s.Alarms = alarms
		if events > 0 {
			s.Batches++
		}
	})
	l.confirm()
	return nil
}

// confirm tells the slot what es.reader says, never more.
func (l *life) confirm() {
	r, _ := l.w.Reader()
	l.stream.Confirm(r.LSN)
	l.n.hook("confirm")
	l.n.show(func(s *Status) { s.Received, s.Confirmed = l.seen, r.LSN })
}

// rest keeps es.reader, and with it the slot, near the end of the WAL while no
// events come, so that none is held for other tables' and databases' sake.
func (l *life) rest() error {
	if time.Since(l.wrote) < l.n.cfg.Idle {
		return nil
	}
	var err error
	if l.alarms, err = l.w.Alarms(l.io); err != nil { // acknowledged meanwhile?
		return err
	}
	alarms := l.alarms
	l.n.show(func(s *Status) { s.Alarms = alarms })
	if r, _ := l.w.Reader(); l.seen <= r.LSN {
		l.wrote = time.Now()
		return nil
	}
	l.n.hook("idle")
	return l.settle()
}

// notVisible says once in a while what holds numbering up.
func (l *life) notVisible() {
	now := time.Now()
	if l.late.IsZero() {
		l.late = now
	}
	if now.Sub(l.late) < lookEvery {
		return
	}
	l.late = now
	l.log.Warn("a committed transaction is not visible yet: does its commit wait for a synchronous standby?", "lsn", l.seen)
}

// stop ends a life in order: what was read as a whole is numbered and confirmed, so
// that the next start has nothing to repeat.
func (l *life) stop(ctx context.Context) error {
	r, _ := l.w.Reader()
	if l.inTx || l.err != nil || l.seen <= r.LSN {
		return context.Cause(ctx)
	}
	l.n.hook("stop")
	if err := l.settle(); err != nil {
		return err
	}
	if err := l.stream.ConfirmNow(l.io); err != nil {
		return err
	}
	return context.Cause(ctx)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// column is the ordinal of the column id, -1 where the stream has none.
func column(r *cdc.Relation) int {
	for i := range r.Columns {
		if r.Columns[i].Name == "id" {
			return i
		}
	}
	return -1
}

// eventID reads a UUID in Postgres' text form without an allocation.
func eventID(row []cdc.Value, at int) (id intent.ID, err error) {
	if at < 0 || at >= len(row) || row[at].Kind != cdc.Text || len(row[at].Data) != 36 {
		return intent.ID{}, fmt.Errorf("a row of %s has no id", Table)
	}
	text, from := row[at].Data, 0
	for i, digits := range [...]int{8, 4, 4, 4, 12} {
		if i > 0 && text[from-1] != '-' {
			return intent.ID{}, fmt.Errorf("a row of %s has an id that is no UUID", Table)
		}
		if _, err := hex.Decode(id[(from-i)/2:], text[from:from+digits]); err != nil {
			return intent.ID{}, fmt.Errorf("a row of %s has an id that is no UUID: %w", Table, err)
		}
		from += digits + 1
	}
	return id, nil
}
