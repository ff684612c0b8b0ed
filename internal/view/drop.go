package view

import (
	"context"
	"errors"
	"fmt"

	"cdc/internal/eventstore"
	"cdc/internal/intent"
)

// DropOptions are those of a switch: dropping takes the same locks.
type DropOptions = SwitchOptions

// Drop removes a view: its table, and every build of it. Its rows in es.view stay,
// as retired. Errors are those of Switch; what depends on the table keeps it.
func Drop(ctx context.Context, store *eventstore.Store, name string, o DropOptions) error {
	o.defaults()
	var last error
	for attempt := range o.Attempts {
		if attempt > 0 {
			if err := pause(ctx, o.Pause); err != nil {
				return err
			}
		}
		err := dropOnce(ctx, store, name, o)
		var busy errBusy
		if !errors.As(err, &busy) {
			return err
		}
		last = busy.error
	}
	return &BusyError{name, o.Attempts, last}
}

func dropOnce(ctx context.Context, store *eventstore.Store, name string, o DropOptions) error {
	p, err := findPair(ctx, store.Pool(), name, false)
	if err != nil && !errors.Is(err, ErrNoBuild) {
		return err
	}
	s := &switching{store: store, pair: p, options: o}
	defer s.close()
	if err := s.connect(ctx); err != nil {
		return err
	}
	if err := s.refuseDependents(ctx); err != nil {
		return err
	}
	if err := s.remove(ctx); err != nil {
		s.undo(ctx)
		return s.judge("drop", err)
	}
	if err := sweep(ctx, store); err != nil {
		o.Logger.Warn("what is left of a dropped view is dropped later", "view", name, "error", err)
	}
	return nil
}

// remove is the transaction of a drop: that of a switch without a new build.
func (s *switching) remove(ctx context.Context) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 4*s.options.LockTimeout)
	defer cancel()
	here := s.parts[0].conn
	p, err := findPair(ctx, here, s.name(), true)
	if err != nil && !errors.Is(err, ErrNoBuild) {
		return err
	}
	if !p.sameBuilds(s.pair) {
		return errFeedsChanged
	}
	if next := s.pair.next; next.id != 0 {
		conn := s.place(next).conn
		if err := run(ctx, conn, []string{"drop schema if exists " + next.schema() + " cascade"}); err != nil {
			return err
		}
		if next.database != "" {
			if _, err := conn.Exec(ctx, `delete from es_remote.view where store = $1 and build = $2`, [16]byte(s.gid.store), next.id); err != nil {
				return fmt.Errorf("write es_remote.view: %w", err)
			}
		}
	}
	if live := s.pair.live; live != nil {
		if err := s.dropLive(ctx, s.place(*live).conn, *live); err != nil {
			return err
		}
		if err := s.disable(ctx, *live); err != nil {
			return err
		}
	}
	_, err = here.Exec(ctx, `update es.view set state = 'retired', error = null, since = now() where name = $1 and state <> 'retired'`, s.name())
	if err != nil {
		return fmt.Errorf("write es.view: %w", err)
	}
	return s.commit(ctx)
}

// name is that of the view.
func (s *switching) name() string {
	if s.pair.live != nil {
		return s.pair.live.name
	}
	return s.pair.next.name
}

// disable turns off the trigger of a live inline build, for which the lock that
// holds off appends is enough; to drop it takes one that waits for every reader of
// the events (sweep).
func (s *switching) disable(ctx context.Context, live buildRow) error {
	if live.mode != intent.Inline {
		return nil
	}
	return run(ctx, s.parts[0].conn, []string{"alter table es.event disable trigger " + live.schema()})
}
