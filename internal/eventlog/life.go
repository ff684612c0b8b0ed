package eventlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/eventstore"
	"cdc/internal/intent"
	"cdc/internal/source"
)

// life is one attempt: everything it learns dies with it. The goroutine that runs
// it owns the stream and the writer; a second one looks at the slot from outside.
type life struct {
	n   *Numberer
	log *slog.Logger
	// io is the context of what must not be torn in two by a stop: it ends a while
	// after the life's own.
	io context.Context

	src    *source.Source
	w      *eventstore.LogWriter
	stream *source.Stream
	reader eventstore.Reader // who writes from now on
	watch  watch

	inTx    bool      // a transaction of the source is not at its end yet
	barrier bool      // the transaction has a barrier in it
	seen    cdc.LSN   // end of the newest transaction that is in the batch or before it
	txs     uint64    // transactions with events in the batch
	wrote   time.Time // es.reader was last written
	alarms  int       // unacknowledged
	alarmed cdc.LSN   // newest transaction that changed stored events
	late    time.Time // since when a commit is waited for to become visible
	err     error     // of the hook of the stream
	tx      cdc.LSN   // the newest one with an event of ours
}

func (n *Numberer) live(parent context.Context) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	io, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(stopWithin, end) })()
	l := &life{n: n, log: n.log, io: io}
	defer l.close()
	if err := l.connect(ctx); err != nil {
		return err
	}
	var side sync.WaitGroup
	defer side.Wait()
	defer cancel(nil)
	side.Go(func() { l.look(ctx, cancel) })
	err := l.begin(ctx)
	if err == nil {
		side.Go(func() { l.audit(ctx, cancel) })
		err = l.follow(ctx)
	}
	if cause := context.Cause(ctx); parent.Err() == nil && cause != nil {
		err = cause // the watch ended it
	}
	return n.mendable(err)
}

// mendable takes the finality from errors that the next life mends by adopting.
func (n *Numberer) mendable(err error) error {
	t := new(cdc.TerminalError)
	if !errors.As(err, &t) {
		return err
	}
	switch t.Reason {
	case "slot-missing", "slot-unusable", "slot-lost", "wal-missing", "publication-missing", "publication-options":
		n.distrust(t.Err.Error())
		return fmt.Errorf("%w; what is missing will be numbered from the store", t.Err)
	}
	return err
}

// connect opens the source, waits until nobody reads the slot, and takes the right
// to number: in that order, so that an instance that waits holds nothing.
func (l *life) connect(ctx context.Context) error {
	cfg := l.n.cfg.Source
	version, err := l.n.cfg.Store.ServerVersion(ctx)
	if err != nil {
		return err
	}
	if version >= columnLists {
		cfg.Columns = map[string][]string{Table: {"id"}}
	}
	l.src, err = source.Open(ctx, cfg)
	if err != nil {
		return err
	}
	for {
		holder, err := l.src.Holder(ctx)
		if err != nil {
			return err
		}
		if holder == "" {
			break
		}
		l.n.wait(fmt.Sprintf("slot %q is read by %s", cfg.Slot, holder))
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(holderPoll):
		}
	}
	if l.w, err = l.n.cfg.Store.OpenLogWriter(ctx); err != nil {
		return err
	}
	l.n.enter(cdc.StateStarting, "")
	l.n.hook("locked")
	if l.alarms, err = l.w.Alarms(ctx); err != nil {
		return err
	}
	l.n.show(func(s *Status) { s.Alarms = l.alarms })
	l.moved()
	return nil
}

// begin makes sure that the slot sends everything that is not in the log.
func (l *life) begin(ctx context.Context) error {
	f := facts{slotName: l.n.cfg.Source.Slot, distrust: l.n.distrusted()}
	var err error
	if f.system, err = l.src.System(ctx); err != nil {
		return err
	}
	if r, ok := l.w.Reader(); ok {
		f.reader = &r
	}
	if slot, ok, err := l.src.Slot(ctx); err != nil {
		return err
	} else if ok {
		f.slot = &slot
	}
	if r := f.reader; r != nil && r.System == f.system.ID && r.Timeline != f.system.Timeline {
		f.switched, err = l.src.TimelineSwitch(ctx, r.Timeline)
		if f.forked = cdc.IsTerminal(err); err != nil && !f.forked {
			return err
		}
	}
	if err := usable(f); err != nil { // before anything is changed
		return err
	}
	tables, err := l.publish(ctx, &f)
	if err != nil {
		return err
	}
	s, err := decide(f)
	if err != nil {
		return err
	}
	l.reader = eventstore.Reader{Slot: f.slotName, System: f.system.ID, Timeline: f.system.Timeline}
	if s.adopt == "" {
		l.reader.LSN = f.reader.LSN
		l.w.Claim(l.reader)
		return nil
	}
	if s.dropSlot {
		l.n.hook("drop-slot")
		if err := l.src.DropSlot(ctx); err != nil {
			return err
		}
	}
	if r := f.reader; r != nil && r.Slot != f.slotName && r.System == f.system.ID {
		if err := l.dropOld(ctx, r.Slot); err != nil {
			return err
		}
	}
	return l.adopt(ctx, s.adopt, tables)
}

// publish brings the publication in order. One that was not may have left events
// out of the stream.
func (l *life) publish(ctx context.Context, f *facts) ([]cdc.Table, error) {
	tables, err := l.src.Tables(ctx)
	if err != nil {
		return nil, err
	}
	l.n.hook("publish")
	if f.published, err = l.src.Publish(ctx, tables); err != nil {
		return nil, err
	}
	filtered, err := l.w.Filtered(ctx, l.n.cfg.Source.Publication)
	if err != nil {
		return nil, err
	}
	if filtered {
		return nil, cdc.Terminal("publication-filter",
			fmt.Sprintf("ALTER PUBLICATION %q DROP TABLE %s; -- it is added again, and what was left out is numbered", l.n.cfg.Source.Publication, Table),
			"publication %q has a row filter on %s: events would be left out", l.n.cfg.Source.Publication, Table)
	}
	return tables, l.watchPublication(ctx, tables)
}

// adopt numbers every event that stands in the snapshot of a new slot and not in
// the log. The slot is kept last: a process killed before leaves none behind, and
// the next start adopts what was committed since.
func (l *life) adopt(ctx context.Context, why string, tables []cdc.Table) error {
	level := slog.LevelWarn
	if why == neverNumbered { // that is how it begins
		level = slog.LevelInfo
	}
	l.log.Log(ctx, level, "the slot cannot send everything that is not numbered: looking at every event of the store", "reason", why)
	l.n.enter(cdc.StateSnapshot, why)
	l.n.hook("adopt")
	sn, err := l.src.Snapshot(ctx, tables, 1)
	if err != nil {
		return err
	}
	defer func() { _ = sn.Close() }() // what it would say was said by Next or Finish
	l.n.hook("adopt-snapshot")
	l.reader.LSN = sn.LSN()
	id := -1
	numbered, err := l.w.Adopt(ctx, l.reader, func() (intent.ID, error) {
		c, err := sn.Next(ctx)
		if err != nil {
			return intent.ID{}, err
		}
		if id < 0 {
			id = column(c.Relation)
		}
		return eventID(c.New, id)
	}, l.n.hook)
	if err != nil {
		return err
	}
	l.n.hook("adopt-committed")
	if numbered == 0 {
		level = slog.LevelInfo
	}
	l.log.Log(ctx, level, "numbered events without knowing their order of commit", "events", numbered, "reason", why, "head", l.w.Head(), "lsn", sn.LSN())
	l.moved()
	if err := sn.Finish(ctx); err != nil {
		return err
	}
	l.n.hook("adopt-slot")
	l.n.distrust("")
	return nil
}

// dropOld drops the slot of another name from which this store was numbered before:
// nobody reads it any more, and it would hold WAL for ever.
func (l *life) dropOld(ctx context.Context, name string) error {
	cfg := l.n.cfg.Source
	cfg.Slot = name
	old, err := source.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { _ = old.Close() }()
	slot, ok, err := old.Slot(ctx)
	if err != nil || !ok || slot.Plugin != "pgoutput" || slot.Database != old.Database() {
		return err
	}
	l.log.Warn("dropping the slot this store was numbered from before", "old", name)
	return old.DropSlot(ctx)
}

// moved tells everybody how far the log is.
func (l *life) moved() {
	head := l.w.Head()
	r, _ := l.w.Reader()
	l.n.cfg.Head.Set(head)
	l.n.show(func(s *Status) { s.Head, s.Numbered = head, r.LSN })
}

func (l *life) close() {
	ctx, cancel := context.WithTimeout(context.Background(), stopWithin)
	defer cancel()
	if l.stream != nil {
		if err := l.stream.Close(ctx); err != nil {
			l.log.Debug("closing the stream", "error", err)
		}
	}
	if l.w != nil {
		l.w.Close()
	}
	if l.src != nil {
		if err := l.src.Close(); err != nil {
			l.log.Debug("closing the source", "error", err)
		}
	}
}
