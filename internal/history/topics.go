package history

import (
	"context"

	"cdc/internal/cdc"
	"cdc/internal/compaction"
)

// Topics plans the topics of a publication: what they must be, and the steps from
// what they are to that. One that has lost events, or could, is a terminal error.
// With apply the steps are carried out. The store is only read.
func Topics(ctx context.Context, cfg Config, apply bool) ([]cdc.TopicSpec, []compaction.Step, error) {
	p := New(cfg)
	defer p.Close()
	l := newLife(p)
	defer l.close()
	if err := l.dial(ctx); err != nil {
		return nil, nil, err
	}
	if err := l.remember(ctx); err != nil {
		return nil, nil, err
	}
	if err := l.agree(ctx); err != nil {
		return nil, nil, err
	}
	if err := l.resolve(); err != nil {
		return nil, nil, err
	}
	steps, err := l.plan(ctx)
	if err != nil || !apply {
		return l.specs(), steps, err
	}
	return l.specs(), steps, l.apply(ctx, steps)
}
