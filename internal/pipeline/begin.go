package pipeline

import (
	"context"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/sink"
)

// awaitSlot waits until nobody reads the slot. Only then is it right to take
// over: a healthy instance is never fenced by a second one.
func (l *life) awaitSlot(ctx context.Context) error {
	said := false
	for {
		holder, err := l.src.Holder(ctx)
		if err != nil {
			return err
		}
		if holder == "" {
			return nil
		}
		if !said {
			l.log.Info("waiting: another instance reads the slot", "slot", l.cfg.Source.Slot, "holder", holder)
			l.p.enter(cdc.StateWaiting, nil)
			said = true
		}
		l.p.stall("slot %q is read by %s", l.cfg.Source.Slot, holder)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(slotPoll):
		}
	}
}

// takeOver makes this life the only writer of its partitions, then reads what the
// one before left in the progress topic.
func (l *life) takeOver(ctx context.Context) error {
	l.p.enter(cdc.StateStarting, nil)
	wc := l.cfg.Writer
	if l.cfg.Delivery == ExactlyOnce {
		wc.TransactionalID = l.cfg.Name
	}
	wc.Hook = l.cfg.Hook
	wc.MaxRecordBytes = l.maxRecord
	l.w = l.client.NewWriter(wc)
	all := []cdc.TopicPartition{{Topic: l.cfg.Progress}}
	for _, c := range l.order {
		for _, p := range c.partitions {
			if !l.gone[c.topic] {
				all = append(all, p.tp)
			}
		}
	}
	for _, name := range []string{l.deadLetter(), l.cfg.Messages} {
		if name != "" {
			all = append(all, cdc.TopicPartition{Topic: name})
		}
	}
	l.hook("take-over")
	if err := l.w.TakeOver(ctx, all); err != nil {
		return err
	}
	l.tally.takeOvers++
	l.w.Start(context.WithoutCancel(ctx)) // an orderly stop still has to flush; close ends it
	l.view.mu.Lock()
	l.view.writer = l.w
	l.view.mu.Unlock()
	for _, c := range l.order {
		for _, p := range c.partitions {
			l.bind(p)
		}
	}
	l.progressTo = l.bind(&partition{tp: cdc.TopicPartition{Topic: l.cfg.Progress}, caught: true})
	if name := l.deadLetter(); name != "" {
		l.deadTo = l.bind(&partition{tp: cdc.TopicPartition{Topic: name}})
	}
	if name := l.cfg.Messages; name != "" {
		l.messageTo = l.bind(&partition{tp: cdc.TopicPartition{Topic: name}})
	}
	var err error
	l.memory, err = readMemory(ctx, l.client, l.cfg.Progress)
	l.hook("progress-read")
	return err
}

func (l *life) bind(p *partition) *partition {
	p.target = l.w.Target(p.tp)
	// Without a fence the last record proves nothing: another instance may still
	// write, and a retried batch may stand behind a newer one.
	p.caught = p.caught || l.cfg.Delivery == AtLeastOnce
	return p
}

// decide gathers the facts and says what to do first, and which tables of a
// streaming pipeline have to be copied.
func (l *life) decide(ctx context.Context) (action, []*capture, error) {
	f := facts{
		name: l.cfg.Name, mode: l.cfg.Snapshot, onGap: l.cfg.OnGap,
		slotName: l.cfg.Source.Slot, progress: l.memory.progress,
		rebuild: l.cfg.Rebuild != nil && l.cfg.Rebuild(),
		broken:  l.p.broken,
	}
	var err error
	if f.system, err = l.src.System(ctx); err != nil {
		return 0, nil, err
	}
	l.system = f.system
	if slot, ok, err := l.src.Slot(ctx); err != nil {
		return 0, nil, err
	} else if ok {
		f.slot = &slot
	}
	if p := f.progress; p != nil && p.Phase == PhaseStream && p.System == f.system.ID && p.Timeline < f.system.Timeline {
		if f.switched, err = l.src.TimelineSwitch(ctx, p.Timeline); cdc.IsTerminal(err) {
			f.strayed = err
		} else if err != nil {
			return 0, nil, err
		}
	}
	if p := f.progress; p != nil && p.Phase == PhaseStream {
		// A publication that is gone, or lets operations out, has lost changes.
		if _, _, err = l.src.PublicationState(ctx); cdc.IsTerminal(err) {
			f.publication = err
		} else if err != nil {
			return 0, nil, err
		}
	}
	s, err := decide(f)
	if err != nil {
		return 0, nil, err
	}
	if s.gap != nil {
		l.log.Error("gap: the tables are copied again (on_gap: resnapshot)", "reason", s.gap.reason, "from", s.gap.from, "to", s.gap.to, "error", s.gap)
	}
	if s.dropSlot {
		if err := l.src.DropSlot(ctx); err != nil {
			return 0, nil, err
		}
	}
	if s.action == actDone {
		return s.action, nil, nil
	}
	if s.action == actStream {
		if err := l.checkTopicIDs(); err != nil {
			return 0, nil, err
		}
	}
	if err := l.publish(ctx); err != nil {
		return 0, nil, err
	}
	l.p.broken = nil
	if s.action == actStream {
		publication := l.progress.Publication
		l.progress = *l.memory.progress
		l.progress.Publication = publication
		l.confirmed = l.progress.End
		l.mark = sink.Mark{Position: cdc.EndOf(l.progress.Tx), End: l.progress.End, PrevEnd: l.progress.PrevEnd, Recorded: l.progress.End}
		return s.action, l.joining(), nil
	}
	return s.action, nil, nil
}

// publish brings the publication in order.
func (l *life) publish(ctx context.Context) error {
	tables := make([]cdc.Table, len(l.order))
	for i, c := range l.order {
		tables[i] = c.table
	}
	l.hook("publish")
	if _, err := l.src.Publish(ctx, tables); err != nil {
		return err
	}
	var err error
	if l.progress.Publication, _, err = l.src.PublicationState(ctx); err != nil {
		return err
	}
	members, err := l.src.Memberships(ctx, l.oids())
	for _, c := range l.order {
		c.member = members[c.table.OID]
	}
	return err
}

func (l *life) oids() []uint32 {
	oids := make([]uint32, len(l.order))
	for i, c := range l.order {
		oids[i] = c.table.OID
	}
	return oids
}
