package pipeline

import (
	"context"

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
	holder, err := l.src.Holder(ctx)
	if err != nil {
		return err
	}
	if holder != "" {
		return cdc.Terminal("slot-active", "Stop the pipeline first.", "slot %q is read by %s", cfg.Source.Slot, holder)
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
