package source

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// watchInterval is how often the blocker of a waiting backend is looked up:
// often enough for a status page, rare enough to cost nothing over hours.
const watchInterval = 2 * time.Second

// waiting is what a long wait in Postgres is held up by. It is safe for
// concurrent use; the zero value waits for nothing.
type waiting struct {
	mu   sync.Mutex
	text string
}

func (w *waiting) set(text string) (changed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	changed = w.text != text
	w.text = text
	return changed
}

func (w *waiting) get() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text
}

// Waiting says what the creation of a slot, the locks of a snapshot or Settle wait for:
// the blocking backend, its database and the age of its transaction. It is ""
// while nothing waits. It does not block.
func (s *Source) Waiting() string { return s.waiting.get() }

// watch looks up who blocks a backend, on a connection of its own, until stop is
// called, which returns the last blocker seen. Errors of the watch change
// nothing but what can be reported.
func (s *Source) watch(ctx context.Context, pid uint32, what string) (stop func() string) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	last := ""
	go func() {
		defer close(done)
		tick := time.NewTicker(watchInterval)
		defer tick.Stop()
		var c *pgx.Conn
		defer func() {
			if c != nil {
				closeConn(c.PgConn())
			}
		}()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if c == nil || c.IsClosed() {
				var err error
				if c, err = connectSQL(ctx, s.cfg.URL); err != nil {
					c = nil
					continue
				}
			}
			text, err := blockers(ctx, c, pid)
			if err != nil || text == "" {
				continue
			}
			last = text
			if s.waiting.set(what + " waits for " + text) {
				s.log.Warn("waiting in Postgres", "for", what, "blocker", text)
			}
		}
	}()
	return func() string {
		cancel()
		<-done
		s.waiting.set("")
		return last
	}
}

// sayBackend describes a row a of pg_stat_activity, sayPrepared a row p of
// pg_prepared_xacts.
const (
	sayBackend = `format('backend %s (database %s, user %s, %s)', a.pid, coalesce(a.datname, '-'), coalesce(a.usename, '-'),
			coalesce('transaction open since ' || to_char(a.xact_start, 'YYYY-MM-DD HH24:MI:SS') || ' UTC', 'age not visible to this role'))`
	sayPrepared = `format('prepared transaction %L (database %s, owner %s, prepared %s UTC); COMMIT PREPARED or ROLLBACK PREPARED it',
			p.gid, p.database, p.owner, to_char(p.prepared, 'YYYY-MM-DD HH24:MI:SS'))`
)

// blockers describes who holds up a backend; "" for nobody. A prepared
// transaction has no backend and is found through the lock it holds.
func blockers(ctx context.Context, c *pgx.Conn, pid uint32) (string, error) {
	rows, err := c.Query(ctx, `
		SELECT `+sayBackend+`
		FROM pg_stat_activity a WHERE a.pid = ANY(pg_blocking_pids($1::int))
		UNION ALL
		SELECT DISTINCT `+sayPrepared+`
		FROM pg_locks w JOIN pg_locks h ON h.pid IS NULL AND h.granted AND h.locktype = w.locktype
				AND h.database IS NOT DISTINCT FROM w.database AND h.relation IS NOT DISTINCT FROM w.relation
				AND h.transactionid IS NOT DISTINCT FROM w.transactionid
			JOIN pg_locks x ON x.pid IS NULL AND x.locktype = 'transactionid' AND x.virtualtransaction = h.virtualtransaction
			JOIN pg_prepared_xacts p ON p.transaction = x.transactionid
		WHERE w.pid = $1::int AND NOT w.granted`, int32(pid))
	if err != nil {
		return "", fmt.Errorf("look up blockers of backend %d: %w", pid, err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return "", fmt.Errorf("look up blockers of backend %d: %w", pid, err)
	}
	if len(found) > 0 {
		return strings.Join(found, ", "), nil
	}
	var standby bool
	if err := c.QueryRow(ctx, `SELECT pg_is_in_recovery()`).Scan(&standby); err != nil {
		return "", fmt.Errorf("look up blockers of backend %d: %w", pid, err)
	}
	if standby {
		return "a record of the primary's running transactions; SELECT pg_log_standby_snapshot() on the primary hastens it", nil
	}
	return "", nil
}
