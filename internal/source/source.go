package source

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"cdc/internal/cdc"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
)

// Config says which database, slot and tables a Source reads.
type Config struct {
	URL         string // connection string of the database; it is never logged
	Slot        string
	Publication string
	Include     []string            // patterns "schema.table", * and ? stand for characters of one part
	Exclude     []string            // patterns that take tables out of Include again
	Columns     map[string][]string // "schema.table" → captured columns; a table that is missing captures all
	Key         map[string][]string // "schema.table" → key columns, in place of the primary key
	Failover    bool                // create the slot with FAILOVER (Postgres 17 and newer)
	Messages    []string            // prefixes of logical messages to deliver, "*" for every one; nil: none
	Tick        time.Duration       // Stream.Next returns after this long at the latest; default 100 ms
	Logger      *slog.Logger        // default: discarded
}

const (
	// defaultTick bounds how late the owner of a stream does its housekeeping,
	// and how late a cancelled context is noticed.
	defaultTick = 100 * time.Millisecond
	// minTick keeps a mistaken setting from turning the reader into a busy loop.
	minTick = time.Millisecond
)

// Source is one database as a pipeline reads it. Its methods may be called
// concurrently; a Stream belongs to one goroutine.
type Source struct {
	cfg      Config
	log      *slog.Logger
	target   string // host:port/database, for errors
	database string
	version  int // server_version_num when Open connected

	mu  sync.Mutex // guards sql: one statement at a time
	sql *pgx.Conn  // nil: connect again

	waiting waiting  // what a slot's creation or a snapshot's lock is held up by
	reread  rereader // reads rows back by key, on its own connection

	catalogue *catalogue
	liveness  time.Duration // least silence that counts; minLiveness outside tests
}

// Open connects to the database and reads its version. Errors name host and
// database, never the password.
func Open(ctx context.Context, cfg Config) (*Source, error) {
	if cfg.Tick == 0 {
		cfg.Tick = defaultTick
	}
	cfg.Tick = max(cfg.Tick, minTick)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	target, err := targetOf(cfg.URL)
	if err != nil {
		return nil, err
	}
	s := &Source{cfg: cfg, log: cfg.Logger.With("slot", cfg.Slot), target: target, liveness: minLiveness}
	s.catalogue = newCatalogue(s)
	err = s.withSQL(ctx, func(c *pgx.Conn) error {
		return c.QueryRow(ctx, `SELECT current_database(), current_setting('server_version_num')::int`).
			Scan(&s.database, &s.version)
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read version of %s: %w", target, err), s.Close())
	}
	if s.version < minVersion {
		return nil, errors.Join(s.Close(), cdc.Terminal("postgres-version",
			"Upgrade Postgres to 13 or newer.",
			"%s runs server_version_num %d, which is older than Postgres 13", target, s.version))
	}
	return s, nil
}

// minVersion is Postgres 13, the oldest whose pgoutput this package was checked with.
const minVersion = 130000

// Close ends the connection for catalogue queries. Streams are closed by their
// owners. It may be called more than once.
func (s *Source) Close() error {
	s.reread.close()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dropSQLLocked()
}

// Version is the server's server_version_num as Open saw it, 150018 for 15.18.
func (s *Source) Version() int { return s.version }

// Database is the name of the database.
func (s *Source) Database() string { return s.database }

// System identifies the server over a short replication connection. It blocks
// for two round trips and a connection.
func (s *Source) System(ctx context.Context) (cdc.System, error) {
	conn, err := connectReplication(ctx, s.cfg.URL, replicationOptions{})
	if err != nil {
		return cdc.System{}, err
	}
	defer closeConn(conn)
	id, err := pglogrepl.IdentifySystem(ctx, conn)
	if err != nil {
		return cdc.System{}, fmt.Errorf("identify system %s: %w", s.target, err)
	}
	version := s.version
	err = s.withSQL(ctx, func(c *pgx.Conn) error {
		return c.QueryRow(ctx, `SELECT current_setting('server_version_num')::int`).Scan(&version)
	})
	if err != nil {
		return cdc.System{}, fmt.Errorf("read version of %s: %w", s.target, err)
	}
	return cdc.System{
		ID:       id.SystemID,
		Timeline: uint32(id.Timeline),
		End:      cdc.LSN(id.XLogPos),
		Database: cmp.Or(id.DBName, s.database),
		Version:  version,
	}, nil
}

// withSQL runs fn with the connection for catalogue queries, alone on it, and
// connects first where there is none. A connection that fn left broken is
// dropped; fn's error is returned as it is.
func (s *Source) withSQL(ctx context.Context, fn func(*pgx.Conn) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sql != nil && s.sql.IsClosed() {
		s.sql = nil
	}
	if s.sql == nil {
		c, err := connectSQL(ctx, s.cfg.URL)
		if err != nil {
			return err
		}
		s.sql = c
	}
	err := fn(s.sql)
	if s.sql.IsClosed() || s.sql.PgConn().TxStatus() != 'I' {
		_ = s.dropSQLLocked()
	}
	return err
}

func (s *Source) dropSQLLocked() error {
	if s.sql == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	err := s.sql.Close(ctx)
	s.sql = nil
	if err != nil {
		return fmt.Errorf("close connection to %s: %w", s.target, err)
	}
	return nil
}
