package pipeline_test

import (
	"fmt"
	"testing"
)

// 75, 81: a value that was left alone is read back by the key, whatever its type:
// what the stream says of a key must find the row again.
func TestCase075ReadBackByEveryKey(t *testing.T) {
	t.Parallel()
	keys := []struct{ kind, value string }{
		{"bigint", `-9223372036854775808`}, {"numeric", `1.00`}, {"numeric(10,3)", `-0.5`}, {"float8", `'-0'`}, {"float8", `'NaN'`}, {"real", `0.1`},
		{"text", `E'it''s \\ \t"ü😀"'`}, {"text", `''`}, {"char(5)", `'ab'`}, {"\"char\"", `'x'`}, {"name", `'a name'`}, {"varchar(20)", `'NULL'`},
		{"text COLLATE ci", `'KeY'`}, {"bytea", `'\x00ff5c'`}, {"bool", `false`}, {"uuid", `'00000000-0000-0000-0000-00000000000a'`},
		{"date", `'infinity'`}, {"date", `'0044-03-15 BC'`}, {"timestamptz", `'2024-03-31 02:30:00.000001+02'`}, {"timestamp", `'-infinity'`}, {"time", `'24:00'`}, {"timetz", `'12:00:00+15:59:59'`},
		{"interval", `'1 mon -2 days 03:00'`}, {"inet", `'10.0.0.1/8'`}, {"macaddr", `'08:00:2b:01:02:03'`}, {"bit(3)", `B'101'`}, {"varbit", `B'0'`},
		{"mood", `'so so'`}, {"positive", `7`}, {"pair", `'(1,"a ""b"" ,c")'`}, {"int[]", `'{1,NULL,3}'`}, {"text[]", `ARRAY['NULL', 'a,"b', '']`}, {"int4range", `'[1,5)'`}, {"jsonb", `'{"a": [1, null]}'`},
		{"money", `12.50`}, {"pg_lsn", `'FF/1'`}, {"oid", `4294967295`}, {"tsvector", `'a:1 b:2'`},
	}
	ddl := []string{`CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)`,
		`CREATE TYPE mood AS ENUM ('so so')`, `CREATE DOMAIN positive AS int CHECK (VALUE > 0)`, `CREATE TYPE pair AS (x int, y text)`,
		`ALTER DATABASE ` + "%s" + ` SET datestyle = 'SQL, DMY'`, `ALTER DATABASE ` + "%[1]s" + ` SET timezone = 'Asia/Kolkata'`, `ALTER DATABASE ` + "%[1]s" + ` SET bytea_output = 'escape'`}
	r := newRig(t)
	for i, sql := range ddl {
		if i >= 4 {
			ddl[i] = fmt.Sprintf(sql, r.db.Name)
		}
	}
	r.db.Exec(t, ddl...)
	for i, k := range keys {
		r.db.Exec(t, fmt.Sprintf(`CREATE TABLE t%d("K ""e""y" %s PRIMARY KEY, gone int, "Big" text, n int)`, i, k.kind), fmt.Sprintf(`ALTER TABLE t%d ALTER "Big" SET STORAGE EXTERNAL`, i),
			fmt.Sprintf(`ALTER TABLE t%d DROP gone`, i), fmt.Sprintf(`INSERT INTO t%d VALUES (%s, repeat('b', 5000), 0)`, i, k.value))
	}
	r.db.Exec(t, `CREATE TABLE p(id int, region text, big text, n int, PRIMARY KEY (region, id)) PARTITION BY LIST (region)`, `CREATE TABLE p_eu PARTITION OF p FOR VALUES IN ('eu')`,
		`CREATE TABLE p_us(n int, big text, id int NOT NULL, region text NOT NULL)`, `ALTER TABLE p ATTACH PARTITION p_us FOR VALUES IN ('us')`,
		`ALTER TABLE p_eu ALTER big SET STORAGE EXTERNAL`, `ALTER TABLE p_us ALTER big SET STORAGE EXTERNAL`,
		`INSERT INTO p VALUES (1, 'eu', repeat('e', 5000), 0), (2, 'us', repeat('u', 5000), 0)`)
	run := r.streaming()
	for i := range keys {
		r.db.Exec(t, fmt.Sprintf(`UPDATE t%d SET n = 1`, i))
	}
	r.db.Exec(t, `UPDATE p SET n = 1`, `UPDATE p SET region = 'us', n = 2 WHERE id = 1`, `UPDATE p SET n = 3`)
	run.settle()
	for i, k := range keys {
		records := r.records(fmt.Sprintf("t%d", i))
		if len(records) != 2 {
			t.Errorf("key %s %s: %d records, want the copy and the update", k.kind, k.value, len(records))
			continue
		}
		if string(records[0].Key) != string(records[1].Key) {
			t.Errorf("key %s %s: the copy has the key %s, the stream %s", k.kind, k.value, records[0].Key, records[1].Key)
		}
		if h, said := records[1].Header("incomplete"); said {
			t.Errorf("key %s %s: the row was not found, the record lacks %s", k.kind, k.value, h)
		}
	}
	r.sameAsTable("p", "region", "id")
	if got := run.p.Status().Rereads; got < uint64(len(keys)) {
		t.Errorf("%d values were read back, want one for each of %d keys and more", got, len(keys))
	}
}
