package sqlcheck

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"cdc/internal/cdc"
)

// Param is a parameter of a statement. The text names it as it is, quoted where it
// is no plain identifier, or as $1, $2, … in their order. A column of the same name
// that is in scope comes first, as everywhere in SQL functions.
type Param struct {
	Name string
	Type string // as in CREATE FUNCTION
}

// Statement is what is checked: one statement, or one expression.
type Statement struct {
	SQL    string // placeholders already replaced by parameters
	Params []Param
	// Returns is "" for a statement whose rows do not matter, "table(a int, …)" or
	// "setof record" for a query, and any other type for an expression of it.
	Returns    string
	SearchPath string // where names without a schema are looked up; "" leaves the caller's
	Role       string // whose rights hold while names are looked up; "" leaves the caller's
	Tables     []string
	// Writes allows insert, update, delete and merge (on Tables); else only select.
	Writes bool
}

// Finding is one reason why a statement is refused, in words.
type Finding struct {
	Text string
}

// Report is what a statement does.
type Report struct {
	// Command is select, insert, update, delete or merge; "expression" for one.
	Command  string
	Columns  []string // names of what a select gives, "" where one has none
	Findings []Finding
}

// Error is the server's answer to a statement it cannot take.
type Error struct {
	SQLState string
	Message  string
	Detail   string
	Hint     string
	// Line and Column are in Statement.SQL, from 1, columns in characters; 0 where
	// the server names no place in it.
	Line, Column int
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Message)
	if e.Line > 0 {
		fmt.Fprintf(&b, " (line %d, column %d)", e.Line, e.Column)
	}
	for _, more := range []string{e.Detail, e.Hint} {
		if more != "" {
			b.WriteString("; " + more)
		}
	}
	return b.String()
}

// function is the name of the temporary function; a statement can write
// cdc_statement.name for a parameter.
const function = "cdc_statement"

// codeWrongReturn is invalid_function_definition: what the function gives is not what
// it is declared to.
const codeWrongReturn = "42P13"

// Check says what is wrong with a statement: nothing where it has no findings. An
// *Error is the server's own: it does not parse, a table or column does not exist, a
// type does not fit. A TerminalError store-rights says that the role may not make
// temporary functions. tx is as it was when Check returns.
func Check(ctx context.Context, tx pgx.Tx, s Statement) ([]Finding, error) {
	r, err := Inspect(ctx, tx, s)
	return r.Findings, err
}

// Inspect is Check, and tells what kind of statement it is.
func Inspect(ctx context.Context, tx pgx.Tx, s Statement) (Report, error) {
	body, err := parse(ctx, tx, s)
	if err != nil {
		return Report{}, err
	}
	root, err := parseTree(body)
	if err != nil {
		return Report{}, err
	}
	report := Report{}
	j := newJudge(s.SQL)
	top := root.children
	switch {
	case len(top) == 0: // the server drops nothing silently, but an empty body is one
		j.find("does nothing: write one statement")
	case len(top) > 1:
		j.find("holds %d statements: write one", len(top))
	case !s.statement():
		report.Command = "expression"
	default:
		report.Command = command(top[0])
		report.Columns = columns(top[0])
	}
	if !s.Writes {
		j.onlyReads(root)
	}
	j.collect(root)
	if err := j.judge(ctx, tx, s.Tables); err != nil {
		return Report{}, err
	}
	report.Findings = j.findings
	return report, nil
}

// statement says that SQL is a statement and no expression.
func (s Statement) statement() bool {
	r := strings.ToLower(strings.TrimSpace(s.Returns))
	return r == "" || strings.HasPrefix(r, "setof ") || strings.HasPrefix(r, "table(") || strings.HasPrefix(r, "table ")
}

// text is the CREATE FUNCTION statement, and the characters in it before SQL.
func (s Statement) text() (create string, before int) {
	var b strings.Builder
	b.WriteString("create function pg_temp." + function + "(")
	for i, p := range s.Params {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(pgx.Identifier{p.Name}.Sanitize() + " " + p.Type)
	}
	returns, open, end := s.Returns, "begin atomic\n", "\n; end"
	if strings.TrimSpace(returns) == "" {
		returns = "void"
	}
	if !s.statement() {
		open, end = "return (\n", "\n)"
	}
	b.WriteString(") returns " + returns + " language sql " + open)
	before = utf8.RuneCountInString(b.String())
	// The line break keeps a comment at the end of SQL from hiding what follows.
	return b.String() + s.SQL + end, before
}

// parse has the server parse the statement and gives its tree.
func parse(ctx context.Context, tx pgx.Tx, s Statement) (tree string, err error) {
	save, err := tx.Begin(ctx)
	if err != nil {
		return "", fmt.Errorf("set a savepoint: %w", err)
	}
	// Settings, role and function go with the savepoint, whatever happened.
	defer func() {
		if back := save.Rollback(ctx); back != nil && err == nil {
			tree, err = "", fmt.Errorf("roll back to the savepoint: %w", back)
		}
	}()
	var database, role string
	var temporary bool
	err = save.QueryRow(ctx, `with set as materialized (
		select set_config('check_function_bodies', 'on', true),
			case when $1 <> '' then set_config('search_path', $1, true) end,
			case when $2 <> '' then set_config('role', $2, true) end)
		select pg_catalog.current_database(), current_user, pg_catalog.has_database_privilege(current_user, pg_catalog.current_database(), 'temporary') from set`,
		s.SearchPath, s.Role).Scan(&database, &role, &temporary)
	if err != nil {
		return "", fmt.Errorf("take search path %q and role %q: %w", s.SearchPath, s.Role, err)
	}
	if !temporary {
		return "", cdc.Terminal("store-rights", fmt.Sprintf("GRANT TEMPORARY ON DATABASE %s TO %s;", pgx.Identifier{database}.Sanitize(), pgx.Identifier{role}.Sanitize()),
			"statements of definitions are checked in temporary functions, which role %q may not make in database %q", role, database)
	}
	create, before := s.text()
	// The extended protocol takes one command alone: text that closes the body and
	// begins another statement is an error of syntax there.
	_, err = save.Conn().PgConn().ExecParams(ctx, create, nil, nil, nil, nil).Close()
	if err != nil {
		err = serverError(err, s.SQL, before)
		var e *Error
		if errors.As(err, &e) && e.SQLState == codeWrongReturn && !s.statement() {
			e.Message = "gives no " + s.Returns
		}
		return "", err
	}
	err = save.QueryRow(ctx, `select prosqlbody::text from pg_catalog.pg_proc
		where proname = $1 and pronamespace = pg_catalog.pg_my_temp_schema()`, function).Scan(&tree)
	if err != nil {
		return "", fmt.Errorf("read the parsed statement: %w", err)
	}
	return tree, nil
}

// serverError turns the server's refusal into an *Error with its place in sql, which
// began behind so many characters of the command.
func serverError(err error, sql string, before int) error {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.SeverityUnlocalized == "FATAL" || pg.SeverityUnlocalized == "PANIC" {
		return fmt.Errorf("have the server parse a statement: %w", err)
	}
	e := &Error{SQLState: pg.Code, Message: pg.Message, Detail: pg.Detail, Hint: pg.Hint}
	if at := int(pg.Position) - 1 - before; pg.Position > 0 && at >= 0 {
		runes := []rune(sql)
		if at >= len(runes) {
			at = len(runes)
			if e.SQLState == "42601" { // it names a token of ours
				e.Message = "syntax error at its end"
			}
		}
		e.Line, e.Column = 1, 1
		for _, r := range runes[:at] {
			e.Column++
			if r == '\n' {
				e.Line, e.Column = e.Line+1, 1
			}
		}
	}
	return e
}
