package view

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// elsewhere checks a build that follows the log and is held by another Postgres.
func (v *verification) elsewhere(ctx context.Context) (VerifyReport, error) {
	there, err := connectThere(ctx, v.build, v.options.Databases[v.build.database])
	if err != nil {
		return VerifyReport{}, err
	}
	defer closeConn(there)
	tx, err := there.BeginTx(ctx, snapshotTx)
	if err != nil {
		return VerifyReport{}, fmt.Errorf("begin in %s: %w", v.build.database, err)
	}
	defer rollback(ctx, tx)
	b := v.build
	if b.pos, err = positionThere(ctx, v.store.Pool(), tx, b); err != nil {
		return VerifyReport{}, err
	}
	s, err := newScratch(ctx, tx, b)
	if err != nil {
		return VerifyReport{}, err
	}
	r := VerifyReport{Position: b.pos}
	r.Events, err = s.code.ship(ctx, v.store.Pool(), tx, s.schema, theLog, 0, b.pos, func(pos int64) { v.progress(pos, b.pos) })
	if err != nil {
		return VerifyReport{}, err
	}
	err = s.compare(ctx, tx, v.store.Pool(), b, v.options.Samples, &r)
	return r, err
}

// agreeLimit is how long a check waits for the appends on their way between two
// databases, and new ones for it. Such an append takes a few round trips; one that
// takes longer than this is in doubt.
const agreeLimit = 2 * time.Second

// inlineElsewhere checks a view that the appends write in another Postgres. The two
// snapshots must be of one moment: the lock that every such append holds in the
// other database, from before its first statement until it is committed there, is
// taken for as long as it takes to make them.
func (v *verification) inlineElsewhere(ctx context.Context) (VerifyReport, error) {
	there, err := connectThere(ctx, v.build, v.options.Databases[v.build.database])
	if err != nil {
		return VerifyReport{}, err
	}
	defer closeConn(there)
	here, err := v.store.Pool().BeginTx(ctx, snapshotTx)
	if err != nil {
		return VerifyReport{}, fmt.Errorf("begin: %w", err)
	}
	defer rollback(ctx, here)
	tx, err := v.snapshots(ctx, here, there)
	if err != nil {
		return VerifyReport{}, err
	}
	defer rollback(ctx, tx)
	b, s, err := v.again(ctx, here, tx)
	if err != nil {
		return VerifyReport{}, err
	}
	late, err := v.unnumbered(ctx, here, b)
	if err != nil {
		return VerifyReport{}, err
	}
	r := VerifyReport{Position: late.to}
	progress := func(pos int64) { v.progress(pos, late.to) }
	r.Events, err = s.code.ship(ctx, here, tx, s.schema, theLog, 0, late.from, progress)
	if err != nil {
		return VerifyReport{}, err
	}
	n, err := s.code.ship(ctx, here, tx, s.schema, lateLog, late.from, late.to, progress)
	if err != nil {
		return VerifyReport{}, err
	}
	r.Events += n
	err = s.compare(ctx, tx, v.store.Pool(), b, v.options.Samples, &r)
	return r, err
}

// snapshots has here and a new transaction there see the same appends.
func (v *verification) snapshots(ctx context.Context, here pgx.Tx, there *pgx.Conn) (pgx.Tx, error) {
	id, err := storeID(ctx, v.store.Pool())
	if err != nil {
		return nil, err
	}
	key := quietKey(id)
	bounded, cancel := context.WithTimeout(ctx, 2*agreeLimit)
	defer cancel()
	if err := lockQuiet(bounded, there, key, agreeLimit); err != nil {
		return nil, err
	}
	unlock := func() error {
		_, err := there.Exec(bounded, `select pg_advisory_unlock($1)`, key)
		return err
	}
	tx, err := there.BeginTx(bounded, snapshotTx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("begin in %s: %w", v.build.database, err), unlock())
	}
	var ignored int
	_, err = tx.Exec(bounded, `select 1 from pg_class limit 1`) // the first statement takes the snapshot
	if err == nil {
		err = here.QueryRow(bounded, `select 1 from es.meta`).Scan(&ignored)
	}
	if err = errors.Join(err, unlock()); err != nil { // session locks do not mind the transaction
		rollback(ctx, tx)
		return nil, fmt.Errorf("take the snapshots of two databases: %w", err)
	}
	return tx, nil
}
