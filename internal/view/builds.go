package view

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"cdc/internal/intent"
)

// The states of a build.
const (
	stateBuilding = "building"
	stateLive     = "live"
	stateRetired  = "retired"
)

// ErrNoView says that the store has no such view.
var ErrNoView = errors.New("no such view")

// ErrNoBuild says that no build of the view is under way.
var ErrNoBuild = errors.New("no build of the view is under way")

// buildRow is a row of es.view.
type buildRow struct {
	id       int64
	name     string
	mode     intent.ViewMode
	database string // host:port/name of another Postgres; "": the store's own
	state    string
	pos      int64
	def      intent.View
	raw      []byte // the definition as it is stored
}

// schema holds the build's functions, and its table until it is live.
func (b buildRow) schema() string { return schemaName(b.id) }

func schemaName(build int64) string { return fmt.Sprintf("es_b%d", build) }

// tableSchema is where the build's table is.
func (b buildRow) tableSchema() string {
	if b.state == stateLive {
		return "views"
	}
	return b.schema()
}

// table is the build's table, quoted.
func (b buildRow) table() string { return b.tableSchema() + "." + intent.Quote(b.name) }

// types are the event types the view has a statement for, sorted.
func (b buildRow) types() []string { return slices.Sorted(maps.Keys(b.def.When)) }

// followsLog says that the build is written in batches from the log. Every build is
// until it is live; only a live inline one is written by the appends themselves.
func (b buildRow) followsLog() bool { return b.state != stateLive || b.mode == intent.Async }

// querier is a connection, a transaction or a pool.
type querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

const buildColumns = `build, name, mode, coalesce(database, ''), state, pos, definition`

func scanBuild(row pgx.Row) (buildRow, error) {
	var b buildRow
	var mode string
	if err := row.Scan(&b.id, &b.name, &mode, &b.database, &b.state, &b.pos, &b.raw); err != nil {
		return buildRow{}, err
	}
	b.mode = intent.ViewMode(mode)
	if err := json.Unmarshal(b.raw, &b.def); err != nil {
		return buildRow{}, fmt.Errorf("read the definition of build %d of view %s: %w", b.id, b.name, err)
	}
	return b, nil
}

// findBuild is the build of that number, or the live one where it is 0.
func findBuild(ctx context.Context, q querier, name string, build int64) (buildRow, error) {
	b, err := scanBuild(q.QueryRow(ctx, `select `+buildColumns+` from es.view
		where name = $1 and case when $2 = 0 then state = 'live' else build = $2 end`, name, build))
	switch {
	case errors.Is(err, pgx.ErrNoRows) && build == 0:
		return buildRow{}, fmt.Errorf("view %s: %w: none is live", name, ErrNoView)
	case errors.Is(err, pgx.ErrNoRows):
		return buildRow{}, fmt.Errorf("build %d of view %s: %w", build, name, ErrNoView)
	case err != nil:
		return buildRow{}, fmt.Errorf("look up view %s: %w", name, err)
	}
	return b, nil
}

// pair is the builds of a view that a switch is about: the one to be live and the
// one that is, nil where none is.
type pair struct {
	next buildRow
	live *buildRow
}

// findPair reads both, and locks their rows where lock is set: the runners of both
// then wait.
func findPair(ctx context.Context, q querier, name string, lock bool) (pair, error) {
	text := `select ` + buildColumns + ` from es.view where name = $1 and state in ('building', 'live') order by build`
	if lock {
		text += ` for update`
	}
	rows, err := q.Query(ctx, text, name)
	if err != nil {
		return pair{}, fmt.Errorf("look up view %s: %w", name, err)
	}
	builds, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (buildRow, error) { return scanBuild(row) })
	if err != nil {
		return pair{}, fmt.Errorf("look up view %s: %w", name, err)
	}
	var p pair
	for _, b := range builds {
		if b.state == stateLive {
			p.live = &b
		} else {
			p.next = b // builds ascend: the newest
		}
	}
	switch {
	case p.next.id == 0 && p.live == nil:
		return pair{}, fmt.Errorf("view %s: %w", name, ErrNoView)
	case p.next.id == 0:
		return p, fmt.Errorf("view %s: %w: make one with `cdc views build %s`", name, ErrNoBuild, name)
	}
	return p, nil
}
