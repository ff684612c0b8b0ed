package sqlcheck

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
)

// world is what the statements of the tests find.
const world = `
	create schema v;
	create table v.waiting (course text, student text, since bigint, at timestamptz, note text, primary key (course, student));
	create table v.other (course text);
	create view v.seen as select * from v.waiting;
	create sequence v.s;
	create schema u;
	create function u.plain(a text) returns text language plpgsql as 'begin return a; end';
	create function u.stable(a text) returns text language sql stable return a;
	create function u.fixed(a text) returns text language sql immutable return a;
	create function u.plus(a int, b text) returns int language plpgsql as 'begin return a; end';
	create operator u.+! (leftarg = int, rightarg = text, function = u.plus);
	create function u.step(a int, b int) returns int language plpgsql as 'begin return a + b; end';
	create function u.fixedstep(a int, b int) returns int language sql immutable return a + b;
	create aggregate u.total(int) (sfunc = u.step, stype = int);
	create aggregate u.fixedtotal(int) (sfunc = u.fixedstep, stype = int);
	create domain u.shy as text check (u.plain(value) <> '');
	create domain u.shyer as u.shy;
	create domain u.short as text check (length(value) < 10);
	create type u.colour as enum ('red', 'green');`

// params are what the statements of the tests may name.
var params = []Param{{"_course", "text"}, {"_student", "text"}, {"_pos", "bigint"}, {"_at", "timestamptz"}, {"_data", "jsonb"}, {"id", "uuid"}}

func TestCheckStatements(t *testing.T) {
	t.Parallel()
	db := cdctest.Database(t)
	db.Exec(t, world)
	conn := db.Conn(t)
	version, _ := strconv.Atoi(db.Value(t, "show server_version_num"))

	for _, c := range []struct {
		name, sql, returns string
		reads              bool
		want               []string // beginnings of the findings
		since              int      // version of the server
	}{
		{name: "insert", sql: `insert into waiting values (_course, _student, _pos, _at) on conflict do nothing`},
		{name: "insert or update", sql: `insert into waiting as w values (_course, _student, _pos) on conflict (course, student) do update set since = excluded.since where w.since < excluded.since`},
		{name: "delete", sql: `delete from waiting where course = _course and student = _student`},
		{name: "update with a subquery", sql: `update waiting set since = (select count(*) from waiting x where x.course = _course) where course = _course`},
		{name: "merge", sql: `merge into waiting w using (select _course as c) s on w.course = s.c when matched then delete`, since: 15},
		{name: "changing with", sql: `with gone as (delete from waiting where course = _course returning student) insert into waiting select _course, student from gone`},
		{name: "dollars for parameters", sql: `delete from waiting where course = $1`},
		{name: "qualified parameter", sql: `delete from waiting where course = cdc_statement._course`},
		{name: "comment at the end", sql: `delete from waiting -- all of them`},
		{name: "braces, quotes and colons", sql: `insert into waiting (course, note) select 'a {b} (c) \ :d "e"' as ":x y{", '}' as "(z"`},
		{name: "casts from text", sql: `insert into waiting values (_data->>'c', 's', (_data->>'n')::bigint, (_data->>'at')::timestamptz)`},
		{name: "time arithmetic", sql: `insert into waiting (course, student, at) values ('c', to_char(_at, 'YYYY'), date_trunc('day', _at) + interval '1 day')`},
		{name: "literal time", sql: `insert into waiting (course, student, at) values ('now', 's', '2026-01-01')`, want: []string{"'now'"}}, // said too much: the word beside a time
		{name: "the word without a time", sql: `insert into waiting (course, student) values ('now', 'today')`},
		{name: "json", sql: `insert into waiting (course, student, note) select 'c', j->>'s', jsonb_build_object('a', j)::text from jsonb_array_elements(_data->'all') j`},
		{name: "aggregates and windows", sql: `insert into waiting (course, student, since) select course, min(student), row_number() over (order by course) from waiting group by course`},
		{name: "select for update", sql: `select from waiting where course = _course for update`},

		{name: "now", sql: `insert into waiting (course, at) values (_course, now())`, want: []string{"now()"}},
		{name: "current_timestamp", sql: `insert into waiting (course, at) values (_course, current_timestamp)`, want: []string{"current_timestamp"}},
		{name: "current_timestamp with a precision", sql: `insert into waiting (course, at) values (_course, current_timestamp(2))`, want: []string{"current_timestamp"}},
		{name: "localtime", sql: `delete from waiting where localtime > '10:00'`, want: []string{"localtime"}},
		{name: "age to today", sql: `delete from waiting where age(at) > '1 year'`, want: []string{"age()"}},
		{name: "age between", sql: `delete from waiting where age(_at, at) > '1 year'`},
		{name: "clock as a constant", sql: `delete from waiting where at < 'now'`, want: []string{"'now'"}},
		{name: "today at ten", sql: `delete from waiting where at < timestamptz ' Today 10:00'`, want: []string{"' Today 10:00'"}},
		{name: "random in an order", sql: `insert into waiting (course) select course from waiting order by random() limit 1`, want: []string{"random()"}},
		{name: "clock in on conflict", sql: `insert into waiting values (_course, 's') on conflict (course, student) do update set at = clock_timestamp()`, want: []string{"clock_timestamp()"}},
		{name: "several", sql: `insert into waiting values (gen_random_uuid()::text, current_user, txid_current(), timeofday()::timestamptz)`, want: []string{"current_user", "gen_random_uuid()", "timeofday()", "txid_current()"}},
		{name: "sequence", sql: `insert into waiting (course, since) values (_course, nextval('s'))`, want: []string{"nextval()"}},
		{name: "sleep", sql: `delete from waiting where pg_sleep(1) is not null`, want: []string{"pg_sleep()"}},
		{name: "setting", sql: `insert into waiting (course) values (current_setting('application_name'))`, want: []string{"current_setting()"}},
		{name: "server", sql: `insert into waiting (course, note) values (version(), inet_server_addr()::text)`, want: []string{"inet_server_addr()", "version()"}},
		{name: "file", sql: `insert into waiting (course) select pg_read_file('/etc/passwd')`, want: []string{"pg_read_file()"}},
		{name: "query in a string", sql: `insert into waiting (course) select query_to_xml('select 1', true, true, '')::text`, want: []string{"query_to_xml()"}},
		{name: "table in a string", sql: `insert into waiting (course) select table_to_xml('v.other', true, true, '')::text`, want: []string{"table_to_xml()"}},
		{name: "text search by setting", sql: `delete from waiting where to_tsvector(note) @@ to_tsquery('a')`, want: []string{"to_tsquery()", "to_tsvector()"}},
		{name: "text search by name", sql: `delete from waiting where to_tsvector('english', note) @@ to_tsquery('english', 'a')`},
		{name: "money", sql: `delete from waiting where note::money > '1'`, want: []string{"cash_in()"}},
		{name: "random normal", sql: `delete from waiting where random_normal() > 1`, want: []string{"random_normal()"}, since: 16},
		{name: "uuidv7", sql: `insert into waiting (course) values (uuidv7()::text)`, want: []string{"uuidv7()"}, since: 18},
		{name: "tablesample", sql: `insert into waiting (course) select course from waiting tablesample bernoulli (10)`, want: []string{"tablesample"}},
		{name: "system column", sql: `delete from waiting where ctid = '(0,1)'`, want: []string{"a system column"}},

		{name: "another table", sql: `insert into waiting (course) select course from other`, want: []string{"relation v.other: only v.waiting"}},
		{name: "another table below", sql: `delete from waiting where exists (select from (select * from v.other) o)`, want: []string{"relation v.other"}},
		{name: "writing another table", sql: `with x as (insert into v.other values (_course) returning course) delete from waiting`, want: []string{"relation v.other"}},
		{name: "view", sql: `insert into waiting (course) select course from seen`, want: []string{"relation v.seen"}},
		{name: "catalogue", sql: `insert into waiting (course) select relname from pg_class`, want: []string{"relation pg_catalog.pg_class"}},

		{name: "volatile by default", sql: `insert into waiting (course) values (u.plain(_course))`, want: []string{"u.plain(): is declared volatile"}},
		{name: "stable of a user", sql: `insert into waiting (course) values (u.stable(_course))`, want: []string{"u.stable(): is declared stable"}},
		{name: "immutable of a user", sql: `insert into waiting (course) values (u.fixed(_course))`},
		{name: "operator of a user", sql: `insert into waiting (course, since) values (_course, 1 operator(u.+!) 'a')`, want: []string{"u.plus()"}},
		{name: "aggregate of a user", sql: `insert into waiting (course, since) select course, u.total(since::int) from waiting group by course`, want: []string{"u.step()"}},
		{name: "immutable aggregate of a user", sql: `insert into waiting (course, since) select course, u.fixedtotal(since::int) from waiting group by course`},
		{name: "aggregate of a user as window", sql: `insert into waiting (course, since) select course, u.total(since::int) over () from waiting`, want: []string{"u.step()"}},
		{name: "domain", sql: `insert into waiting (course) values (_course::u.shy)`, want: []string{"u.plain()"}},
		{name: "domain of a domain", sql: `insert into waiting (course) values ((_data->>'c')::u.shyer)`, want: []string{"u.plain()"}},
		{name: "harmless domain", sql: `insert into waiting (course) values (_course::u.short)`},
		{name: "enum", sql: `insert into waiting (course) values ((_data->>'c')::u.colour::text)`},

		{name: "insert where only select", sql: `insert into waiting (course) values ('x')`, reads: true, want: []string{"insert: only select"}},
		{name: "delete below a select", sql: `with x as (delete from waiting returning course) select course from x`, reads: true, want: []string{"delete: only select"}},

		{name: "expression", sql: `_data || jsonb_build_object('a', _course, 'b', _at)`, returns: "jsonb", reads: true},
		{name: "expression with a comment", sql: `_data -- as it is`, returns: "jsonb", reads: true},
		{name: "expression with a query", sql: `(select jsonb_agg(x order by x) from jsonb_array_elements(_data) x where x <> to_jsonb(_course))`, returns: "jsonb", reads: true},
		{name: "expression with a table", sql: `(select to_jsonb(max(since)) from waiting)`, returns: "jsonb", reads: true, want: []string{"relation v.waiting: no relation"}},
		{name: "expression with the clock", sql: `jsonb_set(_data, '{a}', to_jsonb(now()))`, returns: "jsonb", reads: true, want: []string{"now()"}},
		{name: "SQL/JSON", sql: `json_value(_data, '$.a' returning timestamptz)::text::jsonb`, returns: "jsonb", reads: true, since: 17},
		{name: "query", sql: `select 'a' as type, _data as data from waiting order by since limit 1`, returns: "table (type text, data jsonb)", reads: true},
		{name: "query of any columns", sql: `select 'a' as type, 1 as "da ta" from waiting`, returns: "setof record", reads: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if version/10000 < c.since {
				return // the server does not know it
			}
			s := Statement{SQL: c.sql, Params: params, Returns: c.returns, SearchPath: "v, pg_catalog", Writes: !c.reads}
			if c.returns != "jsonb" {
				s.Tables = []string{"v.waiting"}
			}
			findings := check(t, conn, s)
			ok := len(findings) == len(c.want)
			for i := 0; ok && i < len(findings); i++ {
				ok = strings.HasPrefix(findings[i].Text, c.want[i])
			}
			if !ok {
				t.Errorf("%s\n got %q\nwant %q", c.sql, findings, c.want)
			}
		})
	}
}

// check runs Check in a transaction and holds it to leaving no trace.
func check(t *testing.T, conn *pgx.Conn, s Statement) []Finding {
	t.Helper()
	ctx := context.Background()
	tx, err := conn.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(ctx) }()
	before := session(t, tx)
	findings, err := Check(ctx, tx, s)
	if err != nil {
		t.Fatalf("%s\n%v", s.SQL, err)
	}
	if after := session(t, tx); after != before {
		t.Errorf("the transaction changed: got %s, want %s", after, before)
	}
	slices.SortFunc(findings, func(a, b Finding) int { return strings.Compare(a.Text, b.Text) })
	return findings
}

func session(t *testing.T, tx pgx.Tx) (s string) {
	t.Helper()
	err := tx.QueryRow(context.Background(), `select current_setting('search_path') || ' ' || current_user || ' ' || current_setting('check_function_bodies')
		|| ' ' || (select count(*) from pg_proc where proname = 'cdc_statement')`).Scan(&s)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestErrorsOfTheServer(t *testing.T) {
	t.Parallel()
	db := cdctest.Database(t)
	db.Exec(t, world)
	conn := db.Conn(t)
	ctx := context.Background()
	for _, c := range []struct {
		name, sql, returns, state string
		line, column              int
		text                      string
	}{
		{"syntax", "delete form waiting", "", "42601", 1, 8, `syntax error at or near "form"`},
		{"third line", "delete from waiting\n where öffnung = 1\n   and x", "", "42703", 2, 8, `column "öffnung" does not exist`},
		{"nothing behind", "delete from waiting where", "", "42601", 1, 26, "syntax error at its end"},
		{"unknown table", "delete from nowhere", "", "42P01", 1, 13, `relation "nowhere" does not exist`},
		{"unknown function", "select wrong(_course)", "", "42883", 1, 8, "wrong(text)"},
		{"wrong type", "insert into waiting (since) values (_at)", "", "42804", 1, 37, `column "since" is of type bigint`},
		{"two statements", "delete from waiting; delete from other", "", "", 0, 0, ""},
		{"end of the body", "delete from waiting; end; drop table v.waiting; --", "", "42601", 0, 0, ""},
		{"end of the expression", "_data); drop table v.waiting; select (1", "jsonb", "42601", 0, 0, ""},
		{"two expressions", "_data, _data", "jsonb", "42P13", 0, 0, ""},
		{"utility", "truncate waiting", "", "0A000", 0, 0, "TRUNCATE"},
		{"call", "call x()", "", "", 0, 0, ""},
		{"expression of another type", "_course", "jsonb", "42P13", 0, 0, "gives no jsonb; Actual return type is text."},
		{"missing column", "select 'a' as type", "table (type text, data jsonb)", "42P13", 0, 0, "too few columns"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tx, err := conn.Begin(ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = tx.Rollback(ctx) }()
			findings, err := Check(ctx, tx, Statement{SQL: c.sql, Params: params, Returns: c.returns, SearchPath: "v", Tables: []string{"v.waiting", "v.other"}, Writes: true})
			var e *Error
			if c.name == "two statements" {
				if err != nil || len(findings) != 1 || findings[0].Text != "holds 2 statements: write one" {
					t.Errorf("got %v, %v", findings, err)
				}
			} else if !errors.As(err, &e) {
				t.Fatalf("got %v %v, want an *Error", findings, err)
			} else if c.state != "" && e.SQLState != c.state || c.line > 0 && (e.Line != c.line || e.Column != c.column) || !strings.Contains(e.Error(), c.text) {
				t.Errorf("got %s at %d:%d %q, want %s at %d:%d %q", e.SQLState, e.Line, e.Column, e.Error(), c.state, c.line, c.column, c.text)
			}
			if _, err := tx.Exec(ctx, "select from v.waiting"); err != nil {
				t.Errorf("the transaction is of no use any more: %v", err)
			}
		})
	}
}

func TestInspectTellsCommandAndColumns(t *testing.T) {
	t.Parallel()
	db := cdctest.Database(t)
	db.Exec(t, world)
	conn := db.Conn(t)
	ctx := context.Background()
	tx, err := conn.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(ctx) }()
	for _, c := range []struct{ sql, returns, want string }{
		{"insert into waiting values ('a', 'b')", "", "insert []"},
		{"update waiting set note = ''", "", "update []"},
		{"delete from waiting", "", "delete []"},
		{"select 1 as a, (select 2 as z), course as \"d e\", student as \"\"\"q:\" from waiting order by since", "setof record", `select [a z d e "q:]`},
		{"values (1, 'a')", "setof record", "select [column1 column2]"},
		{"select 1 as a union select 2", "setof record", "select [a]"},
		{"_data", "jsonb", "expression []"},
	} {
		r, err := Inspect(ctx, tx, Statement{SQL: c.sql, Params: params, Returns: c.returns, SearchPath: "v", Tables: []string{"v.waiting"}, Writes: true})
		if got := fmt.Sprint(r.Command, " ", r.Columns); err != nil || got != c.want {
			t.Errorf("%s\n got %s %v\nwant %s", c.sql, got, err, c.want)
		}
	}
}

// TestRoleLimitsNames: what a role cannot use, a statement under it cannot name.
func TestRoleLimitsNames(t *testing.T) {
	t.Parallel()
	db := cdctest.Database(t)
	role := "sqlcheck_" + db.Name
	db.Exec(t, world, "create role "+role)
	t.Cleanup(func() { db.Exec(t, "drop owned by "+role, "drop role "+role) })
	db.Exec(t, "grant usage on schema v to "+role)
	conn := db.Conn(t)
	ctx := context.Background()
	tx, err := conn.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(ctx) }()
	s := Statement{SQL: "insert into waiting (course) values (u.fixed('a'))", SearchPath: "v", Tables: []string{"v.waiting"}, Writes: true}
	if findings, err := Check(ctx, tx, s); err != nil || len(findings) > 0 {
		t.Errorf("without a role: got %v %v", findings, err)
	}
	s.Role = role
	var e *Error
	if _, err := Check(ctx, tx, s); !errors.As(err, &e) || e.SQLState != "42501" {
		t.Errorf("got %v, want permission denied for schema u", err)
	}
	if _, err := tx.Exec(ctx, "revoke temporary on database "+db.Name+" from public"); err != nil {
		t.Fatal(err)
	}
	var terminal *cdc.TerminalError
	if _, err := Check(ctx, tx, s); !errors.As(err, &terminal) || terminal.Mend != `GRANT TEMPORARY ON DATABASE "`+db.Name+`" TO "`+role+`";` {
		t.Errorf("without the right to temporary functions: got %v", err)
	}
	if _, err := tx.Exec(ctx, "grant temporary on database "+db.Name+" to public"); err != nil {
		t.Fatal(err)
	}
	s.SQL = "insert into waiting (course) values ('a')"
	if findings, err := Check(ctx, tx, s); err != nil || len(findings) > 0 {
		t.Errorf("got %v %v", findings, err)
	}
}

func TestCheckDefaults(t *testing.T) {
	t.Parallel()
	db := cdctest.Database(t)
	db.Exec(t, world)
	conn := db.Conn(t)
	for _, c := range []struct {
		columns string
		want    []string
	}{
		{"a text primary key, b int default 0, c jsonb default '{}', d int generated always as (length(a)) stored, check (b >= 0)", nil},
		{"a serial", []string{"column a: nextval()"}},
		{"a int generated by default as identity", []string{"column a: generated as identity"}},
		{"a timestamptz default now(), b date default current_date", []string{"column a: now()", "column b: current_date"}},
		{"a uuid default gen_random_uuid()", []string{"column a: gen_random_uuid()"}},
		{"a timestamptz check (a < now())", []string{"constraint t_a_check: now()"}},
		{"a u.shy", []string{"column a: u.plain()"}},
		{"a u.short, b u.colour default 'red', c text[], d timestamptz, e numeric(10,2)", nil},
		{"a regclass", []string{"column a: regclassin()"}},
		{"a text unique references v.o(a)", []string{"constraint t_a_fkey: references v.o"}},
		{"a text primary key, b text references v.t(a)", nil},
		{"a int default u.plus(1, 'x')", []string{"column a: u.plus()"}},
	} {
		t.Run(c.columns, func(t *testing.T) {
			ctx := context.Background()
			tx, err := conn.Begin(ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = tx.Rollback(ctx) }()
			if _, err := tx.Exec(ctx, "create table v.o (a text primary key); create table v.t ("+c.columns+")"); err != nil {
				t.Fatal(err)
			}
			got, err := CheckDefaults(ctx, tx, "v.t")
			if err != nil {
				t.Fatal(err)
			}
			ok := len(got) == len(c.want)
			for i := 0; ok && i < len(got); i++ {
				ok = strings.HasPrefix(got[i].Text, c.want[i])
			}
			if !ok {
				t.Errorf("got %q\nwant %q", got, c.want)
			}
		})
	}
}
