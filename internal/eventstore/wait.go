package eventstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cdc/internal/intent"
)

// How often Wait asks: soon at first, for views are mostly a few milliseconds
// behind, and seldom enough later that many waiters cost little.
const (
	waitFirst = 2 * time.Millisecond
	waitMost  = 50 * time.Millisecond
)

// Wait returns when a view has seen the event of a token, with the event's position
// (0 where an inline view has it before it is numbered); view "": when the event is
// numbered. ErrTimeout when the time is up, ErrNotFound where there is no such view
// or event. It holds no connection while it waits.
func (s *Store) Wait(ctx context.Context, view string, token intent.ID, timeout time.Duration) (pos int64, err error) {
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	pause := time.NewTimer(waitFirst)
	defer pause.Stop()
	for next := waitFirst; ; {
		var seen bool
		var p *int64
		err := s.pool.QueryRow(ctx, "select seen, pos from es.progress($1, $2)", view, [16]byte(token)).Scan(&seen, &p)
		switch {
		case err != nil:
			return 0, fmt.Errorf("wait for view %q: %w", view, typed(err))
		case seen && p != nil:
			return *p, nil
		case seen:
			return 0, nil
		}
		select {
		case <-pause.C:
			next = min(2*next, waitMost)
			pause.Reset(next)
		case <-deadline.C:
			return 0, fmt.Errorf("wait for view %q: %w", view, ErrTimeout)
		case <-ctx.Done():
			return 0, fmt.Errorf("wait for view %q: %w", view, errors.Join(context.Cause(ctx)))
		}
	}
}
