package history

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"cdc/internal/cdc"
	"cdc/internal/intent"
	"cdc/internal/sink"
)

// ask learns what the partitions hold that the last piece of the log has come to.
// Thousands of quiet ones cost nothing.
func (l *life) ask(ctx context.Context) error {
	if len(l.unasked) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lastStampWithin)
	defer cancel()
	errs := make([]error, len(l.unasked))
	limit := make(chan struct{}, askers)
	var wg sync.WaitGroup
	for i, p := range l.unasked {
		limit <- struct{}{}
		wg.Go(func() {
			defer func() { <-limit }()
			errs[i] = l.lookAt(ctx, p)
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		for _, err := range errs {
			if cdc.IsTerminal(err) {
				return err
			}
		}
		return err
	}
	for _, p := range l.unasked {
		if err := l.believe(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// lookAt reads the last record's stamp of a partition.
func (l *life) lookAt(ctx context.Context, p *partition) error {
	stamp, found, err := l.w.LastStamp(ctx, p.tp)
	var foreign *sink.ForeignRecordError
	switch {
	case errors.As(err, &foreign):
		return cdc.Terminal("foreign-record",
			"Find out who writes to the topic: it belongs to this pipeline alone. Then delete it, and: "+mendRepublish, "%w", err)
	case err != nil:
		return fmt.Errorf("last position of %s: %w", p.tp, err)
	case !found:
		return nil
	case stamp.Generation != l.p.generation:
		return cdc.Terminal("other-store",
			"Give the pipeline a topic: of its own. If the other store is gone for good, delete its topics, then: "+mendRepublish,
			"topic %q holds events of another store than %s", p.tp.Topic, l.cfg.StoreID)
	}
	p.last = int64(stamp.Position.Tx)
	return nil
}

// believe compares a partition's last record with the store, unless it is covered by
// the comparison of the progress.
func (l *life) believe(ctx context.Context, p *partition) error {
	if p.last > l.proven {
		if p.last > l.head {
			if err := l.askHead(ctx); err != nil {
				return err
			}
		}
		if p.last > l.head {
			return l.ahead("topic "+p.tp.String(), p.last)
		}
		at, err := l.eventAt(ctx, p.last)
		if err != nil {
			return err
		}
		id, err := lastID(ctx, l.client, p.tp)
		if err != nil {
			return err
		}
		if id != at.id {
			return l.forked("topic "+p.tp.String(), p.last)
		}
	}
	p.asked = true
	return nil
}

// Steps back from the end of a partition in search of its last record: the last
// batch is our marker, the one before it holds data mostly.
const (
	firstStepBack = 2
	stepFactor    = 8
)

// lastID is the event id in the last record of a partition that has one.
func lastID(ctx context.Context, c *sink.Client, tp cdc.TopicPartition) (id intent.ID, err error) {
	start, end, err := c.Offsets(ctx, []cdc.TopicPartition{tp})
	if err != nil {
		return id, fmt.Errorf("last record of %s: %w", tp, err)
	}
	found := false
	for back, to := int64(firstStepBack), end[tp]; to > start[tp] && !found; back *= stepFactor {
		from := max(start[tp], end[tp]-back)
		err := c.ReadAll(ctx, tp, from, to, func(m *sink.Message) error {
			for _, h := range m.Headers {
				if h.Key == headerID {
					id, err = intent.ParseID(string(h.Value))
					found = true
				}
			}
			return err
		})
		if err != nil {
			return id, fmt.Errorf("last record of %s: %w", tp, err)
		}
		to = from
	}
	return id, nil
}
