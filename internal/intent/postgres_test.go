package intent_test

import (
	"testing"

	"cdc/internal/cdctest"
	"cdc/internal/intent"
)

func TestMain(m *testing.M) { cdctest.Main(m) }

// Expressions of every type of field, as the server reads them.
func TestFieldSQLOnPostgres(t *testing.T) {
	db := cdctest.Database(t)
	// A type of the same name in the search path is not taken.
	db.Exec(t, "create domain public.int8 as text", "create table e (data jsonb)", `insert into e values ('{"s": "x", "i": 9007199254740993, "n": 1.50, "b": true,
		"t": "2024-03-31T02:30:00+02:00", "d": "2024-02-29", "u": "017F22E2-79B0-7CC3-98C4-DC0C0C07398F", "j": {"a": [1]}, "it''s \\ \"q\"": "odd", "null": null}')`)
	conn := db.Conn(t)
	if _, err := conn.Exec(t.Context(), "set search_path = public, pg_catalog; set timezone = 'UTC'"); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		field     intent.Field
		typ, want string
	}{
		{intent.Field{Name: "s", Type: intent.TypeString}, "text", "x"},
		{intent.Field{Name: "i", Type: intent.TypeInt}, "bigint", "9007199254740993"},
		{intent.Field{Name: "n", Type: intent.TypeNumber}, "numeric", "1.50"},
		{intent.Field{Name: "b", Type: intent.TypeBool}, "boolean", "true"},
		{intent.Field{Name: "t", Type: intent.TypeTime}, "timestamp with time zone", "2024-03-31 00:30:00+00"},
		{intent.Field{Name: "d", Type: intent.TypeDate}, "date", "2024-02-29"},
		{intent.Field{Name: "u", Type: intent.TypeUUID}, "uuid", "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"},
		{intent.Field{Name: "j", Type: intent.TypeJSON}, "jsonb", `{"a": [1]}`},
		{intent.Field{Name: `it's \ "q"`, Type: intent.TypeString}, "text", "odd"},
		{intent.Field{Name: "null", Type: intent.TypeInt}, "bigint", "none"},
		{intent.Field{Name: "missing", Type: intent.TypeUUID}, "uuid", "none"},
		{intent.Field{Name: "missing", Type: intent.TypeJSON}, "jsonb", "none"},
	} {
		for _, data := range []string{"data", "e.data", "data || '{}'", "'{}'::jsonb || data"} {
			expr := intent.FieldSQL(tc.field, data)
			var typ, got string
			err := conn.QueryRow(t.Context(), "select pg_typeof("+expr+")::text, coalesce("+expr+"::text, 'none') from e").Scan(&typ, &got)
			if err != nil || typ != tc.typ || got != tc.want {
				t.Errorf("%s of %s: got %s %q, %v, want %s %q; %s", tc.field.Name, data, typ, got, err, tc.typ, tc.want, expr)
			}
		}
		if got, want := tc.field.Type.SQL(), tc.typ; got != want && want != "timestamp with time zone" {
			t.Errorf("type %s is %s in SQL, want %s", tc.field.Type, got, want)
		}
	}
}

func TestQuotingOnPostgres(t *testing.T) {
	db := cdctest.Database(t)
	for _, setting := range []string{"on", "off"} {
		conn := db.Conn(t)
		if _, err := conn.Exec(t.Context(), "set standard_conforming_strings = "+setting+"; set escape_string_warning = off"); err != nil {
			t.Fatal(err)
		}
		for _, s := range []string{"", "a", "it's", `\`, `\'`, `'\`, `\\'';--`, `"`, `a"b`, "é\n\t", "$1 $$ :x", "%s"} {
			var got string
			if err := conn.QueryRow(t.Context(), "select"+intent.Literal(s)+"||"+intent.Literal(s)).Scan(&got); err != nil || got != s+s {
				t.Errorf("standard_conforming_strings %s: Literal(%q) is read as %q, %v", setting, s, got, err)
			}
			if s == "" {
				continue
			}
			rows, err := conn.Query(t.Context(), "select 1 as "+intent.Quote(s))
			if err != nil {
				t.Fatal(err)
			}
			if got := rows.FieldDescriptions()[0].Name; got != s {
				t.Errorf("Quote(%q) is read as %q", s, got)
			}
			rows.Close()
		}
	}
}

func TestTemplateSQLOnPostgres(t *testing.T) {
	db := cdctest.Database(t)
	data := `'{"course": "it''s", "n": 7}'::jsonb`
	for template, want := range map[intent.Template]string{
		"settings": "settings", "course/{course}": "course/it's", "a/{n}-{course}/b": "a/7-it's/b", "a/{missing}/b": "NULL", `a/\{n}'`: `a/\7'`,
	} {
		if got := db.Query(t, "select "+template.SQL(data))[0][0]; got != want {
			t.Errorf("stream of %q: got %q, want %q", template, got, want)
		}
	}
}

// What ParseSQL takes for a placeholder is where the server has room for a value,
// and what it leaves alone the server reads in another way.
func TestParseSQLOnPostgres(t *testing.T) {
	db := cdctest.Database(t)
	from := " from (values (array[1,2,3], 2, '{\"a\": [5,6]}'::jsonb)) v(arr, n, data)"
	for _, tc := range []struct{ text, want string }{
		{":one + 1", "2"},
		{":one::text || ':one' || E'\\':one'", "1:one':one"},
		{"E'a\\'' \n  '\\':one' || :one", "a'':one1"},
		{"E'a' --:one\r '\\':one' || :one", "a':one1"},
		{"'a\\' || :one", `a\1`},
		{"$$:one$$ || $x$:one $$ $x$ || :one", ":one:one $$ 1"},
		{"1 /* :one /* :one */ */ + :one", "2"},
		{"1 -- :one\r + :one", "2"},
		{"1 -- :one", "1"},
		{"arr[1:n]", "{1,2}"},
		{"arr[n:3]", "{2,3}"},
		{"arr[(n):]", "{2,3}"},
		{"arr[:one:n]", "{1,2}"},
		{"arr[n : 1 + :one]", "{2}"},
		{"arr[1: :one]", "{1}"},
		{"arr[:one]", "1"},
		{"data @? '$.a[*] ? (@ > 5)'", "true"},
		{"jsonb_path_query_first(data, '$.a[*] ? (@ > $one)', jsonb_build_object('one', :one))", "5"},
		{`(select "a:one" + a$x$ + :one from (values (1, 2)) t("a:one", a$x$))`, "4"},
		{"U&'\\0041:one' || :one", "A:one1"},
		{":one;;  -- done", "1"},
	} {
		s, err := intent.ParseSQL(tc.text)
		if err != nil {
			t.Errorf("%q: %v", tc.text, err)
			continue
		}
		sql := "select (" + s.With(func(string) string { return "(1)" }) + ")::text" + from
		if got := db.Query(t, sql)[0][0]; got != tc.want {
			t.Errorf("%q: got %q, want %q; %s", tc.text, got, tc.want, sql)
		}
	}
}
