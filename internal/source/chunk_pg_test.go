package source

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
)

// readerOf is a reader of a table's chunks, closed with the test.
func readerOf(t testing.TB, s *Source, table string) *ChunkReader {
	t.Helper()
	for _, c := range mustTables(t, s) {
		if c.Name == table {
			r := s.ChunkReader(c)
			t.Cleanup(func() { _ = r.Close() })
			return r
		}
	}
	t.Fatalf("no table %s", table)
	return nil
}

func mustNext(t testing.TB, r *ChunkReader, after []string, maxRows int, maxBytes int64) *Chunk {
	t.Helper()
	c, err := r.Next(t.Context(), after, maxRows, maxBytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func chunkText(c *Chunk) []string {
	var rows []string
	for _, row := range c.Rows {
		rows = append(rows, rowText(&cdc.Change{Relation: c.Relation, New: row}))
	}
	return rows
}

// chunksOf reads a whole table in chunks and checks their limits.
func chunksOf(t testing.TB, r *ChunkReader, maxRows int, maxBytes int64) []string {
	t.Helper()
	const most = 100_000 // no table of a test is larger: a reader that goes round in circles fails
	var rows []string
	var after []string
	for len(rows) < most {
		c := mustNext(t, r, after, maxRows, maxBytes)
		rows = append(rows, chunkText(c)...)
		bytes := int64(0)
		for _, row := range c.Rows {
			for _, v := range row {
				bytes += int64(len(v.Data))
			}
		}
		if bytes != c.Bytes || r.plan.unique && (len(c.Rows) > maxRows || len(c.Rows) > 1 && bytes > maxBytes) {
			t.Fatalf("got %d rows of %d bytes (it says %d), want at most %d of %d", len(c.Rows), bytes, c.Bytes, maxRows, maxBytes)
		}
		if c.Done {
			return rows
		}
		if len(c.Rows) == 0 {
			t.Fatal("a chunk without rows is not the last")
		}
		after = c.Last
	}
	t.Fatalf("%d rows and no end", len(rows))
	return nil
}

func TestChunkSaysWhenItWasRead(t *testing.T) {
	t.Parallel()
	db := cdctest.Database(t)
	s := openOps(t, db, nil, "CREATE TABLE t(id int PRIMARY KEY, v text)", "INSERT INTO t SELECT g, NULLIF(g % 3, 0) FROM generate_series(1, 5) g")
	mustPublish(t, s)
	r := readerOf(t, s, "t")
	db.Exec(t, "INSERT INTO t VALUES (6, '')")
	before := mustLSN(t, db.Value(t, "SELECT pg_current_wal_insert_lsn()"))
	c := mustNext(t, r, nil, 4, 1<<20)
	db.Exec(t, "INSERT INTO t VALUES (7, 'later')")
	rel, err := s.Relation(t.Context(), r.table.OID)
	if err != nil || c.Relation != rel {
		t.Errorf("relation: got %p, want that of the source, %p, %v", c.Relation, rel, err)
	}
	if c.High < before || c.ReadAt < time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro() {
		t.Errorf("got a chunk at %s, %d, want it behind %s", c.High, c.ReadAt, before)
	}
	if c.Done || len(c.Rows) != 4 || len(c.Last) < 2 || c.Last[0] != "4" {
		t.Fatalf("got %d rows up to %q, done: %t", len(c.Rows), c.Last, c.Done)
	}
	if visible, err := xidVisible(xidOf(t, db, "t WHERE id = 6"), c.Snapshot); !visible || err != nil {
		t.Errorf("the row of 6 is not visible in %s: %v", c.Snapshot, err)
	}
	if visible, err := xidVisible(xidOf(t, db, "t WHERE id = 7"), c.Snapshot); visible || err != nil {
		t.Errorf("the row of 7 is visible in %s: %v", c.Snapshot, err)
	}
	rest := mustNext(t, r, c.Last, 100, 1<<20)
	equalRows(t, chunkText(rest), []string{"public.t|5|2", "public.t|6|", "public.t|7|later"})
	if v := rest.Rows[1][1]; v.Kind != cdc.Text || v.Data == nil {
		t.Errorf("the empty text: got %+v", v)
	}
	if end := mustNext(t, r, rest.Last, 100, 1<<20); !end.Done || end.Rows != nil || end.Last != nil || end.High < rest.High {
		t.Errorf("behind the end: got %+v", end)
	}
	if c, err := r.Rows(t.Context(), nil); err != nil || c.Relation != rel || len(c.Rows) != 0 {
		t.Errorf("no keys: got %+v, %v, want the relation alone", c, err)
	}
	db.Exec(t, "ANALYZE t")
	if n, err := r.Estimate(t.Context()); n != 7 || err != nil {
		t.Errorf("estimate: got %d, %v, want 7", n, err)
	}
	locks := db.Value(t, fmt.Sprintf("SELECT count(*) FROM pg_locks WHERE relation = 't'::regclass AND pid = %d", r.conn.PgConn().PID()))
	open := db.Value(t, fmt.Sprintf("SELECT count(*) FROM pg_stat_activity WHERE pid = %d AND xact_start IS NOT NULL", r.conn.PgConn().PID()))
	if locks != "0" || open != "0" {
		t.Errorf("between chunks: %s locks and %s transactions are held, want none", locks, open)
	}
}

// Rows of all sizes go through: statements ask for what the rows before let expect.
func TestChunksOfUnevenRows(t *testing.T) {
	t.Parallel()
	s := openOps(t, cdctest.Database(t), nil, "CREATE TABLE t(a int, b int, v text, PRIMARY KEY (a, b))",
		`INSERT INTO t SELECT g / 700, g, CASE WHEN g % 1000 > 950 THEN repeat('x', 20000) ELSE 'small' END FROM generate_series(1, 5000) g`)
	mustPublish(t, s)
	r := readerOf(t, s, "t")
	want := chunksOf(t, r, 1_000_000, 1<<30)
	equalRows(t, want, inOrder(t, s, r, "a, b"))
	equalRows(t, chunksOf(t, r, 8192, 300_000), want)
	equalRows(t, chunksOf(t, r, 700, 1<<20), want)
}

func TestChunkWithoutIndex(t *testing.T) {
	t.Parallel()
	db := cdctest.Database(t)
	s := openOps(t, db, func(c *Config) {
		c.Key = map[string][]string{"public.t": {"a", "B"}, "public.p": {"a"}}
	}, `CREATE TABLE t(a int NOT NULL, "B" int NOT NULL, c int NOT NULL)`, "ALTER TABLE t REPLICA IDENTITY FULL",
		// None of these serves.
		`CREATE UNIQUE INDEX ON t (a, "B") WHERE a > 0`, `CREATE INDEX ON t (a, ("B" + 1))`, "CREATE INDEX ON t (a, c)", `CREATE INDEX ON t USING hash (a)`, `CREATE INDEX ON t (a) INCLUDE ("B")`,
		"CREATE TABLE p(a int NOT NULL) PARTITION BY RANGE (a)", "CREATE TABLE leaf PARTITION OF p DEFAULT", "ALTER TABLE p REPLICA IDENTITY FULL", "ALTER TABLE leaf REPLICA IDENTITY FULL")
	mustPublish(t, s)
	r := readerOf(t, s, "t")
	_, err := r.Next(t.Context(), nil, 10, 1000)
	wantTerminal(t, err, "key-index", `CREATE INDEX CONCURRENTLY ON "public"."t" ("a", "B");`)
	te, _ := asTerminal(err)
	db.Exec(t, te.Mend)
	if c := mustNext(t, r, nil, 10, 1000); !c.Done {
		t.Errorf("with the index: got %+v", c)
	}
	p := readerOf(t, s, "p")
	_, err = p.Next(t.Context(), nil, 10, 1000)
	wantTerminal(t, err, "key-index", `CREATE INDEX ON "public"."p" ("a");`)
	te, _ = asTerminal(err)
	db.Exec(t, te.Mend)
	mustNext(t, p, nil, 10, 1000)
	db.Exec(t, "ALTER TABLE t ALTER a DROP NOT NULL")
	_, err = r.Next(t.Context(), nil, 10, 1000)
	wantTerminal(t, err, "nullable-key", "SET NOT NULL")
}

// A table that changes between two chunks is read as it is: under its new name, with
// its new columns, and from the start where its order is another.
func TestChunksOfAChangingTable(t *testing.T) {
	t.Parallel()
	db := cdctest.Database(t)
	s := openOps(t, db, func(c *Config) { c.Include = []string{"*.*"} }, "CREATE TABLE t(a int, b int, v text, PRIMARY KEY (a, b))",
		"INSERT INTO t VALUES (1, 4, 'x'), (2, 3, 'y'), (3, 2, 'z'), (4, 1, NULL)")
	mustPublish(t, s)
	r := readerOf(t, s, "t")
	c := mustNext(t, r, nil, 1, 1000)
	equalRows(t, chunkText(c), []string{"public.t|1|4|x"})
	db.Exec(t, "CREATE SCHEMA other", "ALTER TABLE t SET SCHEMA other", "ALTER TABLE other.t RENAME TO renamed", "CREATE VIEW t AS SELECT 1 AS a")
	c = mustNext(t, r, c.Last, 1, 1000)
	equalRows(t, chunkText(c), []string{"other.renamed|2|3|y"})
	db.Exec(t, "ALTER TABLE other.renamed DROP COLUMN v, ADD COLUMN w numeric DEFAULT 1.50", "DROP VIEW t")
	c = mustNext(t, r, c.Last, 1, 1000)
	equalRows(t, chunkText(c), []string{"other.renamed|3|2|1.50"})
	db.Exec(t, fmt.Sprintf("SELECT pg_terminate_backend(%d, 30000)", r.conn.PgConn().PID()))
	last := mustNext(t, r, c.Last, 1, 1000)
	equalRows(t, chunkText(last), []string{"other.renamed|4|1|1.50"})
	db.Exec(t, "ALTER TABLE other.renamed DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (b, a)")
	if _, err := r.Next(t.Context(), c.Last, 2, 1000); !errors.Is(err, ErrCursor) {
		t.Errorf("another key: got %v, want ErrCursor", err)
	}
	c = mustNext(t, r, nil, 2, 1000)
	equalRows(t, chunkText(c), []string{"other.renamed|4|1|1.50", "other.renamed|3|2|1.50"})
	db.Exec(t, "TRUNCATE other.renamed")
	if c = mustNext(t, r, c.Last, 2, 1000); !c.Done || c.Rows != nil {
		t.Errorf("truncated: got %d rows", len(c.Rows))
	}
	gone := new(GoneError)
	db.Exec(t, "DROP TABLE other.renamed")
	if _, err := r.Next(t.Context(), nil, 2, 1000); !errors.As(err, &gone) || gone.What != "table" {
		t.Errorf("dropped: got %v, want GoneError", err)
	}
	if err := r.Pulse(t.Context()); err != nil {
		t.Errorf("the connection is of no use afterwards: %v", err)
	}
}

// A label of an enum in the key is renamed between two chunks, or two exchange
// theirs: the cursor's text is no label any more, or stands for another value.
func TestChunksOfRenamedLabels(t *testing.T) {
	t.Parallel()
	for name, key := range map[string]string{"enum": "mood", "array": "mood[]", "composite": "pair"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := cdctest.Database(t)
			value := map[string]string{"enum": "%s", "array": "ARRAY[%s]", "composite": "ROW(1, ARRAY[%s])"}[name]
			row := func(label string) string { return "(" + fmt.Sprintf(value, "'"+label+"'::mood") + "::" + key + ")" }
			s := openOps(t, db, nil, "CREATE TYPE mood AS ENUM ('a', 'b', 'c')", "CREATE TYPE pair AS (n int, m mood[])",
				"CREATE TABLE t(k "+key+" PRIMARY KEY)", "INSERT INTO t VALUES "+row("a")+", "+row("b")+", "+row("c"))
			mustPublish(t, s)
			r := readerOf(t, s, "t")
			c := mustNext(t, r, nil, 1, 1000)
			for _, ddl := range []string{
				"ALTER TYPE mood RENAME VALUE 'a' TO 'z'",
				"ALTER TYPE mood RENAME VALUE 'z' TO 'x'; ALTER TYPE mood RENAME VALUE 'c' TO 'z'; ALTER TYPE mood RENAME VALUE 'x' TO 'c'",
			} {
				db.Exec(t, ddl)
				if _, err := r.Next(t.Context(), c.Last, 1, 1000); !errors.Is(err, ErrCursor) {
					t.Fatalf("%s: got %v, want ErrCursor", ddl, err)
				}
				c = mustNext(t, r, nil, 1, 1000)
			}
			if c = mustNext(t, r, c.Last, 10, 1000); !c.Done || len(c.Rows) != 2 {
				t.Errorf("the rest: got %d rows, %t, want 2 and no more behind them", len(c.Rows), c.Done)
			}
			// As if they were renamed while the last chunk is read.
			r.plan.labels = "others"
			if _, err := r.Next(t.Context(), nil, 10, 1000); !errors.Is(err, ErrCursor) {
				t.Errorf("while the last is read: got %v, want ErrCursor", err)
			}
		})
	}
}

// Filter and columns of the publication hold for chunks as for the first snapshot,
// also when they change between two chunks.
func TestChunksOfFiltersAndLists(t *testing.T) {
	t.Parallel()
	db := cdctest.Database(t)
	// The key's arrays are named k1, …, the table t, in our statements.
	s := openOps(t, db, func(c *Config) { c.Columns = map[string][]string{"public.k": {"v", "k1", "t"}} },
		"CREATE TABLE k(k1 int PRIMARY KEY, v text, t int, twice int GENERATED ALWAYS AS (k1 * 2) STORED, secret text)",
		"INSERT INTO k(k1, v, t, secret) SELECT g, 'v' || g, g % 2, 'secret' FROM generate_series(1, 9) g", "CREATE TABLE all_of(k1 int PRIMARY KEY, twice int GENERATED ALWAYS AS (k1 * 2) STORED)", "INSERT INTO all_of VALUES (1)")
	needs15(t, s)
	mustPublish(t, s)
	db.Exec(t, "ALTER PUBLICATION pub SET TABLE ONLY k (k1, v, t) WHERE (k1 <> 7 AND t = 1), ONLY all_of")
	r, all := readerOf(t, s, "k"), readerOf(t, s, "all_of")
	got := append(chunksOf(t, r, 2, 1000), chunksOf(t, all, 2, 1000)...)
	equalRows(t, sorted(got), copyAll(t, s, 1))
	c, err := r.Rows(t.Context(), [][]string{{"1"}, {"2"}, {"7"}, {"9"}, {"99"}})
	if err != nil {
		t.Fatal(err)
	}
	equalRows(t, sorted(chunkText(c)), []string{"public.k|1|v1|1", "public.k|9|v9|1"})
	c = mustNext(t, r, nil, 1, 1000)
	db.Exec(t, "ALTER PUBLICATION pub SET TABLE ONLY k (k1, v, t) WHERE (t = 0), ONLY all_of")
	equalRows(t, chunkText(mustNext(t, r, c.Last, 2, 1000)), []string{"public.k|2|v2|0", "public.k|4|v4|0"})
	db.Exec(t, "ALTER PUBLICATION pub SET TABLE ONLY all_of")
	_, err = r.Next(t.Context(), nil, 1, 1000)
	wantTerminal(t, err, "publication-tables", "ADD TABLE ONLY")
}

// Case 143: keys that move over the cursor while the table is read break nothing;
// what is not moved comes exactly once, in order.
func TestCase143KeysMoveWhileRead(t *testing.T) {
	t.Parallel()
	db := cdctest.Database(t)
	s := openOps(t, db, nil, "CREATE TABLE t(id int PRIMARY KEY, v int NOT NULL)", "INSERT INTO t SELECT g * 10, g FROM generate_series(1, 400) g")
	mustPublish(t, s)
	r := readerOf(t, s, "t")
	conn := db.Conn(t)
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		rng := rand.New(rand.NewPCG(1, 1))
		for {
			select {
			case <-stop:
				return
			default:
			}
			_, err := conn.Exec(t.Context(), fmt.Sprintf("UPDATE t SET id = %d WHERE v = %d AND NOT EXISTS (SELECT FROM t x WHERE x.id = %[1]d)", rng.IntN(4000)*10+1+rng.IntN(9), rng.IntN(40)*10))
			if err != nil {
				t.Error(err)
				return
			}
		}
	})
	seen := map[int]int{}
	last := 0
	var after []string
	for n := 0; ; n++ {
		c := mustNext(t, r, after, 7, 1<<20)
		for _, row := range c.Rows {
			id, err := strconv.Atoi(string(row[0].Data))
			if err != nil || id <= last {
				t.Fatalf("key %d behind key %d (%v)", id, last, err)
			}
			v, _ := strconv.Atoi(string(row[1].Data))
			last = id
			seen[v]++
		}
		if c.Done {
			break
		}
		after = c.Last
		if n > 10_000 {
			t.Fatal("no end")
		}
	}
	close(stop)
	writer.Wait()
	for v := 1; v <= 400; v++ {
		if v%10 != 0 && seen[v] != 1 {
			t.Errorf("row %d, which is never changed, came %d times", v, seen[v])
		}
	}
}

func TestChunkErrorsHoldNoData(t *testing.T) {
	t.Parallel()
	db := cdctest.Database(t)
	s := openOps(t, db, nil, "CREATE TABLE t(a int, b uuid, PRIMARY KEY (a, b))")
	mustPublish(t, s)
	r := readerOf(t, s, "t")
	for name, read := range map[string]func() error{
		"rows": func() error { _, err := r.Rows(t.Context(), [][]string{{"1", "secret"}}); return err },
		"next": func() error {
			mustNext(t, r, nil, 1, 1)
			_, err := r.Next(t.Context(), []string{"1", "secret", r.plan.name}, 1, 1)
			return err
		},
		"half a key": func() error { _, err := r.Rows(t.Context(), [][]string{{"secret"}}); return err },
		"too many":   func() error { _, err := r.Rows(t.Context(), make([][]string, maxKeys+1)); return err },
	} {
		if err := read(); err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "public.t") {
			t.Errorf("%s: got %v, want an error that names the table and no data", name, err)
		}
	}
	mustNext(t, r, nil, 1, 1)
}

// A chunk costs allocations by the chunk, not by the row.
func TestChunksDoNotAllocatePerRow(t *testing.T) {
	s := openOps(t, cdctest.Database(t), nil, "CREATE TABLE t(id int PRIMARY KEY, v text, n numeric)",
		"INSERT INTO t SELECT g, 'some text', NULL FROM generate_series(1, 8192) g")
	mustPublish(t, s)
	r := readerOf(t, s, "t")
	read := func() {
		if c := mustNext(t, r, nil, 8192, 1<<20); len(c.Rows) != 8192 {
			t.Fatalf("got %d rows", len(c.Rows))
		}
	}
	read()
	n := testing.AllocsPerRun(3, read)
	t.Logf("%v allocations for 8192 rows", n)
	if n > 8192/8 {
		t.Fatalf("got %v allocations for 8192 rows", n)
	}
}

func TestOrderNames(t *testing.T) {
	t.Parallel()
	one := orderColumn{typ: "int4", expr: "a", sort: "a USING <", behind: ">", equal: "=", nulls: "NULLS LAST"}
	down := one
	down.sort, down.behind = "a USING >", "<"
	names := []string{orderName([]orderColumn{one}, true, ""), orderName([]orderColumn{one}, false, ""), orderName([]orderColumn{down}, true, ""),
		orderName([]orderColumn{one, one}, true, ""), orderName([]orderColumn{one}, true, "1'a'"), orderName([]orderColumn{one}, true, "1'b'")}
	slices.Sort(names)
	if len(slices.Compact(names)) != 6 {
		t.Errorf("orders share a name: %q", names)
	}
}

func BenchmarkChunks(b *testing.B) {
	s := openOps(b, cdctest.Database(b), nil, "CREATE TABLE t(id bigint PRIMARY KEY, a bigint, v text, n numeric, pad text, ts timestamptz, j jsonb)",
		`INSERT INTO t SELECT g, g*7, 'name ' || g, g / 100.0, repeat('x', 80), now(), '{"a": 1, "b": "text"}' FROM generate_series(1, 200000) g`)
	mustPublish(b, s)
	r := readerOf(b, s, "t")
	n := 0
	for b.Loop() {
		for after, done := []string(nil), false; !done; {
			c := mustNext(b, r, after, 8192, 8<<20)
			after, done = c.Last, c.Done
			n += len(c.Rows)
		}
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "rows/s")
}
