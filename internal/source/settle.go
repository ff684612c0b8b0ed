package source

import (
	"context"
	"fmt"
	"strings"
	"time"

	"cdc/internal/cdc"

	"github.com/jackc/pgx/v5"
)

const (
	// settleFirst and settleMost are the pauses between two looks at the server's
	// transactions: most end at once, others in hours.
	settleFirst = 5 * time.Millisecond
	settleMost  = 500 * time.Millisecond
)

// pulsePrefix is that of the logical messages of Pulse. They are nobody's: a stream
// of all prefixes leaves them out.
const pulsePrefix = "_cdc.pulse"

// Settle waits until every transaction that had begun to write when it was called
// is over and visible to new snapshots. A transaction that had changed a table
// before the table was in the publication would otherwise commit into neither a
// later snapshot nor the stream. It blocks as long as the oldest one lasts; Waiting
// tells which. Prepared transactions count. It needs the primary.
func (s *Source) Settle(ctx context.Context) error {
	c, err := connectSQL(ctx, s.cfg.URL)
	if err != nil {
		return err
	}
	defer closeConn(c.PgConn())
	if err := s.settle(ctx, c); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("wait for the open transactions of %s: %w", s.target, err)
	}
	return nil
}

func (s *Source) settle(ctx context.Context, c *pgx.Conn) error {
	// An id of our own is behind that of every transaction that writes already. The
	// newest completed one would not be: ids are given before they complete.
	var fresh string
	err := pgx.BeginTxFunc(ctx, c, pgx.TxOptions{AccessMode: pgx.ReadWrite}, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, `SELECT pg_current_xact_id()::text`).Scan(&fresh)
	})
	if state := sqlState(err); state == codeReadOnly || state == codeNotSupported {
		return cdc.Terminal("standby", "Connect to the primary.", "the server gives no transaction id: %w", err)
	}
	if err != nil {
		return err
	}
	defer s.waiting.set("")
	pause, looked := settleFirst, time.Now().Add(settleMost-watchInterval) // the first look comes soon
	for {
		var over bool
		err := c.QueryRow(ctx, `SELECT pg_snapshot_xmin(pg_current_snapshot()) >= $1::text::xid8`, pgx.QueryExecModeCacheStatement, fresh).Scan(&over)
		if err != nil || over {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
		pause = min(2*pause, settleMost)
		if time.Since(looked) < watchInterval {
			continue
		}
		looked = time.Now()
		text, err := olderThan(ctx, c, fresh)
		if err != nil {
			return err
		}
		if text != "" && s.waiting.set("copying tables beside the stream waits for "+text) {
			s.log.Warn("waiting in Postgres", "for", "open transactions", "blocker", text)
		}
	}
}

// olderThan describes who runs transactions with an id before another; "" for
// nobody. The locks tell it to every role, pg_stat_activity does not.
func olderThan(ctx context.Context, c *pgx.Conn, xid string) (string, error) {
	rows, err := c.Query(ctx, `
		SELECT `+sayBackend+` FROM pg_stat_activity a WHERE a.pid IN (SELECT l.pid FROM pg_locks l
			WHERE l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.granted AND age(l.transactionid) > age($1::text::xid8::xid))
		UNION ALL
		SELECT `+sayPrepared+` FROM pg_prepared_xacts p WHERE age(p.transaction) > age($1::text::xid8::xid)`, xid)
	if err != nil {
		return "", fmt.Errorf("look up open transactions: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return "", fmt.Errorf("look up open transactions: %w", err)
	}
	return strings.Join(found, ", "), nil
}

// Pulse commits a transaction that changes nothing, and waits until the server has
// its commit on disk: without it the stream of an idle database would not pass the
// High of a chunk. On a standby it does nothing; there the primary's own records,
// four a minute, do it.
func (r *ChunkReader) Pulse(ctx context.Context) error {
	for n := 1; ; n++ {
		err := r.pulse(ctx)
		if err == nil {
			return nil
		}
		lost := r.conn != nil && r.conn.IsClosed()
		r.leave(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !lost || n == chunkAttempts {
			return fmt.Errorf("commit an empty transaction at %s: %w", r.s.target, err)
		}
	}
}

func (r *ChunkReader) pulse(ctx context.Context) error {
	if err := r.connect(ctx); err != nil {
		return err
	}
	var standby bool
	if err := r.conn.QueryRow(ctx, `SELECT pg_is_in_recovery()`, pgx.QueryExecModeCacheStatement).Scan(&standby); err != nil || standby {
		return err
	}
	// Synchronous standbys are not waited for: the stream does not wait for them.
	return r.conn.PgConn().Exec(ctx, `BEGIN READ WRITE; SET LOCAL synchronous_commit = local;
		SELECT pg_logical_emit_message(true, `+quoteLiteral(pulsePrefix)+`, ''); COMMIT`).Close()
}
