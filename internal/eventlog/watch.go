package eventlog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/eventstore"
)

// watch is what the side of a life compares the publication with.
type watch struct {
	mu    sync.Mutex
	table uint32 // OID of es.event; 0: not known yet
	state publicationState
}

// publicationState changes whenever somebody alters the publication, also where he
// alters it back.
type publicationState struct {
	hash   string
	member uint32 // the catalogue row by which the table is in it
}

func (l *life) publicationState(ctx context.Context, table uint32) (s publicationState, err error) {
	if s.hash, _, err = l.src.PublicationState(ctx); err != nil {
		return s, err
	}
	members, err := l.src.Memberships(ctx, []uint32{table})
	s.member = members[table]
	return s, err
}

func (l *life) watchPublication(ctx context.Context, tables []cdc.Table) error {
	state, err := l.publicationState(ctx, tables[0].OID)
	if err != nil {
		return err
	}
	l.watch.mu.Lock()
	defer l.watch.mu.Unlock()
	l.watch.table, l.watch.state = tables[0].OID, state
	return nil
}

// look asks from outside how slot and publication stand. A look that fails is no
// verdict: it is made again.
func (l *life) look(ctx context.Context, end context.CancelCauseFunc) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if err := l.lookOnce(ctx); errors.Is(err, errPublication) {
			l.n.distrust(err.Error())
			end(err)
			return
		} else if err != nil && ctx.Err() == nil {
			l.log.Warn("cannot look at slot and publication, trying again", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// errPublication says that events may have been left out of the stream.
var errPublication = errors.New("the publication was changed while it was read")

func (l *life) lookOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lookEvery)
	defer cancel()
	slot, ok, slotErr := l.src.Slot(ctx)
	end, endErr := l.n.cfg.Store.ServerEnd(ctx)
	waiting := l.src.Waiting()
	l.n.show(func(s *Status) {
		if slotErr == nil && ok {
			s.Slot = &slot
		}
		if endErr == nil {
			s.ServerEnd = end
		}
		if s.State == cdc.StateSnapshot && waiting != "" {
			s.Waiting = waiting
		}
	})
	if err := errors.Join(slotErr, endErr); err != nil {
		return err
	}
	l.watch.mu.Lock()
	table, want := l.watch.table, l.watch.state
	l.watch.mu.Unlock()
	if table == 0 {
		return nil
	}
	got, err := l.publicationState(ctx, table)
	if err != nil && !cdc.IsTerminal(err) {
		return err
	}
	if err != nil || got != want {
		return errPublication
	}
	return nil
}

// audit compares the log with the store once a process: a publication that was
// changed and changed back while nobody looked has left events out, and nothing else
// shows it. Everything that was counted is numbered behind a barrier.
func (l *life) audit(ctx context.Context, end context.CancelCauseFunc) {
	l.n.mu.Lock()
	whole := l.n.whole
	l.n.mu.Unlock()
	for !whole {
		var err error
		whole, err = l.auditOnce(ctx)
		switch {
		case errors.Is(err, errIncomplete):
			l.n.distrust(err.Error())
			end(err)
			return
		case ctx.Err() != nil:
			return
		case err != nil:
			l.log.Warn("cannot compare the log with the store, trying again", "error", err)
			if sleep(ctx, lookEvery) != nil {
				return
			}
		}
	}
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	l.n.whole = true
}

// errIncomplete says that committed events have no position.
var errIncomplete = errors.New("the log lacks events of the store")

func (l *life) auditOnce(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, auditPatience)
	defer cancel()
	store := l.n.cfg.Store
	stored, err := store.Events(ctx)
	if err != nil {
		return false, err
	}
	if err := eventstore.Barrier(ctx, store.Pool()); err != nil {
		return false, err
	}
	head, err := store.Head(ctx)
	if err != nil {
		return false, err
	}
	if head < stored {
		return false, fmt.Errorf("%w: it has %d, the store at least %d", errIncomplete, head, stored)
	}
	return true, nil
}
