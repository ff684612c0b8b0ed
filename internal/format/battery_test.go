package format_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"cdc/internal/cdctest"
	"cdc/internal/format"
	"cdc/internal/source"
)

// battery is one case of the catalogue of types: a table "battery" with an int
// key and columns; rows are the values behind the key, in SQL.
type battery struct {
	setup   string // before the table is made
	columns string // "a int, b text"
	rows    []string
	want    []string // the lean value without its key, by row; "" is not compared
}

// run writes the rows, takes the snapshot, deletes and writes them again, and
// touches them, through both formats. The bytes must be the same whichever way
// a value came, and the lean ones those expected.
func (b battery) run(t *testing.T) {
	t.Helper()
	db := cdctest.Database(t)
	// What a database or role sets must not reach the output (case 42).
	db.Exec(t, b.setup+`;
		CREATE TABLE battery (id int PRIMARY KEY, `+b.columns+`);
		ALTER TABLE battery REPLICA IDENTITY FULL;`,
		"DO $$ BEGIN EXECUTE 'ALTER DATABASE '||current_database()||' SET datestyle=''SQL, DMY'''; END $$",
		"DO $$ BEGIN EXECUTE 'ALTER DATABASE '||current_database()||' SET intervalstyle=iso_8601'; END $$",
		"DO $$ BEGIN EXECUTE 'ALTER DATABASE '||current_database()||' SET bytea_output=escape'; END $$",
		"DO $$ BEGIN EXECUTE 'ALTER DATABASE '||current_database()||' SET extra_float_digits=-3'; END $$",
		"DO $$ BEGIN EXECUTE 'ALTER DATABASE '||current_database()||' SET timezone=''Asia/Kolkata'''; END $$",
		"DO $$ BEGIN EXECUTE 'ALTER DATABASE '||current_database()||' SET client_encoding=''LATIN1'''; END $$")
	insert := "SET client_encoding = 'UTF8'; SET timezone = 'UTC'; SET datestyle = 'ISO, MDY'; SET intervalstyle = 'postgres'; SET bytea_output = 'hex';"
	for i, row := range b.rows {
		insert += fmt.Sprintf("\nINSERT INTO battery VALUES (%d, %s);", i, row)
	}
	runScript(t, db, insert, func() {})
	for _, name := range []string{format.JSON, format.DebeziumJSON} {
		c := newCapture(t, db, format.Options{Format: name}, source.Config{})
		c.snapshot(t)
		snapshot := c.out
		c.out = newTopics()
		c.stream(t, "DELETE FROM battery;"+insert+"UPDATE battery SET id = id;")
		b.compare(t, name, snapshot, c.out)
		dropSlot(t, c.src)
	}
}

func (b battery) compare(t *testing.T, name string, snapshot, stream *topics) {
	t.Helper()
	const topic = "srv.public.battery"
	seen := map[string]string{}
	for _, r := range snapshot.byName[topic] {
		seen[*r.Key] = rowOf(name, *r.Value)
		if !json.Valid([]byte(*r.Value)) {
			t.Errorf("%s: row %s is not JSON: %s", name, *r.Key, abridge(*r.Value))
		}
	}
	if len(seen) != len(b.rows) {
		t.Errorf("%s: the snapshot has %d rows, want %d", name, len(seen), len(b.rows))
	}
	streamed := 0
	for _, r := range stream.byName[topic] {
		if r.Value == nil || strings.Contains(*r.Value, `"after":null`) {
			continue // of the DELETE
		}
		streamed++
		if got, want := rowOf(name, *r.Value), seen[*r.Key]; got != want {
			t.Errorf("%s: row %s\n  stream %s\nsnapshot %s", name, *r.Key, abridge(got), abridge(want))
		}
		if slices.Contains(r.Headers, format.HeaderIncomplete) {
			t.Errorf("%s: row %s is incomplete", name, *r.Key)
		}
	}
	if streamed != 2*len(b.rows) {
		t.Errorf("%s: the stream has %d rows, want %d inserts and as many updates", name, streamed, len(b.rows))
	}
	if name != format.JSON {
		return
	}
	for i, want := range b.want {
		got := strings.TrimPrefix(seen[fmt.Sprintf(`{"id":%d}`, i)], fmt.Sprintf(`{"id":%d,`, i))
		if want != "" && got != want+"}" {
			t.Errorf("row %d\n got %s\nwant %s", i, abridge(got), abridge(want+"}"))
		}
	}
}

// rowOf is the row inside a value. The values of the battery are large: no
// regular expression here.
func rowOf(name, value string) string {
	from, to := strings.Index(value, `"after":`), strings.LastIndex(value, `,"source":{"version"`)
	if name == format.JSON || from < 0 || to < from {
		return value
	}
	return value[from+len(`"after":`) : to]
}

func TestCase027Numerics(t *testing.T) {
	wide := "1" + strings.Repeat("0", 130000)
	fine := "0." + strings.Repeat("0", 16382) + "1"
	scaled, hundreds := "numeric(5,-2)", "12300"
	if cdctest.Postgres(t).Version() < 15 { // which brought negative scales
		scaled, hundreds = "numeric(5)", "12345"
	}
	battery{
		columns: "n numeric, m numeric(10,2), s " + scaled + ", a numeric(6,3)[]",
		rows:    []string{"0, 123.40, 12345, '{1.5,NULL}'", "1e130000, -0.01, 0, '{}'", "1e-16383, 99999999.99, -100, null", "-12345678901234567890.12345, null, null, null"},
		want: []string{`"n":0,"m":123.40,"s":` + hundreds + `,"a":[1.500,null]`, `"n":` + wide + `,"m":-0.01,"s":0,"a":[]`,
			`"n":` + fine + `,"m":99999999.99,"s":-100,"a":null`, `"n":-12345678901234567890.12345,"m":null,"s":null,"a":null`},
	}.run(t)
}

func TestCase028Floats(t *testing.T) {
	battery{
		columns: "d double precision, r real, a double precision[]",
		rows: []string{"'-0', '-0', '{0.1,NaN}'", "1e-320, 1e-45, null", "1.7976931348623157e308, 3.4028235e38, null",
			"'NaN', 'Infinity', '{-Infinity,NULL}'", "'-Infinity', 'NaN', null", "0.1::float8+0.2::float8, 16777216, null", "1e15, 1e15, null", "123456.789, 0.3, null"},
		want: []string{`"d":-0,"r":-0,"a":[0.1,"NaN"]`, `"d":1e-320,"r":1e-45,"a":null`, `"d":1.7976931348623157e+308,"r":3.4028235e+38,"a":null`,
			`"d":"NaN","r":"Infinity","a":["-Infinity",null]`, `"d":"-Infinity","r":"NaN","a":null`, `"d":0.30000000000000004,"r":1.6777216e+07,"a":null`,
			`"d":1e+15,"r":1e+15,"a":null`, `"d":123456.789,"r":0.3,"a":null`},
	}.run(t)
}

func TestCase029Integers(t *testing.T) {
	battery{
		columns: "a smallint, b int, c bigint, o oid, x xid, x8 xid8, l pg_lsn, r regclass, t regtype, v int2vector",
		rows: []string{"-32768, -2147483648, -9223372036854775808, 0, '0', '0', '0/0', 'pg_class', 'int4', '1 2 3'",
			"32767, 2147483647, 9223372036854775807, 4294967295, '4294967295', '18446744073709551615', 'FFFFFFFF/FFFFFFFF', 'pg_type', 'text', ''"},
		want: []string{`"a":-32768,"b":-2147483648,"c":-9223372036854775808,"o":0,"x":"0","x8":"0","l":"0/0","r":"pg_class","t":"integer","v":"1 2 3"`,
			`"a":32767,"b":2147483647,"c":9223372036854775807,"o":4294967295,"x":"4294967295","x8":"18446744073709551615","l":"FFFFFFFF/FFFFFFFF","r":"pg_type","t":"text","v":""`},
	}.run(t)
}

func TestCase030Timestamps(t *testing.T) {
	battery{
		columns: "a timestamp, b timestamptz, c timestamp(3), d timestamptz(0), e timestamptz[]",
		rows: []string{"'infinity', '-infinity', '-infinity', 'infinity', '{infinity}'",
			"'4714-11-24 00:00 BC', '4714-11-24 00:00+00 BC', '4714-11-24 00:00 BC', '4714-11-24 00:00+00 BC', null",
			"'294247-01-10 04:00:54.775807', '294276-12-31 23:59:59.999999+00', '294276-12-31 23:59:59.999', '294276-12-31 23:59:59+00', null",
			"'2016-12-31 23:59:60', '2021-03-28 02:30:00 Europe/Berlin', '0001-01-01', '2021-10-31 02:30:00 Europe/Berlin', '{2016-11-04 13:51:30.1+02,NULL}'"},
		want: []string{`"a":"infinity","b":"-infinity","c":"-infinity","d":"infinity","e":["infinity"]`,
			`"a":"-4713-11-24T00:00:00","b":"-4713-11-24T00:00:00Z","c":"-4713-11-24T00:00:00","d":"-4713-11-24T00:00:00Z","e":null`,
			`"a":"+294247-01-10T04:00:54.775807","b":"+294276-12-31T23:59:59.999999Z","c":"+294276-12-31T23:59:59.999","d":"+294276-12-31T23:59:59Z","e":null`,
			`"a":"2017-01-01T00:00:00","b":"2021-03-28T01:30:00Z","c":"0001-01-01T00:00:00","d":"2021-10-31T01:30:00Z","e":["2016-11-04T11:51:30.1Z",null]`},
	}.run(t)
}

func TestCase031DatesTimesIntervals(t *testing.T) {
	battery{
		columns: "d date, t time, z timetz, i interval, ia interval[]",
		rows: []string{"'infinity', '24:00:00', '24:00:00+00', '178000000 years', null", "'-infinity', '00:00:00.000001', '12:00+15:59:59', '-178000000 years', '{1 day,NULL}'",
			"'0044-03-15 BC', '23:59:59.999999', '23:59:59.999999-15:59:59', '1 year -2 days +03:04:05.6', null", "'5874897-12-31', '12:00', '00:00:00+05:30', '-1 mon +1 day -00:00:00.000001', null",
			"'4714-11-24 BC', '00:00', '00:00+00', '256204778:00:54.775807', null"},
		want: []string{`"d":"infinity","t":"24:00:00","z":"24:00:00+00","i":"178000000 years","ia":null`, `"d":"-infinity","t":"00:00:00.000001","z":"12:00:00+15:59:59","i":"-178000000 years","ia":["1 day",null]`,
			`"d":"-0043-03-15","t":"23:59:59.999999","z":"23:59:59.999999-15:59:59","i":"1 year -2 days +03:04:05.6","ia":null`, `"d":"+5874897-12-31","t":"12:00:00","z":"00:00:00+05:30","i":"-1 mons +1 day -00:00:00.000001","ia":null`,
			`"d":"-4713-11-24","t":"00:00:00","z":"00:00:00+00","i":"256204778:00:54.775807","ia":null`},
	}.run(t)
}

func TestCase032Text(t *testing.T) {
	battery{
		columns: `t text, v varchar(10), c "char"`,
		rows:    []string{`E'\r\n\t\\ \u0001 "', 'u', 'x'`, `'n', E'\\N', ''`, `'', null, null`, `'😀 e' || chr(769), 'NULL', 'a'`, `null, '', null`},
		want: []string{`"t":"\r\n\t\\ \u0001 \"","v":"u","c":"x"`, `"t":"n","v":"\\N","c":""`, `"t":"","v":null,"c":null`,
			"\"t\":\"😀 e\u0301\",\"v\":\"NULL\",\"c\":\"a\"", `"t":null,"v":"","c":null`},
	}.run(t)
}

func TestCase033Bytea(t *testing.T) {
	battery{
		columns: "b bytea, a bytea[]",
		rows:    []string{`'\x', '{}'`, `'\x00ff', '{"\\x00ff",NULL,"\\x"}'`, `decode(repeat('ab', 1000000), 'hex'), null`},
		want:    []string{`"b":"","a":[]`, `"b":"AP8=","a":["AP8=",null,""]`, ""},
	}.run(t)
}

func TestCase034Documents(t *testing.T) {
	const depth = 6000
	nested := strings.Repeat("[", depth) + strings.Repeat("]", depth)
	battery{
		columns: "j json, b jsonb, a jsonb[]",
		rows: []string{`'{"a" : 1,  "a":[1,2]}', '{"b":[1, 2], "a" : 1.50}', '{"{\"a\": 1}",NULL,"null"}'`, `'null', 'null', null`, `'"<\u00e4>"', '"ä\n"', null`,
			`null, '1e400', null`, "'" + nested + "', '" + nested + "', null"},
		want: []string{`"j":{"a" : 1,  "a":[1,2]},"b":{"a": 1.50, "b": [1, 2]},"a":[{"a": 1},null,null]`, `"j":null,"b":null,"a":null`, `"j":"<\u00e4>","b":"ä\n","a":null`,
			`"j":null,"b":1` + strings.Repeat("0", 400) + `,"a":null`, `"j":` + nested + `,"b":` + nested + `,"a":null`},
	}.run(t)
}

func TestCase035Arrays(t *testing.T) {
	battery{
		setup:   `CREATE TYPE mood AS ENUM ('sad','very "ok"'); CREATE DOMAIN posint AS int CHECK (value > 0); CREATE DOMAIN posarr AS int[]; CREATE TYPE pair AS (x int, y text[])`,
		columns: "i int[], t text[], m mood[], d posint[], da posarr, c pair[], bx box[], bb bool[]",
		rows: []string{`'{NULL,1}', '{"NULL",NULL,"",a,"b c","q\"\\{},"}', '{sad,"very \"ok\""}', '{1,2}', '{1}', array[row(1,'{a,"b c"}')::pair, null], '{(1,1),(0,0);(2,2),(1,1)}', '{t,f}'`,
			`'[5:7]={1,2,3}', '{{a,b},{c,NULL}}', '{}', '{}', '[-1:0]={1,2}', '{}', '{}', '{{{t}},{{f}}}'`},
		want: []string{`"i":[null,1],"t":["NULL",null,"","a","b c","q\"\\{},"],"m":["sad","very \"ok\""],"d":[1,2],"da":[1],"c":[{"x":1,"y":["a","b c"]},null],"bx":["(1,1),(0,0)","(2,2),(1,1)"],"bb":[true,false]`,
			`"i":[1,2,3],"t":[["a","b"],["c",null]],"m":[],"d":[],"da":[1,2],"c":[],"bx":[],"bb":[[[true]],[[false]]]`},
	}.run(t)
}

func TestCase036Composites(t *testing.T) {
	battery{
		setup:   `CREATE TYPE inside AS (n numeric(5,2), t timestamptz); CREATE TYPE point3 AS (x int, y text, z inside)`,
		columns: "c point3, o inside",
		rows:    []string{`row(1, 'a "b", (c) \ d', row(1.5, '2020-01-01 00:00+00'))::point3, null`, `row(null, '', null)::point3, row(null, null)::inside`, `row(-1, null, row(null, 'infinity'))::point3, row(0, null)::inside`},
		want: []string{`"c":{"x":1,"y":"a \"b\", (c) \\ d","z":{"n":1.50,"t":"2020-01-01T00:00:00Z"}},"o":null`,
			`"c":{"x":null,"y":"","z":null},"o":{"n":null,"t":null}`, `"c":{"x":-1,"y":null,"z":{"n":null,"t":"infinity"}},"o":{"n":0.00,"t":null}`},
	}.run(t)
}

func TestCase038Domains(t *testing.T) {
	battery{
		setup: `CREATE TYPE mood AS ENUM ('sad','ok'); CREATE DOMAIN d1 AS mood CHECK (value <> 'sad'); CREATE DOMAIN d2 AS d1;
			CREATE DOMAIN price AS numeric(8,3); CREATE DOMAIN dear AS price CHECK (value > 1); CREATE DOMAIN stamp AS timestamptz(3)`,
		columns: "a d2, b dear, c stamp, e d2[], g price[]",
		rows:    []string{"'ok', 1.5, '2020-01-01 00:00:00.1234+00', '{ok,NULL}', '{1.5}'", "null, null, null, null, null"},
		want:    []string{`"a":"ok","b":1.500,"c":"2020-01-01T00:00:00.123Z","e":["ok",null],"g":[1.500]`, `"a":null,"b":null,"c":null,"e":null,"g":null`},
	}.run(t)
}

func TestCase039Ranges(t *testing.T) {
	battery{
		setup:   `CREATE TYPE floatrange AS RANGE (subtype = float8)`,
		columns: "i int4range, n numrange, z tstzrange, d daterange, f floatrange, m int4multirange",
		rows:    []string{`'empty', '(,)', '[2016-01-01 00:00+00,infinity)', '[2016-01-01,2016-02-01]', '[1.5,2.5)', '{[1,3),[5,8)}'`, `'[1,10]', '[1.50,)', '(,)', '(,2016-01-01)', 'empty', '{}'`},
		want: []string{`"i":"empty","n":"(,)","z":"[\"2016-01-01 00:00:00+00\",infinity)","d":"[2016-01-01,2016-02-02)","f":"[1.5,2.5)","m":"{[1,3),[5,8)}"`,
			`"i":"[1,11)","n":"[1.50,)","z":"(,)","d":"(,2016-01-01)","f":"empty","m":"{}"`},
	}.run(t)
}

func TestCase040Others(t *testing.T) {
	battery{
		columns: "u uuid, i inet, c cidr, m macaddr, m8 macaddr8, b bit(5), v varbit, mo money, x xml, tv tsvector, tq tsquery, p point, pa path, po polygon, ci circle, nm name, ch char(5), bo boolean",
		rows: []string{`'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '192.168.2.100/24', '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05', B'10101', B'', '$1234.11', '<a>b</a>', 'a fat cat', 'fat & cat', '(1.5,-2)', '[(0,0),(1,1)]', '((0,0),(1,0),(1,1))', '<(0,0),1>', 'nm', 'ab', true`,
			`null, '::1', '2001:4f8:3:ba::/64', null, null, null, B'000001', '-$0.01', null, '', '', null, '((0,0),(1,1))', null, null, '', '', false`},
		want: []string{`"u":"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11","i":"192.168.2.100/24","c":"10.0.0.0/8","m":"08:00:2b:01:02:03","m8":"08:00:2b:01:02:03:04:05","b":"10101","v":"","mo":"$1,234.11","x":"<a>b</a>","tv":"'a' 'cat' 'fat'","tq":"'fat' & 'cat'","p":"(1.5,-2)","pa":"[(0,0),(1,1)]","po":"((0,0),(1,0),(1,1))","ci":"<(0,0),1>","nm":"nm","ch":"ab   ","bo":true`,
			`"u":null,"i":"::1","c":"2001:4f8:3:ba::/64","m":null,"m8":null,"b":null,"v":"000001","mo":"-$0.01","x":null,"tv":"","tq":"","p":null,"pa":"((0,0),(1,1))","po":null,"ci":null,"nm":"","ch":"     ","bo":false`},
	}.run(t)
}

func TestCase041Extensions(t *testing.T) {
	battery{
		setup:   `CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE EXTENSION ltree; CREATE EXTENSION isn; CREATE EXTENSION cube`,
		columns: "h hstore, c citext, l ltree, n isbn, q cube, ha hstore[], ca citext[]",
		rows:    []string{`'"key 1"=>"val\"1", k2=>NULL, "\\"=>"ä"', 'CiText', 'a.b.c', '0-393-04002-X', '(1,2)', array['a=>1'::hstore, null], '{Aa,NULL}'`, `'', '', '', null, null, null, null`},
		want: []string{`"h":{"\\":"ä","k2":null,"key 1":"val\"1"},"c":"CiText","l":"a.b.c","n":"0-393-04002-X","q":"(1, 2)","ha":[{"a":"1"},null],"ca":["Aa",null]`,
			`"h":{},"c":"","l":"","n":null,"q":null,"ha":null,"ca":null`},
	}.run(t)
}
