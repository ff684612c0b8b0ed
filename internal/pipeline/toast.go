package pipeline

import (
	"context"
	"errors"
	"strings"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/source"
)

// visibleEvery is how often an unchanged value is asked for again while the
// change's transaction is not yet visible (a synchronous standby is waited for).
const visibleEvery = 5 * time.Millisecond

// complete fills in values that the update left alone and the stream left out
// (TOAST). The row is read back by key in a statement that also proves the
// change's transaction visible, so what it shows is that version of the row or a
// later one. Where the row is gone or has another key, the records of that follow
// in the stream and the format leaves the column out, with a header.
func (l *life) complete(ctx context.Context, r *route, c *cdc.Change) error {
	if c.New == nil || l.cfg.Toast != "fill" && l.cfg.Toast != "refuse" {
		return nil
	}
	missing := l.missing[:0]
	for i := range c.New {
		if c.New[i].Kind == cdc.Unchanged {
			missing = append(missing, i)
		}
	}
	l.missing = missing
	if len(missing) == 0 {
		return nil
	}
	if l.cfg.Toast == "refuse" {
		var names []string
		for _, i := range missing {
			names = append(names, r.rel.Columns[i].Name)
		}
		return cdc.Terminal("toast",
			"Set toast: fill, or give the table the full old row: ALTER TABLE "+r.rel.FullName()+" REPLICA IDENTITY FULL;",
			"table %s, change at %s: the stream left out the unchanged value of %s (toast: refuse)", r.rel.FullName(), c.LSN, strings.Join(names, ", "))
	}
	key := l.keyValues[:0]
	for _, at := range r.rel.Key {
		key = append(key, c.New[at])
	}
	l.keyValues = key
	waited := false
	for {
		got, err := l.src.Reread(ctx, r.rel, key, missing, c.Tx.XID)
		var gone *source.GoneError
		if errors.As(err, &gone) {
			return nil // dropped or retyped since: the format leaves the column out
		}
		if err != nil {
			return err
		}
		l.tally.rereads++
		if got.Visible {
			fill(c, missing, got)
			if waited {
				l.p.stall("")
			}
			return nil
		}
		waited = true
		l.p.stall("waiting until transaction %d is visible (a synchronous standby?)", c.Tx.XID)
		if err := l.pause(ctx, visibleEvery); err != nil {
			return err
		}
	}
}

func fill(c *cdc.Change, missing []int, got source.Reread) {
	if !got.Found {
		return
	}
	for i, at := range missing {
		c.New[at] = got.Values[i]
	}
	// Also where the version is of the change's own transaction: a later change of it
	// may have written the value, and Postgres does not tell which one did.
	c.Refilled = true
}

// pause waits a little and answers Postgres.
func (l *life) pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return l.tickStream(ctx)
	}
}
