package eventstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cdc/internal/cdc"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// barrierPatience bounds a Barrier whose context has no deadline: numbering
	// takes milliseconds, so a daemon that has not come by then does not run.
	barrierPatience = 30 * time.Second
	// barrierFirst and barrierMost bound the pause between two looks at es.reader.
	barrierFirst = time.Millisecond
	barrierMost  = 50 * time.Millisecond
	// barrierLast is what the question why it took so long may take.
	barrierLast = 2 * time.Second
)

// Executor is a *pgxpool.Pool, *pgxpool.Conn or *pgx.Conn outside a transaction.
type Executor interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// BarrierError says that a Barrier was not passed in time.
type BarrierError struct {
	Wanted, Reached cdc.LSN // Wanted is 0 where the time was up before the barrier was written
	Running         bool    // a daemon reads the slot: it is behind
	Slot            string
}

func (e *BarrierError) Error() string {
	switch {
	case e.Slot == "":
		return "the events of this store have never been numbered: start the daemon (cdc run)"
	case e.Wanted == 0 && e.Running:
		return "the time was up before Postgres had taken the barrier: give it more"
	case e.Running:
		return fmt.Sprintf("numbering stands at %s and is asked for %s: the daemon runs and is behind; wait, or look at its status (cdc status)", e.Reached, e.Wanted)
	}
	return fmt.Sprintf("numbering stands at %s and is asked for %s: nothing reads replication slot %q; start the daemon (cdc run)", e.Reached, e.Wanted, e.Slot)
}

// Barrier returns when everything that was committed before the call is numbered.
// It writes a logical message, which the Numberer answers at once, and blocks until
// then; at the deadline of ctx, or after half a minute where it has none, it returns
// a *BarrierError. On a pgx.Tx it would wait for its own commit.
func Barrier(ctx context.Context, db Executor) error {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(barrierPatience)
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	// A statement that is cut off costs its connection, on which lateBarrier still
	// has a question: one that is on its way at the deadline may end.
	ask, cancel := context.WithDeadline(context.WithoutCancel(ctx), deadline.Add(barrierLast))
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			cancel()
		}
	})()
	// The message stands behind every commit record that was written before the
	// call, and before that of its own transaction. Whatever position the reader
	// reaches at or behind it, those are numbered.
	var text string
	err := db.QueryRow(ask, `select pg_logical_emit_message(true, $1, '')::text`, BarrierPrefix).Scan(&text)
	switch {
	case err != nil && ctx.Err() != nil:
		return lateBarrier(ctx, db, 0)
	case err != nil:
		return fmt.Errorf("write a barrier: %w", err)
	}
	wanted, err := cdc.ParseLSN(text)
	if err != nil {
		return fmt.Errorf("write a barrier: %w", err)
	}
	pause := barrierFirst
	for {
		var passed bool
		err := db.QueryRow(ask, `select coalesce((select lsn >= $1::text::pg_lsn from es.reader), false)`, text).Scan(&passed)
		switch {
		case ctx.Err() != nil:
			return lateBarrier(ctx, db, wanted)
		case err != nil:
			return fmt.Errorf("read how far numbering is: %w", err)
		case passed:
			return nil
		}
		select {
		case <-ctx.Done():
			return lateBarrier(ctx, db, wanted)
		case <-time.After(pause):
		}
		pause = min(2*pause, barrierMost)
	}
}

// lateBarrier finds out why, where the time was up; a context that was cancelled
// asks no questions.
func lateBarrier(ctx context.Context, db Executor, wanted cdc.LSN) error {
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return context.Cause(ctx)
	}
	late := &BarrierError{Wanted: wanted}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), barrierLast)
	defer cancel()
	var reached string
	err := db.QueryRow(ctx, `select r.slot, r.lsn::text, exists (select from pg_replication_slots s where s.slot_name = r.slot and s.active)
		from es.reader r`).Scan(&late.Slot, &reached, &late.Running)
	if err == nil {
		late.Reached, err = cdc.ParseLSN(reached)
	}
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("%w: and what numbers events cannot be asked: %w", context.DeadlineExceeded, err)
	}
	return late
}
