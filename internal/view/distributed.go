package view

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"cdc/internal/eventstore"
	"cdc/internal/intent"
)

// distributed appends in the store and applies the events in the other databases,
// all or nothing.
//
// Locks are taken in one order, so that appends never wait for each other in a
// circle that no server sees: the lock of appends on their way in each other
// database, then the streams in the store, then rows of the views. An append that
// waits for a row elsewhere has its streams already, and one that has the row needs
// nothing more from the store. Two that meet in the rows of one database are that
// server's deadlock, which it ends; the append is made again.
//
// The order in which two of them change a row is that of their commits in the
// store: the second waits for the row until the first is committed there as well.
// And what an append can know of in the store it sees in the other database too
// (awaitDecided).
func (c *Coordinator) distributed(ctx context.Context, batches []intent.Batch, feeds []feed) (intent.Receipt, error) {
	parts := []openTx{{name: "the store"}}
	at := map[string]int{} // in parts, by database
	owner, err := c.owners.Acquire(ctx)
	if err != nil {
		return intent.Receipt{}, fmt.Errorf("append: %w", err)
	}
	defer owner.Release()
	parts[0].conn = owner.Conn()
	g, err := c.name(ctx, owner.Conn())
	if err != nil {
		return intent.Receipt{}, err
	}
	for _, f := range feeds {
		if at[f.database] > 0 {
			continue
		}
		pool := c.databases[f.database]
		if pool == nil {
			return intent.Receipt{}, fmt.Errorf("append: view %s is in %s, and no URL for it is configured", f.name, f.database)
		}
		conn, err := pool.Acquire(ctx)
		if err != nil {
			return intent.Receipt{}, fmt.Errorf("append: connect to %s, which holds view %s: %w", f.database, f.name, err)
		}
		defer conn.Release() // ends a connection that is within a transaction
		at[f.database] = len(parts)
		parts = append(parts, openTx{conn.Conn(), f.database})
		if err := beginThere(ctx, conn.Conn(), g); err != nil {
			return intent.Receipt{}, fmt.Errorf("append: begin in %s: %w", f.database, err)
		}
	}
	receipt, done, err := c.apply(ctx, parts, at, batches, feeds)
	if err != nil || done {
		rollbackAll(ctx, g, parts, 0)
		return receipt, err
	}
	c.hook("applied")
	if err := commitAll(ctx, g, idsOf(batches), parts, c.hook); err != nil {
		var behind *BehindError
		if errors.As(err, &behind) {
			return receipt, fmt.Errorf("append: %w", err)
		}
		return intent.Receipt{}, fmt.Errorf("append: %w", err)
	}
	return receipt, nil
}

// name makes the name of a new transaction that the session of conn decides.
func (c *Coordinator) name(ctx context.Context, conn *pgx.Conn) (gid, error) {
	id, err := storeID(ctx, conn)
	return gid{store: id, owner: ownerOf(conn), id: intent.NewID()}, err
}

// beginThere begins an append's transaction in another database, with the locks by
// which others know of it.
func beginThere(ctx context.Context, conn *pgx.Conn, g gid) error {
	if _, err := conn.Exec(ctx, "begin isolation level read committed"); err != nil {
		return err
	}
	if err := setLockTimeout(ctx, conn, lockWait); err != nil {
		return err
	}
	_, err := conn.Exec(ctx, `select pg_advisory_xact_lock_shared($1), pg_advisory_xact_lock($2)`, quietKey(g.store), g.key())
	return err
}

// apply appends in the store and applies the events elsewhere; nothing is
// committed. done says that there was nothing to store: a repeated append.
func (c *Coordinator) apply(ctx context.Context, parts []openTx, at map[string]int, batches []intent.Batch, feeds []feed) (r intent.Receipt, done bool, err error) {
	tx, err := parts[0].conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return r, false, fmt.Errorf("append: begin: %w", err)
	}
	// With this lock no view can be switched until the end: a switch takes one that
	// waits for it.
	if _, err := tx.Exec(ctx, `lock table es.event in row exclusive mode`); err != nil {
		return r, false, fmt.Errorf("append: %w", err)
	}
	now, err := readFeeds(ctx, tx)
	if err != nil {
		return r, false, err
	}
	now = feeding(now, batches)
	if !slices.EqualFunc(now, feeds, func(a, b feed) bool { return a.build == b.build }) {
		return r, false, errFeedsChanged
	}
	if _, err := tx.Exec(ctx, `select set_config('`+coordinatedSetting+`', 'on', true)`); err != nil {
		return r, false, fmt.Errorf("append: %w", err)
	}
	if r, err = eventstore.AppendTx(ctx, tx, batches); err != nil || r.Duplicate {
		return r, true, err
	}
	if err := awaitDecided(ctx, tx, parts[1:]); err != nil {
		return r, false, err
	}
	ids := idsOf(batches)
	for _, f := range feeds {
		p := parts[at[f.database]]
		// The position is given after the commit; a view that is inline cannot name it.
		rows, err := tx.Query(ctx, f.code.eventsSQL(), ids)
		if err != nil {
			return r, false, fmt.Errorf("append: read the events again: %w", err)
		}
		var held batch
		if err := held.fill(rows, func() error { return held.apply(ctx, p.conn, schemaName(f.build)) }); err != nil {
			return r, false, viewRefuses(f, err)
		}
	}
	return r, false, nil
}

// idsOf is the events' ids in the order of the call, which is that of the log.
func idsOf(batches []intent.Batch) [][16]byte {
	var ids [][16]byte
	for _, b := range batches {
		for _, e := range b.Events {
			ids = append(ids, e.ID)
		}
	}
	return ids
}

// awaitDecided waits, in the other databases, for the appends that are committed in
// the store or about to be. Such an append has let go of its stream, and its rows
// are not visible there yet: a statement would miss them, though its event comes
// later in the log. Their decisions are seen here, for they are written before the
// commit in the store and deleted after those elsewhere; there, each holds a lock of
// its own to its end.
func awaitDecided(ctx context.Context, tx pgx.Tx, there []openTx) error {
	rows, err := tx.Query(ctx, `select gid from es.decision`)
	if err != nil {
		return fmt.Errorf("append: read es.decision: %w", err)
	}
	names, err := collectText(rows)
	if err != nil {
		return fmt.Errorf("append: read es.decision: %w", err)
	}
	var keys []int64
	for _, name := range names {
		if g, _, ok := parseGID(name + ":0"); ok {
			keys = append(keys, g.key())
		}
	}
	if len(keys) == 0 {
		return nil
	}
	slices.Sort(keys)
	for _, p := range there {
		if _, err := p.conn.Exec(ctx, `select pg_advisory_xact_lock_shared(k) from unnest($1::bigint[]) k`, keys); err != nil {
			return fmt.Errorf("append: wait for earlier appends in %s: %w", p.name, err)
		}
	}
	return nil
}

// viewRefuses is the error of a view's statement: as that of an inline view in the
// store, which is the event's fault where the data does not fit.
func viewRefuses(f feed, err error) error {
	failed := fmt.Errorf("append: view %s in %s: %w", f.name, f.database, f.code.failure(err))
	var pe *pgconn.PgError
	if errors.As(err, &pe) && (strings.HasPrefix(pe.Code, "22") || strings.HasPrefix(pe.Code, "54")) {
		return &intent.InvalidError{Text: failed.Error()}
	}
	return failed
}

// eventsSQL is the events of the ids $1 that the view has a statement for, in their
// order, as batchColumns. Their position is 0: it is given after the commit.
func (c *code) eventsSQL() string {
	data := "e.data"
	for _, b := range c.when {
		if b.schema > 1 {
			data = "case when e.type = " + intent.Literal(b.kind) + " then " + b.upcast("e.") + " else " + data + " end"
		}
	}
	return `select ` + batchColumns + ` from (
		select u.i, 0::bigint as pos, e.id, e.stream, e.version, e.type, e.schema, ` + data + ` as data, e.meta, e.at
		from unnest($1::uuid[]) with ordinality u(id, i) join es.event e on e.id = u.id
		where e.type in (` + c.typeList() + `)) u order by i`
}

// coordinatedSetting tells the trigger of such a view that the append is a
// Coordinator's.
const coordinatedSetting = "es.coordinated"

// guardSQL makes the trigger function that stands for an inline view in another
// Postgres: it refuses appends that do not come from a Coordinator, which alone
// applies them there. The setting alone does not open it: applications are not
// es_owner.
func (c *code) guardSQL(schema string) string {
	return `create function ` + schema + `.on_event() returns trigger language plpgsql set search_path = pg_catalog, pg_temp as ` + dollarQuote(`
begin
  if coalesce(current_setting('`+coordinatedSetting+`', true), '') = 'on' and pg_has_role(session_user, 'es_owner', 'member') then
    return null;
  end if;
  raise exception 'events of type % feed view % in another Postgres: append them with POST /v1/append', new.type, `+intent.Literal(c.view.Name)+`
    using errcode = 'ES422', detail = '{"path": "type"}';
end `)
}
