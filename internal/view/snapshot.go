package view

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"cdc/internal/eventstore"
)

// snapshotTx is a transaction that sees one moment and writes only scratch tables.
var snapshotTx = pgx.TxOptions{IsoLevel: pgx.RepeatableRead}

// endLimit is how long the end of a transaction may take when its context is over.
const endLimit = 5 * time.Second

// rollback ends a transaction whatever became of ctx.
func rollback(ctx context.Context, tx pgx.Tx) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endLimit)
	defer cancel()
	_ = tx.Rollback(ctx) // fails only with the connection, which ends the transaction too
}

// async checks a build that follows the log in the store's own database.
func (v *verification) async(ctx context.Context) (VerifyReport, error) {
	tx, err := v.store.Pool().BeginTx(ctx, snapshotTx)
	if err != nil {
		return VerifyReport{}, fmt.Errorf("begin: %w", err)
	}
	defer rollback(ctx, tx)
	b, s, err := v.again(ctx, tx, tx)
	if err != nil {
		return VerifyReport{}, err
	}
	r := VerifyReport{Position: b.pos}
	r.Events, err = s.replay(ctx, tx, theLog, 0, b.pos, missingIsWrong, func(pos int64) { v.progress(pos, b.pos) })
	if err != nil {
		return VerifyReport{}, err
	}
	err = s.compare(ctx, tx, v.store.Pool(), b, v.options.Samples, &r)
	return r, err
}

// inline checks a view that the appends themselves write.
func (v *verification) inline(ctx context.Context) (VerifyReport, error) {
	tx, err := v.store.Pool().BeginTx(ctx, snapshotTx)
	if err != nil {
		return VerifyReport{}, fmt.Errorf("begin: %w", err)
	}
	defer rollback(ctx, tx)
	b, s, err := v.again(ctx, tx, tx)
	if err != nil {
		return VerifyReport{}, err
	}
	late, err := v.unnumbered(ctx, tx, b)
	if err != nil {
		return VerifyReport{}, err
	}
	r := VerifyReport{Position: late.to}
	progress := func(pos int64) { v.progress(pos, late.to) }
	r.Events, err = s.replay(ctx, tx, theLog, 0, late.from, missingIsLater, progress)
	if err != nil {
		return VerifyReport{}, err
	}
	n, err := s.replay(ctx, tx, lateLog, late.from, late.to, missingIsLater, progress)
	if err != nil {
		return VerifyReport{}, err
	}
	r.Events += n
	err = s.compare(ctx, tx, v.store.Pool(), b, v.options.Samples, &r)
	return r, err
}

// again reads the build anew, position and table of the moment of the snapshot here,
// and makes the scratch schema in the database there that holds its table.
func (v *verification) again(ctx context.Context, here, there pgx.Tx) (buildRow, *scratch, error) {
	b, err := findBuild(ctx, here, v.build.name, v.build.id)
	if err != nil {
		return buildRow{}, nil, err
	}
	if b.state != v.build.state {
		return buildRow{}, nil, errReplaced
	}
	s, err := newScratch(ctx, there, b)
	return b, s, err
}

// span is positions from (exclusive) to (inclusive).
type span struct{ from, to int64 }

// unnumbered is the positions given to events that the snapshot of tx sees and
// whose numbers it does not: those behind the newest number it sees, up to what is
// numbered once all it sees is. They are put into lateLog. Among them are events
// that the snapshot does not see; they are left out where the events are read.
func (v *verification) unnumbered(ctx context.Context, tx pgx.Tx, b buildRow) (span, error) {
	var s span
	if err := tx.QueryRow(ctx, `select coalesce(max(pos), 0) from es.log`).Scan(&s.from); err != nil {
		return span{}, fmt.Errorf("read the head of the log: %w", err)
	}
	s.to = s.from
	if _, err := tx.Exec(ctx, `create temp table es_late (pos bigint primary key, event uuid not null) on commit drop`); err != nil {
		return span{}, fmt.Errorf("make a table for late positions: %w", err)
	}
	conn, err := v.store.Pool().Acquire(ctx)
	if err != nil {
		return span{}, fmt.Errorf("wait until the events are numbered: %w", err)
	}
	defer conn.Release()
	bounded, cancel := context.WithTimeout(ctx, v.options.Patience)
	defer cancel()
	err = eventstore.Barrier(bounded, conn)
	var nobody *eventstore.BarrierError
	switch {
	case errors.As(err, &nobody):
		return s, v.nobodyNumbers(ctx, tx, b, nobody)
	case err != nil:
		return span{}, fmt.Errorf("wait until the events are numbered: %w", err)
	}
	rows, err := conn.Query(ctx, `select pos, event from es.log where pos > $1 order by pos`, s.from)
	if err != nil {
		return span{}, fmt.Errorf("read the log behind position %d: %w", s.from, err)
	}
	n, err := tx.CopyFrom(ctx, pgx.Identifier{"pg_temp", "es_late"}, []string{"pos", "event"}, rows)
	if err != nil {
		return span{}, fmt.Errorf("read the log behind position %d: %w", s.from, err)
	}
	s.to += n // positions are dense
	return s, nil
}

// nobodyNumbers is nil where no event that the snapshot sees waits for a number.
func (v *verification) nobodyNumbers(ctx context.Context, tx pgx.Tx, b buildRow, late *eventstore.BarrierError) error {
	var waiting bool
	err := tx.QueryRow(ctx, `select exists (select from es.event e where e.type = any($1)
		and not exists (select from es.log l where l.event = e.id))`, b.types()).Scan(&waiting)
	if err != nil {
		return fmt.Errorf("look for events without a number: %w", err)
	}
	if waiting {
		return fmt.Errorf("the order of its newest events is not known: %w", late)
	}
	return nil
}
