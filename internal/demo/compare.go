package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// difference is a key at which a topic and its table disagree.
type difference struct {
	kind string // missing, ghost, different
	key  string
}

func (d difference) String() string { return d.kind + " " + d.key }

// The kinds of difference.
const (
	missing   = "missing"   // the row has no record
	ghost     = "ghost"     // the record has no row
	different = "different" // the record says something else than the row
)

const (
	// A comparison sends records to PostgreSQL in batches of at most so many and
	// about so many bytes.
	batchEntries = 500
	batchBytes   = 4 << 20
)

// comparison holds one topic against its table, as PostgreSQL sees both.
//
// Each record is made a row of the table by PostgreSQL itself
// (json_populate_record, with the input functions of the columns' types), and
// the two rows are compared in their text form, which is exact: the scale of a
// numeric counts.
type comparison struct {
	table   table
	tx      pgx.Tx
	columns []string // of the table, sorted
	rows    int64
	found   []difference
	good    []string // keys that PostgreSQL can read
}

// compare holds the entries against the table in a transaction that sees one
// state of the database.
func compare(ctx context.Context, tx pgx.Tx, t table, entries []entry) (*comparison, error) {
	c := &comparison{table: t, tx: tx}
	if err := c.look(ctx); err != nil {
		return nil, fmt.Errorf("compare table %s: %w", t.name, err)
	}
	for len(entries) > 0 {
		n := batchOf(entries)
		if err := c.check(ctx, entries[:n]); err != nil {
			return nil, fmt.Errorf("compare table %s: %w", t.name, err)
		}
		entries = entries[n:]
	}
	if err := c.lookForMissing(ctx); err != nil {
		return nil, fmt.Errorf("compare table %s: %w", t.name, err)
	}
	return c, nil
}

func (c *comparison) look(ctx context.Context) error {
	err := c.tx.QueryRow(ctx, `SELECT array_agg(attname::text ORDER BY attname::text COLLATE "C") FROM pg_attribute
		WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped`, c.relation()).Scan(&c.columns)
	if err != nil {
		return err
	}
	return c.tx.QueryRow(ctx, "SELECT count(*) FROM "+c.relation()).Scan(&c.rows)
}

func (c *comparison) relation() string {
	return pgx.Identifier{c.table.schema, c.table.name}.Sanitize()
}

// batchOf is how many entries the next batch takes, one at least.
func batchOf(entries []entry) int {
	size := 0
	for i, e := range entries {
		size += len(e.key) + len(e.value)
		if i > 0 && size > batchBytes || i == batchEntries {
			return i
		}
	}
	return len(entries)
}

// check compares some records with their rows. Where PostgreSQL cannot read one
// of them as a row, halves are tried until it is found.
func (c *comparison) check(ctx context.Context, entries []entry) error {
	batch := make([]entry, 0, len(entries))
	for _, e := range entries {
		if readable(e.key) && readable(e.value) {
			batch = append(batch, e)
		} else {
			c.differ(different, e.key)
		}
	}
	if len(batch) == 0 {
		return nil
	}
	err := pgx.BeginFunc(ctx, c.tx, func(tx pgx.Tx) error { return c.ask(ctx, tx, batch) }) // a savepoint
	switch {
	case err == nil:
		for _, e := range batch {
			c.good = append(c.good, string(e.key))
		}
		return nil
	case !badData(err):
		return err
	case len(batch) == 1:
		c.differ(different, batch[0].key)
		return nil
	}
	half := len(batch) / 2
	if err := c.check(ctx, batch[:half]); err != nil {
		return err
	}
	return c.check(ctx, batch[half:])
}

// readable says that PostgreSQL can read text as a JSON object.
func readable(text []byte) bool {
	return utf8.Valid(text) && json.Valid(text) && strings.HasPrefix(strings.TrimSpace(string(text)), "{")
}

// badData: SQLSTATE class 22, data exception.
func badData(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && strings.HasPrefix(pg.Code, "22")
}

func (c *comparison) differ(kind string, key []byte) {
	c.found = append(c.found, difference{kind, string(key)})
}

// ask compares a batch; found grows only when the whole of it could be read.
func (c *comparison) ask(ctx context.Context, tx pgx.Tx, batch []entry) error {
	keys, values := make([]string, len(batch)), make([]string, len(batch))
	for i, e := range batch {
		keys[i], values[i] = string(e.key), string(e.value)
	}
	sql := strings.NewReplacer("{table}", c.relation(), "{join}", c.join("stored", "(topic.k)"), "{first}", c.first("stored")).Replace(`
		WITH topic AS MATERIALIZED (
			SELECT u.n,
				json_populate_record(NULL::{table}, u.key::json) AS k,
				json_populate_record(NULL::{table}, u.value::json) AS v,
				(SELECT array_agg(f ORDER BY f COLLATE "C") FROM json_object_keys(u.key::json) f) AS key_fields,
				(SELECT array_agg(f ORDER BY f COLLATE "C") FROM json_object_keys(u.value::json) f) AS value_fields
			FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS u(key, value, n))
		SELECT topic.n, {first} IS NULL
		FROM topic LEFT JOIN {table} stored ON {join}
		WHERE {first} IS NULL
			OR stored::text IS DISTINCT FROM topic.v::text
			OR topic.key_fields IS DISTINCT FROM $3::text[]
			OR topic.value_fields IS DISTINCT FROM $4::text[]`)
	result, err := tx.Query(ctx, sql, keys, values, slices.Sorted(slices.Values(c.table.key)), c.columns)
	if err != nil {
		return err
	}
	var n int64
	var absent bool
	var found []difference
	_, err = pgx.ForEachRow(result, []any{&n, &absent}, func() error {
		kind := different
		if absent {
			kind = ghost
		}
		found = append(found, difference{kind, keys[n-1]})
		return nil
	})
	if err != nil {
		return err
	}
	c.found = append(c.found, found...)
	return nil
}

// join is the condition that two rows have the same key.
func (c *comparison) join(a, b string) string {
	terms := make([]string, len(c.table.key))
	for i, k := range c.table.key {
		column := pgx.Identifier{k}.Sanitize()
		terms[i] = a + "." + column + " = " + b + "." + column
	}
	return strings.Join(terms, " AND ")
}

// first is the first column of the key, which no row has NULL.
func (c *comparison) first(row string) string {
	return row + "." + pgx.Identifier{c.table.key[0]}.Sanitize()
}

// lookForMissing finds the rows without a record.
func (c *comparison) lookForMissing(ctx context.Context) error {
	columns := make([]string, len(c.table.key))
	for i, k := range c.table.key {
		columns[i] = "'" + k + "', stored." + pgx.Identifier{k}.Sanitize()
	}
	sql := strings.NewReplacer("{table}", c.relation(), "{join}", c.join("stored", "topic"), "{key}", strings.Join(columns, ", ")).Replace(`
		SELECT json_build_object({key})::text FROM {table} stored
		WHERE NOT EXISTS (
			SELECT FROM unnest($1::text[]) AS u(key), json_populate_record(NULL::{table}, u.key::json) AS topic
			WHERE {join})`)
	result, err := c.tx.Query(ctx, sql, c.good)
	if err != nil {
		return err
	}
	var key string
	_, err = pgx.ForEachRow(result, []any{&key}, func() error {
		c.found = append(c.found, difference{missing, key})
		return nil
	})
	return err
}
