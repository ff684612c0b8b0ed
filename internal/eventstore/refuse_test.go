package eventstore

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"cdc/internal/cdctest"
	"cdc/internal/intent"
)

// TestBadCallsFromSQL has what only SQL can get wrong, and what Go passes on.
func TestBadCallsFromSQL(t *testing.T) {
	t.Parallel()
	s, db := newStore(t, "")
	ctx := testContext(t)
	if _, err := s.Install(ctx, intent.Definitions{Undeclared: true, MaxEvent: 100}); err != nil {
		t.Fatal(err)
	}
	conn := db.Conn(t)
	db.Exec(t, "insert into es.stream values ('a/1', 0)")
	const (
		id  = "'01980000-0000-7000-8000-000000000001'"
		id2 = "'01980000-0000-7000-8000-000000000002'"
	)
	// call is es.append of one event to a stream; both ways are taken: a stream
	// that is there and one that is not.
	call := func(streams, expect, of, ids, types, data, more string) string {
		return fmt.Sprintf("select * from es.append(array[%s]::text[], array[%s]::bigint[], array[%s]::text[], array[%s]::uuid[], array[%s]::text[], array[%s]::jsonb[]%s)",
			streams, expect, of, ids, types, data, more)
	}
	event := func(typ, data, more string) string {
		return call("'a/1'", "null", "'a/1'", id, typ, data, more)
	}
	for _, c := range []struct{ name, sql, code, path string }{
		{"no stream", call("", "", "", "", "", "", ""), "22023", ""},
		{"streams is null", "select * from es.append(null, null, null, null, null, null)", "22023", ""},
		{"events are null", "select * from es.append('{a/1}', '{0}', null, null, null, null)", "22023", ""},
		{"fewer expected versions", call("'a/1', 'a/2'", "0", "", "", "", "", ""), "22023", ""},
		{"more expected versions", call("'a/1'", "0, 0", "'a/1'", id, "'x'", "'{}'", ""), "22023", ""},
		{"expected below -1", call("'a/1'", "-2", "'a/1'", id, "'x'", "'{}'", ""), "22023", ""},
		{"stream twice", call("'a/1', 'a/1'", "null, null", "", "", "", "", ""), "22023", ""},
		{"stream null", call("null", "null", "", "", "", "", ""), "ES422", "stream"},
		{"event to another stream", call("'a/1'", "null", "'a/2'", id, "'x'", "'{}'", ""), "22023", ""},
		{"event to no stream", call("'a/1'", "null", "null", id, "'x'", "'{}'", ""), "22023", ""},
		{"fewer types", call("'a/1'", "null", "'a/1'", id, "", "'{}'", ""), "22023", ""},
		{"fewer data", call("'a/1'", "null", "'a/1'", id, "'x'", "", ""), "22023", ""},
		{"more ids", call("'a/1'", "null", "'a/1'", id+","+id2, "'x'", "'{}'", ""), "22023", ""},
		{"more meta", event("'x'", "'{}'", ", array['{}', '{}']::jsonb[]"), "22023", ""},
		{"fewer schemas", event("'x'", "'{}'", ", ev_schema => '{}'"), "22023", ""},
		{"more subjects", event("'x'", "'{}'", ", ev_subjects => array['{}', '{}']"), "22023", ""},
		{"id twice", call("'a/1'", "null", "'a/1', 'a/1'", id+","+id, "'x', 'x'", "'{}', '{}'", ""), "22023", ""},
		{"id null", call("'a/1'", "null", "'a/1'", "null", "'x'", "'{}'", ""), "22023", ""},
		{"two dimensions", event("'x'", "'{}'", ", ev_schema => '{{1}}'"), "22023", ""},
		{"type null", event("null", "'{}'", ""), "ES422", "type"},
		{"type empty", event("''", "'{}'", ""), "ES422", "type"},
		{"type of 41 bytes", event("repeat('x', 41)", "'{}'", ""), "ES422", "type"},
		{"type of 41 bytes, 40 letters", event("repeat('x', 39) || 'é'", "'{}'", ""), "ES422", "type"},
		{"type of 40 bytes", event("repeat('x', 40)", "'{}'", ""), "", ""},
		{"control character in type", event("E'a\\nb'", "'{}'", ""), "ES422", "type"},
		{"data null", event("'x'", "null", ""), "ES422", "data"},
		{"data of JSON null", event("'x'", "'null'", ""), "ES422", "data"},
		{"data an array", event("'x'", "'[1]'", ""), "ES422", "data"},
		{"data not JSON", event("'x'", "'{'", ""), "22P02", ""},
		{"data with U+0000", event("'x'", `'{"a": "\u0000"}'`, ""), "22P05", ""},
		{"meta a string", event("'x'", "'{}'", `, array['"me"']::jsonb[]`), "ES422", "meta"},
		{"schema 0", event("'x'", "'{}'", ", ev_schema => '{0}'"), "ES422", "schema"},
		{"too large", event("'x'", `('{"a": "' || repeat('x', 92) || '"}')`, ""), "54000", ""},
		{"too large with meta", event("'x'", `('{"a": "' || repeat('x', 80) || '"}')`, `, array['{"actor": "me"}']::jsonb[]`), "54000", ""},
		{"just not too large", event("'x'", `('{"a": "' || repeat('x', 91) || '"}')`, ""), "", ""},
		{"a number that is long as text", event("'x'", `'{"a": 1e200}'`, ""), "54000", ""},
		{"subjects no array", event("'x'", "'{}'", ", ev_subjects => '{x}'"), "22P02", ""},
		{"subject null", event("'x'", "'{}'", ", ev_subjects => array['{null}']"), "ES422", "subjects"},
		{"subject empty", event("'x'", "'{}'", `, ev_subjects => array['{""}']`), "ES422", "subjects"},
		{"subject of 513 bytes", event("'x'", "'{}'", ", ev_subjects => array['{' || repeat('x', 513) || '}']"), "ES422", "subjects"},
		{"subjects of two dimensions", event("'x'", "'{}'", ", ev_subjects => array['{{a},{b}}']"), "ES422", "subjects"},
		{"101 subjects", event("'x'", "'{}'", ", ev_subjects => array[array_fill('a'::text, '{101}')::text]"), "ES422", "subjects"},
		{"100 subjects", event("'x'", "'{}'", ", ev_subjects => array[array_fill('a'::text, '{100}')::text]"), "", ""},
		{"the second is wrong", call("'a/1'", "null", "'a/1', 'a/1'", id+","+id2, "'x', 'x'", "'{}', '[]'", ""), "ES422", "data"},
		{"close below -1", "select es.close('a/1', -2)", "22023", ""},
		{"JSON no array", "select * from es.append('{}'::jsonb)", "ES422", "batches"},
		{"JSON null", "select * from es.append(null::jsonb)", "ES422", "batches"},
		{"JSON empty", "select * from es.append('[]'::jsonb)", "22023", ""},
		{"JSON batch no object", `select * from es.append('[[]]'::jsonb)`, "ES422", "batches[0]"},
		{"JSON misspelt", `select * from es.append('[{"stream": "a/1", "expected": 1}]'::jsonb)`, "ES422", "batches[0].expected"},
		{"JSON no stream", `select * from es.append('[{"stream": "a/1"}, {}]'::jsonb)`, "ES422", "batches[1].stream"},
		{"JSON expect", `select * from es.append('[{"stream": "a/1", "expect": -1}]'::jsonb)`, "ES422", "batches[0].expect"},
		{"JSON expect a fraction", `select * from es.append('[{"stream": "a/1", "expect": 1.5}]'::jsonb)`, "ES422", "batches[0].expect"},
		{"JSON expect a word", `select * from es.append('[{"stream": "a/1", "expect": "none "}]'::jsonb)`, "ES422", "batches[0].expect"},
		{"JSON events no array", `select * from es.append('[{"stream": "a/1", "events": {}}]'::jsonb)`, "ES422", "batches[0].events"},
		{"JSON no id", `select * from es.append('[{"stream": "a/1", "events": [{"type": "x", "data": {}}]}]'::jsonb)`, "ES422", "batches[0].events[0].id"},
		{"JSON id no UUID", `select * from es.append('[{"stream": "a/1", "events": [{"id": "1", "type": "x", "data": {}}]}]'::jsonb)`, "22P02", ""},
		{"JSON no data", `select * from es.append('[{"stream": "a/1", "events": [{"id": "01980000-0000-7000-8000-000000000001", "type": "x"}]}]'::jsonb)`, "ES422", "data"},
		{"JSON schema", `select * from es.append('[{"stream": "a/1", "events": [{"id": "01980000-0000-7000-8000-000000000001", "type": "x", "schema": "1", "data": {}}]}]'::jsonb)`, "ES422", "batches[0].events[0].schema"},
		{"JSON subjects", `select * from es.append('[{"stream": "a/1", "events": [{"id": "01980000-0000-7000-8000-000000000001", "type": "x", "subjects": [1], "data": {}}]}]'::jsonb)`, "ES422", "batches[0].events[0].subjects"},
	} {
		for _, there := range []bool{true, false} {
			sql := c.sql
			if !there {
				sql = strings.ReplaceAll(sql, "a/1", "b/1")
			}
			tx, err := conn.Begin(ctx)
			if err != nil {
				t.Fatal(err)
			}
			_, err = tx.Exec(ctx, sql)
			if e := tx.Rollback(ctx); e != nil {
				t.Fatal(e)
			}
			var pe *pgconn.PgError
			got, path := "", ""
			if errors.As(err, &pe) {
				got = pe.Code
				var invalid *intent.InvalidError
				if errors.As(typed(err), &invalid) {
					path = invalid.Path
				}
			} else if err != nil {
				t.Fatal(err)
			}
			if got != c.code || path != c.path {
				t.Errorf("%s (stream there %t): got %q at %q, want %q at %q: %v", c.name, there, got, path, c.code, c.path, err)
			}
		}
	}
}

func TestBadNamesOfStreams(t *testing.T) {
	t.Parallel()
	s, db := newStore(t, RoleWriter)
	ctx := testContext(t)
	for name, c := range map[string]struct {
		stream string
		ok     bool
	}{
		"empty":                         {"", false},
		"512 bytes":                     {"a/" + strings.Repeat("é", 255), true},
		"513 bytes":                     {"a/" + strings.Repeat("é", 255) + "x", false},
		"10 kB":                         {"a/" + strings.Repeat("x", 10_000), false},
		"newline":                       {"a/\n", false},
		"delete":                        {"a/\x7f", false},
		"U+0085":                        {"a/\u0085", false},
		"U+00A0 is none":                {"a/\u00a0", true},
		"nul":                           {"a/\x00", false},
		"no UTF-8":                      {"a/\xff", false},
		"category empty":                {"/1", false},
		"category with a blank":         {"a b/1", false},
		"category in Greek":             {"α/1", false},
		"category alone":                {"Az0._-", true},
		"category of 100":               {strings.Repeat("a", 100) + "/1", true},
		"category of 101":               {strings.Repeat("a", 101) + "/1", false},
		"quotes and a brace, a percent": {`a/'"\{}%s`, true},
		"slashes":                       {"a//b/", true},
	} {
		for _, b := range []intent.Batch{{Stream: c.stream, Expect: intent.None}, {Stream: c.stream, Expect: intent.Any}, one(c.stream, intent.Any, "x")} {
			_, err := s.Append(ctx, []intent.Batch{b})
			var invalid *intent.InvalidError
			if c.ok && err != nil || !c.ok && !errors.As(err, &invalid) {
				t.Errorf("%s, %d events: got %v, want success %t", name, len(b.Events), err, c.ok)
			}
		}
		if c.ok {
			n := 0
			if err := s.Read(ctx, c.stream, 0, 0, func(e *intent.Event) error { n++; return nil }); err != nil || n != 1 {
				t.Errorf("%s: read back %d events, %v", name, n, err)
			}
		}
	}
	if n := db.Value(t, "select count(*) from es.stream where not "+"stream ~ '^(a|Az0|aaa)'"); n != "0" {
		t.Errorf("%s streams of bad names were made", n)
	}
}

func TestBadBatchesFromGo(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t, RoleWriter)
	ctx := testContext(t)
	twice := one("a/1", intent.Any, "x")
	for name, b := range map[string][]intent.Batch{
		"none":           nil,
		"no id":          {{Stream: "a/1", Events: []intent.NewEvent{{Type: "x", Data: json.RawMessage(`{}`)}}}},
		"no data":        {{Stream: "a/1", Events: []intent.NewEvent{{ID: intent.NewID(), Type: "x"}}}},
		"data no JSON":   {{Stream: "a/1", Events: []intent.NewEvent{{ID: intent.NewID(), Type: "x", Data: json.RawMessage(`{"a":`)}}}},
		"no type":        {one("a/1", intent.Any, "")},
		"expect -3":      {one("a/1", -3, "x")},
		"schema 1 << 40": {{Stream: "a/1", Events: []intent.NewEvent{{ID: intent.NewID(), Type: "x", Schema: 1 << 40, Data: json.RawMessage(`{}`)}}}},
		"schema -1":      {{Stream: "a/1", Events: []intent.NewEvent{{ID: intent.NewID(), Type: "x", Schema: -1, Data: json.RawMessage(`{}`)}}}},
		"stream twice":   {twice, one("a/1", intent.Any, "x")},
		"id twice":       {twice, {Stream: "a/2", Expect: intent.Any, Events: twice.Events}},
	} {
		_, err := s.Append(ctx, b)
		var invalid *intent.InvalidError
		if !errors.As(err, &invalid) {
			t.Errorf("%s: got %v, want an InvalidError", name, err)
		}
	}
}

// TestAppendOnlyForEverybody asks as superuser, owner, and as a replica does.
func TestAppendOnlyForEverybody(t *testing.T) {
	t.Parallel()
	s, db := newStore(t, "")
	ctx := testContext(t)
	b := one("a/1", intent.None, "x")
	mustAppend(t, s, b)
	db.Exec(t, fmt.Sprintf("insert into es.log values (1, '%s', '0/8', 1)", b.Events[0].ID))
	for _, as := range []string{"select 1", "set role es_owner", "set session_replication_role = replica"} {
		conn := db.Conn(t)
		if _, err := conn.Exec(ctx, as); err != nil {
			t.Fatal(err)
		}
		for _, sql := range []string{
			"update es.event set data = '{}'", "update es.event set version = 2 where false or true", "delete from es.event", "truncate es.event", "truncate es.event cascade",
			"truncate es.stream cascade", "delete from es.stream", "truncate es.stream, es.event",
			"update es.log set pos = 7", "delete from es.log", "truncate es.log",
		} {
			_, err := conn.Exec(ctx, sql)
			var pe *pgconn.PgError
			if !errors.As(err, &pe) || pe.Code != "0A000" || !strings.Contains(pe.Message, "append-only") {
				t.Errorf("%s; %s: got %v, want it refused", as, sql, err)
			}
		}
	}
	if got := db.Value(t, "select data::text || ' ' || version from es.event"); got != `{"n": 1} 1` {
		t.Errorf("got %s", got)
	}
}

// member makes a login that is a member of a role, and gives its URL.
func member(t testing.TB, db *cdctest.DB, role string) string {
	t.Helper()
	name := "login_" + db.Name + "_" + role
	db.Exec(t, "create role "+name+" login")
	if role != "nobody" {
		db.Exec(t, "grant "+role+" to "+name)
	}
	return asLogin(t, db.URL, name)
}

func asLogin(t testing.TB, u, name string) string {
	t.Helper()
	p, err := url.Parse(u)
	if err != nil {
		t.Fatal(err)
	}
	p.User = url.User(name)
	return p.String()
}

func TestLeastPrivilege(t *testing.T) {
	t.Parallel()
	s, db := newStore(t, "")
	ctx := testContext(t)
	mustAppend(t, s, one("a/1", intent.None, "x"))
	db.Exec(t, "create table views.seats (n int)", "grant select on views.seats to es_writer, es_reader")
	conns := map[string]*pgx.Conn{}
	for _, role := range []string{RoleWriter, RoleReader, RoleView, "nobody"} {
		conn, err := pgx.Connect(ctx, member(t, db, role))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close(ctx) }()
		conns[role] = conn
	}
	everybody := []string{}
	readers := []string{RoleWriter, RoleReader}
	may := map[string][]string{
		"select * from es.append('[{\"stream\": \"a/2\"}]')":              {RoleWriter},
		"select * from es.append('{a/2}', '{0}', '{}', '{}', '{}', '{}')": {RoleWriter},
		"select es.close('a/1')":                                          {RoleWriter},
		"select * from es.read('a/1')":                                    readers,
		"select * from es.read_log(0, 10)":                                readers,
		"select es.head()":                                                readers,
		"select es.version()":                                             readers,
		"select * from views.seats":                                       readers,
		"select * from es.append_all('{a/2}', '{0}', '{}', '{}', '{}', '{}', '{}', '{}', '{}')": everybody,
		"select es.invalid('x', 'y')":                                 everybody,
		"insert into views.seats values (1)":                          everybody,
		"create table es.mine (n int)":                                everybody,
		"create table views.mine (n int)":                             {RoleView},
		"create function es.mine() returns int language sql return 1": everybody,
		"drop function es.head()":                                     everybody,
		"alter table es.event disable trigger all":                    everybody,
		"set session_replication_role = replica":                      everybody,
		"set role es_owner":                                           everybody,
	}
	for _, table := range []string{"meta", "stream", "event", "log", "reader", "alarm", "declared", "fold", "snapshot", "view", "reaction", "decision"} {
		may["select from es."+table] = everybody
		may["insert into es."+table+" default values"] = everybody
		may["delete from es."+table] = everybody
		may["truncate es."+table] = everybody
		may["lock table es."+table+" in access share mode"] = everybody
		may["create trigger mine after insert on es."+table+" for each row execute function pg_catalog.suppress_redundant_updates_trigger()"] = everybody
	}
	may["update es.event set data = '{}'"] = everybody
	may["update es.stream set version = 0"] = everybody
	for sql, allowed := range may {
		for role, conn := range conns {
			tx, err := conn.Begin(ctx)
			if err != nil {
				t.Fatal(err)
			}
			_, err = tx.Exec(ctx, sql)
			if e := tx.Rollback(ctx); e != nil {
				t.Fatal(e)
			}
			want := codeInsufficientPrivilege
			for _, a := range allowed {
				if a == role {
					want = ""
				}
			}
			got := ""
			var pe *pgconn.PgError
			if errors.As(err, &pe) {
				got = pe.Code
			}
			if got != want {
				t.Errorf("%s: %s: got %q, want %q: %v", role, sql, got, want, err)
			}
		}
	}
	// No function is open to everybody, and those that act for others fix their path.
	rows := db.Query(t, `select p.oid::regprocedure from pg_proc p where p.pronamespace = 'es'::regnamespace
		and (p.proowner <> 'es_owner'::regrole or exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) where grantee = 0)
		or p.prosecdef and coalesce(array_to_string(p.proconfig, ','), '') !~ 'search_path=pg_catalog, pg_temp')`)
	if len(rows) > 0 {
		t.Errorf("functions with the wrong owner, open to public or without a search_path: %v", rows)
	}
}

// TestFunctionsAreNotLedAstray: what a caller puts in its search_path, pg_temp
// included, is not what the functions call.
func TestFunctionsAreNotLedAstray(t *testing.T) {
	t.Parallel()
	_, db := newStore(t, "")
	ctx := testContext(t)
	conn, err := pgx.Connect(ctx, member(t, db, RoleWriter))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	for _, sql := range []string{
		"create function pg_temp.cardinality(anyarray) returns int language plpgsql as $$ begin raise exception 'led astray'; end $$",
		"create function pg_temp.octet_length(text) returns int language plpgsql as $$ begin raise exception 'led astray'; end $$",
		"create temporary table event (id uuid)",
		"set search_path = pg_temp, pg_catalog",
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := appendTo(ctx, conn, []intent.Batch{one("a/1", intent.None, "x")}); err != nil {
		t.Error(err)
	}
	if _, err := appendTo(ctx, conn, []intent.Batch{one("a/1", 1, "x"), one("a/2", intent.None, "x")}); err != nil {
		t.Error(err)
	}
}
