package format_test

import (
	"fmt"
	"strings"
	"testing"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
	"cdc/internal/format"
	"cdc/internal/source"
)

// leanValues runs a script against a table t that is there from the start and
// gives the values of its streamed records in the lean format.
func leanValues(t *testing.T, db *cdctest.DB, setup, script string) []string {
	t.Helper()
	runScript(t, db, setup, func() {})
	c := newCapture(t, db, format.Options{Format: format.JSON}, source.Config{})
	c.snapshot(t)
	c.out = newTopics()
	c.stream(t, script)
	var values []string
	for _, r := range c.out.byName["srv.public.t"] {
		if r.Value == nil {
			values = append(values, *r.Key+" gone")
			continue
		}
		values = append(values, *r.Value)
	}
	return values
}

func checkValues(t *testing.T, got []string, want ...string) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		g, w := "(nothing)", "(nothing)"
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			t.Errorf("record %d\n got %s\nwant %s", i, abridge(g), abridge(w))
		}
	}
}

// A composite value keeps its truth while its type changes: as an object where
// the type that is known fits, else as Postgres' text.
func TestCase036AttributeAddedMidStream(t *testing.T) {
	got := leanValues(t, cdctest.Database(t), `
		CREATE TYPE pair AS (x int, y text);
		CREATE TABLE t (id int PRIMARY KEY, c pair);`, `
		INSERT INTO t VALUES (1, (1,'a'));
		ALTER TYPE pair ADD ATTRIBUTE z int;
		INSERT INTO t VALUES (2, (1,'a',5));
		UPDATE t SET id = 3 WHERE id = 1;`)
	for i, g := range got {
		// Which of the two forms a row after the change has depends on when the
		// catalogue was read; a wrong field name or a lost field would be wrong.
		got[i] = strings.NewReplacer(`{"x":1,"y":"a","z":5}`, `FIVE`, `"(1,a,5)"`, `FIVE`, `{"x":1,"y":"a","z":null}`, `NULL`, `"(1,a,)"`, `NULL`).Replace(g)
	}
	checkValues(t, got, `{"id":1,"c":{"x":1,"y":"a"}}`, `{"id":2,"c":FIVE}`, `{"id":1} gone`, `{"id":3,"c":NULL}`)
}

func TestCase037EnumChangesMidStream(t *testing.T) {
	got := leanValues(t, cdctest.Database(t), `
		CREATE TYPE mood AS ENUM ('sad','ok');
		CREATE TABLE t (id int PRIMARY KEY, m mood, a mood[]);`, `
		INSERT INTO t VALUES (1, 'sad', '{ok}');
		ALTER TYPE mood ADD VALUE 'glad';
		INSERT INTO t VALUES (2, 'glad', '{glad,sad}');
		ALTER TYPE mood RENAME VALUE 'glad' TO 'happy';
		INSERT INTO t VALUES (3, 'happy', '{happy}');
		ALTER TYPE mood RENAME TO feeling;
		INSERT INTO t VALUES (4, 'happy', '{NULL}');`)
	checkValues(t, got, `{"id":1,"m":"sad","a":["ok"]}`, `{"id":2,"m":"glad","a":["glad","sad"]}`,
		`{"id":3,"m":"happy","a":["happy"]}`, `{"id":4,"m":"happy","a":[null]}`)
}

// Every case of the battery runs under these settings; here is one of each type
// that they would change.
func TestCase042SessionSettings(t *testing.T) {
	battery{
		columns: "d date, z timestamptz, i interval, b bytea, f float8, t text",
		rows:    []string{`'2024-03-04', '2024-03-04 05:06:07.5+00', '1 year 2 days', '\x00ff41', 0.1::float8+0.2::float8, 'ä'`},
		want:    []string{`"d":"2024-03-04","z":"2024-03-04T05:06:07.5Z","i":"1 year 2 days","b":"AP9B","f":0.30000000000000004,"t":"ä"`},
	}.run(t)
}

// encodingDatabase is a database of another encoding on the shared server.
func encodingDatabase(t *testing.T, encoding string) *cdctest.DB {
	t.Helper()
	server := cdctest.Postgres(t)
	admin := &cdctest.DB{Name: "postgres", URL: server.URL("postgres"), Server: server}
	name := "enc_" + strings.ToLower(encoding)
	admin.Exec(t, fmt.Sprintf("CREATE DATABASE %s ENCODING '%s' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0", name, encoding))
	t.Cleanup(func() { admin.Exec(t, "DROP DATABASE "+name+" WITH (FORCE)") })
	return &cdctest.DB{Name: name, URL: server.URL(name), Server: server}
}

func TestCase043Latin1(t *testing.T) {
	got := leanValues(t, encodingDatabase(t, "LATIN1"), `CREATE TABLE t (id int PRIMARY KEY, v text);`, `
		SET client_encoding = 'UTF8';
		INSERT INTO t VALUES (1, 'äöü');`)
	checkValues(t, got, `{"id":1,"v":"äöü"}`)
}

// A SQL_ASCII database holds any bytes. Those that are UTF-8 pass; others stop
// the snapshot and the stream, no value is invented: with client_encoding UTF8
// the server itself refuses to send them (SQLSTATE 22021), and where it did not,
// the encoder would (TestEncodeRefuses).
func TestCase043SQLASCII(t *testing.T) {
	db := encodingDatabase(t, "SQL_ASCII")
	runScript(t, db, `CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, E'\xc3\xa4');`, func() {})
	c := newCapture(t, db, format.Options{Format: format.JSON}, source.Config{})
	c.snapshot(t)
	got := c.out.byName["srv.public.t"]
	if len(got) != 1 || *got[0].Value != `{"id":1,"v":"ä"}` {
		t.Fatalf("got %+v", got)
	}
	runScript(t, db, `INSERT INTO t VALUES (2, E'\xff');`, func() {})
	st, err := c.src.Stream(t.Context(), c.from, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = st.Close(t.Context()) }()
	for {
		ev, err := st.Next(t.Context())
		if err != nil {
			if !strings.Contains(err.Error(), "22021") {
				t.Errorf("got %v, want SQLSTATE 22021", err)
			}
			return
		}
		if ev.Kind == cdc.EventChange {
			t.Fatalf("a change came through: %+v", ev.Change.New)
		}
	}
}

func TestCase045Wide(t *testing.T) {
	const columns = 1599
	var define, values, want strings.Builder
	for i := range columns {
		fmt.Fprintf(&define, ", c%d int", i)
		fmt.Fprintf(&values, ", %d", i)
		fmt.Fprintf(&want, `,"c%d":%d`, i, i)
	}
	got := leanValues(t, cdctest.Database(t), "CREATE TABLE t (id int PRIMARY KEY"+define.String()+");", `
		INSERT INTO t VALUES (1`+values.String()+`);
		UPDATE t SET id = 2;`)
	checkValues(t, got, `{"id":1`+want.String()+`}`, `{"id":1} gone`, `{"id":2`+want.String()+`}`)
}

func TestCase047OddNames(t *testing.T) {
	db := cdctest.Database(t)
	setup := `
		CREATE TABLE "T""a.b,c" ("Id X" int PRIMARY KEY, "ü😀" text, "select" int, "back\slash ""q""" text DEFAULT 'd');`
	script := `INSERT INTO "T""a.b,c" VALUES (1, 'v', 2, 'w'); DELETE FROM "T""a.b,c";`
	runScript(t, db, setup, func() {})
	for name, want := range map[string]string{
		format.JSON:         `{"Id X":1,"ü😀":"v","select":2,"back\\slash \"q\"":"w"}`,
		format.DebeziumJSON: `{"Id X":1,"ü\uD83D\uDE00":"v","select":2,"back\\slash \"q\"":"w"}`,
	} {
		c := newCapture(t, db, format.Options{Format: name}, source.Config{})
		c.snapshot(t)
		c.stream(t, script)
		got := c.out.byName["srv.public.T_a.b_c"]
		if len(got) < 2 || *got[0].Key != `{"Id X":1}` || rowOf(name, *got[0].Value) != want {
			t.Fatalf("%s: got %+v, want %s", name, got, want)
		}
		if name == format.DebeziumJSON && !strings.Contains(*got[0].Value, `"schema":"public","table":"T\"a.b,c"`) {
			t.Errorf("the table's name is not in %s", *got[0].Value)
		}
		dropSlot(t, c.src)
	}
}

// TestUnchangedToast is the rule of values that the stream leaves out: from the
// old row under full identity, else left out and said so.
func TestUnchangedToast(t *testing.T) {
	big := strings.Repeat("x", 3000)
	for _, tt := range []struct{ identity, want, header string }{
		{"FULL", `{"id":1,"big":"` + big + `","n":2}`, ""},
		{"DEFAULT", `{"id":1,"n":2}`, `["big"]`},
	} {
		t.Run(tt.identity, func(t *testing.T) {
			db := cdctest.Database(t)
			runScript(t, db, `CREATE TABLE t (id int PRIMARY KEY, big text, n int); ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
				ALTER TABLE t REPLICA IDENTITY `+tt.identity+`; INSERT INTO t VALUES (1, repeat('x', 3000), 1);`, func() {})
			c := newCapture(t, db, format.Options{Format: format.JSON}, source.Config{})
			c.snapshot(t)
			c.out = newTopics()
			c.stream(t, "UPDATE t SET n = 2;")
			got := c.out.byName["srv.public.t"]
			if len(got) != 1 || *got[0].Value != tt.want {
				t.Fatalf("got %+v, want %s", got, abridge(tt.want))
			}
			header := ""
			for i := 0; i < len(got[0].Headers); i += 2 {
				if got[0].Headers[i] == format.HeaderIncomplete {
					header = got[0].Headers[i+1]
				}
			}
			if header != tt.header {
				t.Errorf("header incomplete: got %q, want %q", header, tt.header)
			}
		})
	}
}

// TestToastedKey: a key stored out of line comes only in the old tuple.
func TestToastedKey(t *testing.T) {
	key := strings.Repeat("k", 2400)
	db := cdctest.Database(t)
	got := leanValues(t, db, `CREATE TABLE t (id text PRIMARY KEY, v int); ALTER TABLE t ALTER id SET STORAGE EXTERNAL;`, `
		INSERT INTO t VALUES (repeat('k', 2400), 1);
		UPDATE t SET v = 2;`)
	checkValues(t, got, `{"id":"`+key+`","v":1}`, `{"id":"`+key+`","v":2}`)
}
