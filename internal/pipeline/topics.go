package pipeline

import (
	"context"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/compaction"
)

// Topics plans the topics of a pipeline: what they must be, and the steps from
// what they are to that. A topic that cannot be brought in order without risk to
// its records is a terminal error. With apply the steps are carried out.
// Postgres is only read.
func Topics(ctx context.Context, cfg Config, apply bool) ([]cdc.TopicSpec, []compaction.Step, error) {
	p := New(cfg)
	defer p.hangUp()
	l := newLife(p)
	defer l.close()
	if err := l.connect(ctx); err != nil {
		return nil, nil, err
	}
	specs := l.specs()
	steps, err := compaction.Look(ctx, l.client, specs)
	if err != nil || !apply {
		return specs, steps, err
	}
	return specs, steps, compaction.Apply(ctx, l.client, steps)
}

// Drop removes what a pipeline keeps beside its topics: the slot, the publication
// and the progress topic. The topics with the data stay.
func Drop(ctx context.Context, cfg Config) error {
	p := New(cfg)
	defer p.hangUp()
	l := newLife(p)
	defer l.close()
	if err := l.open(ctx); err != nil {
		return err
	}
	if err := l.leftAlone(ctx); err != nil {
		return err
	}
	if _, ok, err := l.src.Slot(ctx); err != nil {
		return err
	} else if ok {
		if err := l.src.DropSlot(ctx); err != nil {
			return err
		}
	}
	if err := l.src.DropPublication(ctx); err != nil {
		return err
	}
	topics, err := l.client.Topics(ctx, cfg.Progress)
	if err != nil || topics[cfg.Progress].Partitions == 0 {
		return err
	}
	return l.client.DeleteTopic(ctx, cfg.Progress)
}

// dropPatience is how long the backend of a pipeline that has just ended may take
// to leave the slot.
const dropPatience = 10 * time.Second

// leftAlone waits until nobody reads the slot, no longer than dropPatience.
func (l *life) leftAlone(ctx context.Context) error {
	for until := time.Now().Add(dropPatience); ; {
		holder, err := l.src.Holder(ctx)
		switch {
		case err != nil || holder == "":
			return err
		case time.Now().After(until):
			return cdc.Terminal("slot-active", "Stop the pipeline first.", "slot %q is read by %s", l.cfg.Source.Slot, holder)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(houseEvery):
		}
	}
}
