package view

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"cdc/internal/eventstore"
	"cdc/internal/intent"
)

// The size of a batch.
const (
	// batchPositions is how much of the log one transaction takes: the round trip and
	// the commit are then a hundredth of it.
	batchPositions = 5000
	// batchBytes bounds the events of a batch, which are in the server's memory, or in
	// ours on their way to another Postgres. One event alone may be larger.
	batchBytes = 16 << 20
)

// Points at which Config.Hook is called. For crash tests.
const (
	HookBeforeApply = "view-before-apply" // a batch is about to be applied
	HookApplied     = "view-applied"      // it is applied, and not committed
	HookCommitted   = "view-committed"
)

// batchSQL is a relation of the events of the log behind $after and up to $to, at
// most one batch, in their order: pos, wanted (the view has a statement for it) and
// the columns of apply, data brought to the version the statements are written for.
//
// The event is looked up by a subquery with a limit: it cannot become a join, for
// which the planner reads the whole table where it thinks the batch large enough. And
// the statement must be planned each time it runs: a plan from when the tables were
// small reads all of them for each event.
func (c *code) batchSQL(after, to string) string {
	var data strings.Builder
	for _, b := range c.when {
		if b.schema > 1 {
			fmt.Fprintf(&data, " when %s then %s", intent.Literal(b.kind), b.upcast(""))
		}
	}
	upcast := "data"
	if data.Len() > 0 {
		upcast = "case type" + data.String() + " else data end"
	}
	// Data that is stored compressed counts with its length as text, the rest with
	// what it takes in memory.
	return fmt.Sprintf(`
	select pos, wanted, id, stream, version, type, schema, %[3]s as data, meta, at from (
		select l.pos, e.*, sum(e.size) over (order by l.pos rows unbounded preceding) as bytes
		from es.log l cross join lateral (
			select id, stream, version, type, schema, data, meta, at, type in (%[4]s) as wanted,
			       case when type not in (%[4]s) then 0
			            when pg_column_compression(data) is null and pg_column_compression(meta) is null then pg_column_size(data) + pg_column_size(meta)
			            else octet_length(data::text) + octet_length(meta::text) end as size
			from es.event where id = l.event limit 1) e
		where l.pos > %[1]s and l.pos <= least(%[2]s, %[1]s + %[5]d)
		order by l.pos) part
	where bytes <= %[6]d or pos = %[1]s + 1`,
		after, to, upcast, c.typeList(), batchPositions, batchBytes)
}

// arrays are the arguments of apply, of the wanted rows of batchSQL, which the caller
// selects from. Those that no statement uses are null.
func (c *code) arrays() []string {
	args := make([]string, len(variables))
	for i, v := range variables {
		switch v.param {
		case intent.ParamPos, intent.ParamID, intent.ParamType:
		default:
			if !c.uses(v.param) {
				args[i] = "null::" + v.sql + "[]"
				continue
			}
		}
		args[i] = "array_agg(" + v.param + ") filter (where wanted)"
	}
	return args
}

// callSQL is the call of a schema's apply with them.
func (c *code) callSQL(schema string) string {
	return schema + ".apply(" + strings.Join(c.arrays(), ", ") + ")"
}

// stepSQL applies the next batch of a build in the store's own database: build $1,
// position $2, and no event behind $3. It gives the position reached, or no row
// where there is nothing to apply, or the build is not at $2 any more.
//
// The row is locked first: of two that follow the same build the second waits, and
// finds that the position has changed.
func (c *code) stepSQL(schema string) string {
	return `
with it as materialized (
	select from es.view where build = $1 and pos = $2 and (state = 'building' or state = 'live' and mode = 'async') for update),
batch as (` + c.batchSQL("$2::bigint", "$3::bigint") + `),
applied as materialized (
	select max(pos) as pos, ` + c.callSQL(schema) + ` from (select * from batch where exists (select from it)) b)
update es.view v set pos = a.pos, error = null from applied a where v.build = $1 and a.pos is not null
returning v.pos`
}

// unhurried is a transaction that waits for locks and takes its time, whatever the
// login's defaults are: a batch that a timeout ends would be tried again for ever.
// Upcasts run in it, with the settings of the functions.
var unhurried = pgx.TxOptions{BeginQuery: "begin isolation level read committed; set local statement_timeout = 0; set local lock_timeout = 0;" +
	strings.ReplaceAll(pins, " set ", "; set local ")[1:]}

// local follows the log with a build whose table is in the store's database.
type local struct {
	store *eventstore.Store
	code  *code
	build int64
	text  string // of stepSQL
	hook  func(string)
}

func newLocal(store *eventstore.Store, c *code, b buildRow, hook func(string)) *local {
	return &local{store: store, code: c, build: b.id, text: c.stepSQL(b.schema()), hook: hook}
}

// errMoved says that somebody else moved the build: another instance, or a switch.
var errMoved = errors.New("the build was moved by another")

// position is where the build stands, errMoved where it does not follow the log any
// more.
func (l *local) position(ctx context.Context) (int64, error) {
	return storedPosition(ctx, l.store.Pool(), l.build)
}

func storedPosition(ctx context.Context, q querier, build int64) (pos int64, err error) {
	err = q.QueryRow(ctx, `select pos from es.view where build = $1 and (state = 'building' or state = 'live' and mode = 'async')`, build).Scan(&pos)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return 0, errMoved
	case err != nil:
		return 0, fmt.Errorf("read the position of build %d: %w", build, err)
	}
	return pos, nil
}

// step applies the next batch behind pos and up to to, in a transaction of its own,
// and returns the position reached: pos where there was nothing.
func (l *local) step(ctx context.Context, pos, to int64) (int64, error) {
	tx, err := l.store.Pool().BeginTx(ctx, unhurried)
	if err != nil {
		return pos, fmt.Errorf("begin: %w", err)
	}
	defer rollback(ctx, tx)
	l.hook(HookBeforeApply)
	next := pos
	err = tx.QueryRow(ctx, l.text, pgx.QueryExecModeCacheDescribe, l.build, pos, to).Scan(&next)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return pos, nil
	case err != nil:
		return pos, l.code.failure(err)
	}
	l.hook(HookApplied)
	if err := tx.Commit(ctx); err != nil {
		return pos, fmt.Errorf("commit: %w", err)
	}
	l.hook(HookCommitted)
	return next, nil
}

// close ends nothing: the pool is the store's.
func (l *local) close() {}

// FailedError is a statement of a view that fails at an event.
type FailedError struct {
	Position  int64     // of the event
	Event     intent.ID // at which it failed
	Type      string    // of the event
	Statement string    // as it is configured
	Message   string    // the server's
}

func (e *FailedError) Error() string {
	return fmt.Sprintf("the statement for %s fails at event %s (position %d): %s", e.Type, e.Event, e.Position, e.Message)
}

// stoppedPrefix begins the field in which apply names the event: its position, id
// and type follow.
const stoppedPrefix = "cdc event "

// failure makes an error of apply a FailedError where a statement is to blame, and
// leaves trouble of the server as it is.
func (c *code) failure(err error) error {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return fmt.Errorf("apply events: %w", err)
	}
	where, ok := strings.CutPrefix(pg.DataTypeName, stoppedPrefix)
	if !ok || isTrouble(pg.Code) {
		return fmt.Errorf("apply events: %w", err)
	}
	part := strings.SplitN(where, " ", 3)
	if len(part) != 3 {
		return fmt.Errorf("apply events: %w", err)
	}
	pos, noPos := strconv.ParseInt(part[0], 10, 64)
	id, noID := intent.ParseID(part[1])
	if noPos != nil || noID != nil {
		return fmt.Errorf("apply events: %w", err)
	}
	return &FailedError{Position: pos, Event: id, Type: part[2], Statement: c.view.When[part[2]], Message: message(pg)}
}

// isTrouble says that an error is the server's and not the statement's: another try
// may pass with the same event. Deadlocks, memory, disk, shutdown.
func isTrouble(code string) bool {
	return slices.ContainsFunc([]string{"08", "25", "40", "53", "57", "58", "F0", "XX"}, func(class string) bool { return strings.HasPrefix(code, class) }) ||
		code == "55P03" || code == "55P04"
}

// message is the server's answer in one line. Its detail is left out: it may show a
// row.
func message(pg *pgconn.PgError) string {
	text := fmt.Sprintf("%s (SQLSTATE %s)", pg.Message, pg.Code)
	if pg.Hint != "" {
		text += "; " + pg.Hint
	}
	return text
}
