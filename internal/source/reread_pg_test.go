package source

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
)

func relationOf(t testing.TB, s *Source, table string) *cdc.Relation {
	t.Helper()
	for _, c := range mustTables(t, s) {
		if c.Name == table {
			rel, err := s.Relation(t.Context(), c.OID)
			if err != nil {
				t.Fatal(err)
			}
			return rel
		}
	}
	t.Fatalf("no table %s", table)
	return nil
}

func keyValues(texts ...string) []cdc.Value {
	var out []cdc.Value
	for _, s := range texts {
		out = append(out, cdc.Value{Kind: cdc.Text, Data: []byte(s)})
	}
	return out
}

func xidOf(t testing.TB, db *cdctest.DB, from string) uint32 {
	t.Helper()
	n, err := strconv.ParseUint(db.Value(t, "SELECT xmin::text FROM "+from), 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(n)
}

func TestReread(t *testing.T) {
	db := cdctest.Database(t)
	s := openOps(t, db, nil, "CREATE EXTENSION citext", "CREATE TYPE mood AS ENUM ('sad', 'ok')",
		"CREATE TABLE t(a int, b citext, m mood, c char(5), flag bool, net inet, big text, PRIMARY KEY (b, m, c))",
		"INSERT INTO t SELECT 1, 'Key', 'ok', 'ab', true, '10.0.0.1', repeat('x', 5000)")
	rel := relationOf(t, s, "t")
	key := keyValues("Key", "ok", "ab   ")
	xid := xidOf(t, db, "t")
	cols := []int{6, 4, 5, 3, 0}
	got, err := s.Reread(t.Context(), rel, key, cols, xid)
	if err != nil || !got.Visible || !got.Found {
		t.Fatalf("got %+v, %v", got, err)
	}
	// The output function's text, as the stream sends it: not that of a cast.
	if text := rowText(&cdc.Change{Relation: rel, New: got.Values}); text != "public.t|"+strings.Repeat("x", 5000)+"|t|10.0.0.1|ab   |1" {
		t.Fatalf("got %q", text)
	}
	if plan := rereadPlan(t, s); !strings.Contains(plan, "Index") {
		t.Errorf("the key's index is not used:\n%s", plan)
	}
	if got, err := s.Reread(t.Context(), rel, keyValues("Key", "sad", "ab   "), cols, xid); err != nil || got.Found || !got.Visible {
		t.Errorf("another key: got %+v, %v, want visible and not found", got, err)
	}
	if got, err := s.Reread(t.Context(), rel, key, cols, xid+1000); err != nil || got.Visible {
		t.Errorf("a transaction of the future: got %+v, %v, want not visible", got, err)
	}
	db.Exec(t, "UPDATE t SET a = 2")
	if got, err := s.Reread(t.Context(), rel, key, cols, xid); err != nil || !got.Found || string(got.Values[4].Data) != "2" {
		t.Errorf("after an update: got %+v, %v, want its value", got, err)
	}
	db.Exec(t, "UPDATE t SET a = NULL")
	if got, err := s.Reread(t.Context(), rel, key, []int{0}, xid); err != nil || got.Values[0].Kind != cdc.Null {
		t.Errorf("NULL: got %+v, %v", got, err)
	}
	if _, err := s.Reread(t.Context(), rel, key[:1], cols, xid); err == nil {
		t.Error("half a key: got no error")
	}
	if _, err := s.Reread(t.Context(), rel, []cdc.Value{{Kind: cdc.Null}, key[1], key[2]}, cols, xid); err == nil {
		t.Error("NULL in the key: got no error")
	}
}

// rereadPlan is the plan of the newest statement, with sequential scans made dear
// so that a table of one row does not decide.
func rereadPlan(t testing.TB, s *Source) string {
	t.Helper()
	s.reread.mu.Lock()
	defer s.reread.mu.Unlock()
	c := s.reread.conn.PgConn()
	results, err := c.Exec(t.Context(), "SET enable_seqscan = off; EXPLAIN EXECUTE reread_"+strconv.Itoa(s.reread.serial)+"('Key', 'ok', 'ab'); RESET enable_seqscan").ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, row := range results[1].Rows {
		lines = append(lines, string(row[0]))
	}
	return strings.Join(lines, "\n")
}

func TestRereadOfAChangedTable(t *testing.T) {
	db := cdctest.Database(t)
	s := openOps(t, db, nil, "CREATE TABLE t(id int PRIMARY KEY, v text, w text)", "INSERT INTO t VALUES (1, 'v', 'w')")
	rel := relationOf(t, s, "t")
	xid := xidOf(t, db, "t")
	read := func(cols ...int) (Reread, error) {
		return s.Reread(t.Context(), rel, keyValues("1"), cols, xid)
	}
	if got, err := read(1, 2); err != nil || !got.Found {
		t.Fatalf("got %+v, %v", got, err)
	}
	gone := new(GoneError)
	db.Exec(t, "ALTER TABLE t RENAME TO renamed")
	if got, err := read(1, 2); err != nil || !got.Found {
		t.Errorf("renamed table: got %+v, %v, want the row", got, err)
	}
	db.Exec(t, "ALTER TABLE renamed DROP COLUMN w")
	if got, err := read(1, 2); !errors.As(err, &gone) || got.Found {
		t.Errorf("dropped column: got %+v, %v, want GoneError", got, err)
	}
	if got, err := read(1); err != nil || !got.Found {
		t.Errorf("the columns that are left: got %+v, %v", got, err)
	}
	db.Exec(t, "ALTER TABLE renamed ALTER v TYPE int USING 7")
	if got, err := read(1); !errors.As(err, &gone) {
		t.Errorf("retyped column: got %+v, %v, want GoneError", got, err)
	}
	db.Exec(t, "DROP TABLE renamed")
	if got, err := read(1); !errors.As(err, &gone) || gone.What != "table" {
		t.Errorf("dropped table: got %+v, %v, want GoneError", got, err)
	}
}

func TestRereadOfPartitionsAndLostConnection(t *testing.T) {
	db := cdctest.Database(t)
	s := openOps(t, db, nil, "CREATE TABLE p(id int PRIMARY KEY, v text) PARTITION BY RANGE (id)", "CREATE TABLE p1 PARTITION OF p DEFAULT", "INSERT INTO p VALUES (1, 'v')")
	rel := relationOf(t, s, "p")
	xid := xidOf(t, db, "p")
	for range 2 {
		got, err := s.Reread(t.Context(), rel, keyValues("1"), []int{1}, xid)
		if err != nil || !got.Found || string(got.Values[0].Data) != "v" {
			t.Fatalf("got %+v, %v", got, err)
		}
		db.Exec(t, "SELECT pg_terminate_backend("+strconv.Itoa(int(s.reread.conn.PgConn().PID()))+", 30000)")
	}
}
