package view

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"cdc/internal/eventstore"
	"cdc/internal/intent"
	"cdc/internal/sqlcheck"
)

// FaultsError is everything wrong with the SQL of views, at paths of the
// configuration: views[waiting].when[place-offered].
type FaultsError []intent.Fault

func (f FaultsError) Error() string {
	lines := make([]string, len(f))
	for i, fault := range f {
		lines[i] = fault.String()
	}
	return strings.Join(lines, "\n")
}

// Check has the server judge tables and statements of every view, each in the
// database that is to hold it, and changes nothing: what it makes is rolled back.
// A FaultsError tells every fault; another error says that it could not be checked.
func Check(ctx context.Context, pool *pgxpool.Pool, defs intent.Definitions) error {
	var faults FaultsError
	for _, v := range defs.Views {
		found, err := checkOne(ctx, pool, v, defs.Events)
		if err != nil {
			return fmt.Errorf("check view %s: %w", v.Name, err)
		}
		faults = append(faults, found...)
	}
	if len(faults) > 0 {
		return faults
	}
	return nil
}

// checkOne checks a view in a transaction of its own.
func checkOne(ctx context.Context, pool *pgxpool.Pool, v intent.View, events []intent.EventType) (FaultsError, error) {
	path := "views[" + v.Name + "]"
	c, err := compile(v, events)
	if err != nil {
		where, text, _ := strings.Cut(err.Error(), ": ")
		return FaultsError{{Path: where, Text: text}}, nil
	}
	conn, release, err := connectFor(ctx, pool, v)
	if err != nil {
		return FaultsError{{Path: path + ".database", Text: err.Error()}}, nil
	}
	defer release()
	if v.Database != "" && v.Mode == intent.Inline {
		fault := twoPhase(ctx, conn, v.DatabaseName())
		if fault == "" {
			fault = twoPhase(ctx, pool, "the store's Postgres")
		}
		if fault != "" {
			return FaultsError{{Path: path + ".mode", Text: fault}}, nil
		}
	}
	tx, err := conn.Begin(ctx)
	if err != nil {
		return nil, fmt.Errorf("begin: %w", err)
	}
	defer rollback(ctx, tx)
	schema := fmt.Sprintf("es_check_%d", conn.PgConn().PID())
	role, err := checkRole(ctx, tx, v, schema)
	if err != nil {
		return nil, err
	}
	return c.check(ctx, tx, schema, role)
}

// connectFor is a connection to the database that is to hold the view.
func connectFor(ctx context.Context, pool *pgxpool.Pool, v intent.View) (conn *pgx.Conn, release func(), err error) {
	if v.Database == "" {
		c, err := pool.Acquire(ctx)
		if err != nil {
			return nil, nil, fmt.Errorf("connect: %w", err)
		}
		return c.Conn(), c.Release, nil
	}
	cfg, err := eventstore.ParseURL(v.Database)
	if err != nil {
		return nil, nil, err
	}
	if conn, err = pgx.ConnectConfig(ctx, cfg); err != nil {
		return nil, nil, fmt.Errorf("connect to %s: %w", v.DatabaseName(), err)
	}
	return conn, func() { closeConn(conn) }, nil
}

// twoPhase says why inline views in another Postgres are not possible.
func twoPhase(ctx context.Context, q querier, where string) string {
	var n int
	if err := q.QueryRow(ctx, `select setting::int from pg_settings where name = 'max_prepared_transactions'`).Scan(&n); err != nil || n > 0 {
		return ""
	}
	return where + " has max_prepared_transactions = 0, and an inline view in another Postgres needs prepared transactions: set it to 100 and restart that server, or make the view async"
}

// checkRole makes a schema and says whose rights hold in it: es_view's, which are
// the functions' later, where the role is there already.
func checkRole(ctx context.Context, tx pgx.Tx, v intent.View, schema string) (string, error) {
	role := ""
	if v.Database == "" {
		err := tx.QueryRow(ctx, `select coalesce((select rolname::text from pg_roles where rolname = 'es_view' and pg_has_role(oid, 'member')), '')`).Scan(&role)
		if err != nil {
			return "", fmt.Errorf("look up role es_view: %w", err)
		}
	}
	text := "create schema " + schema
	if role != "" {
		text += " authorization " + role
	}
	if _, err := tx.Exec(ctx, text); err != nil {
		return "", fmt.Errorf("make a scratch schema: %w", err)
	}
	return role, nil
}

// check makes the table in a schema and has every statement judged against it.
func (c *code) check(ctx context.Context, tx pgx.Tx, schema, role string) (FaultsError, error) {
	path := "views[" + c.view.Name + "]"
	if role != "" {
		if _, err := tx.Exec(ctx, "set local role "+role); err != nil {
			return nil, fmt.Errorf("set role %s: %w", role, err)
		}
		defer func() { _, _ = tx.Exec(ctx, "reset role") }() // where it fails the transaction has failed
	}
	for i, text := range c.tableSQL(schema) {
		where := path + ".table"
		if i > 0 {
			where = fmt.Sprintf("%s.indexes[%d]", path, i-1)
		}
		if err := attempt(ctx, tx, text); err != nil {
			fault, err := serverFault(where, err)
			return FaultsError{fault}, err // without the table all else is noise
		}
	}
	table := schema + "." + intent.Quote(c.view.Name)
	found, err := sqlcheck.CheckDefaults(ctx, tx, table)
	if err != nil {
		return nil, err
	}
	var faults FaultsError
	for _, f := range found {
		faults = append(faults, intent.Fault{Path: path + ".table", Text: f.Text})
	}
	for _, b := range c.when {
		found, err := c.checkBranch(ctx, tx, b, schema, table)
		if err != nil {
			return nil, err
		}
		for _, text := range found {
			faults = append(faults, intent.Fault{Path: path + ".when[" + b.kind + "]", Text: text})
		}
	}
	if len(faults) > 0 {
		return faults, nil
	}
	// What plpgsql has against it.
	for _, text := range []string{c.applySQL(schema, schema), c.onEventSQL(schema, schema)} {
		if err := attempt(ctx, tx, text); err != nil {
			fault, err := serverFault(path+".when", err)
			return FaultsError{fault}, err
		}
	}
	return nil, nil
}

// checkBranch has one statement judged.
func (c *code) checkBranch(ctx context.Context, tx pgx.Tx, b branch, schema, table string) ([]string, error) {
	s := sqlcheck.Statement{SQL: b.text, SearchPath: "pg_catalog, " + schema + ", pg_temp", Tables: []string{table}, Writes: true}
	for _, v := range variables {
		s.Params = append(s.Params, sqlcheck.Param{Name: variable(v.param), Type: v.sql})
	}
	report, err := sqlcheck.Inspect(ctx, tx, s)
	var refused *sqlcheck.Error
	if errors.As(err, &refused) {
		return []string{refused.Error()}, nil
	}
	if err != nil {
		return nil, err
	}
	var texts []string
	for _, f := range report.Findings {
		texts = append(texts, f.Text)
	}
	if report.Command == "select" {
		return append(texts, "select: it changes nothing; write insert, update, delete or merge"), nil
	}
	returning, err := returns(ctx, tx, b, schema)
	if err == nil && returning {
		texts = append(texts, "returning: nobody takes the rows; leave it out")
	}
	return texts, err
}

// returns says that a statement gives rows, which a function would have to take.
func returns(ctx context.Context, tx pgx.Tx, b branch, schema string) (bool, error) {
	save, err := tx.Begin(ctx)
	if err != nil {
		return false, fmt.Errorf("set a savepoint: %w", err)
	}
	defer rollback(ctx, save)
	if _, err := save.Exec(ctx, `select set_config('search_path', $1, true)`, "pg_catalog, "+schema+", pg_temp"); err != nil {
		return false, fmt.Errorf("set search_path: %w", err)
	}
	text, n := b.text, 0
	for _, v := range variables {
		if slices.Contains(b.params, v.param) {
			n++
			text = strings.ReplaceAll(text, variable(v.param), fmt.Sprintf("($%d::%s)", n, v.sql))
		}
	}
	d, err := save.Conn().PgConn().Prepare(ctx, "", text, nil)
	if err != nil {
		return false, fmt.Errorf("prepare a statement: %w", err)
	}
	return len(d.Fields) > 0, nil
}

// attempt executes one command behind a savepoint.
func attempt(ctx context.Context, tx pgx.Tx, text string) error {
	save, err := tx.Begin(ctx)
	if err != nil {
		return fmt.Errorf("set a savepoint: %w", err)
	}
	// The extended protocol takes one command alone: text that ends it and begins
	// another is an error of syntax there.
	if _, err := save.Conn().PgConn().ExecParams(ctx, text, nil, nil, nil, nil).Close(); err != nil {
		rollback(ctx, save)
		return err
	}
	return save.Commit(ctx)
}

// serverFault makes the server's refusal a fault; what is no refusal stays an error.
func serverFault(path string, err error) (intent.Fault, error) {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || isTrouble(pg.Code) {
		return intent.Fault{}, err
	}
	text := pg.Message
	for _, more := range []string{pg.Detail, pg.Hint} {
		if more != "" {
			text += "; " + more
		}
	}
	return intent.Fault{Path: path, Text: text}, nil
}
