package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
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
		if err := l.guard(l.cfg.GuardEvery).Run(ctx); err != nil {
			end(fmt.Errorf("%w: %w", errMonitor, err))
		}
	})
	defer guard.Wait()
	tick := time.NewTicker(cmp.Or(l.cfg.MonitorEvery, monitorEvery))
	defer tick.Stop()
	for {
		switch err := l.look(ctx); {
		case errors.Is(err, errMonitor):
			end(err)
			return
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

// guard watches the life's topics.
func (l *life) guard(every time.Duration) *compaction.Guard {
	guard := compaction.NewGuard(l.client, every, l.log, l.specs()...)
	guard.Know(l.topicIDs)
	return guard
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
		if before := l.view.slot; before != nil {
			l.view.restart = before.Restart
		}
		l.view.slot = &slot
	}
	streaming, received := l.view.stream != nil, l.view.received
	l.view.mu.Unlock()
	if !streaming {
		return nil
	}
	if err := l.lookAtPublication(ctx); err != nil {
		return err
	}
	if err := l.lookForTables(ctx); err != nil {
		return err
	}
	l.view.mu.Lock()
	l.view.whole = received
	l.view.mu.Unlock()
	return nil
}

// lookAtPublication notices tables that left the publication, for good or to come
// back: what was changed meanwhile was not streamed. The next life puts them in
// order and copies them. A publication that is gone is terminal.
func (l *life) lookAtPublication(ctx context.Context) error {
	if _, _, err := l.src.PublicationState(ctx); err != nil {
		return err
	}
	members, err := l.src.Memberships(ctx, l.oids())
	if err != nil {
		return err
	}
	for _, c := range l.order {
		if members[c.table.OID] != c.member {
			return fmt.Errorf("%w: table %s was dropped, or taken out of publication %q", errMonitor, c.table.FullName(), l.cfg.Source.Publication)
		}
	}
	return nil
}

// lookForTables ends the life for a table that was made since and is to be
// captured: the next one publishes and copies it. One that cannot be captured as
// it is, is told of once and left alone: it must not stop the others.
func (l *life) lookForTables(ctx context.Context) error {
	matching, err := l.src.Matching(ctx)
	if err != nil {
		return err
	}
	var made []string
	for oid, name := range matching {
		if l.captures[oid] == nil {
			made = append(made, name)
		}
	}
	if len(made) == 0 {
		return nil
	}
	slices.Sort(made)
	_, err = l.src.Tables(ctx)
	switch {
	case err == nil:
		return fmt.Errorf("%w: new tables: %s", errMonitor, strings.Join(made, ", "))
	case !cdc.IsTerminal(err):
		return err
	}
	if told := err.Error(); told != l.told {
		l.told = told
		l.log.Warn("new tables match and cannot be captured: mend that, else the next start is refused", "tables", made, "error", err)
	}
	return nil
}
