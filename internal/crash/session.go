package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// statementLimit bounds one transaction of the workload: locks are waited for.
	statementLimit = 60 * time.Second
	// again is how soon a connection is tried again.
	again = 25 * time.Millisecond
)

// lsn is a place in Postgres' log.
type lsn uint64

func (l lsn) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }

func parseLSN(text string) (lsn, error) {
	high, low, ok := strings.Cut(text, "/")
	h, err1 := strconv.ParseUint(high, 16, 32)
	l, err2 := strconv.ParseUint(low, 16, 32)
	if !ok || err1 != nil || err2 != nil {
		return 0, fmt.Errorf("%q is no position in the log", text)
	}
	return lsn(h<<32 | l), nil
}

// commits knows between which two places of the log transactions were committed,
// as far as their clients were told.
type commits struct {
	mu     sync.Mutex
	before map[uint64]lsn // the log's end before COMMIT was begun
	after  map[uint64]lsn // and after it was answered
}

func newCommits() *commits {
	return &commits{before: map[uint64]lsn{}, after: map[uint64]lsn{}}
}

func (c *commits) add(xid uint64, before, after lsn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.before[xid], c.after[xid] = before, after
}

// workload runs the sessions of a plan.
type workload struct {
	url     string
	commits *commits
	done    atomic.Int64 // steps
	// Outcomes, for the summary.
	committed, aborted, unknown atomic.Int64

	wg  sync.WaitGroup
	mu  sync.Mutex
	err error // a statement that is wrong: the generator's fault
}

func startWorkload(ctx context.Context, url string, p plan, c *commits) *workload {
	w := &workload{url: url, commits: c}
	for _, steps := range p.sessions {
		w.wg.Go(func() { w.session(ctx, steps) })
	}
	return w
}

// wait blocks until every step was tried.
func (w *workload) wait() error {
	w.wg.Wait()
	return w.err
}

// session tries each step once. Whether a step whose answer is lost was
// committed, the audit table knows.
func (w *workload) session(ctx context.Context, steps []step) {
	var conn *pgconn.PgConn
	defer func() {
		if conn != nil {
			_ = conn.Close(context.WithoutCancel(ctx))
		}
	}()
	for _, s := range steps {
		if err := sleep(ctx, s.pause); err != nil {
			return
		}
		for conn == nil || conn.IsClosed() {
			var err error
			if conn, err = pgconn.Connect(ctx, w.url); err != nil {
				conn = nil
				if sleep(ctx, again) != nil {
					return
				}
			}
		}
		w.try(ctx, conn, s)
		w.done.Add(1)
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

func (w *workload) try(ctx context.Context, conn *pgconn.PgConn, s step) {
	ctx, cancel := context.WithTimeout(ctx, statementLimit)
	defer cancel()
	err := run(ctx, conn, s, w.commits)
	var pg *pgconn.PgError
	switch {
	case err == nil && s.abort:
		w.aborted.Add(1)
	case err == nil:
		w.committed.Add(1)
	case errors.As(err, &pg) && pg.Code[:2] != "57":
		w.aborted.Add(1)
		if !expected(pg.Code) {
			w.mu.Lock()
			w.err = fmt.Errorf("workload: %s: %w", s, err)
			w.mu.Unlock()
		}
		if conn.TxStatus() != 'I' {
			_, _ = conn.Exec(ctx, "ROLLBACK").ReadAll()
		}
	default:
		w.unknown.Add(1)
		_ = conn.Close(ctx)
	}
}

// expected are the errors that sessions which know nothing of each other run
// into: a deadlock, a key that is taken, a column that another has dropped, a disk
// that is full.
func expected(code string) bool {
	switch code {
	case "40P01", "23505", "42703", "42701", diskFullCode:
		return true
	}
	return false
}

// diskFullCode is Postgres' disk_full.
const diskFullCode = "53100"

func run(ctx context.Context, conn *pgconn.PgConn, s step, c *commits) error {
	sql := "BEGIN"
	for _, p := range s.parts {
		if p.rows == nil {
			sql += ";\n" + p.sql
			continue
		}
		if _, err := conn.Exec(ctx, sql).ReadAll(); err != nil {
			return err
		}
		if _, err := conn.CopyFrom(ctx, bytes.NewReader(p.rows), p.sql); err != nil {
			return err
		}
		sql = ""
	}
	if s.abort {
		_, err := conn.Exec(ctx, sql+";\nROLLBACK").ReadAll()
		return err
	}
	results, err := conn.Exec(ctx, sql+";\nSELECT pg_current_xact_id_if_assigned(), pg_current_wal_insert_lsn();\nCOMMIT;\nSELECT pg_current_wal_insert_lsn()").ReadAll()
	if err != nil {
		return err
	}
	n := len(results)
	if n < 3 || len(results[n-3].Rows) != 1 || len(results[n-1].Rows) != 1 {
		return fmt.Errorf("commit: %d results", n)
	}
	row := results[n-3].Rows[0]
	if row[0] == nil {
		return nil // nothing was changed
	}
	xid, err := strconv.ParseUint(string(row[0]), 10, 64)
	if err != nil {
		return err
	}
	before, err := parseLSN(string(row[1]))
	if err != nil {
		return err
	}
	after, err := parseLSN(string(results[n-1].Rows[0][0]))
	if err != nil {
		return err
	}
	c.add(xid, before, after)
	return nil
}

// database is a connection that is made again where it breaks. Its methods may be
// called concurrently, and then take turns.
type database struct {
	url string

	mu   sync.Mutex
	conn *pgconn.PgConn
}

// query runs one text of statements and returns their rows as text; NULL is "".
// Where a fault has cut the connection, or does so meanwhile, it is run again: a
// server that one of its processes was killed under may look well for a moment yet.
func (d *database) query(ctx context.Context, sql string) (rows [][]string, err error) {
	ctx, cancel := context.WithTimeout(ctx, statementLimit)
	defer cancel()
	d.mu.Lock()
	defer d.mu.Unlock()
	for range queryTries {
		if rows, err = d.queryLocked(ctx, sql); err == nil || ctx.Err() != nil {
			break
		}
	}
	return rows, err
}

const queryTries = 3

func (d *database) queryLocked(ctx context.Context, sql string) ([][]string, error) {
	if d.conn == nil || d.conn.IsClosed() {
		if err := d.connectLocked(ctx); err != nil {
			return nil, err
		}
	}
	results, err := d.conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		d.closeLocked()
		return nil, fmt.Errorf("execute %.100q: %w", sql, err)
	}
	var rows [][]string
	for _, r := range results {
		for _, row := range r.Rows {
			text := make([]string, len(row))
			for i, v := range row {
				text[i] = string(v)
			}
			rows = append(rows, text)
		}
	}
	return rows, nil
}

// connectLocked waits for a server that recovers.
func (d *database) connectLocked(ctx context.Context) (err error) {
	for {
		if d.conn, err = pgconn.Connect(ctx, d.url); err == nil {
			return nil
		}
		d.conn = nil
		var pg *pgconn.PgError
		if !errors.As(err, &pg) || pg.Code != "57P03" || sleep(ctx, again) != nil {
			return err
		}
	}
}

func (d *database) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closeLocked()
}

func (d *database) closeLocked() {
	if d.conn != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = d.conn.Close(ctx)
		d.conn = nil
	}
}
