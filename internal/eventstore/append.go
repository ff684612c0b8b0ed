package eventstore

import (
	"context"
	"encoding/json"
	"fmt"
	"math"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"cdc/internal/intent"
)

// appendSQL sends subjects as text: elements of text[] are arrays of differing
// length, which Postgres has no array of.
const appendSQL = "select stream, version, duplicate, token from es.append($1::text[], $2::bigint[], $3::text[], $4::uuid[], $5::text[], $6::jsonb[], $7::jsonb[], $8::int[], $9::text[])"

// querier is a pool, a connection or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// Append stores the batches, all or none, and has committed when it returns. Errors
// are *intent.ConflictError, *intent.ClosedError and *intent.InvalidError where the
// batches are at fault; after any other the same call may be made again: what is
// stored already is not stored twice.
func (s *Store) Append(ctx context.Context, batches []intent.Batch) (intent.Receipt, error) {
	return appendTo(ctx, s.pool, batches)
}

// AppendTx is Append within the caller's transaction: it holds when that commits.
// After an error the transaction can only be rolled back, to a savepoint perhaps.
func AppendTx(ctx context.Context, tx pgx.Tx, batches []intent.Batch) (intent.Receipt, error) {
	return appendTo(ctx, tx, batches)
}

func appendTo(ctx context.Context, q querier, batches []intent.Batch) (intent.Receipt, error) {
	args, err := arguments(batches)
	if err != nil {
		return intent.Receipt{}, err
	}
	rows, err := q.Query(ctx, appendSQL, args...)
	if err != nil {
		return intent.Receipt{}, fmt.Errorf("append: %w", typed(err))
	}
	defer rows.Close()
	var r intent.Receipt
	for rows.Next() {
		var v intent.StreamVersion
		var token pgtype.UUID
		if err := rows.Scan(&v.Stream, &v.Version, &r.Duplicate, &token); err != nil {
			return intent.Receipt{}, fmt.Errorf("append: %w", err)
		}
		r.Streams = append(r.Streams, v)
		r.Token = token.Bytes
	}
	if err := rows.Err(); err != nil {
		return intent.Receipt{}, fmt.Errorf("append: %w", typed(err))
	}
	return r, nil
}

// CloseStream ends a stream that has the expected version: nothing is appended to
// it any more. Of a stream that is closed already it says nothing; ErrNotFound where
// there is none.
func (s *Store) CloseStream(ctx context.Context, stream string, expect intent.Expect) error {
	if _, err := s.pool.Exec(ctx, "select es.close($1, $2)", stream, expected(expect)); err != nil {
		return fmt.Errorf("close stream %q: %w", stream, typed(err))
	}
	return nil
}

// expected is an expected version as es.append takes it.
func expected(x intent.Expect) *int64 {
	if x == intent.Any {
		return nil
	}
	n := int64(x)
	return &n
}

// arguments turns batches into the arrays of es.append.
func arguments(batches []intent.Batch) ([]any, error) {
	n := 0
	for _, b := range batches {
		n += len(b.Events)
	}
	var (
		streams  = make([]string, 0, len(batches))
		expect   = make([]*int64, 0, len(batches))
		stream   = make([]string, 0, n)
		id       = make([][16]byte, 0, n)
		typ      = make([]string, 0, n)
		data     = make([]json.RawMessage, 0, n)
		meta     = make([]json.RawMessage, 0, n)
		schema   = make([]*int32, 0, n)
		subjects = make([]*string, 0, n)

		hasMeta, hasSchema, hasSubjects bool
	)
	for _, b := range batches {
		streams = append(streams, b.Stream)
		expect = append(expect, expected(b.Expect))
		for _, e := range b.Events {
			if e.ID.IsZero() {
				return nil, &intent.InvalidError{Path: "id", Text: fmt.Sprintf("an event for stream %q has no id", b.Stream)}
			}
			stream = append(stream, b.Stream)
			id = append(id, e.ID)
			typ = append(typ, e.Type)
			data = append(data, e.Data)
			meta = append(meta, e.Meta)
			hasMeta = hasMeta || e.Meta != nil
			var v *int32
			if e.Schema != 0 {
				if e.Schema < 1 || e.Schema > math.MaxInt32 {
					return nil, &intent.InvalidError{Path: "schema", Text: fmt.Sprintf("event %s: schema %d is no version: they count from 1", e.ID, e.Schema)}
				}
				w := int32(e.Schema)
				v = &w
				hasSchema = true
			}
			schema = append(schema, v)
			text, err := arrayText(e.Subjects)
			if err != nil {
				return nil, err
			}
			subjects = append(subjects, text)
			hasSubjects = hasSubjects || text != nil
		}
	}
	// An array of nothing but null is left out: it costs both sides time.
	if !hasMeta {
		meta = nil
	}
	if !hasSchema {
		schema = nil
	}
	if !hasSubjects {
		subjects = nil
	}
	return []any{streams, expect, stream, id, typ, data, meta, schema, subjects}, nil
}

// arrays knows how text[] is written.
var arrays = pgtype.NewMap()

// arrayText is the text of a text[]; nil for none.
func arrayText(s []string) (*string, error) {
	if len(s) == 0 {
		return nil, nil
	}
	b, err := arrays.Encode(pgtype.TextArrayOID, pgtype.TextFormatCode, s, nil)
	if err != nil {
		return nil, fmt.Errorf("append: write subjects: %w", err)
	}
	text := string(b)
	return &text, nil
}
