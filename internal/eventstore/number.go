package eventstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/intent"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// NotifyChannel is notified with the new head in every transaction that
	// numbers events.
	NotifyChannel = "es_log"
	// BarrierPrefix is the prefix of the logical messages that Barrier writes.
	BarrierPrefix = "cdc.es"

	// chunkRows is how many rows a LogWriter holds before they must be written: one
	// statement each, large enough that round trips do not count, small enough that
	// the transaction of any size costs no memory here.
	chunkRows = 1000
	// goodbye bounds closing the connection.
	goodbye = 2 * time.Second
)

// ErrLogHeld says that another session holds the right to number events. Try again
// after a while.
var ErrLogHeld = errors.New("another instance numbers the events of this store")

// ErrNotVisible says that a transaction stands in the WAL and readers do not see it
// yet: its server process is still on its way, or waits for a synchronous standby.
// Nothing was written; write again.
var ErrNotVisible = errors.New("a committed transaction is not visible yet")

// ErrFenced says that es.reader is not as this LogWriter left it: somebody else
// wrote it. Nothing of the batch was kept.
var ErrFenced = errors.New("es.reader was changed by another")

// ErrNumbered says that an event of the batch has a position already, so es.reader
// stood before events that were numbered. Nothing of the batch was kept.
var ErrNumbered = errors.New("an event has a position already")

// Reader is how far the reader of a slot has come: the row of es.reader.
type Reader struct {
	Slot     string
	System   string // system identifier of the server
	Timeline uint32
	LSN      cdc.LSN // every commit record before it is numbered
}

// Tampering is a change of a stored event that the WAL shows.
type Tampering struct {
	LSN       cdc.LSN // of the commit record
	Tx        uint32
	Operation string    // update, delete or truncate
	Event     intent.ID // zero for truncate
	At        time.Time // of the commit
}

// LogWriter writes es.log. It has a connection of its own, whose session holds the
// only right to number; where the connection is lost, so is the right, and with it
// the transaction under way. Its methods are for one goroutine.
//
// A batch is what happens between two Commits: Add for each event in the order of
// the WAL, Write where Full says so, Commit at the end of a source transaction.
// It is one database transaction, in which es.log and es.reader move together.
//
//	idle ── Add … ──▶ holding rows ── Write ──▶ transaction open ── Commit ──▶ idle
//	                                   └─ ErrNotVisible: still holding them
type LogWriter struct {
	conn   *pgx.Conn
	target string

	reader  Reader // as committed
	exists  bool   // es.reader has its row
	head    int64  // greatest position, those of the open transaction included
	settled int64  // greatest position that is committed

	open    bool // a transaction is open on the connection
	chunk   chunk
	written int // rows of the batch in the open transaction
}

// OpenLogWriter connects and takes the right to number. It does not wait for it:
// ErrLogHeld.
func (s *Store) OpenLogWriter(ctx context.Context) (*LogWriter, error) {
	cfg := s.Pool().Config().ConnConfig
	w := &LogWriter{target: fmt.Sprintf("%s:%d/%s", cfg.Host, cfg.Port, cfg.Database)}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to %s to number events: %w", w.target, err)
	}
	w.conn = conn
	if err := w.begin(ctx); err != nil {
		w.Close()
		return nil, fmt.Errorf("prepare numbering at %s: %w", w.target, err)
	}
	return w, nil
}

// numberPins keep the session alive while nothing happens and its commits durable:
// the slot is confirmed behind them. A weaker synchronous_commit of the role or the
// database would let the slot get ahead of the log; a stronger one is kept.
const numberPins = `
	select set_config(name, value, false) from (values
		('statement_timeout', '0'), ('lock_timeout', '0'), ('idle_in_transaction_session_timeout', '0'),
		('idle_session_timeout', '0'), ('transaction_timeout', '0'), ('search_path', 'pg_catalog, pg_temp'),
		('default_transaction_isolation', 'read committed'), ('default_transaction_read_only', 'off'),
		('application_name', 'cdc numbering')) pin(name, value)
	join pg_catalog.pg_settings using (name)
	union all
	select set_config('synchronous_commit', 'on', false) where current_setting('synchronous_commit') in ('off', 'local')`

func (w *LogWriter) begin(ctx context.Context) error {
	if _, err := w.conn.Exec(ctx, numberPins); err != nil {
		return fmt.Errorf("pin session settings: %w", err)
	}
	var mine bool
	err := w.conn.QueryRow(ctx, `select pg_try_advisory_lock(hashtextextended('cdc es.log', 0))`).Scan(&mine)
	switch {
	case err != nil:
		return fmt.Errorf("ask for the lock of es.log: %w", err)
	case !mine:
		return ErrLogHeld
	}
	if err := w.load(ctx); err != nil {
		return err
	}
	for name, sql := range statements {
		if _, err := w.conn.PgConn().Prepare(ctx, name, sql, nil); err != nil {
			return fmt.Errorf("prepare %s: %w", name, err)
		}
	}
	return nil
}

// load reads how far the log and its reader are.
func (w *LogWriter) load(ctx context.Context) error {
	var lsn string
	var timeline int64
	err := w.conn.QueryRow(ctx, `select slot, system, timeline, lsn::text from es.reader`).
		Scan(&w.reader.Slot, &w.reader.System, &timeline, &lsn)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
	case err != nil:
		return fmt.Errorf("read es.reader: %w", err)
	default:
		w.exists, w.reader.Timeline = true, uint32(timeline)
		if w.reader.LSN, err = cdc.ParseLSN(lsn); err != nil {
			return fmt.Errorf("read es.reader: %w", err)
		}
	}
	if err := w.conn.QueryRow(ctx, `select coalesce(max(pos), 0) from es.log`).Scan(&w.head); err != nil {
		return fmt.Errorf("read the head of es.log: %w", err)
	}
	w.settled = w.head
	return nil
}

// Reader is es.reader as last committed; false where it has no row.
func (w *LogWriter) Reader() (Reader, bool) { return w.reader, w.exists }

// Head is the greatest committed position.
func (w *LogWriter) Head() int64 { return w.settled }

// Claim says under which slot, system and timeline the following commits are: the
// timeline may have moved on since es.reader was written.
func (w *LogWriter) Claim(r Reader) {
	w.reader.Slot, w.reader.System, w.reader.Timeline = r.Slot, r.System, r.Timeline
}

// Empty says that the batch has nothing in it.
func (w *LogWriter) Empty() bool { return w.chunk.n == 0 && !w.open }

// Size is how many events the batch has.
func (w *LogWriter) Size() int { return w.chunk.n + w.written }

// Full says that Write must come before the next Add.
func (w *LogWriter) Full() bool { return w.chunk.n >= chunkRows }

// Add puts an event into the batch, behind those before it. It does no I/O.
func (w *LogWriter) Add(id intent.ID, lsn cdc.LSN, tx uint32) { w.chunk.add(id, lsn, tx) }

// Write sends the rows that are held to the open transaction, and opens it where
// there is none. ErrNotVisible: nothing was sent, and the rows are still held.
//
// A position is only given to an event that every later snapshot sees. The server
// sends a transaction to the slot when its commit record is on disk, before it is
// visible, which takes as long as a synchronous standby does: a reader of the log
// would find the position and not the event.
func (w *LogWriter) Write(ctx context.Context) error {
	if w.chunk.n == 0 {
		return nil
	}
	batch := &pgconn.Batch{}
	if !w.open {
		batch.ExecParams("begin", nil, nil, nil, nil)
	}
	w.open = true
	first := w.chunk.parameters(w.head)
	batch.ExecPrepared("es_number", first, w.chunk.formats, nil)
	results, err := w.conn.PgConn().ExecBatch(ctx, batch).ReadAll()
	if err != nil {
		return w.failed(err)
	}
	n := results[len(results)-1].CommandTag.RowsAffected()
	if n == 0 {
		return ErrNotVisible
	}
	if n != int64(w.chunk.n) {
		return fmt.Errorf("number %d events at %s: %d rows were written", w.chunk.n, w.target, n)
	}
	w.head += n
	w.written += w.chunk.n
	w.chunk.reset()
	return nil
}

// Alarm records a change of stored events with the batch.
func (w *LogWriter) Alarm(ctx context.Context, t Tampering) error {
	var event any
	if t.Operation != "truncate" {
		event = t.Event.String()
	}
	if !w.open {
		if _, err := w.conn.Exec(ctx, "begin"); err != nil {
			return w.failed(err)
		}
		w.open = true
	}
	_, err := w.conn.Exec(ctx, `insert into es.alarm (lsn, tx, operation, event, at)
		select $1::text::pg_lsn, $2, $3, $4::text::uuid, $5
		where not exists (select from es.alarm where lsn = $1::text::pg_lsn and operation = $3 and event is not distinct from $4::text::uuid)
		on conflict do nothing`, t.LSN.String(), int64(t.Tx), t.Operation, event, t.At)
	if err != nil {
		return w.failed(err)
	}
	return nil
}

// Commit ends the batch: es.reader moves to end, the end of the newest source
// transaction, which is in the batch as a whole, or a later position before which
// nothing is open. Durable when it returns. ErrNotVisible: try again. After any
// other error the LogWriter is of no use any more, and whether the batch was kept
// says the next one's Reader.
func (w *LogWriter) Commit(ctx context.Context, end cdc.LSN) error {
	if err := w.Write(ctx); err != nil {
		return err
	}
	if w.exists && end < w.reader.LSN {
		return fmt.Errorf("commit of the log at %s: it stands at %s already", end, w.reader.LSN)
	}
	batch := &pgconn.Batch{}
	if !w.open {
		batch.ExecParams("begin", nil, nil, nil, nil)
	}
	next := w.reader
	next.LSN = end
	batch.ExecPrepared("es_reader", w.readerParameters(next), nil, nil)
	if w.written > 0 {
		batch.ExecPrepared("es_notify", [][]byte{[]byte(strconv.FormatInt(w.head, 10))}, nil, nil)
	}
	batch.ExecParams("commit", nil, nil, nil, nil)
	w.open = true
	if _, err := w.conn.PgConn().ExecBatch(ctx, batch).ReadAll(); err != nil {
		return w.failed(err)
	}
	w.committed(next)
	return nil
}

func (w *LogWriter) committed(r Reader) {
	w.reader, w.exists, w.settled = r, true, w.head
	w.open, w.written = false, 0
}

func (w *LogWriter) readerParameters(next Reader) [][]byte {
	before := []byte("0/0")
	if w.exists {
		before = []byte(w.reader.LSN.String())
	}
	return [][]byte{
		[]byte(next.Slot), []byte(next.System), []byte(strconv.FormatUint(uint64(next.Timeline), 10)),
		[]byte(next.LSN.String()), before,
	}
}

// failed names an error of the batch. The transaction is gone or will go with the
// connection.
func (w *LogWriter) failed(err error) error {
	pe := new(pgconn.PgError)
	errors.As(err, &pe)
	switch {
	case pe.Code == codeNotNull && pe.TableName == "reader":
		return fmt.Errorf("number events at %s: %w: not at %s any more", w.target, ErrFenced, w.reader.LSN)
	case pe.Code == codeUnique && pe.ConstraintName == "log_event_key":
		return fmt.Errorf("number events at %s: %w", w.target, ErrNumbered)
	case pe.Code == codeUnique && pe.ConstraintName == "log_pkey":
		return fmt.Errorf("number events at %s from %d on: %w: the positions are taken", w.target, w.settled+1, ErrFenced)
	}
	return fmt.Errorf("number events at %s: %w", w.target, err)
}

const (
	codeNotNull = "23502"
	codeUnique  = "23505"
)

// Ping asks whether the connection, and with it the right to number, is still there.
func (w *LogWriter) Ping(ctx context.Context) error {
	if err := w.conn.PgConn().Ping(ctx); err != nil {
		return fmt.Errorf("connection that numbers events at %s: %w", w.target, err)
	}
	return nil
}

// Close gives the right to number back. What was not committed is gone. It may be
// called more than once.
func (w *LogWriter) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), goodbye)
	defer cancel()
	_ = w.conn.Close(ctx)
	select {
	case <-w.conn.PgConn().CleanupDone():
	case <-ctx.Done():
	}
}

// statements are prepared once a connection.
var statements = map[string]string{
	// Writes all rows or none: none while one of the transactions $5 is not visible
	// to this statement. Ids of the stream have 32 bits; each is the one nearest to
	// the snapshot's xmax, before or behind it, as Postgres itself compares them.
	"es_number": `
		insert into es.log (pos, event, lsn, tx)
		select $1::bigint + u.i, u.event, u.lsn, u.tx
		from unnest($2::uuid[], $3::pg_lsn[], $4::bigint[]) with ordinality u(event, lsn, tx, i)
		where not exists (
			select from (select pg_current_snapshot() as s, pg_snapshot_xmax(pg_current_snapshot())::text::bigint as top offset 0) now,
				lateral (select xid, (xid - (top & 4294967295) + 6442450944) % 4294967296 - 2147483648 as ahead from unnest($5::bigint[]) t(xid)) t
			where case when ahead >= 0 then true else not pg_visible_in_snapshot(greatest(top + ahead, 3)::text::xid8, s) end)`,
	// A position that is not null only where the row is as this writer left it
	// (es.reader.lsn is not null): one round trip carries the condition and the commit.
	"es_reader": `
		insert into es.reader as r (slot, system, timeline, lsn) values ($1, $2, $3::text::int, $4::text::pg_lsn)
		on conflict (one) do update set slot = excluded.slot, system = excluded.system, timeline = excluded.timeline, at = now(),
			lsn = case when r.lsn = $5::text::pg_lsn then excluded.lsn end`,
	"es_notify": `select pg_notify('` + NotifyChannel + `', $1::text)`,
}
