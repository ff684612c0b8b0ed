package format_test

import (
	"errors"
	"strings"
	"testing"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
	"cdc/internal/format"
	"cdc/internal/source"
)

// The tests of this file are the lines of the table "Where the bytes differ" in
// docs/coming-from-debezium.md: there Debezium 3.6.0 loses or falsifies a value
// and we write the true one.

// streamed gives the `after` of the records that a script writes to public.t,
// and the records.
func streamed(t *testing.T, o format.Options, cfg source.Config, setup, script string) ([]string, []record) {
	t.Helper()
	db := cdctest.Database(t)
	runScript(t, db, setup, func() {})
	o.Format = format.DebeziumJSON
	c := newCapture(t, db, o, cfg)
	c.snapshot(t)
	c.out = newTopics()
	c.stream(t, script)
	var rows []string
	for _, r := range c.out.byName["srv.public.t"] {
		if r.Value != nil {
			rows = append(rows, rowOf(format.DebeziumJSON, *r.Value))
		}
	}
	return rows, c.out.byName["srv.public.t"]
}

func TestDifferenceNameColumn(t *testing.T) {
	rows, _ := streamed(t, format.Options{}, source.Config{}, "CREATE TABLE t (id int PRIMARY KEY, nm name);", "INSERT INTO t VALUES (1, 'nm');")
	checkValues(t, rows, `{"id":1,"nm":"nm"}`)
}

func TestDifferenceUnknownTypes(t *testing.T) {
	const setup = `CREATE TYPE point3 AS (x int, y text); CREATE DOMAIN posint AS int;
		CREATE TABLE t (id int PRIMARY KEY, c point3, ca point3[], m int4multirange, l line, ls lseg, b box, pa path, po polygon, ci circle, tq tsquery,
			lsn pg_lsn, x xid, d posint[], mo money[], n name[], i interval[], p point[]);`
	const script = `INSERT INTO t VALUES (1, '(1,"a b")', '{"(1,a)"}', '{[1,3)}', '{1,-1,0}', '[(0,0),(1,1)]', '(1,1),(0,0)', '[(0,0),(1,1)]', '((0,0),(1,0))', '<(0,0),1>', 'a & b',
		'0/1', '7', '{1}', '{$1.00}', '{a}', '{1 day}', '{"(1,2)"}');`
	for unknown, want := range map[string]string{
		"text": `{"id":1,"c":"(1,\"a b\")","ca":"{\"(1,a)\"}","m":"{[1,3)}","l":"{1,-1,0}","ls":"[(0,0),(1,1)]","b":"(1,1),(0,0)","pa":"[(0,0),(1,1)]","po":"((0,0),(1,0))","ci":"<(0,0),1>",` +
			`"tq":"'a' & 'b'","lsn":"0/1","x":"7","d":"{1}","mo":"{$1.00}","n":"{a}","i":"{\"1 day\"}","p":"{\"(1,2)\"}"}`,
		"omit": `{"id":1}`,
	} {
		t.Run(unknown, func(t *testing.T) {
			rows, _ := streamed(t, format.Options{Unknown: unknown}, source.Config{}, setup, script)
			checkValues(t, rows, want)
		})
	}
}

func TestDifferenceNestedArray(t *testing.T) {
	rows, _ := streamed(t, format.Options{}, source.Config{}, "CREATE TABLE t (id int PRIMARY KEY, a int[][]);", "INSERT INTO t VALUES (1, '{{1,2},{3,NULL}}');")
	checkValues(t, rows, `{"id":1,"a":[[1,2],[3,null]]}`)
}

func TestDifferenceUnchangedToast(t *testing.T) {
	const setup = `CREATE TABLE t (id int PRIMARY KEY, big text, n int); ALTER TABLE t ALTER big SET STORAGE EXTERNAL; INSERT INTO t VALUES (1, repeat('x', 3000), 1);`
	for toast, want := range map[string]string{
		"placeholder": `{"id":1,"big":"__debezium_unavailable_value","n":2}`,
		"fill":        `{"id":1,"n":2}`, // what could not be filled in is left out, and the header incomplete says so
	} {
		t.Run(toast, func(t *testing.T) {
			rows, records := streamed(t, format.Options{Toast: toast}, source.Config{}, setup, "UPDATE t SET n = 2;")
			checkValues(t, rows, want)
			incomplete := strings.Contains(strings.Join(records[0].Headers, " "), `incomplete ["big"]`)
			if incomplete != (toast == "fill") {
				t.Errorf("headers %q", records[0].Headers)
			}
		})
	}
}

func TestDifferenceReplicaIdentityIndex(t *testing.T) {
	const setup = `CREATE TABLE t (id int PRIMARY KEY, code text NOT NULL, note text); CREATE UNIQUE INDEX t_code ON t (code);
		ALTER TABLE t REPLICA IDENTITY USING INDEX t_code;`
	t.Run("refused", func(t *testing.T) {
		db := cdctest.Database(t)
		runScript(t, db, setup, func() {})
		c := newCapture(t, db, format.Options{Format: format.DebeziumJSON}, source.Config{})
		if _, err := c.src.Tables(t.Context()); !cdc.IsTerminal(err) {
			t.Errorf("tables: got %v, want a terminal error", err)
		}
	})
	t.Run("configured key", func(t *testing.T) {
		_, records := streamed(t, format.Options{}, source.Config{Key: map[string][]string{"public.t": {"code"}}}, setup,
			"INSERT INTO t VALUES (1, 'c1', 'n'); UPDATE t SET code = 'c2'; DELETE FROM t;")
		var keys []string
		for _, r := range records {
			kind := "tombstone"
			if r.Value != nil {
				kind = (*r.Value)[strings.Index(*r.Value, `"op":"`)+6:][:1]
			}
			keys = append(keys, kind+" "+*r.Key)
		}
		checkValues(t, keys, `c {"code":"c1"}`, `d {"code":"c1"}`, `tombstone {"code":"c1"}`, `c {"code":"c2"}`, `d {"code":"c2"}`, `tombstone {"code":"c2"}`)
	})
}

func TestDifferenceTableWithoutKey(t *testing.T) {
	db := cdctest.Database(t)
	db.Exec(t, "CREATE TABLE t (a int, b text); ALTER TABLE t REPLICA IDENTITY FULL")
	c := newCapture(t, db, format.Options{Format: format.DebeziumJSON}, source.Config{})
	if _, err := c.src.Tables(t.Context()); !cdc.IsTerminal(err) {
		t.Errorf("tables: got %v, want a terminal error", err)
	}
	if _, err := c.format.Compile(&cdc.Relation{Namespace: "public", Name: "t", Columns: []cdc.Column{{Name: "a"}}}); !cdc.IsTerminal(err) {
		t.Errorf("compile: got %v, want a terminal error", err)
	}
}

func TestDifferencePartitionRoot(t *testing.T) {
	db := cdctest.Database(t)
	runScript(t, db, `CREATE TABLE t (id int NOT NULL, region text NOT NULL, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
		CREATE TABLE t_eu PARTITION OF t FOR VALUES IN ('eu'); INSERT INTO t VALUES (1, 'eu');`, func() {})
	c := newCapture(t, db, format.Options{Format: format.DebeziumJSON}, source.Config{})
	c.snapshot(t)
	if len(c.out.order) != 1 || c.out.order[0] != "srv.public.t" || len(c.out.byName["srv.public.t"]) != 1 {
		t.Errorf("got %+v, want one row in srv.public.t", c.out.byName)
	}
}

func TestDifferenceNumericNaN(t *testing.T) {
	db := cdctest.Database(t)
	for _, value := range []string{"NaN", "Infinity", "-Infinity"} {
		db.Exec(t, "DROP TABLE IF EXISTS t; CREATE TABLE t (id int PRIMARY KEY, n numeric); INSERT INTO t VALUES (1, '"+value+"')")
		c := newCapture(t, db, format.Options{Format: format.DebeziumJSON}, source.Config{})
		tables, err := c.src.Tables(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.src.Publish(t.Context(), tables); err != nil {
			t.Fatal(err)
		}
		snap, err := c.src.Snapshot(t.Context(), tables, 1)
		if err != nil {
			t.Fatal(err)
		}
		change, err := snap.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		e, err := c.format.Compile(change.Relation)
		if err != nil {
			t.Fatal(err)
		}
		err = e.Encode(change, c.out)
		var v *format.ValueError
		if !errors.As(err, &v) || v.Column != "n" || !errors.Is(err, format.ErrNotSayable) || len(c.out.order) > 0 {
			t.Errorf("%s: got %v and %d records, want an error that names the column", value, err, len(c.out.order))
		}
		if err := snap.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestDifferenceTruncate(t *testing.T) {
	f, err := format.New(format.Options{Format: format.DebeziumJSON, Server: "srv"})
	if err != nil {
		t.Fatal(err)
	}
	e, err := f.Compile(&cdc.Relation{Namespace: "public", Name: "t", Key: []int{0},
		Columns: []cdc.Column{{Name: "id", TypeOID: 23, Type: &cdc.Type{OID: 23, Name: "int4"}, Mod: -1, Identity: true}}})
	if err != nil {
		t.Fatal(err)
	}
	out := newTopics()
	c := &cdc.Change{Op: cdc.OpTruncate, Tx: &cdc.Tx{XID: 1}}
	if err := e.Encode(c, out); err == nil || len(out.order) > 0 {
		t.Errorf("a truncate was encoded as a record without a key (%v)", err)
	}
	if err := e.Tombstone([]byte(`{"id":1}`), c, out); err != nil {
		t.Fatal(err)
	}
	if got := out.byName[""]; len(got) != 1 || got[0].Value != nil || *got[0].Key != `{"id":1}` {
		t.Errorf("got %+v, want the tombstone of a live key", got)
	}
}

// Debezium cannot evaluate an expression and takes a zero for the default, which
// Connect then writes in place of NULL.
func TestDifferenceExpressionDefault(t *testing.T) {
	rows, _ := streamed(t, format.Options{}, source.Config{}, `CREATE TABLE t (id int PRIMARY KEY, at timestamptz DEFAULT now(), c int DEFAULT 3);`,
		"INSERT INTO t VALUES (1, NULL, NULL);")
	checkValues(t, rows, `{"id":1,"at":null,"c":3}`)
}

// A double has 53 bits: beyond 285 years Debezium's arithmetic loses microseconds.
func TestDifferenceIntervalPrecision(t *testing.T) {
	rows, _ := streamed(t, format.Options{}, source.Config{}, "CREATE TABLE t (id int PRIMARY KEY, i interval);", "INSERT INTO t VALUES (1, '1000 years 00:00:00.000001');")
	checkValues(t, rows, `{"id":1,"i":31557600000000001}`)
}

// A message outside a transaction has none before it.
func TestDifferenceMessageSequence(t *testing.T) {
	db := cdctest.Database(t)
	db.Exec(t, "CREATE TABLE t (id int PRIMARY KEY)")
	c := newCapture(t, db, format.Options{Format: format.DebeziumJSON}, source.Config{})
	c.snapshot(t)
	c.stream(t, "SELECT pg_logical_emit_message(true, 'a', ''); SELECT pg_logical_emit_message(false, 'b', '');")
	got := c.out.byName["srv.message"]
	if len(got) != 2 || !strings.Contains(*got[1].Value, `"sequence":"[null,\"`) || !strings.Contains(*got[1].Value, `"txId":null`) {
		t.Errorf("got %+v", got)
	}
}
