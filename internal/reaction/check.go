package reaction

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"cdc/internal/eventstore"
	"cdc/internal/intent"
	"cdc/internal/sqlcheck"
	"cdc/internal/view"
)

// Check says what is wrong with the queries of reactions: what the server cannot
// parse, what reads anything but views of this database, what writes, tells the
// clock or gives something else each time, and what has other columns than type,
// data and stream. Nothing is left behind in the database. A view.FaultsError tells
// every fault; another error says that it could not be checked.
//
// A query is refused the clock although its answer is stored and asked for once: an
// attempt that failed and the one after it must mean the same.
func Check(ctx context.Context, store *eventstore.Store, defs intent.Definitions) error {
	if len(defs.Reactions) == 0 {
		return nil
	}
	tx, err := store.Pool().Begin(ctx)
	if err != nil {
		return fmt.Errorf("check reactions: %w", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // it was to leave nothing anyway
	tables, err := mockViews(ctx, tx, defs.Views)
	if err != nil {
		return fmt.Errorf("check reactions: %w", err)
	}
	var faults view.FaultsError
	for _, r := range defs.Reactions {
		found, err := check(ctx, tx, compile(r, defs.Events), tables)
		if err != nil {
			return fmt.Errorf("check reaction %s: %w", r.Name, err)
		}
		for _, text := range found {
			faults = append(faults, intent.Fault{Path: "reactions[" + r.Name + "].append", Text: text})
		}
	}
	if len(faults) > 0 {
		return faults
	}
	return nil
}

// mockViews puts empty tables, as the definitions have them, in the place of schema
// views, in a transaction that is rolled back: views may not be there yet, or may be
// there in an older form. Renaming a schema waits for nobody who reads its tables.
// It returns the tables. One that the server refuses is left out: that is a fault of
// the view.
func mockViews(ctx context.Context, tx pgx.Tx, views []intent.View) ([]string, error) {
	// The name is this transaction's alone: it is never seen by another.
	_, err := tx.Exec(ctx, "alter schema views rename to es_reaction_check")
	if err != nil {
		return nil, fmt.Errorf("put schema views aside: %w", err)
	}
	if _, err := tx.Exec(ctx, "create schema views authorization "+eventstore.RoleView); err != nil {
		return nil, fmt.Errorf("make a schema views: %w", err)
	}
	if err := setRole(ctx, tx, eventstore.RoleView); err != nil {
		return nil, err
	}
	var tables []string
	for _, v := range views {
		if v.Database != "" {
			continue
		}
		table := "views." + intent.Quote(v.Name)
		made, err := attempt(ctx, tx, "create table "+table+" ("+v.Table+"\n)")
		if err != nil {
			return nil, err
		}
		if made {
			tables = append(tables, table)
		}
	}
	return tables, setRole(ctx, tx, "none")
}

// attempt runs one command and says whether the server took it.
func attempt(ctx context.Context, tx pgx.Tx, sql string) (bool, error) {
	save, err := tx.Begin(ctx)
	if err != nil {
		return false, fmt.Errorf("set a savepoint: %w", err)
	}
	// One command alone, whatever the text holds.
	_, refused := save.Conn().PgConn().ExecParams(ctx, sql, nil, nil, nil, nil).Close()
	if refused != nil {
		if err := save.Rollback(ctx); err != nil {
			return false, fmt.Errorf("roll back to the savepoint: %w", err)
		}
		return false, nil
	}
	if err := save.Commit(ctx); err != nil {
		return false, fmt.Errorf("release the savepoint: %w", err)
	}
	return true, nil
}

// setRole is for the rest of the transaction, or until it is called again.
func setRole(ctx context.Context, tx pgx.Tx, role string) error {
	if _, err := tx.Exec(ctx, "set local role "+role); err != nil {
		return fmt.Errorf("take role %s: %w", role, err)
	}
	return nil
}

// check is the faults of one reaction, each once though it may show with several
// types.
func check(ctx context.Context, tx pgx.Tx, c *code, tables []string) ([]string, error) {
	var all []string
	for _, kind := range c.reaction.When {
		faults, err := c.check(ctx, tx, kind, tables)
		if err != nil {
			return nil, err
		}
		for _, f := range faults {
			if !slices.Contains(all, f) {
				all = append(all, f)
			}
		}
	}
	return all, nil
}

func (c *code) check(ctx context.Context, tx pgx.Tx, kind string, tables []string) ([]string, error) {
	query, err := c.query(kind)
	if err != nil {
		return []string{err.Error()}, nil
	}
	inspect := func(sql string, tables []string) (sqlcheck.Report, []string, error) {
		report, err := sqlcheck.Inspect(ctx, tx, sqlcheck.Statement{
			SQL: sql, Params: params, Returns: "setof pg_catalog.record", SearchPath: searchPath, Role: eventstore.RoleView, Tables: tables,
		})
		if refused := (*sqlcheck.Error)(nil); errors.As(err, &refused) {
			return report, []string{refused.Error()}, nil
		} else if err != nil {
			return report, nil, err
		}
		var faults []string
		for _, f := range report.Findings {
			faults = append(faults, f.Text)
		}
		return report, faults, nil
	}
	report, faults, err := inspect(query, tables)
	if err != nil || len(faults) > 0 {
		return faults, err
	}
	if fault := columns(report); fault != "" {
		return []string{fault}, nil
	}
	// The types of the columns: whether they can be text and jsonb.
	_, faults, err = inspect(c.wrap(query), tables)
	return faults, err
}

// columns says what is wrong with the columns of a query.
func columns(r sqlcheck.Report) string {
	sorted := slices.Sorted(slices.Values(r.Columns))
	if slices.Equal(sorted, []string{columnData, columnType}) || slices.Equal(sorted, []string{columnData, columnStream, columnType}) {
		return ""
	}
	return fmt.Sprintf("has the columns (%s): give type and data, and stream where the type does not name it", strings.Join(r.Columns, ", "))
}
