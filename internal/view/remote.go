package view

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"cdc/internal/eventstore"
	"cdc/internal/intent"
)

// Another Postgres that holds views has, owned by the login there:
//
//	es_remote.view  a row per build: its store, and the position, which is the truth
//	es_b<build>     as in the store
//	views           the live tables
//
// There need be no role of the store's; where es_reader or es_writer exist they may
// read the live tables, and grants to others are the operator's. Builds are numbered
// by their store: two stores cannot keep views in the same database.

// remoteSchema makes what views need in another Postgres, once.
const remoteSchema = `
create schema if not exists es_remote;
create schema if not exists views;
create table if not exists es_remote.view (
  store uuid   not null,            -- whose events they are
  build bigint not null,            -- of es.view there
  name  text   not null,
  pos   bigint not null default 0,  -- every event up to it is applied, none after; of a live inline view: no meaning
  primary key (store, build)
);`

// remote follows the log with a build whose table is in another Postgres. The
// position there is written with the table and decides; the store's follows it.
type remote struct {
	store *eventstore.Store
	code  *code
	build buildRow
	url   string
	id    intent.ID // of the store
	hook  func(string)

	conn  *pgx.Conn // nil: not connected
	read  string    // of readSQL
	apply string
}

func newRemote(store *eventstore.Store, c *code, b buildRow, url string, hook func(string)) *remote {
	return &remote{store: store, code: c, build: b, url: url, hook: hook, read: c.readSQL(),
		apply: "select " + b.schema() + ".apply($1, $2, $3, $4, $5, $6, $7, $8, $9)"}
}

// readSQL is the next batch behind $1 and up to $2 in one row: the last position, as
// text, and the arrays of apply.
func (c *code) readSQL() string {
	return `select max(pos)::text, ` + strings.Join(c.arrays(), ", ") + ` from (` + c.batchSQL("$1::bigint", "$2::bigint") + `) b`
}

// arrayTypes are the OIDs of apply's parameters (pg_type.dat), the same in every
// server: int8[], uuid[], text[], int8[], text[], int4[], jsonb[], jsonb[],
// timestamptz[].
var arrayTypes = []uint32{1016, 2951, 1009, 1016, 1009, 1007, 3807, 3807, 1185}

// binaryFormat is the format of every parameter and column, for the wire.
var binaryFormat = []int16{1}

// connect connects where there is no connection, and reads the store's id once.
func (r *remote) connect(ctx context.Context) error {
	if r.conn != nil && !r.conn.IsClosed() {
		return nil
	}
	if r.id.IsZero() {
		id, err := storeID(ctx, r.store.Pool())
		if err != nil {
			return err
		}
		r.id = id
	}
	conn, err := connectThere(ctx, r.build, r.url)
	if err != nil {
		return err
	}
	r.conn = conn
	return nil
}

// position is where the build stands there. The store's position, which may be
// behind after a crash, is brought up to it.
func (r *remote) position(ctx context.Context) (int64, error) {
	if _, err := storedPosition(ctx, r.store.Pool(), r.build.id); err != nil {
		return 0, err
	}
	if err := r.connect(ctx); err != nil {
		return 0, err
	}
	pos, err := positionThere(ctx, r.store.Pool(), r.conn, r.build)
	if err != nil {
		return 0, err
	}
	return pos, r.tell(ctx, pos)
}

// tell writes the position into the store. A higher one stays: it was true too.
func (r *remote) tell(ctx context.Context, pos int64) error {
	_, err := r.store.Pool().Exec(ctx, `update es.view set pos = $2, error = null where build = $1 and pos < $2
		and (state = 'building' or state = 'live' and mode = 'async')`, r.build.id, pos)
	if err != nil {
		return fmt.Errorf("write the position of build %d: %w", r.build.id, err)
	}
	return nil
}

// step applies the next batch there, in one transaction with the position. The
// events pass through as the one server sent them and the other takes them.
func (r *remote) step(ctx context.Context, pos, to int64) (int64, error) {
	next, arrays, err := r.fetch(ctx, pos, to)
	if err != nil || next == pos {
		return pos, err
	}
	if err := r.connect(ctx); err != nil {
		return pos, err
	}
	tx, err := r.conn.BeginTx(ctx, unhurried)
	if err != nil {
		return pos, fmt.Errorf("begin in %s: %w", r.build.database, err)
	}
	defer rollback(ctx, tx)
	tag, err := tx.Exec(ctx, `update es_remote.view set pos = $4 where store = $1 and build = $2 and pos = $3`, [16]byte(r.id), r.build.id, pos, next)
	if err != nil {
		return pos, fmt.Errorf("write the position in %s: %w", r.build.database, err)
	}
	if tag.RowsAffected() == 0 {
		return pos, nil // another moved it: position tells where to
	}
	r.hook(HookBeforeApply)
	if _, err := r.conn.PgConn().ExecParams(ctx, r.apply, arrays, arrayTypes, binaryFormat, binaryFormat).Close(); err != nil {
		return pos, r.code.failure(err)
	}
	r.hook(HookApplied)
	if err := tx.Commit(ctx); err != nil {
		return pos, fmt.Errorf("commit in %s: %w", r.build.database, err)
	}
	r.hook(HookCommitted)
	return next, r.tell(ctx, next)
}

// fetch reads the next batch: its last position and the arrays of apply.
func (r *remote) fetch(ctx context.Context, after, to int64) (last int64, arrays [][]byte, err error) {
	tx, err := r.store.Pool().BeginTx(ctx, unhurried)
	if err != nil {
		return after, nil, fmt.Errorf("read the log: begin: %w", err)
	}
	defer rollback(ctx, tx)
	bounds := [][]byte{strconv.AppendInt(nil, after, 10), strconv.AppendInt(nil, to, 10)}
	result := tx.Conn().PgConn().ExecParams(ctx, r.read, bounds, nil, nil, binaryFormat).Read()
	if result.Err != nil {
		return after, nil, fmt.Errorf("read the log behind position %d: %w", after, result.Err)
	}
	if len(result.Rows) != 1 || len(result.Rows[0]) != 1+len(variables) {
		return after, nil, fmt.Errorf("read the log behind position %d: the server sent %d rows", after, len(result.Rows))
	}
	row := result.Rows[0]
	if row[0] == nil {
		return after, nil, nil
	}
	if last, err = strconv.ParseInt(string(row[0]), 10, 64); err != nil {
		return after, nil, fmt.Errorf("read the log behind position %d: %w", after, err)
	}
	return last, row[1:], nil
}

// close ends the connection there.
func (r *remote) close() {
	if r.conn != nil {
		closeConn(r.conn)
		r.conn = nil
	}
}
