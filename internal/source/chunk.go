package source

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"cdc/internal/cdc"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Chunk is rows of one table in the order of an index of its key, as of one
// transaction snapshot.
//
// Its transaction first locks the table in ACCESS SHARE mode, then takes the
// snapshot, reads the rows, and reads High last: a rewrite between snapshot and
// lock would show an empty table, and a position read before the rows would not
// bound what they show.
type Chunk struct {
	Relation *cdc.Relation // as Source.Relation describes the table
	Snapshot string        // pg_current_snapshot(): xmin:xmax:xip,…
	High     cdc.LSN       // the commit record of every transaction visible in Snapshot lies before it
	ReadAt   int64         // microseconds since 1970
	Rows     [][]cdc.Value // owned by the chunk; columns as Relation.Columns, in the text form of the stream
	Bytes    int64         // of the rows' text
	Last     []string      // what Next goes on behind: the text of the last row's key columns and a name of their order; nil where there is no row
	Done     bool          // the server has no rows behind Last at this snapshot
}

// LockedError says that a table could not be locked in ACCESS SHARE mode in time:
// somebody rewrites or alters it, and holds it for longer. Trying again is right.
type LockedError struct {
	Table string // schema.table
	Err   error  // names who blocks it, as far as that is known
}

func (e *LockedError) Error() string { return fmt.Sprintf("read %s: %v", e.Table, e.Err) }

func (e *LockedError) Unwrap() error { return e.Err }

// chunkAttempts bounds how often one read is begun: a connection that was idle may
// have been cut, and a table may be renamed between two of our statements.
const chunkAttempts = 3

// ErrCursor says that a cursor does not belong to the order in which a table is read
// now: the index it was made with is gone, the key is another, or a label of an enum
// in it was renamed. Its text may name another row then, or none.
var ErrCursor = errors.New("the key, its index or a label in it has changed since the chunk before")

// errRenamed: the table has another name than the one that was locked.
var errRenamed = errors.New("the table was renamed meanwhile")

// ChunkReader reads chunks of one table, each in a transaction of its own, on a
// connection of its own that is opened when it is needed and again when it broke.
// Between two chunks it holds neither lock nor snapshot. It belongs to one
// goroutine.
//
// The table is known by its OID: a renamed one is read under its new name, of one
// that is gone the error is a GoneError. LockedError: it is locked for longer than
// this reads on; any other error that is not terminal may pass too. No error
// holds data of a row.
type ChunkReader struct {
	s     *Source
	table cdc.Table // its name is that of the newest read
	conn  *pgx.Conn // nil: connect
	plan  *chunkPlan
	fill  filler

	lockWait time.Duration // lockTimeout outside tests
}

// ChunkReader makes a reader of a table's chunks. It does not block; the caller
// closes it.
func (s *Source) ChunkReader(table cdc.Table) *ChunkReader {
	return &ChunkReader{s: s, table: table, lockWait: lockTimeout}
}

// Close ends the connection. It may be called more than once, and the reader used
// again.
func (r *ChunkReader) Close() error {
	r.drop()
	return nil
}

func (r *ChunkReader) connect(ctx context.Context) (err error) {
	if r.conn == nil || r.conn.IsClosed() {
		r.conn, err = connectSQL(ctx, r.s.cfg.URL)
	}
	return err
}

func (r *ChunkReader) drop() {
	if r.conn != nil {
		closeConn(r.conn.PgConn())
		r.conn = nil
	}
}

// Next reads the rows behind a cursor, the Last of a chunk before, in the order of
// an index of the key; nil begins at the start. It stops at maxRows rows and in
// front of the row that would make them more than maxBytes, but never in front of
// the first; where the index is not unique, rows with the same key are not torn
// apart and make the chunk longer. ErrCursor: the rows are to be read from the start
// again. A TerminalError of reason key-index says which index is wanted.
func (r *ChunkReader) Next(ctx context.Context, after []string, maxRows int, maxBytes int64) (*Chunk, error) {
	c, err := r.read(ctx, func(p *chunkPlan, c *Chunk) error {
		if after != nil && !p.made(after) {
			return ErrCursor
		}
		r.fill.begin(len(p.table.rel.Columns), maxRows, maxBytes)
		done, err := r.fill.chunk(ctx, r.conn.PgConn(), p, after)
		if err != nil {
			return err
		}
		c.Last, c.Done = r.fill.cursor(p), done
		c.Rows, c.Bytes = r.fill.rows()
		return nil
	})
	if err != nil || !c.Done {
		return c, err
	}
	// The server reads a label as it is that moment, older snapshot or not. One that
	// was renamed while the chunk was read is found by the next; this is the last.
	switch labels, err := loadLabels(ctx, r.conn, r.plan.enums); {
	case err != nil:
		return nil, r.explain(err)
	case labels != r.plan.labels:
		return nil, r.explain(ErrCursor)
	}
	return c, nil
}

// Estimate is how many rows the planner expects of the table, with the
// publication's row filter.
func (r *ChunkReader) Estimate(ctx context.Context) (rows int64, err error) {
	_, err = r.read(ctx, func(p *chunkPlan, _ *Chunk) error {
		rows, err = estimate(ctx, r.conn.PgConn(), p.table.selectSQL(p.from))
		return err
	})
	return rows, err
}

// read runs fn in a chunk's transaction. What fn put into the chunk is what it
// returns.
func (r *ChunkReader) read(ctx context.Context, fn func(*chunkPlan, *Chunk) error) (*Chunk, error) {
	for n := 1; ; n++ {
		c, err := r.attempt(ctx, fn)
		if err == nil {
			return c, nil
		}
		lost := r.conn != nil && r.conn.IsClosed()
		r.leave(ctx)
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case n < chunkAttempts && (lost || errors.Is(err, errRenamed)):
			continue
		}
		return nil, r.explain(err)
	}
}

// leave ends a transaction that failed, and the connection where that fails too.
func (r *ChunkReader) leave(ctx context.Context) {
	if r.conn == nil {
		return
	}
	if r.conn.IsClosed() || r.conn.PgConn().TxStatus() != 'I' && r.conn.PgConn().Exec(ctx, "ROLLBACK").Close() != nil {
		r.drop()
	}
}

// explain puts an error into the user's terms.
func (r *ChunkReader) explain(err error) error {
	name := r.table.FullName()
	gone := new(GoneError)
	switch state := sqlState(err); {
	case errors.As(err, &gone):
		return gone
	case errors.Is(err, errLocked):
		return &LockedError{name, err}
	case state == codeLockTimeout:
		return &LockedError{name, fmt.Errorf("an index of it was locked for %s: %w", r.lockWait, err)}
	case r.plan != nil && !cdc.IsTerminal(err):
		err = r.s.copyError(r.plan.table, err)
	}
	return fmt.Errorf("read %s: %w", name, dataless(err))
}

// dataless is an error of the server without the data that its text would show:
// where a value is at fault (classes 22 and 23) only the code is told.
func dataless(err error) error {
	if state := sqlState(err); strings.HasPrefix(state, "22") || strings.HasPrefix(state, "23") {
		return fmt.Errorf("the server stopped at a value, SQLSTATE %s", state)
	}
	return err
}

// byIndex has the planner take the index of the key: in its order nothing is ever
// sorted, where a sort of all that is left of the table for every chunk would be
// quadratic. Neither workers nor compilation are worth their start.
const byIndex = `SET LOCAL enable_sort = off; SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off;
	SET LOCAL max_parallel_workers_per_gather = 0; SET LOCAL jit = off`

const chunkBegin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; " + byIndex

// chunkEnd reads the chunk's High and ends its transaction.
const chunkEnd = `SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END::text; COMMIT`

func (r *ChunkReader) attempt(ctx context.Context, fn func(*chunkPlan, *Chunk) error) (*Chunk, error) {
	if err := r.connect(ctx); err != nil {
		return nil, err
	}
	conn := r.conn.PgConn()
	if err := conn.Exec(ctx, chunkBegin).Close(); err != nil {
		return nil, err
	}
	if err := r.s.lockTables(ctx, conn, []cdc.Table{r.table}, r.lockWait); err != nil {
		return nil, r.locate(ctx, err)
	}
	c := &Chunk{}
	var schema, name, print string
	err := r.conn.QueryRow(ctx, fingerprintQuery(r.s.version), pgx.QueryExecModeCacheStatement, r.table.OID, r.s.cfg.Publication).
		Scan(&c.Snapshot, &c.ReadAt, &schema, &name, &print)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, r.locate(ctx, errRenamed)
	case err != nil:
		return nil, err
	case schema != r.table.Namespace || name != r.table.Name:
		r.table.Namespace, r.table.Name = schema, name
		return nil, errRenamed
	}
	if r.plan == nil || r.plan.print != print {
		if r.plan, err = r.s.planChunks(ctx, r.conn, r.table, print); err != nil {
			return nil, err
		}
	}
	c.Relation = r.plan.table.rel
	if err := fn(r.plan, c); err != nil {
		return nil, err
	}
	c.High, err = endChunk(ctx, conn)
	return c, err
}

func endChunk(ctx context.Context, conn *pgconn.PgConn) (cdc.LSN, error) {
	results, err := conn.Exec(ctx, chunkEnd).ReadAll()
	if err != nil {
		return 0, err
	}
	if len(results) != 2 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) != 1 {
		return 0, errors.New("read the position of the WAL: unexpected answer")
	}
	return cdc.ParseLSN(string(results[0].Rows[0][0]))
}

// locate finds out why a table could not be locked or is not the one that was: it
// has another name today, or is gone; else the cause is as it was.
func (r *ChunkReader) locate(ctx context.Context, cause error) error {
	if ctx.Err() != nil || r.conn.IsClosed() {
		return cause
	}
	if err := r.conn.PgConn().Exec(ctx, "ROLLBACK").Close(); err != nil {
		return cause
	}
	var schema, name string
	err := r.conn.QueryRow(ctx, `SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1`, r.table.OID).
		Scan(&schema, &name)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return &GoneError{r.table.FullName(), "table"}
	case err != nil:
		return errors.Join(cause, err)
	case schema != r.table.Namespace || name != r.table.Name:
		r.table.Namespace, r.table.Name = schema, name
		return errRenamed
	}
	return cause
}

// fingerprintQuery gives the transaction's snapshot, the time, the table's name and
// a text that changes with everything a chunkPlan is made of: the versions of the
// catalogue's rows of the table, its columns, their defaults and types, its indexes
// and its publication, and of all labels of enums. Its columns: snapshot, microseconds, schema, name, text.
func fingerprintQuery(version int) string {
	schemas := "''"
	if version >= 150000 {
		schemas = "(SELECT string_agg(s.oid || '.' || s.xmin, ',' ORDER BY s.oid) FROM pg_publication_namespace s WHERE s.pnpubid = p.oid AND s.pnnspid = n.oid)"
	}
	return `SELECT pg_current_snapshot()::text, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, n.nspname, c.relname,
		concat_ws(' ', c.xmin, n.xmin,
			(SELECT string_agg(a.attnum || '.' || a.xmin, ',' ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = c.oid),
			(SELECT string_agg(d.oid || '.' || d.xmin, ',' ORDER BY d.oid) FROM pg_attrdef d WHERE d.adrelid = c.oid),
			(SELECT string_agg(i.indexrelid || '.' || i.xmin, ',' ORDER BY i.indexrelid) FROM pg_index i WHERE i.indrelid = c.oid),
			(SELECT string_agg(t.oid || '.' || t.xmin || '.' || coalesce((SELECT string_agg(f.attnum || '.' || f.xmin, ',' ORDER BY f.attnum)
					FROM pg_attribute f WHERE f.attrelid = t.typrelid), ''), ',' ORDER BY t.oid)
				FROM pg_type t WHERE t.oid IN (SELECT a.atttypid FROM pg_attribute a WHERE a.attrelid = c.oid)),
			(SELECT md5(string_agg(e.oid || '.' || e.xmin, ',' ORDER BY e.oid)) FROM pg_enum e),
			(SELECT concat_ws('/', p.oid, p.xmin,
					(SELECT string_agg(r.oid || '.' || r.xmin, ',' ORDER BY r.oid) FROM pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = c.oid), ` + schemas + `)
				FROM pg_publication p WHERE p.pubname = $2))
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1`
}
