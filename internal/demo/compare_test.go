package demo

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"cdc/internal/cdctest"
)

// hold compares records with a table in a transaction of its own.
func hold(t *testing.T, conn *pgx.Conn, table table, records map[string]string) *comparison {
	t.Helper()
	var entries []entry
	for _, key := range slices.Sorted(maps.Keys(records)) {
		entries = append(entries, entry{[]byte(key), []byte(records[key])})
	}
	var c *comparison
	err := pgx.BeginTxFunc(context.Background(), conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) (err error) {
		c, err = compare(context.Background(), tx, table, entries)
		return err
	})
	if err != nil {
		t.Fatalf("compare: %v", err)
	}
	slices.SortFunc(c.found, func(a, b difference) int { return strings.Compare(a.String(), b.String()) })
	return c
}

func TestCompare(t *testing.T) {
	db := cdctest.Database(t)
	conn := db.Conn(t)
	db.Exec(t, `CREATE TABLE kinds (
			b text NOT NULL, a int NOT NULL, num numeric, at timestamptz, tags text[], doc jsonb, day date,
			PRIMARY KEY (a, b))`,
		`INSERT INTO kinds VALUES
			('x', 1, 1.50, '2026-03-01 10:05:07.25+01', '{a,"b,c",NULL}', '{"z": 1, "a": [null, 2.0]}', '2026-03-01'),
			('y', 2, NULL, NULL, NULL, NULL, NULL)`)
	kinds := table{"public", "kinds", []string{"a", "b"}}
	const (
		keyX = `{"a":1,"b":"x"}`
		keyY = `{"a":2,"b":"y"}`
		rowX = `{"b":"x","a":1,"num":1.50,"at":"2026-03-01T09:05:07.25Z","tags":["a","b,c",null],"doc":{"a": [null, 2.0], "z": 1},"day":"2026-03-01"}`
		rowY = `{"b":"y","a":2,"num":null,"at":null,"tags":null,"doc":null,"day":null}`
	)
	// change is how a case spoils what is right.
	for _, tc := range []struct {
		name   string
		change func(records map[string]string)
		want   []string
	}{
		{"equal", func(map[string]string) {}, nil},
		{"row without a record", func(r map[string]string) { delete(r, keyX) }, []string{`missing {"a" : 1, "b" : "x"}`}},
		{"record without a row", func(r map[string]string) { r[`{"a":3,"b":"z"}`] = strings.Replace(rowX, `"a":1`, `"a":3`, 1) }, []string{`ghost {"a":3,"b":"z"}`}},
		{"another value", func(r map[string]string) { r[keyX] = strings.Replace(rowX, "b,c", "b;c", 1) }, []string{"different " + keyX}},
		{"another scale", func(r map[string]string) { r[keyX] = strings.Replace(rowX, "1.50", "1.5", 1) }, []string{"different " + keyX}},
		{"a microsecond", func(r map[string]string) { r[keyX] = strings.Replace(rowX, "07.25Z", "07.250001Z", 1) }, []string{"different " + keyX}},
		{"inside a document", func(r map[string]string) { r[keyX] = strings.Replace(rowX, "2.0", "2.1", 1) }, []string{"different " + keyX}},
		{"null for a value", func(r map[string]string) { r[keyX] = strings.Replace(rowX, "1.50", "null", 1) }, []string{"different " + keyX}},
		{"a value for null", func(r map[string]string) { r[keyY] = strings.Replace(rowY, `"tags":null`, `"tags":[]`, 1) }, []string{"different " + keyY}},
		{"a column less", func(r map[string]string) { r[keyY] = strings.Replace(rowY, `,"day":null`, "", 1) }, []string{"different " + keyY}},
		{"a column more", func(r map[string]string) { r[keyY] = strings.Replace(rowY, `{`, `{"extra":1,`, 1) }, []string{"different " + keyY}},
		{"a column twice", func(r map[string]string) { r[keyY] = strings.Replace(rowY, `{`, `{"day":null,`, 1) }, []string{"different " + keyY}},
		{"the key says another row", func(r map[string]string) { r[keyX] = rowY }, []string{"different " + keyX}},
		{"a key of other columns", func(r map[string]string) { delete(r, keyX); r[`{"id":1}`] = rowX }, []string{`ghost {"id":1}`, `missing {"a" : 1, "b" : "x"}`}},
		{"a key of a column more", func(r map[string]string) { delete(r, keyX); r[`{"a":1,"b":"x","num":1}`] = rowX }, []string{`different {"a":1,"b":"x","num":1}`}},
		{"a value of another type", func(r map[string]string) { r[keyX] = strings.Replace(rowX, "1.50", `"many"`, 1) }, []string{"different " + keyX, `missing {"a" : 1, "b" : "x"}`}},
		{"a key of another type", func(r map[string]string) { r[`{"a":"one","b":"x"}`] = rowX }, []string{`different {"a":"one","b":"x"}`}},
		{"no object", func(r map[string]string) { r[keyX] = "[1]" }, []string{"different " + keyX, `missing {"a" : 1, "b" : "x"}`}},
		{"no JSON", func(r map[string]string) { r["\xff"] = "{" }, []string{"different \xff"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			records := map[string]string{keyX: rowX, keyY: rowY}
			tc.change(records)
			c := hold(t, conn, kinds, records)
			var got []string
			for _, d := range c.found {
				got = append(got, d.String())
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("differences\n got %q\nwant %q", got, tc.want)
			}
			if c.rows != 2 {
				t.Errorf("rows: got %d, want 2", c.rows)
			}
		})
	}
}

// A record that cannot be read does not hide what the others of its batch say.
func TestCompareBatches(t *testing.T) {
	db := cdctest.Database(t)
	const rows = 3*batchEntries + 7
	db.Exec(t, "CREATE TABLE many (id int PRIMARY KEY, n int)",
		fmt.Sprintf("INSERT INTO many SELECT i, i * 2 FROM generate_series(1, %d) i", rows))
	records := map[string]string{}
	for i := 1; i <= rows; i++ {
		records[fmt.Sprintf(`{"id":%d}`, i)] = fmt.Sprintf(`{"id":%d,"n":%d}`, i, i*2)
	}
	records[`{"id":700}`] = `{"id":700,"n":"seven"}`
	records[`{"id":701}`] = `{"id":701,"n":9999999999}`
	records[`{"id":702}`] = `{"id":702,"n":0}`
	delete(records, `{"id":1200}`)
	c := hold(t, db.Conn(t), table{"public", "many", []string{"id"}}, records)
	want := []string{`different {"id":700}`, `different {"id":701}`, `different {"id":702}`, `missing {"id" : 1200}`, `missing {"id" : 700}`, `missing {"id" : 701}`}
	var got []string
	for _, d := range c.found {
		got = append(got, d.String())
	}
	if !slices.Equal(got, want) {
		t.Errorf("differences\n got %q\nwant %q", got, want)
	}
}

func TestBatchOf(t *testing.T) {
	sized := func(sizes ...int) (e []entry) {
		for _, n := range sizes {
			e = append(e, entry{value: make([]byte, n)})
		}
		return e
	}
	for _, tc := range []struct {
		name    string
		entries []entry
		want    int
	}{
		{"one", sized(1), 1},
		{"one that is too large", sized(2*batchBytes, 1), 1},
		{"up to the bytes", sized(batchBytes/2, batchBytes/2, 1), 2},
		{"up to the count", sized(make([]int, batchEntries+1)...), batchEntries},
		{"all", sized(1, 2, 3), 3},
	} {
		if got := batchOf(tc.entries); got != tc.want {
			t.Errorf("%s: got %d, want %d", tc.name, got, tc.want)
		}
	}
}
