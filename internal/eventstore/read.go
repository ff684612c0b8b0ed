package eventstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"cdc/internal/cdc"
	"cdc/internal/intent"
)

// readPage is how many events one statement reads: the server keeps the answer of
// a function whole before it sends it, so the memory of both sides is bounded by it.
const readPage = 500

const eventColumns = "id, stream, version, type, schema, data, meta, subjects, at, pos, tx, (lsn - '0/0')::bigint as lsn"

// row is an event as columns; all but head is null where a left join found none.
type row struct {
	id               pgtype.UUID
	stream, typ      *string
	version, pos, tx *int64
	schema           *int32
	data, meta       []byte
	subjects         []string
	at               *time.Time
	lsn              *uint64
}

func (r *row) targets() []any {
	return []any{&r.id, &r.stream, &r.version, &r.typ, &r.schema, &r.data, &r.meta, &r.subjects, &r.at, &r.pos, &r.tx, &r.lsn}
}

func (r *row) event() *intent.Event {
	e := &intent.Event{
		ID: r.id.Bytes, Stream: *r.stream, Version: *r.version, Type: *r.typ, Schema: int(*r.schema),
		Data: json.RawMessage(r.data), Meta: json.RawMessage(r.meta), At: r.at.UTC(),
	}
	if len(r.subjects) > 0 {
		e.Subjects = r.subjects
	}
	if r.pos != nil {
		e.Position, e.Tx, e.LSN = *r.pos, uint32(*r.tx), cdc.LSN(*r.lsn)
	}
	return e
}

// Read calls fn with the events of a stream from version from to to, in order; to 0
// is its end. A stream that does not exist has no events. fn may keep the event; its
// error ends the reading and is returned.
func (s *Store) Read(ctx context.Context, stream string, from, to int64, fn func(*intent.Event) error) error {
	if to == 0 {
		to = math.MaxInt64
	}
	for from = max(from, 1); from <= to; {
		n := 0
		page := min(to, from+readPage-1)
		err := s.each(ctx, func(e *intent.Event) error { n++; return fn(e) },
			"select "+eventColumns+" from es.read($1, $2, $3)", stream, from, page)
		if err != nil {
			return fmt.Errorf("read stream %q: %w", stream, err)
		}
		if n < readPage {
			return nil
		}
		from = page + 1
	}
	return nil
}

// each calls fn with the events of a query.
func (s *Store) each(ctx context.Context, fn func(*intent.Event) error, sql string, args ...any) error {
	rows, err := s.pool.Query(ctx, sql, args...)
	if err != nil {
		return typed(err)
	}
	defer rows.Close()
	for rows.Next() {
		var r row
		if err := rows.Scan(r.targets()...); err != nil {
			return err
		}
		if err := fn(r.event()); err != nil {
			return err
		}
	}
	return typed(rows.Err())
}

// Log calls fn with up to limit numbered events behind position after, in the order
// of the log; where types is not empty, with those types alone. It returns the
// position up to which it has read, also where types left the last events out:
// after again where there is nothing new.
func (s *Store) Log(ctx context.Context, after int64, limit int, types []string, fn func(*intent.Event) error) (last int64, err error) {
	last = after
	if len(types) == 0 {
		types = nil
	}
	rows, err := s.pool.Query(ctx, "select h.head, r.* from (select es.head() as head) h left join lateral (select "+eventColumns+
		" from es.read_log($1, $2, $3)) r on true", after, limit, types)
	if err != nil {
		return after, fmt.Errorf("read the log after %d: %w", after, typed(err))
	}
	defer rows.Close()
	var head int64
	n := 0
	for rows.Next() {
		var r row
		if err := rows.Scan(append([]any{&head}, r.targets()...)...); err != nil {
			return last, fmt.Errorf("read the log after %d: %w", after, err)
		}
		if r.pos == nil {
			continue
		}
		if err := fn(r.event()); err != nil {
			return last, err
		}
		last = *r.pos
		n++
	}
	if err := rows.Err(); err != nil {
		return last, fmt.Errorf("read the log after %d: %w", after, typed(err))
	}
	if n < limit {
		last = max(last, head)
	}
	return last, nil
}

// Head is the position of the newest numbered event, 0 while there is none.
func (s *Store) Head(ctx context.Context) (int64, error) {
	var pos int64
	if err := s.pool.QueryRow(ctx, "select es.head()").Scan(&pos); err != nil {
		return 0, fmt.Errorf("read the head of the log: %w", typed(err))
	}
	return pos, nil
}

// Event is one event, ErrNotFound where it is not stored. The login must be es_owner.
func (s *Store) Event(ctx context.Context, id intent.ID) (*intent.Event, error) {
	var found *intent.Event
	err := s.each(ctx, func(e *intent.Event) error { found = e; return nil },
		"select "+eventColumns+" from es.event e left join es.log l on l.event = e.id where e.id = $1", [16]byte(id))
	if err == nil && found == nil {
		err = ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("read event %s: %w", id, err)
	}
	return found, nil
}

// EventsOfTx are the numbered events of a transaction, in the order of the log. Ids
// of transactions are of 32 bits and come again: those of all such transactions are
// given. The login must be es_owner.
func (s *Store) EventsOfTx(ctx context.Context, tx uint32) ([]intent.Event, error) {
	var events []intent.Event
	err := s.each(ctx, func(e *intent.Event) error { events = append(events, *e); return nil },
		"select "+eventColumns+" from es.log l join es.event e on e.id = l.event where l.tx = $1 order by l.pos", int64(tx))
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("read the events of transaction %d: %w", tx, err)
	}
	return events, nil
}
