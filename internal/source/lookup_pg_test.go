package source

import (
	"testing"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
)

// Rows are looked up as the snapshot sees them, whatever became of them since.
func TestSnapshotLookup(t *testing.T) {
	t.Parallel()
	db := cdctest.Database(t)
	s := openOps(t, db, func(c *Config) { c.Key = map[string][]string{"public.bare": {"a"}} },
		"CREATE TABLE t(a int, b text, v text, PRIMARY KEY (b, a))", "INSERT INTO t VALUES (1, 'x', 'one'), (2, E'y\\t\"{,', NULL), (3, '', 'three')",
		"CREATE TABLE p(id int PRIMARY KEY) PARTITION BY RANGE (id)", "CREATE TABLE leaf PARTITION OF p DEFAULT", "INSERT INTO p VALUES (1), (2)",
		"CREATE TABLE bare(a int NOT NULL)", "INSERT INTO bare VALUES (1), (2), (2)", "ALTER TABLE bare REPLICA IDENTITY FULL")
	tables := map[string]cdc.Table{}
	for _, table := range mustTables(t, s) {
		tables[table.Name] = table
	}
	sn := begin(t, s, 1)
	db.Exec(t, "UPDATE t SET v = 'later' WHERE a = 1", "DELETE FROM t WHERE a = 2", "INSERT INTO t VALUES (9, 'new', '')", "DELETE FROM p", "DELETE FROM bare")
	for _, c := range []struct {
		table string
		keys  [][]string
		want  []string
	}{
		{"t", [][]string{{"x", "1"}, {"y\t\"{,", "2"}, {"", "3"}, {"new", "9"}, {"x", "2"}}, []string{"public.t|1|x|one", "public.t|2|y\t\"{,|NULL", "public.t|3||three"}},
		{"t", nil, nil},
		{"p", [][]string{{"2"}, {"3"}}, []string{"public.p|2"}},
		{"bare", [][]string{{"2"}}, []string{"public.bare|2", "public.bare|2"}}, // no index
	} {
		rows, err := sn.Lookup(t.Context(), tables[c.table], c.keys)
		if err != nil {
			t.Fatalf("%s: %v", c.table, err)
		}
		rel := relationOf(t, s, c.table)
		equalRows(t, sorted(chunkText(&Chunk{Relation: rel, Rows: rows})), sorted(c.want))
	}
	if _, err := sn.Lookup(t.Context(), cdc.Table{OID: 1}, nil); err == nil {
		t.Error("a table that is not in the snapshot: got no error")
	}
	_ = sn.Close()
	if _, err := sn.Lookup(t.Context(), tables["t"], nil); err == nil {
		t.Error("a closed snapshot: got no error")
	}
}
