package pipeline

import (
	"context"
	"fmt"
	"sync"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/compaction"
)

// monitor looks at the slot, the publication and the topics from outside while a
// life runs, and ends it where something has become unsafe. A look that fails is
// no verdict: it is logged and made again.
func (l *life) monitor(ctx context.Context, end context.CancelCauseFunc) {
	var guard sync.WaitGroup
	guard.Go(func() {
		if err := compaction.NewGuard(l.client, l.cfg.GuardEvery, l.log, l.specs()...).Run(ctx); err != nil {
			end(fmt.Errorf("%w: %w", errMonitor, err))
		}
	})
	defer guard.Wait()
	tick := time.NewTicker(monitorEvery)
	defer tick.Stop()
	for {
		switch err := l.look(ctx); {
		case cdc.IsTerminal(err):
			end(fmt.Errorf("%w: %w", errMonitor, err))
			return
		case err != nil && ctx.Err() == nil:
			l.log.Warn("cannot look at slot and publication, trying again", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (l *life) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, monitorEvery)
	defer cancel()
	slot, ok, err := l.src.Slot(ctx)
	if err != nil {
		return err
	}
	l.view.mu.Lock()
	if ok {
		l.view.slot = &slot
	}
	streaming := l.view.stream != nil
	l.view.mu.Unlock()
	if !streaming {
		return nil
	}
	return l.lookAtPublication(ctx)
}

// lookAtPublication notices what Postgres 18 only warns of and older versions
// say at the next change: tables that left the publication.
func (l *life) lookAtPublication(ctx context.Context) error {
	_, names, err := l.src.PublicationState(ctx)
	if err != nil {
		return err
	}
	in := make(map[string]bool, len(names))
	for _, n := range names {
		in[n] = true
	}
	for _, c := range l.order {
		if !in[c.table.FullName()] {
			l.p.stall("table %s has left publication %q (dropped, renamed, or removed by hand): its changes are not streamed; start the pipeline again to capture what is there now", c.table.FullName(), l.cfg.Source.Publication)
			return nil
		}
	}
	return nil
}
