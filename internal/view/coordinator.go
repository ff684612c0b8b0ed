package view

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"cdc/internal/eventstore"
	"cdc/internal/intent"
)

// CoordinatorOptions are what a Coordinator has defaults for.
type CoordinatorOptions struct {
	MaxConns int32        // to the store, and to each other database; 0: DefaultMaxConns
	Logger   *slog.Logger // nil: none
	hook     func(point string)
}

// DefaultMaxConns is how many appends are on their way between two databases at
// once: each holds a prepared transaction in both, of which a server has
// max_prepared_transactions.
const DefaultMaxConns = 8

const (
	// lockWait bounds what an append waits for in another database: rows held by
	// another append, or a check that looks at both databases. It is longer than a
	// check's agreeLimit.
	lockWait = 15 * time.Second
	// appendAttempts bounds how often an append is begun again because views were
	// switched under it or because it met another in a deadlock.
	appendAttempts = 5
	// settleLimit is how long the end of a decided append may take, its caller gone
	// or not; recovery takes over behind it.
	settleLimit = 10 * time.Second
)

// Coordinator appends events that feed an inline view in another Postgres. It may
// be used concurrently, and several daemons may have one for the same store.
//
// Such an append is one transaction in two databases or more: prepared in all,
// decided by a row in the store, committed in the store and then in the others (see
// commitAll). What it costs:
//
//   - five round trips to the store and four to the other database, one behind the
//     other; the stream and the rows of the view stay locked over all of them, so
//     appends to one stream, or to one row of the view, happen one at a time at that
//     pace. Others go on beside them.
//   - two synced writes in each database, and two more in the store for the decision.
//   - a prepared transaction holds back vacuum in its database, and its locks stay
//     when a daemon dies in the middle: until recovery ends it, appends to the same
//     stream wait.
//   - while one is prepared, no replication slot can be created on that server: the
//     creation waits for it.
//   - where the other database cannot be reached, events of these types cannot be
//     appended at all.
//
// An async view has none of this.
type Coordinator struct {
	store     *eventstore.Store
	owners    *pgxpool.Pool            // sessions that decide
	databases map[string]*pgxpool.Pool // by host:port/name
	log       *slog.Logger
	hook      func(point string)

	mu    sync.Mutex
	feeds []feed // live inline views elsewhere, as last read
	read  bool

	recovering sync.Mutex
}

// feed is a live inline view in another Postgres, and the types it takes.
type feed struct {
	build    int64
	name     string
	database string
	types    []string
	code     *code
}

// NewCoordinator makes a Coordinator for a store and the Postgres servers, by URL,
// that hold its views; it connects when it needs to. The store must be open as a
// login that is es_owner. Close ends the connections.
func NewCoordinator(store *eventstore.Store, databases []string, o CoordinatorOptions) (*Coordinator, error) {
	c := &Coordinator{store: store, databases: map[string]*pgxpool.Pool{}, log: o.Logger, hook: o.hook}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if c.hook == nil {
		c.hook = func(string) {}
	}
	most := o.MaxConns
	if most <= 0 {
		most = DefaultMaxConns
	}
	cfg := store.Pool().Config()
	cfg.MaxConns, cfg.MinConns, cfg.MinIdleConns = most, 0, 0
	before := cfg.AfterConnect
	cfg.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		if before != nil {
			if err := before(ctx, conn); err != nil {
				return err
			}
		}
		return own(ctx, conn)
	}
	var err error
	if c.owners, err = pgxpool.NewWithConfig(context.Background(), cfg); err != nil {
		return nil, fmt.Errorf("open the event store: %w", err)
	}
	for _, url := range databases {
		name := (intent.View{Database: url}).DatabaseName()
		if c.databases[name] != nil {
			continue
		}
		cfg, err := eventstore.ParsePoolURL(url)
		if err == nil {
			cfg.MaxConns, cfg.MinConns = most, 0
			c.databases[name], err = pgxpool.NewWithConfig(context.Background(), cfg)
		}
		if err != nil {
			c.Close()
			return nil, fmt.Errorf("open %s: %w", name, err)
		}
	}
	return c, nil
}

// Close ends the connections once the appends under way have ended.
func (c *Coordinator) Close() {
	c.owners.Close()
	for _, pool := range c.databases {
		pool.Close()
	}
}

// ownerKey is under which a connection remembers the lock its session holds.
const ownerKey = "es.owner"

// own takes the advisory lock by which recovery knows that the session is alive.
func own(ctx context.Context, conn *pgx.Conn) error {
	var b [8]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	owner := int64(binary.BigEndian.Uint64(b[:]))
	if _, err := conn.Exec(ctx, `select pg_advisory_lock($1)`, owner); err != nil {
		return fmt.Errorf("take the lock of a deciding session: %w", err)
	}
	conn.PgConn().CustomData()[ownerKey] = owner
	return nil
}

func ownerOf(conn *pgx.Conn) int64 {
	owner, _ := conn.PgConn().CustomData()[ownerKey].(int64)
	return owner
}

// Append is Store.Append, also for events that feed an inline view in another
// Postgres. Besides the errors of Store.Append there are *UndecidedError and
// *BehindError; after either the same call may be made again.
func (c *Coordinator) Append(ctx context.Context, batches []intent.Batch) (intent.Receipt, error) {
	var last error
	for range appendAttempts {
		feeds, err := c.fed(ctx, batches)
		if err != nil {
			return intent.Receipt{}, err
		}
		if len(feeds) == 0 {
			r, err := c.store.Append(ctx, batches)
			var invalid *intent.InvalidError
			if !errors.As(err, &invalid) {
				return r, err
			}
			// Perhaps refused because such a view has become live since the last look.
			if fresh, look := c.look(ctx, batches); look != nil || len(fresh) == 0 {
				return r, err
			}
			last = err
			continue
		}
		r, err := c.distributed(ctx, batches, feeds)
		switch {
		case errors.Is(err, errFeedsChanged):
			if _, err := c.look(ctx, batches); err != nil {
				return intent.Receipt{}, err
			}
		case !hasCode(err, codeDeadlock):
			return r, err
		}
		last = err
	}
	return intent.Receipt{}, fmt.Errorf("append: given up after %d attempts: %w", appendAttempts, last)
}

// fed is the views elsewhere that the batches feed, as last read; read now where
// they never were.
func (c *Coordinator) fed(ctx context.Context, batches []intent.Batch) ([]feed, error) {
	c.mu.Lock()
	feeds, read := c.feeds, c.read
	c.mu.Unlock()
	if !read {
		return c.look(ctx, batches)
	}
	return feeding(feeds, batches), nil
}

// look reads the live inline views elsewhere anew.
func (c *Coordinator) look(ctx context.Context, batches []intent.Batch) ([]feed, error) {
	feeds, err := readFeeds(ctx, c.store.Pool())
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.feeds, c.read = feeds, true
	c.mu.Unlock()
	return feeding(feeds, batches), nil
}

func readFeeds(ctx context.Context, q querier) ([]feed, error) {
	rows, err := q.Query(ctx, `select `+buildColumns+` from es.view
		where state = 'live' and mode = 'inline' and database is not null order by build`)
	if err != nil {
		return nil, fmt.Errorf("read the inline views in other databases: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (feed, error) {
		b, err := scanBuild(row)
		if err != nil {
			return feed{}, err
		}
		c, err := decode(b.raw)
		return feed{b.id, b.name, b.database, b.types(), c}, err
	})
}

// feeding is those of the views that take an event of the batches, by database.
func feeding(feeds []feed, batches []intent.Batch) []feed {
	var out []feed
	for _, f := range feeds {
		if slices.ContainsFunc(batches, func(b intent.Batch) bool {
			return slices.ContainsFunc(b.Events, func(e intent.NewEvent) bool { return slices.Contains(f.types, e.Type) })
		}) {
			out = append(out, f)
		}
	}
	slices.SortStableFunc(out, func(a, b feed) int { return cmp.Compare(a.database, b.database) })
	return out
}

// errFeedsChanged says that a view was switched between the look and the append.
var errFeedsChanged = errors.New("views were switched meanwhile")

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
