package reaction

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"cdc/internal/eventstore"
	"cdc/internal/intent"
)

const (
	// rowsMost bounds what one event leads to: its rows are appended at once.
	rowsMost = 1000
	// depthMost bounds how many reactions may lead from one event to the next: more
	// is a circle.
	depthMost = 100
	// queryMost bounds a query and the append behind it, waits for locks among it.
	queryMost = time.Minute
)

// The steps, as the hook names them: each is about to be done.
const (
	stepWait   = "wait"   // for the view
	stepBegin  = "begin"  // the transaction
	stepQuery  = "query"  // the reaction
	stepAppend = "append" // its rows
	stepMove   = "move"   // the position
	stepCommit = "commit" // all of it
	stepDone   = "done"   // all is committed
)

// errMoved says that es.reaction has another position than expected: another runner
// is at work.
var errMoved = errors.New("the position was moved by another runner")

// refusedError is what a reaction gave and must not.
type refusedError struct{ text string }

func (e *refusedError) Error() string { return e.text }

func refused(format string, args ...any) error { return &refusedError{fmt.Sprintf(format, args...)} }

// handle reacts to an event: at most once, whatever happens.
func (w *worker) handle(e *intent.Event) error {
	if w.After != "" {
		w.Hook(stepWait, w.Name)
		if err := w.waitFor(e); err != nil {
			return err
		}
	}
	w.Hook(stepBegin, w.Name)
	err := pgx.BeginFunc(w.ctx, w.Store.Pool(), func(tx pgx.Tx) error { return w.react(tx, e) })
	if err != nil {
		return w.own(e, err)
	}
	w.Hook(stepDone, w.Name)
	w.pos = e.Position
	w.stored = time.Now()
	w.moved(e.Position)
	return nil
}

// waitFor waits until the view has applied the event and what the reaction appended
// last, whichever runner did that.
func (w *worker) waitFor(e *intent.Event) error {
	var last pgtype.UUID
	err := w.Store.Pool().QueryRow(w.ctx, "select last from es.reaction where name = $1 and hash = $2", w.Name, w.hash).Scan(&last)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return errSuperseded
	case err != nil:
		return fmt.Errorf("read what reaction %s appended last: %w", w.Name, err)
	}
	if last.Valid {
		if err := w.waitView(last.Bytes); err != nil {
			return err
		}
	}
	return w.waitView(e.ID)
}

// react runs the query and appends its rows, in a transaction that has taken the row
// of the reaction: whoever comes second finds the position moved.
func (w *worker) react(tx pgx.Tx, e *intent.Event) error {
	var pos int64
	var before bool
	var limit string
	err := tx.QueryRow(w.ctx, `select pos, exists (select from es.event e where e.id = $3),
		set_config('statement_timeout', $4, true) || set_config('lock_timeout', $4, true)
		from es.reaction where name = $1 and hash = $2 for update`,
		w.Name, w.hash, [16]byte(w.id(e, 1)), fmt.Sprint(queryMost.Milliseconds())).Scan(&pos, &before, &limit)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return errSuperseded
	case err != nil:
		return fmt.Errorf("take reaction %s: %w", w.Name, err)
	case pos != w.pos:
		return errMoved
	}
	var last *[16]byte
	if !before { // else it has reacted to this event in an earlier life
		if last, err = w.append(tx, e); err != nil {
			return err
		}
	}
	w.Hook(stepMove, w.Name)
	_, err = tx.Exec(w.ctx, "update es.reaction set pos = $2, last = coalesce($3, last), error = null where name = $1", w.Name, e.Position, last)
	if err != nil {
		return fmt.Errorf("write the position of reaction %s: %w", w.Name, err)
	}
	w.Hook(stepCommit, w.Name)
	return nil
}

// id is the id of the n-th event that follows from an event.
func (w *worker) id(e *intent.Event, n int) intent.ID {
	return e.ID.Derive(fmt.Sprintf("%s/%d", w.Name, n))
}

// append appends what the query gives, and returns the id of what is last in the log;
// nil where it gives nothing.
func (w *worker) append(tx pgx.Tx, e *intent.Event) (*[16]byte, error) {
	w.Hook(stepQuery, w.Name)
	rows, err := w.query(w.ctx, tx, e)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	batches, err := w.batches(e, rows)
	if err != nil {
		return nil, err
	}
	w.Hook(stepAppend, w.Name)
	receipt, err := eventstore.AppendTx(w.ctx, tx, batches)
	if err != nil {
		return nil, err
	}
	return (*[16]byte)(&receipt.Token), notElsewhere(w.ctx, tx, rows)
}

// notElsewhere refuses events that feed an inline view in another Postgres: only
// view.Coordinator appends to two databases at once. It is asked after the append,
// which keeps such a view from becoming live until the transaction ends.
func notElsewhere(ctx context.Context, tx pgx.Tx, rows []row) error {
	var kinds []string
	for _, r := range rows {
		kinds = append(kinds, *r.kind)
	}
	var name, database string
	err := tx.QueryRow(ctx, `select name, database from es.view where state = 'live' and mode = 'inline' and database is not null
		and definition->'When' ?| $1 order by name limit 1`, kinds).Scan(&name, &database)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil
	case err != nil:
		return fmt.Errorf("look for views in other databases: %w", err)
	}
	return refused("it appends what feeds inline view %s in %s: a reaction appends to one database; make the view async", name, database)
}

// row is what a query gives.
type row struct {
	kind   *string
	data   json.RawMessage
	stream *string
}

// query runs the reaction's function for the event's type, with its data brought to
// the newest schema.
func (w *worker) query(ctx context.Context, tx pgx.Tx, e *intent.Event) ([]row, error) {
	result, err := tx.Query(ctx, "select type, data, stream from "+functionName(w.Name, slices.Index(w.When, e.Type))+
		"($1, $2, $3, $4, $5, $6, es.upcast($5, $6, $7, $8, $3, $9), $8, $9) limit $10",
		e.Position, [16]byte(e.ID), e.Stream, e.Version, e.Type, int32(e.Schema), e.Data, e.Meta, e.At, rowsMost+1)
	if err != nil {
		return nil, fmt.Errorf("run its query: %w", err)
	}
	rows, err := pgx.CollectRows(result, func(r pgx.CollectableRow) (one row, err error) {
		return one, r.Scan(&one.kind, &one.data, &one.stream)
	})
	if err != nil {
		return nil, fmt.Errorf("run its query: %w", err)
	}
	if len(rows) > rowsMost {
		return nil, refused("the query gives more than %d rows: an event leads to at most as many", rowsMost)
	}
	return rows, nil
}

// batches makes events of rows, in their order.
func (w *worker) batches(e *intent.Event, rows []row) ([]intent.Batch, error) {
	meta, err := w.meta(e)
	if err != nil {
		return nil, err
	}
	var batches []intent.Batch
	at := map[string]int{} // stream: which of batches
	for n, r := range rows {
		switch {
		case r.kind == nil:
			return nil, refused("row %d of the query has no type", n+1)
		case r.data == nil:
			return nil, refused("row %d of the query, of type %q, has no data", n+1, *r.kind)
		case r.stream == nil:
			return nil, refused("row %d of the query, of type %q, has no stream: give a column stream, or declare the type with one and give its fields", n+1, *r.kind)
		}
		i, ok := at[*r.stream]
		if !ok {
			i = len(batches)
			at[*r.stream] = i
			batches = append(batches, intent.Batch{Stream: *r.stream, Expect: intent.Any})
		}
		batches[i].Events = append(batches[i].Events, intent.NewEvent{ID: w.id(e, n+1), Type: *r.kind, Data: r.data, Meta: meta})
	}
	return batches, nil
}

// meta is that of the events that follow from an event.
func (w *worker) meta(e *intent.Event) (json.RawMessage, error) {
	var of map[string]json.RawMessage
	if err := json.Unmarshal(e.Meta, &of); err != nil {
		return nil, refused("the meta of event %s is not an object", e.ID)
	}
	var depth int
	if json.Unmarshal(of[intent.MetaDepth], &depth) != nil || depth < 0 {
		depth = 0 // it is the application's own, or missing
	}
	if depth >= depthMost {
		return nil, refused("%d reactions led to this event, one after the other: they set each other off; let one of them give no rows", depth)
	}
	correlation := e.ID.String()
	var given string
	if json.Unmarshal(of[intent.MetaCorrelation], &given) == nil && given != "" {
		correlation = given
	}
	return json.Marshal(map[string]any{
		intent.MetaActor:       "reaction:" + w.Name,
		intent.MetaCausation:   e.ID,
		intent.MetaCorrelation: correlation,
		intent.MetaDepth:       depth + 1,
	})
}
