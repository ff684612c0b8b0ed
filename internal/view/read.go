package view

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"cdc/internal/intent"
)

const (
	// MaxRows bounds one read of a view: what is larger is read with SQL.
	MaxRows = 10_000
	// readTimeout bounds a read in the server, in which a condition on a column without
	// an index may go through a large table.
	readTimeout = "30s"
)

// UnknownColumnError is a condition on a column that a view does not have.
type UnknownColumnError struct {
	View, Column string
	Columns      []string // that it has
}

func (e *UnknownColumnError) Error() string {
	return fmt.Sprintf("view %s has no column %q: it has %s", e.View, e.Column, strings.Join(e.Columns, ", "))
}

// Rows gives rows of the live view as JSON objects, in the order of the primary key
// where it has one: those whose columns have the values of where, each compared as
// the column's type (an InvalidError where it is none). limit 0 is MaxRows.
// ErrNoView where none is live.
func (r *Runner) Rows(ctx context.Context, view string, where map[string]string, limit int, fn func(json.RawMessage) error) error {
	b, err := findBuild(ctx, r.cfg.Store.Pool(), view, 0)
	if err != nil {
		return err
	}
	var conn *pgx.Conn
	if b.database != "" {
		if conn, err = connectThere(ctx, b, r.cfg.Databases[b.database]); err != nil {
			return err
		}
		defer closeConn(conn)
	} else {
		pooled, err := r.cfg.Store.Pool().Acquire(ctx)
		if err != nil {
			return fmt.Errorf("read view %s: connect: %w", view, err)
		}
		defer pooled.Release()
		conn = pooled.Conn()
	}
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly})
	if err != nil {
		return fmt.Errorf("read view %s: begin: %w", view, err)
	}
	defer rollback(ctx, tx)
	if _, err := tx.Exec(ctx, "set local statement_timeout = '"+readTimeout+"'"); err != nil {
		return fmt.Errorf("read view %s: %w", view, err)
	}
	text, args, err := rowsSQL(ctx, tx, b, where, limit)
	if err != nil {
		return err
	}
	rows, err := tx.Query(ctx, text, args...)
	if err != nil {
		return readError(view, err)
	}
	var row []byte
	var stop error
	_, err = pgx.ForEachRow(rows, []any{&row}, func() error {
		stop = fn(slices.Clone(row))
		return stop
	})
	switch {
	case stop != nil:
		return stop
	case err != nil:
		return readError(view, err)
	}
	return nil
}

// readError makes a value that is none of its column's type, or a type that cannot be
// compared, an error of the asker.
func readError(view string, err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && (strings.HasPrefix(pg.Code, "22") || pg.Code == "42883") {
		return &intent.InvalidError{Text: fmt.Sprintf("read view %s: %s", view, pg.Message)}
	}
	return fmt.Errorf("read view %s: %w", view, err)
}

// rowsSQL is the query of Rows. Columns are checked against the catalogue and
// quoted, values are parameters.
func rowsSQL(ctx context.Context, q querier, b buildRow, where map[string]string, limit int) (string, []any, error) {
	rows, err := q.Query(ctx, `
		select a.attname, format_type(a.atttypid, a.atttypmod), coalesce(array_position(i.indkey::int2[], a.attnum), -1)
		from pg_attribute a left join pg_index i on i.indrelid = a.attrelid and i.indisprimary
		where a.attrelid = to_regclass($1) and a.attnum > 0 and not a.attisdropped order by a.attnum`, b.table())
	if err != nil {
		return "", nil, fmt.Errorf("read the columns of view %s: %w", b.name, err)
	}
	types := map[string]string{}
	var names, key []string
	var name, typ string
	var place int
	places := map[string]int{}
	_, err = pgx.ForEachRow(rows, []any{&name, &typ, &place}, func() error {
		names, types[name] = append(names, name), typ
		if place >= 0 {
			key, places[name] = append(key, name), place
		}
		return nil
	})
	if err != nil {
		return "", nil, fmt.Errorf("read the columns of view %s: %w", b.name, err)
	}
	if len(names) == 0 {
		return "", nil, fmt.Errorf("table %s is not there", b.table())
	}
	var text strings.Builder
	text.WriteString("select to_jsonb(t) from " + b.table() + " t")
	var args []any
	for i, column := range slices.Sorted(maps.Keys(where)) {
		if types[column] == "" {
			return "", nil, &UnknownColumnError{b.name, column, names}
		}
		word := " and "
		if i == 0 {
			word = " where "
		}
		args = append(args, where[column])
		fmt.Fprintf(&text, "%st.%s = $%d::text::%s", word, intent.Quote(column), len(args), types[column])
	}
	slices.SortFunc(key, func(a, b string) int { return places[a] - places[b] })
	for i, column := range key {
		word := ", "
		if i == 0 {
			word = " order by "
		}
		text.WriteString(word + "t." + intent.Quote(column))
	}
	if limit <= 0 || limit > MaxRows {
		limit = MaxRows
	}
	fmt.Fprintf(&text, " limit %d", limit)
	return text.String(), args, nil
}
