package source

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
)

// keyCase is a table whose key is a trap for reading in key order.
type keyCase struct {
	name   string
	ddl    []string // after whose execution the table t… of the name exists
	key    []string // configured; nil: the primary key
	row    func(*rand.Rand) []string
	order  string   // what the index orders by; "" where rows may be equal by it
	after  []string // DDL once the rows are there
	filter bool     // a look-up by key cannot be done by the index alone
}

const letters = "aAbBzZ 09_-\\'\",{}()äÄßéÉ😀\t\n%"

func anyText(r *rand.Rand) string {
	all := []rune(letters)
	var b strings.Builder
	for range r.IntN(6) {
		b.WriteRune(all[r.IntN(len(all))])
	}
	return quoteLiteral(b.String())
}

func anyInt(r *rand.Rand) string { return fmt.Sprint(r.IntN(9) - 4) }

func oneOf(r *rand.Rand, literals ...string) string { return literals[r.IntN(len(literals))] }

// quick makes a case of one column k, the primary key.
func quick(name, typ string, value func(*rand.Rand) string, ddl ...string) keyCase {
	return keyCase{name: name, ddl: append(ddl, fmt.Sprintf("CREATE TABLE %s(v text, k %s PRIMARY KEY)", name, typ)), order: "k",
		row: func(r *rand.Rand) []string { return []string{oneOf(r, "NULL", anyText(r)), value(r)} }}
}

func keyCases(icu bool) []keyCase {
	text := anyText
	cases := []keyCase{
		quick("plain", "text", text), quick("c", `text COLLATE "C"`, text), quick("fixed", "char(5)", text), quick("folded", "citext", text),
		quick("name", "name", text), quick("small", "int2", anyInt),
		quick("uuid", "uuid", func(r *rand.Rand) string {
			return fmt.Sprintf("'%08x-0000-0000-%04x-%012x'", r.Uint32(), r.IntN(1<<16), r.Uint32())
		}),
		quick("float", "float8", func(r *rand.Rand) string {
			return oneOf(r, "'NaN'", "'Infinity'", "'-Infinity'", "'-0'", "0.1", "5e-324", "1e308", fmt.Sprint(r.NormFloat64()))
		}),
		quick("real", "float4", func(r *rand.Rand) string { return oneOf(r, "'NaN'", fmt.Sprint(float32(r.NormFloat64()))) }),
		quick("numeric", "numeric", func(r *rand.Rand) string {
			return oneOf(r, "'NaN'", "1.10", "1.1", "-99999999999999999999999999.5", fmt.Sprintf("%.3f", r.NormFloat64()*1000))
		}),
		quick("moment", "timestamptz(3)", func(r *rand.Rand) string {
			return oneOf(r, "'infinity'", "'-infinity'", "'0044-03-15 12:00:00+00 BC'", fmt.Sprintf("to_timestamp(%d.%d)", r.Int32(), r.IntN(1e6)))
		}),
		quick("day", "date", func(r *rand.Rand) string { return fmt.Sprintf("date '2000-01-01' + %d", r.IntN(100000)-50000) }),
		quick("span", "interval", func(r *rand.Rand) string {
			return fmt.Sprintf("'%d mons %d days %d secs'", r.IntN(9)-4, r.IntN(90)-40, r.IntN(99999))
		}),
		quick("enum", "mood", func(r *rand.Rand) string { return oneOf(r, "'sad'", "'it''s'", "'ok'", "'A'") },
			"CREATE TYPE mood AS ENUM ('sad', 'ok', 'A')", "ALTER TYPE mood ADD VALUE 'it''s' BEFORE 'ok'"),
		quick("bytes", "bytea", func(r *rand.Rand) string { return fmt.Sprintf(`'\x%06x'`, r.IntN(1<<24)) }),
		quick("list", "int[]", func(r *rand.Rand) string { return fmt.Sprintf("'{%s,NULL,%s}'", anyInt(r), anyInt(r)) }),
		quick("pair", "two", func(r *rand.Rand) string { return fmt.Sprintf("ROW(%s, %s)::two", anyInt(r), text(r)) }, "CREATE TYPE two AS (x int, y text)"),
		quick("net", "inet", func(r *rand.Rand) string { return fmt.Sprintf("'10.%d.%d.0/%d'", r.IntN(4), r.IntN(4), 8+r.IntN(24)) }),
		quick("doc", "jsonb", func(r *rand.Rand) string { return fmt.Sprintf(`'{"a": [%s, %s]}'`, anyInt(r), anyInt(r)) }),
		quick("ranges", "int4range", func(r *rand.Rand) string {
			return fmt.Sprintf("int4range(%d, %d)", r.IntN(5), 5+r.IntN(5))
		}),
		{name: "composite", ddl: []string{"CREATE TABLE composite(a int, v text, b text, c bool, PRIMARY KEY (b, c, a))"}, order: "b, c, a",
			row: func(r *rand.Rand) []string {
				return []string{anyInt(r), text(r), oneOf(r, "'x'", "'y'"), oneOf(r, "true", "false")}
			}},
		// Operators of two schemas in one key, which no comparison of rows can name.
		{name: "schemas", ddl: []string{"CREATE TABLE schemas(c citext, n int, PRIMARY KEY (c, n))"}, order: "c, n",
			row: func(r *rand.Rand) []string { return []string{oneOf(r, "'x'", "'X'", "'y'"), anyInt(r)} }},
		{name: "bits", ddl: []string{`CREATE TABLE bits(k bit(5), c "char", w varbit, PRIMARY KEY (k, c, w))`}, order: "k, c, w",
			row: func(r *rand.Rand) []string {
				return []string{fmt.Sprintf("B'%05b'", r.IntN(32)), oneOf(r, "'a'", `'\'`, "'z'"), fmt.Sprintf("B'%b'", r.IntN(8))}
			}},
		// A check that is younger than the rows does not hold for them.
		{name: "domain", ddl: []string{"CREATE DOMAIN word AS text", "CREATE TABLE domain(k word PRIMARY KEY)"}, order: "k",
			row: func(r *rand.Rand) []string { return []string{text(r)} }, after: []string{"ALTER DOMAIN word ADD CHECK (length(VALUE) > 50) NOT VALID"}},
		{name: "domain_of_enum", ddl: []string{"CREATE TYPE level AS ENUM ('low', 'high', 'A')", "CREATE DOMAIN grade AS level", "CREATE DOMAIN mark AS grade",
			"CREATE TABLE domain_of_enum(g grade NOT NULL, m mark NOT NULL, n int NOT NULL)", "CREATE UNIQUE INDEX domain_of_enum_k ON domain_of_enum (m DESC, n, g)", "ALTER TABLE domain_of_enum REPLICA IDENTITY USING INDEX domain_of_enum_k"},
			key: []string{"g", "m", "n"}, order: "m DESC, n, g", row: func(r *rand.Rand) []string {
				return []string{oneOf(r, "'low'", "'high'", "'A'"), oneOf(r, "'low'", "'high'", "'A'"), fmt.Sprint(r.IntN(40))}
			}},
		{name: `Odd "table" ü'`, ddl: []string{`CREATE TABLE "Odd ""table"" ü'"("select" int, "a b" text, "k" int, "x""y$1" text, PRIMARY KEY ("x""y$1", "select", "k"))`},
			order: `"x""y$1", "select", "k"`, row: func(r *rand.Rand) []string { return []string{anyInt(r), text(r), anyInt(r), text(r)} }},
		{name: "down", ddl: []string{"CREATE TABLE down(k int NOT NULL, v text)", "CREATE UNIQUE INDEX down_k ON down (k DESC)", "ALTER TABLE down REPLICA IDENTITY USING INDEX down_k"},
			key: []string{"k"}, order: "k DESC", row: func(r *rand.Rand) []string { return []string{fmt.Sprint(r.IntN(500)), text(r)} }},
		{name: "mixed", ddl: []string{"CREATE TABLE mixed(a int NOT NULL, b text NOT NULL, c timestamptz NOT NULL)",
			"CREATE UNIQUE INDEX mixed_k ON mixed (a DESC NULLS LAST, b NULLS FIRST, c DESC)", "ALTER TABLE mixed REPLICA IDENTITY USING INDEX mixed_k"},
			key: []string{"b", "c", "a"}, order: "a DESC, b, c DESC",
			row: func(r *rand.Rand) []string {
				return []string{oneOf(r, "1", "2"), oneOf(r, "'x'", "'y'", "'Y'"), fmt.Sprintf("to_timestamp(%d)", r.IntN(9))}
			}},
		// An index in another collation than the column's.
		{name: "foreign_order", ddl: []string{"CREATE TABLE foreign_order(k text NOT NULL)", `CREATE UNIQUE INDEX ON foreign_order (k COLLATE "C")`, "ALTER TABLE foreign_order REPLICA IDENTITY FULL"},
			key: []string{"k"}, order: `k COLLATE "C"`, row: func(r *rand.Rand) []string { return []string{text(r)} }},
		// The unique index has fewer columns than the key.
		{name: "fewer", ddl: []string{"CREATE TABLE fewer(tenant text NOT NULL, id int PRIMARY KEY)", "ALTER TABLE fewer REPLICA IDENTITY FULL"},
			key: []string{"tenant", "id"}, order: "id", filter: true, row: func(r *rand.Rand) []string { return []string{text(r), fmt.Sprint(r.IntN(200))} }},
		// Nothing is unique: rows are equal by the index and have other texts.
		{name: "ties", ddl: []string{"CREATE TABLE ties(k numeric NOT NULL, v text)", "CREATE INDEX ON ties (k)", "ALTER TABLE ties REPLICA IDENTITY FULL"},
			key: []string{"k"}, row: func(r *rand.Rand) []string { return []string{oneOf(r, "1", "1.0", "1.00", "2", "2.0", "3"), text(r)} }},
		{name: "longer", ddl: []string{"CREATE TABLE longer(a int NOT NULL, b int NOT NULL, c int NOT NULL)", "CREATE UNIQUE INDEX ON longer (b, a, c)", "ALTER TABLE longer REPLICA IDENTITY FULL"},
			key: []string{"a", "b"}, row: func(r *rand.Rand) []string {
				return []string{oneOf(r, "1", "2"), oneOf(r, "1", "2"), fmt.Sprint(r.IntN(40))}
			}},
		{name: "parts", ddl: []string{"CREATE TABLE parts(k int PRIMARY KEY, v text) PARTITION BY HASH (k)", "CREATE TABLE parts_0 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 0)",
			"CREATE TABLE parts_1(v text, gone int, k int NOT NULL)", "ALTER TABLE parts_1 DROP COLUMN gone", "ALTER TABLE parts ATTACH PARTITION parts_1 FOR VALUES WITH (MODULUS 2, REMAINDER 1)"},
			order: "k", row: func(r *rand.Rand) []string { return []string{fmt.Sprint(r.IntN(500)), text(r)} }},
		// The parent shows its own rows alone.
		{name: "parent", ddl: []string{"CREATE TABLE parent(k int PRIMARY KEY, v text)", "CREATE TABLE child(PRIMARY KEY (k)) INHERITS (parent)", "INSERT INTO child VALUES (1, 'of the child'), (1000, '')"},
			order: "k", row: func(r *rand.Rand) []string { return []string{fmt.Sprint(r.IntN(500)), text(r)} }},
	}
	if icu {
		cases = append(cases, quick("icu", `text COLLATE "de-x-icu"`, text),
			quick("nondeterministic", "text COLLATE ci", text, "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"))
	}
	return cases
}

// Case 143: whatever the key is, chunks of every size are the rows of the table in
// the order of the index, each once, byte for byte as the first snapshot has them;
// and only the index is used.
func TestCase143Keys(t *testing.T) {
	t.Parallel()
	db := cdctest.Database(t)
	icu := db.Value(t, "SELECT count(*) FROM pg_collation WHERE collname = 'de-x-icu'") != "0"
	if !icu {
		t.Log("this server was built without ICU: its collations are left out")
	}
	cases := keyCases(icu)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	config := map[string][]string{}
	ddl := []string{"CREATE EXTENSION citext"}
	for _, c := range cases {
		ddl = append(ddl, c.ddl...)
		var rows []string
		for range 70 {
			rows = append(rows, "("+strings.Join(c.row(r), ", ")+")")
		}
		ddl = append(ddl, fmt.Sprintf("INSERT INTO %s VALUES %s ON CONFLICT DO NOTHING", quote("public", c.name), strings.Join(rows, ", ")))
		ddl = append(ddl, c.after...)
		if c.key != nil {
			config["public."+c.name] = c.key
		}
	}
	s := openOps(t, db, func(c *Config) { c.Key = config }, ddl...)
	sn := begin(t, s, 2)
	copied := map[string][]string{}
	for {
		change, err := sn.Next(t.Context())
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		copied[change.Relation.Name] = append(copied[change.Relation.Name], rowText(change))
	}
	if err := sn.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			reader := readerOf(t, s, c.name)
			for _, size := range []struct {
				rows  int
				bytes int64
			}{{1000, 1 << 20}, {7, 1 << 20}, {1000, 100}, {20, 1}} {
				got := chunksOf(t, reader, size.rows, size.bytes)
				if c.order != "" {
					equalRows(t, got, inOrder(t, s, reader, c.order))
				}
				equalRows(t, sorted(got), sorted(copied[c.name]))
			}
			lookUp(t, reader)
			onlyIndex(t, reader, c.filter)
		})
	}
}

// inOrder reads the table whole, in the order of the test's own words.
func inOrder(t testing.TB, s *Source, r *ChunkReader, order string) []string {
	t.Helper()
	conn, err := connectSQL(t.Context(), s.cfg.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer closeConn(conn.PgConn())
	sql := "SELECT " + r.plan.table.columnList() + " FROM " + fromItem(r.table) + " ORDER BY " + order
	results, err := conn.PgConn().Exec(t.Context(), sql).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var rows []string
	for _, row := range results[0].Rows {
		values := make([]cdc.Value, len(row))
		for i, v := range row {
			values[i] = cdc.Value{Kind: cdc.Text, Data: v}
			if v == nil {
				values[i].Kind = cdc.Null
			}
		}
		rows = append(rows, rowText(&cdc.Change{Relation: r.plan.table.rel, New: values}))
	}
	return rows
}

// lookUp reads every row again by its key.
func lookUp(t testing.TB, r *ChunkReader) {
	t.Helper()
	all, err := r.Next(t.Context(), nil, 1000, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	var keys [][]string
	want := map[string]bool{}
	for _, row := range all.Rows {
		var key []string
		for _, i := range all.Relation.Key {
			key = append(key, string(row[i].Data))
		}
		keys = append(keys, key)
		want[rowText(&cdc.Change{Relation: all.Relation, New: row})] = true
	}
	c, err := r.Rows(t.Context(), keys)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, row := range c.Rows {
		got[rowText(&cdc.Change{Relation: c.Relation, New: row})] = true
	}
	for row := range got {
		if !want[row] {
			t.Errorf("by key: got %q, which is not a row", row)
		}
	}
	if r.plan.unique && (len(got) != len(want) || len(c.Rows) != len(all.Rows)) {
		t.Errorf("by key: got %d rows, want %d", len(c.Rows), len(all.Rows))
	}
}

// onlyIndex checks the plans: nothing is sorted, no row is read in vain.
func onlyIndex(t testing.TB, r *ChunkReader, filter bool) {
	t.Helper()
	check := func(what, plan string, filter bool) {
		for _, word := range []string{"Sort  (", "Seq Scan", "Filter:"} {
			if strings.Contains(plan, word) && (word != "Filter:" || !filter) {
				t.Errorf("%s: the plan has %q:\n%s", what, word, plan)
			}
		}
	}
	c, err := r.Next(t.Context(), nil, 3, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for level := range len(r.plan.order) + 1 {
		values, types := r.plan.params(c.Last, level)
		check(fmt.Sprintf("%d columns of a cursor", level), explainPlan(t, r, r.plan.sql(level, 10), values, types), false)
	}
	var equal []orderColumn
	err = r.begun(t, func() (err error) { equal, err = r.equal(t.Context()); return err })
	if err != nil {
		t.Fatal(err)
	}
	array := []byte("{" + strings.Repeat("NULL,", 99) + "NULL}")
	check("by key", explainPlan(t, r, byKeySQL(r.plan.table, r.plan.from, equal, true), slices.Repeat([][]byte{array}, len(equal)), nil), filter)
}

func (r *ChunkReader) begun(t testing.TB, fn func() error) error {
	t.Helper()
	if err := r.conn.PgConn().Exec(t.Context(), chunkBegin).Close(); err != nil {
		t.Fatal(err)
	}
	defer r.leave(t.Context())
	return fn()
}

func explainPlan(t testing.TB, r *ChunkReader, sql string, params [][]byte, types []uint32) string {
	t.Helper()
	var lines []string
	err := r.begun(t, func() error {
		result := r.conn.PgConn().ExecParams(t.Context(), "EXPLAIN "+sql, params, types, nil, nil).Read()
		for _, row := range result.Rows {
			lines = append(lines, string(row[0]))
		}
		return result.Err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}
