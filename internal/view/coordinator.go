package view

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
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
