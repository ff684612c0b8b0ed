package source

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	"cdc/internal/cdc"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

const (
	// chunkSize is how much of a table a worker hands over at once.
	chunkSize = 256 << 10
	// chunkBudget bounds the bytes that were read and not yet delivered. A row
	// beyond it goes through alone.
	chunkBudget = 16 << 20
	// keepBuffer is the largest buffer that is used again; a larger one held a rare
	// huge row.
	keepBuffer = 2 * chunkSize
	// copyReadBuffer is the read buffer of a worker's connection: the server sends
	// 8 KiB at a time, one system call for many of them.
	copyReadBuffer = 128 << 10
	// pieceAttempts bounds how often a piece is begun: a standby cancels a query
	// that conflicts with recovery, and connections break.
	pieceAttempts = 4
	// pieceBackoff is the pause before the second attempt; it doubles.
	pieceBackoff = 250 * time.Millisecond
)

// work copies pieces until there are none, on a connection of its own that has
// imported the snapshot.
func (sn *Snapshot) work(ctx context.Context, w *worker) error {
	defer w.close()
	for {
		p, ok := sn.plan.next()
		if !ok {
			return nil
		}
		if err := w.copy(ctx, p); err != nil {
			return fmt.Errorf("copy %s: %w", sn.tables[p.table].name, sn.source.copyError(sn.tables[p.table], err))
		}
	}
}

// worker reads pieces of tables into chunks.
type worker struct {
	sn        *Snapshot
	ctx       context.Context // of the piece being copied
	conn      *pgconn.PgConn  // in a transaction with the snapshot; nil: connect
	table     int
	buf       []byte
	delivered bool // a chunk of this piece has left
}

func (w *worker) close() {
	if w.conn == nil {
		return
	}
	closeConn(w.conn)
	// After an error pgconn cancels the statement and closes behind our back.
	select {
	case <-w.conn.CleanupDone():
	case <-time.After(closeTimeout):
	}
	w.conn = nil
}

// copy reads one piece. It begins again only where no row of it was delivered
// yet, because rows of a second attempt could not be told from the first's.
func (w *worker) copy(ctx context.Context, p piece) error {
	w.ctx, w.table = ctx, p.table
	pause := pieceBackoff
	for n := 1; ; n++ {
		w.buf, w.delivered = w.buf[:0], false
		err := w.attempt(p)
		if err == nil {
			return nil
		}
		w.close()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if w.delivered || n == pieceAttempts || !retryable(err) {
			return err
		}
		w.sn.source.log.Warn("piece of a table is copied again", "table", w.sn.tables[p.table].name, "attempt", n, "err", err)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
		pause *= 2
	}
}

// retryable: the server may answer otherwise next time. An error that is not the
// server's own is one of the connection.
func retryable(err error) bool {
	state := sqlState(err)
	return !cdc.IsTerminal(err) && (state == "" || state == codeSerialization || state[:2] == "57" || state[:2] == "53")
}

func (w *worker) attempt(p piece) error {
	if w.conn == nil {
		if err := w.connect(); err != nil {
			return err
		}
	}
	if _, err := w.conn.CopyTo(w.ctx, w, p.sql); err != nil {
		return err
	}
	return w.flush(true)
}

// connect opens a connection and imports the snapshot.
func (w *worker) connect() error {
	cfg, err := parseURL(w.sn.source.cfg.URL)
	if err != nil {
		return err
	}
	cfg.BuildFrontend = func(r io.Reader, out io.Writer) *pgproto3.Frontend {
		return pgproto3.NewFrontend(bufio.NewReaderSize(r, copyReadBuffer), out)
	}
	conn, err := pgconn.ConnectConfig(w.ctx, &cfg.Config)
	if err != nil {
		return fmt.Errorf("connect to Postgres at %s: %w", w.sn.source.target, err)
	}
	w.conn = conn
	if err := pin(w.ctx, conn); err != nil {
		return fmt.Errorf("pin session settings: %w", err)
	}
	err = conn.Exec(w.ctx, importSnapshot(w.sn.export.snapshot)).Close()
	if err != nil {
		return fmt.Errorf("import snapshot %s: %w", w.sn.export.snapshot, err)
	}
	if tables := w.sn.export.tables; len(tables) > 0 {
		err = conn.Exec(w.ctx, lockSQL(tables, joinTimeout)+"; SET LOCAL lock_timeout = 0").Close()
	}
	return gaveWay(err)
}

// gaveWay marks the error of a connection of a snapshot that did not get its locks
// in time, see joinTimeout.
func gaveWay(err error) error {
	if sqlState(err) == codeLockTimeout {
		return fmt.Errorf("%w: %w", errGaveWay, err)
	}
	return err
}

// importSnapshot begins a transaction that sees what an exported snapshot sees.
func importSnapshot(name string) string {
	return "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT " + quoteLiteral(name)
}

// Write takes what COPY sends: whole rows.
func (w *worker) Write(p []byte) (int, error) {
	if n := len(w.buf); n > 0 && n+len(p) > chunkSize && w.buf[n-1] == '\n' {
		if err := w.flush(false); err != nil {
			return 0, err
		}
	}
	w.buf = append(w.buf, p...)
	return len(p), nil
}

// flush hands the rows read so far to Next, and waits where it is behind.
func (w *worker) flush(done bool) error {
	if n := len(w.buf); n > 0 && w.buf[n-1] != '\n' {
		return errTornRow
	}
	sn := w.sn
	c := chunk{table: w.table, data: w.buf, rows: bytes.Count(w.buf, newline), weight: min(int64(len(w.buf)), chunkBudget), done: done}
	if err := sn.budget.Acquire(w.ctx, c.weight); err != nil {
		return context.Cause(w.ctx)
	}
	w.delivered = w.delivered || c.rows > 0
	w.buf = nil
	t := sn.tables[w.table]
	t.readRows.Add(int64(c.rows))
	t.readBytes.Add(int64(len(c.data)))
	if done && t.left.Add(-1) == 0 {
		t.done.Store(true)
	}
	select {
	case sn.chunks <- c:
	case <-w.ctx.Done():
		return context.Cause(w.ctx)
	}
	select {
	case w.buf = <-sn.free:
	default:
		w.buf = make([]byte, 0, chunkSize)
	}
	return nil
}

var newline = []byte{'\n'}

// copyError explains an error of COPY in the user's terms.
func (s *Source) copyError(t *snapshotTable, err error) error {
	if sqlState(err) != codeInsufficientPrivilege {
		return err
	}
	return cdc.Terminal("select-rights", fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO %s; GRANT SELECT ON %s TO %s; with row level security: ALTER ROLE %s BYPASSRLS;",
		quote(t.rel.Namespace), s.role(), quote(t.rel.Namespace, t.rel.Name), s.role(), s.role()), "%w", err)
}
