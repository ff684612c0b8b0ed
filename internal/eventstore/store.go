package eventstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"cdc/internal/cdc"
	"cdc/internal/intent"
)

// Config says which store and as whom.
type Config struct {
	URL      string
	Role     string // SET ROLE of every connection, es_writer for instance; "" keeps the login
	MaxConns int32  // 0: as in the URL (pool_max_conns), or pgx's default
	Logger   *slog.Logger
}

// Store calls the functions of schema es over a pool of connections. It may be
// used concurrently.
type Store struct {
	pool *pgxpool.Pool
	log  *slog.Logger
}

// Open connects. It fails with a TerminalError store-missing where there is no
// schema es, store-version where it is of another version than this program's, and
// store-rights where the login, or Role, may not use it.
func Open(ctx context.Context, c Config) (*Store, error) {
	cfg, err := ParsePoolURL(c.URL)
	if err != nil {
		return nil, err
	}
	if c.MaxConns > 0 {
		cfg.MaxConns = c.MaxConns
	}
	if c.Role != "" {
		cfg.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
			if _, err := conn.Exec(ctx, "set role "+pgx.Identifier{c.Role}.Sanitize()); err != nil {
				return fmt.Errorf("set role %s: %w", c.Role, err)
			}
			return nil
		}
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open the event store: %w", err)
	}
	s := &Store{pool: pool, log: c.Logger}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if err := s.check(ctx); err != nil {
		pool.Close()
		return nil, err
	}
	return s, nil
}

// check compares the schema's version with ours.
func (s *Store) check(ctx context.Context) error {
	var version int
	err := s.pool.QueryRow(ctx, "select es.version()").Scan(&version)
	var pe *pgconn.PgError
	switch {
	case errors.As(err, &pe) && pe.Code == codeInsufficientPrivilege:
		return cdc.Terminal("store-rights", "GRANT es_writer TO the login (to read only: es_reader; for the daemon: es_owner, es_view, es_writer).", "the login may not use the event store: %w", err)
	case err != nil:
		return fmt.Errorf("open the event store: %w", typed(err))
	case version < Version:
		return cdc.Terminal("store-version", "cdc es init", "the event store has version %d of its schema, this program works with %d", version, Version)
	case version > Version:
		return cdc.Terminal("store-version", "Install the newer program.", "the event store has version %d of its schema, this program knows none above %d", version, Version)
	}
	return nil
}

// Close ends the connections, after those in use are given back.
func (s *Store) Close() { s.pool.Close() }

// Pool is the store's pool, for packages that keep tables beside it.
func (s *Store) Pool() *pgxpool.Pool { return s.pool }

// ID tells stores apart: views in other databases remember it. The login must be
// es_owner.
func (s *Store) ID(ctx context.Context) (intent.ID, error) {
	var id [16]byte
	if err := s.pool.QueryRow(ctx, "select store from es.meta").Scan(&id); err != nil {
		return intent.ID{}, fmt.Errorf("read the store's id: %w", typed(err))
	}
	return id, nil
}
