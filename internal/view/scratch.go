package view

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"cdc/internal/intent"
)

// scratch is a schema that lives and dies with a transaction: the view's table,
// empty, and the function that fills it.
type scratch struct {
	code   *code
	schema string
	table  string // quoted, with its schema
	origin uint32 // OID of the table the build fills
}

// newScratch makes the schema in tx, from the definition the build was made of, not
// from what is installed: a function that somebody changed shows. The table is not
// logged, so that a replay of millions of events writes no WAL and the slot's
// reader gets to see none of it.
func newScratch(ctx context.Context, tx pgx.Tx, b buildRow) (*scratch, error) {
	s := &scratch{}
	var err error
	if s.code, err = decode(b.raw); err != nil {
		return nil, err
	}
	err = tx.QueryRow(ctx, `select 'es_verify_' || pg_backend_pid(), coalesce(to_regclass($1)::oid, 0)`, b.table()).Scan(&s.schema, &s.origin)
	if err != nil {
		return nil, fmt.Errorf("look up table %s: %w", b.table(), err)
	}
	if s.origin == 0 {
		return nil, fmt.Errorf("table %s is not there: somebody dropped it; build the view again and switch to that build", b.table())
	}
	s.table = s.schema + "." + intent.Quote(b.name)
	texts := []string{"create schema " + s.schema}
	if b.database == "" { // as the role of every view; in another Postgres that is the login
		texts = []string{"create schema " + s.schema + " authorization es_view", "set local role es_view"}
	}
	texts = append(texts, s.code.tableSQL(s.schema)...)
	texts = append(texts, "alter table "+s.table+" set unlogged", s.code.applySQL(s.schema, s.schema), "reset role")
	for _, text := range texts {
		if _, err := tx.Exec(ctx, text); err != nil {
			return nil, fmt.Errorf("make a scratch table for view %s: %w", b.name, err)
		}
	}
	return s, nil
}

// errReplaced says that a table was switched while it was being verified.
var errReplaced = errors.New("the view was switched or dropped meanwhile: verify it again")

// compare fills the report with how the table differs from the scratch table. The
// replay held no lock on the table, so that a switch did not have to wait for it:
// compare takes one and makes sure that it is still the build's.
func (s *scratch) compare(ctx context.Context, tx pgx.Tx, store querier, b buildRow, samples int, r *VerifyReport) error {
	if err := s.same(ctx, tx, b); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, "lock table "+b.table()+" in access share mode"); err != nil {
		return fmt.Errorf("lock table %s: %w", b.table(), err)
	}
	if err := s.same(ctx, tx, b); err != nil {
		return err
	}
	// With the lock no switch can come any more. Has one come between the snapshot and
	// the first look at the table? The snapshot does not know; others do.
	var state string
	err := store.QueryRow(ctx, `select coalesce((select state from es.view where build = $1), '')`, b.id).Scan(&state)
	if err != nil {
		return fmt.Errorf("look up build %d: %w", b.id, err)
	}
	if state != b.state {
		return errReplaced
	}
	columns, err := comparable(ctx, tx, s.table)
	if err != nil {
		return err
	}
	if err := tx.QueryRow(ctx, "select count(*) from "+b.table()).Scan(&r.Rows); err != nil {
		return fmt.Errorf("count the rows of %s: %w", b.table(), err)
	}
	if r.Missing, err = except(ctx, tx, columns, s.table, b.table(), samples); err != nil {
		return err
	}
	r.Extra, err = except(ctx, tx, columns, b.table(), s.table, samples)
	return err
}

// same says that the table is the one that was there at the start, and that a switch
// in another Postgres has not dropped the build: names are looked up as they are
// now, whatever the snapshot.
func (s *scratch) same(ctx context.Context, tx pgx.Tx, b buildRow) error {
	var now uint32
	var there bool
	err := tx.QueryRow(ctx, `select coalesce(to_regclass($1)::oid, 0), to_regnamespace($2) is not null`, b.table(), b.schema()).Scan(&now, &there)
	if err != nil {
		return fmt.Errorf("look up table %s: %w", b.table(), err)
	}
	if now != s.origin || !there {
		return errReplaced
	}
	return nil
}

// comparable is the table's columns as a select list that EXCEPT can compare: a
// type without equality is compared as text.
func comparable(ctx context.Context, q querier, table string) (string, error) {
	rows, err := q.Query(ctx, `
		select quote_ident(a.attname) || case when coalesce(nullif(t.typelem, 0), t.oid) in (
		         'json'::regtype, 'xml'::regtype, 'point'::regtype, 'line'::regtype, 'lseg'::regtype,
		         'box'::regtype, 'path'::regtype, 'polygon'::regtype, 'circle'::regtype)
		       then '::text as ' || quote_ident(a.attname) else '' end
		from pg_attribute a join pg_type t on t.oid = a.atttypid
		where a.attrelid = to_regclass($1) and a.attnum > 0 and not a.attisdropped
		order by a.attnum`, table)
	if err != nil {
		return "", fmt.Errorf("read the columns of %s: %w", table, err)
	}
	columns, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return "", fmt.Errorf("read the columns of %s: %w", table, err)
	}
	return strings.Join(columns, ", "), nil
}

// except counts the rows of one table that the other lacks, duplicates included,
// and reads the first of them.
func except(ctx context.Context, q querier, columns, of, without string, samples int) (Difference, error) {
	rows, err := q.Query(ctx, fmt.Sprintf(
		`select count(*) over (), to_jsonb(d) from (select %[1]s from %[2]s except all select %[1]s from %[3]s) d order by d limit %[4]d`,
		columns, of, without, samples))
	if err != nil {
		return Difference{}, fmt.Errorf("compare %s with %s: %w", of, without, err)
	}
	var d Difference
	var row []byte
	_, err = pgx.ForEachRow(rows, []any{&d.Count, &row}, func() error {
		d.Rows = append(d.Rows, append([]byte(nil), row...))
		return nil
	})
	if err != nil {
		return Difference{}, fmt.Errorf("compare %s with %s: %w", of, without, err)
	}
	return d, nil
}
