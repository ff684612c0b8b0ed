package source

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"

	"github.com/jackc/pgx/v5"
)

// firstRelation inserts a row by SQL and returns its table as the stream has it.
func firstRelation(t *testing.T, b *bed, insert string) *cdc.Relation {
	t.Helper()
	st := b.stream(t, b.from)
	b.Exec(t, insert)
	for {
		if ev := next(t, st); ev.Kind == cdc.EventChange {
			return ev.Change.Relation
		}
	}
}

func (b *bed) oid(t testing.TB, table string) (oid uint32) {
	t.Helper()
	if _, err := fmt.Sscan(b.Value(t, fmt.Sprintf(`SELECT '%s'::regclass::oid`, table)), &oid); err != nil {
		t.Fatal(err)
	}
	return oid
}

// typeText writes a type in one line.
func typeText(t *cdc.Type) string {
	if t == nil {
		return "nil"
	}
	switch t.Kind {
	case cdc.KindEnum:
		return "enum " + t.Name
	case cdc.KindDomain:
		return fmt.Sprintf("domain %s(%s,%d)", t.Name, typeText(t.Elem), t.Mod)
	case cdc.KindArray:
		return fmt.Sprintf("array%c(%s)", t.Delim, typeText(t.Elem))
	case cdc.KindRange:
		return fmt.Sprintf("range %s(%s)", t.Name, typeText(t.Elem))
	case cdc.KindMultirange:
		return fmt.Sprintf("multirange(%s)", typeText(t.Elem))
	case cdc.KindComposite:
		var fields []string
		for _, f := range t.Fields {
			fields = append(fields, fmt.Sprintf("%s %s %d", f.Name, typeText(f.Type), f.Mod))
		}
		return fmt.Sprintf("composite %s(%s)", t.Name, strings.Join(fields, ", "))
	case cdc.KindUnknown:
		return "unknown " + t.Name
	}
	return t.Name
}

func TestTypes(t *testing.T) {
	b := newBed(t, nil, `CREATE TYPE mood AS ENUM ('sad', 'ok')`, `CREATE DOMAIN email AS varchar(20)`, `CREATE DOMAIN work AS email`,
		`CREATE TYPE pair AS (a mood, b numeric(10,2), c int[])`, `CREATE TYPE span AS RANGE (SUBTYPE = float8)`,
		`CREATE TABLE t(id int PRIMARY KEY, m mood, ms mood[], e email, w work, ws work[], p pair, ps pair[], s span, r int4range, rs int4range[], mr int4multirange,
			bx box[], n name, pt point, iv int2vector, nums numeric(5,1)[], oneway "char")`)
	rel := firstRelation(t, b, `INSERT INTO t VALUES (1)`)
	want := map[string]string{
		"id": "int4", "m": "enum mood", "ms": "array,(enum mood)", "e": "domain email(varchar,24)", "w": "domain work(domain email(varchar,24),-1)",
		"ws": "array,(domain work(domain email(varchar,24),-1))", "p": "composite pair(a enum mood -1, b numeric 655366, c array,(int4) -1)",
		"ps": "array,(composite pair(a enum mood -1, b numeric 655366, c array,(int4) -1))", "s": "range span(float8)", "r": "range int4range(int4)",
		"rs": "array,(range int4range(int4))", "mr": "multirange(range int4range(int4))", "bx": "array;(box)", "n": "name", "pt": "point", "iv": "int2vector",
		"nums": "array,(numeric)", "oneway": "char",
	}
	for _, c := range rel.Columns {
		if w, ok := want[c.Name]; ok && typeText(c.Type) != w {
			t.Errorf("type of %s: got %s, want %s", c.Name, typeText(c.Type), w)
		}
	}
	if n := len(rel.Columns); n != 18 {
		t.Errorf("columns: got %d, want 18", n)
	}
}

// TestBuiltinTypes holds the static table to the server's catalogue.
func TestBuiltinTypes(t *testing.T) {
	b := newBed(t, nil)
	names := map[string]uint32{}
	for _, row := range b.Query(t, `SELECT oid, typname FROM pg_type WHERE oid < 10000 AND typtype IN ('b', 'r', 'm')`) {
		var oid uint32
		if _, err := fmt.Sscan(row[0], &oid); err != nil {
			t.Fatal(err)
		}
		names[row[1]] = oid
	}
	var oids []uint32
	for oid := range builtins {
		oids = append(oids, oid)
	}
	slices.Sort(oids)
	conn := b.Conn(t)
	rows, err := readTypes(t.Context(), conn, oids, b.src.Version())
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) < 130 {
		t.Errorf("the server knows %d of %d types", len(rows), len(oids))
	}
	for _, row := range rows {
		got := builtins[row.oid]
		elem := row.elem + row.subtype + row.ranges
		want := cdc.Type{OID: row.oid, Namespace: row.namespace, Name: row.name, Mod: -1, Delim: row.delim[0], Elem: builtins[elem]}
		switch {
		case row.array:
			want.Kind = cdc.KindArray
		case row.kind == "r":
			want.Kind = cdc.KindRange
		case row.kind == "m":
			want.Kind = cdc.KindMultirange
		}
		if elem != 0 && want.Elem == nil || names[row.name] != row.oid || !reflect.DeepEqual(*got, want) {
			t.Errorf("type %d: got %+v, want %+v", row.oid, *got, want)
		}
	}
}

func TestDroppedTypeIsUnknown(t *testing.T) {
	b := newBed(t, nil, `CREATE TYPE mood AS ENUM ('sad', 'ok')`, `CREATE TABLE t(id int PRIMARY KEY, m mood, n int NOT NULL)`)
	b.Exec(t, `INSERT INTO t VALUES (1, 'ok', 1)`, `DROP TABLE t`, `DROP TYPE mood`)
	c := next(t, b.stream(t, b.from)).Change
	if got := typeText(c.Relation.Columns[1].Type); got != "unknown mood" || values(c.New) != "1|ok|1" {
		t.Errorf("got type %s, row %s", got, values(c.New))
	}
	if !slices.Equal(c.Relation.Key, []int{0}) {
		t.Errorf("key of a table that is gone: got %v, want [0]", c.Relation.Key)
	}
}

func TestDefaults(t *testing.T) {
	b := newBed(t, nil, `CREATE TYPE mood AS ENUM ('sad', 'ok')`, `CREATE TABLE t(id int PRIMARY KEY)`)
	tests := []struct{ typ, def, want string }{ // want: "=" and the value, "" none, "()" computed
		{"int", "", ""}, {"int", "DEFAULT 5", "=5"}, {"int", "DEFAULT -5", "=-5"}, {"bigint", "DEFAULT 5", "=5"}, {"numeric(10,2)", "DEFAULT 5", "=5.00"},
		{"text", "DEFAULT 'it''s'", "=it's"}, {"text", `DEFAULT E'a\\b\nc'`, "=a\\b\nc"}, {"text", "DEFAULT ''", "="}, {"text", "DEFAULT NULL", ""},
		{"varchar(3)", "DEFAULT 'abc'", "=abc"}, {"char(5)", "DEFAULT 'ab'", "=ab   "}, {"boolean", "DEFAULT true", "=t"}, {"boolean", "DEFAULT false", "=f"},
		{"float8", "DEFAULT 1.5e10", "=15000000000"}, {"float8", "DEFAULT 'NaN'", "=NaN"}, {"mood", "DEFAULT 'ok'", "=ok"}, {"mood[]", "DEFAULT '{ok}'", "={ok}"},
		{"date", "DEFAULT '2024-03-04'", "=2024-03-04"}, {"timestamptz", "DEFAULT '2024-03-04 05:06:07+05:30'", "=2024-03-03 23:36:07+00"},
		{"interval", "DEFAULT '1 day'", "=1 day"}, {"bytea", `DEFAULT '\x00ff'`, `=\x00ff`}, {"jsonb", `DEFAULT '{"a": [1]}'`, `={"a": [1]}`}, {"bit(3)", "DEFAULT B'101'", "=101"},
		{"inet", "DEFAULT '10.0.0.1'", "=10.0.0.1"}, {"money", "DEFAULT '12.5'", "=$12.50"},
		{"timestamptz", "DEFAULT now()", "()"}, {"date", "DEFAULT CURRENT_DATE", "()"}, {"int", "DEFAULT 1 + 1", "()"}, {"text", "DEFAULT upper('a')", "()"},
		{"timestamp", "DEFAULT 'now'::text::timestamp", "()"}, {"serial", "", "()"}, {"int", "GENERATED BY DEFAULT AS IDENTITY", "()"}, {"uuid", "DEFAULT gen_random_uuid()", "()"},
		{"text", "DEFAULT 'a' || 'b'", "()"}, {"text[]", "DEFAULT ARRAY['a']", "()"}, {"text", `DEFAULT 'x' COLLATE "C"`, "=x"},
	}
	var cols []string
	for i, tt := range tests {
		cols = append(cols, fmt.Sprintf("ADD c%d %s %s", i, tt.typ, tt.def))
	}
	b.Exec(t, "ALTER TABLE t "+strings.Join(cols, ", "))
	rel := firstRelation(t, b, `INSERT INTO t VALUES (1)`)
	for i, tt := range tests {
		c := rel.Columns[i+1]
		got := ""
		switch {
		case c.Default != nil:
			got = "=" + *c.Default
		case c.DefaultExpr:
			got = "()"
		}
		if got != tt.want {
			t.Errorf("%s %s: got %q, want %q", tt.typ, tt.def, got, tt.want)
		}
		if want := tt.typ == "serial" || strings.Contains(tt.def, "IDENTITY"); c.NotNull != want {
			t.Errorf("%s %s: NOT NULL is %t, want %t", tt.typ, tt.def, c.NotNull, want)
		}
	}
}

func TestKeys(t *testing.T) {
	tests := []struct {
		name string
		ddl  []string
		key  []string // configured
		want []int
	}{
		{name: "primary key in its own order", ddl: []string{`CREATE TABLE t(a int, b int, c int DEFAULT 3, PRIMARY KEY (c, a))`}, want: []int{2, 0}},
		{name: "primary key with included column", ddl: []string{`CREATE TABLE t(a int, b int, PRIMARY KEY (b) INCLUDE (a))`}, want: []int{1}},
		{name: "full identity", ddl: []string{`CREATE TABLE t(a int, b int PRIMARY KEY)`, `ALTER TABLE t REPLICA IDENTITY FULL`}, want: []int{1}},
		{name: "full identity without a key", ddl: []string{`CREATE TABLE t(a int, b int)`, `ALTER TABLE t REPLICA IDENTITY FULL`}},
		{name: "full identity with a deferrable key", ddl: []string{`CREATE TABLE t(a int, b int PRIMARY KEY DEFERRABLE)`, `ALTER TABLE t REPLICA IDENTITY FULL`}},
		{name: "nothing", ddl: []string{`CREATE TABLE t(a int, b int PRIMARY KEY)`, `ALTER TABLE t REPLICA IDENTITY NOTHING`}},
		{name: "index elsewhere", ddl: []string{`CREATE TABLE t(a int NOT NULL UNIQUE, b int PRIMARY KEY)`, `ALTER TABLE t REPLICA IDENTITY USING INDEX t_a_key`}},
		{name: "index over the key", ddl: []string{`CREATE TABLE t(a int NOT NULL, b int PRIMARY KEY, UNIQUE (a, b))`, `ALTER TABLE t REPLICA IDENTITY USING INDEX t_a_b_key`}, want: []int{1}},
		{name: "configured in the index", key: []string{"a"}, ddl: []string{`CREATE TABLE t(a int NOT NULL UNIQUE, b int PRIMARY KEY)`, `ALTER TABLE t REPLICA IDENTITY USING INDEX t_a_key`}, want: []int{0}},
		{name: "configured under full identity", key: []string{"b", "a"}, ddl: []string{`CREATE TABLE t(a int NOT NULL, b int NOT NULL)`, `ALTER TABLE t REPLICA IDENTITY FULL`}, want: []int{1, 0}},
		{name: "configured outside the identity", key: []string{"a"}, ddl: []string{`CREATE TABLE t(a int NOT NULL, b int PRIMARY KEY)`}},
		{name: "configured and missing", key: []string{"x"}, ddl: []string{`CREATE TABLE t(a int NOT NULL, b int PRIMARY KEY)`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBed(t, func(c *Config) { c.Key = map[string][]string{"public.t": tt.key} }, tt.ddl...)
			rel := firstRelation(t, b, `INSERT INTO t VALUES (1, 2)`)
			if !slices.Equal(rel.Key, tt.want) {
				t.Errorf("stream: got key %v, want %v", rel.Key, tt.want)
			}
			again, err := b.src.Relation(t.Context(), b.oid(t, "t"))
			if err != nil || again != rel {
				t.Errorf("catalogue: got %+v, %v\nwant the stream's %+v", again, err, rel)
			}
		})
	}
}

func TestKeyOrderSurvivesItsTable(t *testing.T) {
	columns := func(identity ...bool) []cdc.Column {
		cols := []cdc.Column{{Name: "a"}, {Name: "b"}, {Name: "c"}}
		for i, on := range identity {
			cols[i].Identity = on
		}
		return cols
	}
	before := &cdc.Relation{Identity: 'd', Columns: columns(true, false, true), Key: []int{2, 0}}
	tests := []struct {
		name     string
		identity cdc.ReplicaIdentity
		flags    []bool
		primary  []string
		before   *cdc.Relation
		want     []int
	}{
		{"no catalogue, nothing before", 'd', []bool{true, false, true}, nil, nil, []int{0, 2}},
		{"no catalogue", 'd', []bool{true, false, true}, nil, before, []int{2, 0}},
		{"today's key is another", 'd', []bool{true, false, true}, []string{"b"}, before, []int{2, 0}},
		{"today's key is a part", 'd', []bool{true, false, true}, []string{"a"}, before, []int{2, 0}},
		{"key changed since before", 'd', []bool{false, true, false}, nil, before, []int{1}},
		{"full identity, table gone", 'f', []bool{true, true, true}, nil, before, []int{2, 0}},
		{"full identity, never known", 'f', []bool{true, true, true}, nil, nil, nil},
	}
	for _, tt := range tests {
		rel := &cdc.Relation{Identity: tt.identity, Columns: columns(tt.flags...)}
		if got := keyOf(rel, nil, tt.primary, tt.before); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

// TestRelationEqualsStream: snapshot and stream describe a table alike, down to
// the pointer, so that what is compiled for one serves the other.
func TestRelationEqualsStream(t *testing.T) {
	tests := map[string][]string{
		"dropped column":  {`CREATE TABLE t(x int, id int PRIMARY KEY, gone text, v text NOT NULL DEFAULT 'a')`, `ALTER TABLE t DROP gone`},
		"generated":       {`CREATE TABLE t(x int, id int PRIMARY KEY, g int GENERATED ALWAYS AS (id * 2) STORED, v text)`},
		"partitioned":     {`CREATE TABLE t(x int, id int PRIMARY KEY) PARTITION BY RANGE (id)`, `CREATE TABLE t1 PARTITION OF t DEFAULT`},
		"odd names":       {`CREATE TABLE t("Id X" int, "select" int, "ü😀" text, PRIMARY KEY ("select"))`},
		"full identity":   {`CREATE TABLE t(x numeric(12,3), id int PRIMARY KEY)`, `ALTER TABLE t REPLICA IDENTITY FULL`},
		"user types":      {`CREATE TYPE mood AS ENUM ('sad')`, `CREATE DOMAIN d AS mood`, `CREATE TABLE t(x int, id int PRIMARY KEY, m mood[], dd d, h d[])`},
		"no key":          {`CREATE TABLE t(x int, id int)`, `ALTER TABLE t REPLICA IDENTITY FULL`},
		"identity column": {`CREATE TABLE t(x int, id int PRIMARY KEY, s serial, i int GENERATED ALWAYS AS IDENTITY)`},
	}
	for name, ddl := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, nil, ddl...)
			rel, err := b.src.Relation(t.Context(), b.oid(t, "t"))
			if err != nil {
				t.Fatal(err)
			}
			if got := firstRelation(t, b, `INSERT INTO t VALUES (1, 2)`); got != rel {
				t.Errorf("stream: got %+v\ncatalogue: %+v", got, rel)
			}
		})
	}
}

func TestRelationChangesWithTheCatalogue(t *testing.T) {
	b := newBed(t, nil, plainTable)
	st := b.stream(t, b.from)
	seen := map[*cdc.Relation]string{}
	for i, ddl := range []string{`SELECT 1`, `ALTER TABLE t ALTER v SET NOT NULL`, `ALTER TABLE t ALTER v SET DEFAULT 'x'`, `ALTER TABLE t ALTER v TYPE varchar(9)`, `ALTER TABLE t RENAME v TO w`} {
		b.Exec(t, ddl, fmt.Sprintf(`INSERT INTO t VALUES (%d, 'v')`, i))
		for {
			ev := next(t, st)
			if ev.Kind != cdc.EventChange {
				continue
			}
			if old, ok := seen[ev.Change.Relation]; ok {
				t.Errorf("after %q: the relation of %q", ddl, old)
			}
			seen[ev.Change.Relation] = ddl
			break
		}
	}
}

func TestLookupSurvivesALostConnection(t *testing.T) {
	b := newBed(t, nil, plainTable)
	b.Exec(t, `SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'`)
	if _, err := b.src.Relation(t.Context(), b.oid(t, "t")); err != nil {
		t.Errorf("after the connection was lost: %v", err)
	}
}

// What the database sets by default shows in nothing.
func TestCase042PinnedSettings(t *testing.T) {
	db := cdctest.Database(t)
	for _, set := range []string{`datestyle = 'SQL, DMY'`, `intervalstyle = iso_8601`, `timezone = 'Asia/Kolkata'`, `extra_float_digits = -3`, `bytea_output = escape`,
		`client_encoding = 'LATIN1'`, `search_path = public`, `statement_timeout = '5min'`, `lock_timeout = '5min'`, `idle_session_timeout = '5min'`, `quote_all_identifiers = on`} {
		db.Exec(t, fmt.Sprintf(`ALTER DATABASE %s SET %s`, db.Name, set))
	}
	b := bedOn(t, db, nil, `CREATE TABLE public.t(id int PRIMARY KEY, ts timestamptz, d date, i interval, f float8, y bytea, s text, r regclass)`)
	st := b.stream(t, b.from)
	b.Exec(t, `INSERT INTO t VALUES (1, '2024-03-04 05:06:07+00', '2024-03-04', '1 year 2 days', 0.1::float8 + 0.2::float8, '\x00ff41', U&'\00e9', 'public.t')`)
	wantChanges(t, readTxns(t, st, 1)[0], `1c public.t → 1|2024-03-04 05:06:07+00|2024-03-04|1 year 2 days|0.30000000000000004|\x00ff41|é|public.t`)
	for _, name := range []string{"statement_timeout", "lock_timeout", "idle_session_timeout", "idle_in_transaction_session_timeout"} {
		var got string
		err := b.src.withSQL(t.Context(), func(c *pgx.Conn) error {
			return c.QueryRow(t.Context(), `SELECT current_setting($1, true)`, name).Scan(&got)
		})
		if err != nil || got != "0" {
			t.Errorf("%s: got %q, %v, want 0", name, got, err)
		}
	}
}
