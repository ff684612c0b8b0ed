package view

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// sendBytes bounds what is held here of a batch for another Postgres.
const sendBytes = 4 << 20

// logTable is a table with the columns pos and event of es.log.
type logTable string

const (
	theLog logTable = "es.log"
	// lateLog holds the positions that a snapshot does not see (see unnumbered).
	lateLog logTable = "pg_temp.es_late"
)

// batchFrom is the compiled batch of events, with their positions from a log.
func (c *code) batchFrom(log logTable) string {
	return strings.Replace(c.batchSQL("$1::bigint", "$2::bigint"), "from es.log l", "from "+string(log)+" l", 1)
}

// replay applies a log behind from and up to to, in the store itself: no event
// leaves the server. It returns how many were applied.
func (s *scratch) replay(ctx context.Context, tx pgx.Tx, log logTable, from, to int64, missing missingRule, progress func(pos int64)) (int64, error) {
	text := `with batch as (` + s.code.batchFrom(log) + `)
		select max(pos), count(*), count(*) filter (where wanted), ` + s.code.callSQL(s.schema) + `::text is null from batch`
	var total int64
	for pos := from; pos < to; {
		var next *int64
		var seen, n int64
		if err := tx.QueryRow(ctx, text, pos, to).Scan(&next, &seen, &n, nil); err != nil {
			return total, s.failure(err, pos)
		}
		switch {
		case missing == missingIsWrong && (next == nil || *next-pos != seen):
			return total, fmt.Errorf("behind position %d the log names events that are not in es.event, or ends before position %d", pos, to)
		case next == nil:
			progress(to)
			return total, nil
		}
		total, pos = total+n, *next
		progress(pos)
	}
	return total, nil
}

// failure is an error of the scratch schema's apply.
func (s *scratch) failure(err error, pos int64) error {
	return fmt.Errorf("replay the log behind position %d: %w", pos, s.code.failure(err))
}

// missingRule says what it means when the log names an event that is not visible.
type missingRule bool

const (
	// missingIsWrong: a view that follows the log has applied the event, so it was
	// visible.
	missingIsWrong missingRule = true
	// missingIsLater: the slot's reader sees a commit in the WAL before it is visible
	// to others. Neither the event nor the rows of an inline view are in the snapshot.
	missingIsLater missingRule = false
)

// batch is events as arrays for apply.
type batch struct {
	pos     []int64
	id      [][16]byte
	stream  []string
	version []int64
	kind    []string
	schema  []int32
	data    []string
	meta    []string
	at      []time.Time
	bytes   int
}

func (b *batch) reset() {
	*b = batch{pos: b.pos[:0], id: b.id[:0], stream: b.stream[:0], version: b.version[:0], kind: b.kind[:0],
		schema: b.schema[:0], data: b.data[:0], meta: b.meta[:0], at: b.at[:0]}
}

// batchColumns are what fill reads, of a relation such as batchSQL.
const batchColumns = `pos, id, stream, version, type, schema, data::text, meta::text, at`

// fill reads rows of batchColumns into the batch and has full called whenever it
// holds enough, and at the end.
func (b *batch) fill(rows pgx.Rows, full func() error) error {
	var pos, version int64
	var id [16]byte
	var stream, kind, data, meta string
	var schema int32
	var at time.Time
	_, err := pgx.ForEachRow(rows, []any{&pos, &id, &stream, &version, &kind, &schema, &data, &meta, &at}, func() error {
		b.pos, b.id, b.stream = append(b.pos, pos), append(b.id, id), append(b.stream, stream)
		b.version, b.kind, b.schema = append(b.version, version), append(b.kind, kind), append(b.schema, schema)
		b.data, b.meta, b.at = append(b.data, data), append(b.meta, meta), append(b.at, at)
		if b.bytes += len(data) + len(meta); b.bytes < sendBytes {
			return nil
		}
		return full()
	})
	if err != nil {
		return err
	}
	return full()
}

// apply has the function of a schema apply the batch, and empties it.
func (b *batch) apply(ctx context.Context, q querier, schema string) error {
	if len(b.pos) == 0 {
		return nil
	}
	_, err := q.Exec(ctx, `select `+schema+`.apply($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		b.pos, b.id, b.stream, b.version, b.kind, b.schema, b.data, b.meta, b.at)
	b.reset()
	return err
}

// ship sends a log behind from and up to to, as here sees it, to the function of a
// schema of another Postgres. It returns how many events there were.
func (c *code) ship(ctx context.Context, here, there querier, schema string, log logTable, from, to int64, progress func(pos int64)) (int64, error) {
	var held batch
	var total int64
	last := `select coalesce(max(pos), $2) from (` + c.batchFrom(log) + `) batch`
	text := `select ` + batchColumns + ` from (` + c.batchFrom(log) + `) batch where wanted order by pos`
	for pos := from; pos < to; {
		var next int64
		err := here.QueryRow(ctx, last, pos, to).Scan(&next)
		var rows pgx.Rows
		if err == nil {
			rows, err = here.Query(ctx, text, pos, next)
		}
		if err == nil {
			err = held.fill(rows, func() error {
				total += int64(len(held.pos))
				return held.apply(ctx, there, schema)
			})
		}
		if err != nil {
			return total, fmt.Errorf("replay the log behind position %d: %w", pos, c.failure(err))
		}
		pos = next
		progress(pos)
	}
	return total, nil
}
