package pipeline_test

import (
	"fmt"
	"strings"
	"testing"

	"cdc/internal/cdc"
	"cdc/internal/pipeline"
)

// 49: rows written before a column was added keep their form in the topic, which
// is said; from then on every row has it, and a row that is touched is whole.
func TestCase049AddColumn(t *testing.T) {
	t.Parallel()
	var log logbook
	run := flowWith(t, log.into, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t VALUES (1, 'old')`)
	run.db.Exec(t, `ALTER TABLE t ADD c int DEFAULT 7`, `INSERT INTO t VALUES (2, 'new')`,
		`ALTER TABLE t ADD u uuid DEFAULT gen_random_uuid()`, // volatile: the table is rewritten
		`INSERT INTO t VALUES (3, 'newer')`)
	run.caughtUp()
	run.wantValues("t", map[string]string{`{"id":1}`: `{"id":1,"v":"old"}`, `{"id":2}`: `{"id":2,"v":"new","c":7}`})
	for _, column := range []string{"column=c", "column=u"} {
		if !strings.Contains(log.String(), column) {
			t.Errorf("the log says nothing of the rewrite by %s", column)
		}
	}
	run.db.Exec(t, `UPDATE t SET v = v`)
	run.settle()
	run.sameAsTable("t", "id")
}

// 50: a column dropped and made again with another type, in transactions of its
// own and within one.
func TestCase050DropAndAddAgain(t *testing.T) {
	t.Parallel()
	run := flow(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`)
	run.db.Exec(t, `INSERT INTO t VALUES (1, 'text')`, `ALTER TABLE t DROP v`, `INSERT INTO t VALUES (2)`,
		`ALTER TABLE t ADD v int`, `INSERT INTO t VALUES (3, 30)`,
		`BEGIN; INSERT INTO t VALUES (4, 40); ALTER TABLE t DROP v; ALTER TABLE t ADD v boolean; INSERT INTO t VALUES (5, true);
			ALTER TABLE t DROP v; INSERT INTO t VALUES (6); ALTER TABLE t ADD v date; INSERT INTO t VALUES (7, '2024-02-29'); COMMIT`)
	run.settle()
	run.wantValues("t", map[string]string{
		`{"id":1}`: `{"id":1,"v":"text"}`, `{"id":2}`: `{"id":2}`, `{"id":3}`: `{"id":3,"v":30}`, `{"id":4}`: `{"id":4,"v":40}`,
		`{"id":5}`: `{"id":5,"v":true}`, `{"id":6}`: `{"id":6}`, `{"id":7}`: `{"id":7,"v":"2024-02-29"}`,
	})
}

// 51: the stream follows a table through its names; topics go by name, so the
// new one begins at the next start, with a copy.
func TestCase051Renamed(t *testing.T) {
	t.Parallel()
	run := flow(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t VALUES (1, 'a')`)
	run.db.Exec(t, `ALTER TABLE t RENAME v TO w`, `INSERT INTO t VALUES (2, 'b')`, `ALTER TABLE t RENAME TO t2`,
		`INSERT INTO t2 VALUES (3, 'c')`, `DELETE FROM t2 WHERE id = 1`)
	run.settle()
	run.wantValues("t", map[string]string{`{"id":1}`: "", `{"id":2}`: `{"id":2,"w":"b"}`, `{"id":3}`: `{"id":3,"w":"c"}`})
	run.db.Exec(t, `INSERT INTO t2 VALUES (4, 'd')`)
	before := len(run.records("t"))
	run = run.rig.streaming()
	run.db.Exec(t, `UPDATE t2 SET w = 'e' WHERE id = 2`)
	run.settle()
	run.sameAsTable("t2", "id")
	if now := len(run.records("t")); now != before {
		t.Errorf("%d records went to the old name's topic behind the new one", now-before)
	}
}

// 51, 82: a key column is renamed: the key's bytes change with it, so the table is
// copied under the new one.
func TestCase051KeyColumnRenamed(t *testing.T) {
	t.Parallel()
	run := flow(t, `CREATE TABLE t(b int, a text, v text, PRIMARY KEY (a, b))`, `INSERT INTO t VALUES (1, 'x', 'v'), (2, 'x', 'v')`)
	if got := run.fold("t")[`{"a":"x","b":1}`]; got == "" {
		t.Errorf("the key is not in the order of the primary key: %v", run.fold("t"))
	}
	run.db.Exec(t, `ALTER TABLE t RENAME a TO z`, `INSERT INTO t VALUES (3, 'y', 'w')`)
	run.fails("key-changed")
	run = run.rig.streaming()
	run.db.Exec(t, `DELETE FROM t WHERE b = 1`)
	run.settle()
	run.sameAsTable("t", "z", "b")
}

// 52: types change with and without a rewrite, which sends no rows and is said.
func TestCase052AlterType(t *testing.T) {
	t.Parallel()
	var log logbook
	run := flowWith(t, log.into, `CREATE TABLE t(id int PRIMARY KEY, n int, s text, c varchar(5))`, `INSERT INTO t VALUES (1, 1, '10', 'a')`)
	run.db.Exec(t, `ALTER TABLE t ALTER n TYPE bigint`, `INSERT INTO t VALUES (2, 9007199254740993, '20', 'b')`,
		`ALTER TABLE t ALTER s TYPE int USING s::int`, `INSERT INTO t VALUES (3, 3, 30, 'c')`,
		`ALTER TABLE t ALTER c TYPE varchar(50)`, `INSERT INTO t VALUES (4, 4, 40, 'longer than five')`)
	run.caughtUp()
	run.wantValues("t", map[string]string{
		`{"id":1}`: `{"id":1,"n":1,"s":"10","c":"a"}`, `{"id":2}`: `{"id":2,"n":9007199254740993,"s":"20","c":"b"}`,
		`{"id":3}`: `{"id":3,"n":3,"s":30,"c":"c"}`, `{"id":4}`: `{"id":4,"n":4,"s":40,"c":"longer than five"}`,
	})
	for _, column := range []string{"column=n", "column=s"} {
		if !strings.Contains(log.String(), column) {
			t.Errorf("the log says nothing of the rewrite of %s", column)
		}
	}
	run.db.Exec(t, `UPDATE t SET id = id`)
	run.settle()
	run.sameAsTable("t", "id")
}

// 52: the type of the key changes; its bytes in JSON do not.
func TestCase052KeyType(t *testing.T) {
	t.Parallel()
	run := flow(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t VALUES (1, 'a'), (2, 'b')`)
	run.db.Exec(t, `ALTER TABLE t ALTER id TYPE bigint`, `UPDATE t SET v = 'c' WHERE id = 1`, `DELETE FROM t WHERE id = 2`, `INSERT INTO t VALUES (5000000000, 'd')`)
	run.settle()
	run.sameAsTable("t", "id")
}

// 54: what a rolled-back savepoint did to the table is not seen.
func TestCase054DDLRolledBack(t *testing.T) {
	t.Parallel()
	run := flow(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`)
	run.db.Exec(t, `BEGIN; INSERT INTO t VALUES (1, 'a'); SAVEPOINT s; ALTER TABLE t ADD n int; ALTER TABLE t DROP v; INSERT INTO t VALUES (9, 9);
		ROLLBACK TO s; INSERT INTO t VALUES (2, 'b'); COMMIT`, `INSERT INTO t VALUES (3, 'c')`)
	run.settle()
	run.sameAsTable("t", "id")
	run.wantHistory("t", `{"id":9}`)
}

// 55: a table is dropped and made again, under the same key, while the service is
// down; what happened to the old one is still in the stream.
func TestCase055TableMadeAgain(t *testing.T) {
	t.Parallel()
	run := flow(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t SELECT i, 'first' FROM generate_series(1, 50) i`)
	run.settle()
	run.db.Exec(t, `UPDATE t SET v = 'unseen'`, `INSERT INTO t VALUES (51, 'unseen')`, `DROP TABLE t`,
		`CREATE TABLE t(id int PRIMARY KEY, w int)`, `INSERT INTO t SELECT i, i FROM generate_series(40, 60) i`)
	run = run.rig.streaming()
	run.db.Exec(t, `DELETE FROM t WHERE id = 60`, `UPDATE t SET w = 0 WHERE id = 40`)
	run.settle()
	run.sameAsTable("t", "id")
	for _, rec := range run.records("t") {
		if strings.Contains(string(rec.Value), "unseen") {
			t.Fatalf("a row of the old table went to the topic behind the new one: %s", rec.Value)
		}
	}
}

// 57: the replica identity changes under traffic. Where it no longer holds the
// key the pipeline stops before it writes anything by a wrong one.
func TestCase057ReplicaIdentityUnderTraffic(t *testing.T) {
	t.Parallel()
	run := flow(t, `CREATE TABLE t(id int PRIMARY KEY, code text NOT NULL UNIQUE, n int)`, `INSERT INTO t SELECT i, 'c' || i, 0 FROM generate_series(1, 10) i`)
	touch := []string{`UPDATE t SET n = n + 1`, `UPDATE t SET id = id + 100 WHERE id = (SELECT min(id) FROM t)`, `DELETE FROM t WHERE id = (SELECT max(id) FROM t WHERE id < 100)`}
	run.db.Exec(t, touch...)
	for _, identity := range []string{"FULL", "USING INDEX t_pkey", "DEFAULT"} {
		run.db.Exec(t, append([]string{"ALTER TABLE t REPLICA IDENTITY " + identity}, touch...)...)
	}
	run.caughtUp()
	run.sameAsTable("t", "id")
	before := len(run.records("t"))
	run.db.Exec(t, `ALTER TABLE t REPLICA IDENTITY USING INDEX t_code_key`, `DELETE FROM t WHERE id = (SELECT max(id) FROM t)`)
	run.fails("key-changed")
	if now := len(run.records("t")); now != before {
		t.Errorf("%d records were written by a key that the identity does not hold", now-before)
	}
	run.rig.start().fails("key-outside-identity")
}

// 58: the index of the replica identity is gone: the application's own updates
// fail, inserts go on; the next start names it.
func TestCase058IdentityIndexDropped(t *testing.T) {
	t.Parallel()
	run := flow(t, `CREATE TABLE t(id int NOT NULL, v text)`, `CREATE UNIQUE INDEX i ON t(id)`, `ALTER TABLE t ADD PRIMARY KEY USING INDEX i`,
		`CREATE UNIQUE INDEX j ON t(id)`, `ALTER TABLE t REPLICA IDENTITY USING INDEX j`, `INSERT INTO t VALUES (1, 'a')`)
	run.db.Exec(t, `UPDATE t SET v = 'b'`)
	run.caughtUp()
	run.sameAsTable("t", "id")
	run.db.Exec(t, `DROP INDEX j`)
	if _, err := run.db.Conn(t).Exec(t.Context(), `UPDATE t SET v = 'c'`); err == nil {
		t.Fatal("the update went through: Postgres needs no identity for it any more")
	}
	run.finish()
	te := run.rig.start().fails("key-outside-identity")
	run.db.Exec(t, te.Mend, `UPDATE t SET v = 'd'`)
	run = run.rig.streaming()
	run.settle()
	run.sameAsTable("t", "id")
}

// 59: what is written while a table is unlogged is in no log. A logged table in a
// publication cannot be made unlogged behind our back.
func TestCase059Unlogged(t *testing.T) {
	t.Parallel()
	run := flow(t, `CREATE TABLE t(id int PRIMARY KEY)`, `INSERT INTO t VALUES (1)`)
	conn := run.db.Conn(t)
	_, err := conn.Exec(t.Context(), `ALTER TABLE t SET UNLOGGED`)
	if err == nil { // it is possible up to some version: then the pipeline says so at its next start
		run.db.Exec(t, `INSERT INTO t VALUES (2)`)
		run.finish()
		run.rig.start().fails("table-pattern")
		run.db.Exec(t, `ALTER TABLE t SET LOGGED`)
		return
	}
	t.Logf("refused by Postgres: %v", err)
	run.db.Exec(t, `INSERT INTO t VALUES (2)`)
	run.settle()
	run.sameAsTable("t", "id")
}

// 60: VACUUM FULL, CLUSTER and REINDEX move every row and change none.
func TestCase060Rewrites(t *testing.T) {
	t.Parallel()
	run := flow(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t SELECT i, 'x' FROM generate_series(1, 200) i`)
	run.db.Exec(t, `DELETE FROM t WHERE id % 2 = 0`)
	run.caughtUp()
	before := len(run.records("t"))
	run.db.Exec(t, `VACUUM FULL t`, `CLUSTER t USING t_pkey`, `REINDEX TABLE t`, `VACUUM ANALYZE t`)
	run.caughtUp()
	if now := len(run.records("t")); now != before {
		t.Errorf("%d records for rows that were only moved", now-before)
	}
	run.db.Exec(t, `UPDATE t SET v = 'y' WHERE id < 50`, `DELETE FROM t WHERE id = 99`)
	run.settle()
	run.sameAsTable("t", "id")
}

// 61: leaves come and go, with another column order and dropped columns. An
// attached leaf brings rows, and a detached one takes them, without an event.
func TestCase061PartitionsComeAndGo(t *testing.T) {
	t.Parallel()
	run := flow(t, `CREATE TABLE p(id int, region text, v text, PRIMARY KEY (id, region)) PARTITION BY LIST (region)`,
		`CREATE TABLE p_eu PARTITION OF p FOR VALUES IN ('eu')`, `INSERT INTO p VALUES (1, 'eu', 'a')`)
	run.db.Exec(t, `CREATE TABLE p_us(gone int, v text, region text NOT NULL, id int NOT NULL, PRIMARY KEY (id, region))`, `ALTER TABLE p_us DROP gone`,
		`ALTER TABLE p ATTACH PARTITION p_us FOR VALUES IN ('us')`,
		`INSERT INTO p VALUES (2, 'us', 'b'), (3, 'eu', 'c')`, `UPDATE p SET v = 'd' WHERE id = 2`, `UPDATE p SET id = 4 WHERE id = 2`,
		`CREATE TABLE p_asia PARTITION OF p FOR VALUES IN ('asia')`, `INSERT INTO p VALUES (5, 'asia', 'e')`)
	run.caughtUp()
	run.sameAsTable("p", "id", "region")
	run.db.Exec(t, `DELETE FROM p WHERE region = 'asia'`, `DROP TABLE p_asia`, `INSERT INTO p VALUES (6, 'us', 'f')`)
	run.caughtUp()
	run.sameAsTable("p", "id", "region")
	// Detached with its rows: they stay in the topic, as documented for what
	// happens to a table without row events.
	run.db.Exec(t, `ALTER TABLE p DETACH PARTITION p_eu`, `INSERT INTO p VALUES (7, 'us', 'g')`)
	run.settle()
	run.wantValues("p", map[string]string{`{"id":1,"region":"eu"}`: `{"id":1,"region":"eu","v":"a"}`, `{"id":7,"region":"us"}`: `{"id":7,"region":"us","v":"g"}`})
	if got := run.k.Topics(t, run.cfg.Name+".public."); len(got) != 1 {
		t.Fatalf("topics %v, want the root's alone", got)
	}
}

// 63: TRUNCATE of a root, of a leaf under it, and in cascade.
func TestCase063Truncate(t *testing.T) {
	t.Parallel()
	run := flow(t, `CREATE TABLE p(id serial, region text, PRIMARY KEY (id, region)) PARTITION BY LIST (region)`,
		`CREATE TABLE p_eu PARTITION OF p FOR VALUES IN ('eu')`, `CREATE TABLE p_us PARTITION OF p FOR VALUES IN ('us')`,
		`CREATE TABLE a(id int PRIMARY KEY)`, `CREATE TABLE b(id int PRIMARY KEY, a int REFERENCES a)`,
		`INSERT INTO p(region) VALUES ('eu'), ('us'), ('us')`, `INSERT INTO a VALUES (1), (2)`, `INSERT INTO b VALUES (1, 1), (2, 2)`)
	run.db.Exec(t, `TRUNCATE a CASCADE`, `INSERT INTO a VALUES (2)`, `TRUNCATE p RESTART IDENTITY`, `INSERT INTO p(region) VALUES ('us')`)
	run.caughtUp()
	for table, keys := range map[string][]string{"a": {"id"}, "b": {"id"}, "p": {"id", "region"}} {
		run.sameAsTable(table, keys...)
	}
	// Postgres tells nobody of the TRUNCATE of one leaf where leaves are published
	// through their root (pgoutput_truncate): its rows stay, as documented.
	run.db.Exec(t, `INSERT INTO p(region) VALUES ('eu')`, `TRUNCATE p_eu`)
	run.settle()
	run.wantValues("p", map[string]string{`{"id":1,"region":"us"}`: `{"id":1,"region":"us"}`, `{"id":2,"region":"eu"}`: `{"id":2,"region":"eu"}`})
}

// 66: a thousand changes of tables in one transaction, beside a transaction that
// is open all the while.
func TestCase066ManyDDLs(t *testing.T) {
	t.Parallel()
	run := flow(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`)
	open := run.db.Conn(t)
	if _, err := open.Exec(t.Context(), `BEGIN; INSERT INTO t VALUES (0, 'open')`); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("BEGIN;")
	for i := range 500 {
		fmt.Fprintf(&b, "CREATE TEMP TABLE x%[1]d(a int); DROP TABLE x%[1]d;", i)
	}
	b.WriteString("INSERT INTO t VALUES (1, 'behind'); COMMIT")
	run.db.Exec(t, b.String(), `INSERT INTO t VALUES (2, 'later')`)
	run.caughtUp()
	if _, err := open.Exec(t.Context(), `COMMIT`); err != nil {
		t.Fatal(err)
	}
	run.settle()
	run.sameAsTable("t", "id")
	if s := run.p.Status(); s.Restarts != 0 {
		t.Errorf("%d restarts: %s", s.Restarts, s.Error)
	}
}

// 68: the publication went away and came back while the service was down. Up to
// version 17 Postgres cannot decode what lies between, and says so anew at every
// attempt; from 18 on it warns and leaves it out. Both are terminal here: neither
// a loop of attempts nor a gap.
func TestCase068PublicationYoungerThanSlot(t *testing.T) {
	t.Parallel()
	run := flow(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t VALUES (1, 'a')`)
	run.settle()
	name := run.cfg.Name
	run.db.Exec(t, `DROP PUBLICATION `+name, `INSERT INTO t VALUES (2, 'b')`)
	run.rig.start().fails("publication-missing")
	run.db.Exec(t, `CREATE PUBLICATION `+name+` FOR TABLE t WITH (publish_via_partition_root = true)`)
	run.rig.start().fails("publication-missing")
	// What its advice comes to: begin again.
	if err := pipeline.Drop(t.Context(), run.cfg); err != nil {
		t.Fatal(err)
	}
	run = run.rig.streaming()
	run.settle()
	run.sameAsTable("t", "id")
}

// 69: only the pipeline's own publication is asked for, so another one with other
// columns of the same table does not contradict it.
func TestCase069TwoColumnLists(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if r.db.Value(t, `SELECT current_setting('server_version_num')::int >= 150000`) != "t" {
		t.Skip("column lists need PostgreSQL 15")
	}
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text, secret text)`, `INSERT INTO t VALUES (1, 'a', 's')`,
		`CREATE PUBLICATION `+r.cfg.Name+` FOR TABLE t (id, v)`, `CREATE PUBLICATION other FOR TABLE t (id, secret)`)
	run := r.streaming()
	r.db.Exec(t, `INSERT INTO t VALUES (2, 'b', 's')`, `UPDATE t SET secret = 'other'`)
	run.settle()
	for _, rec := range r.records("t") {
		if strings.Contains(string(rec.Value), "secret") {
			t.Fatalf("a column outside the list is in the topic: %s", rec.Value)
		}
	}
	r.wantValues("t", map[string]string{`{"id":1}`: `{"id":1,"v":"a"}`, `{"id":2}`: `{"id":2,"v":"b"}`})
}

// 51, 52: a large value that an update left alone, in a column that has another
// name or type when the update is read: it is read back by its place, or left out
// and said so.
func TestCase051Case052UnchangedToast(t *testing.T) {
	t.Parallel()
	run := flow(t, `CREATE TABLE t(id int PRIMARY KEY, big text, n int)`, `ALTER TABLE t ALTER big SET STORAGE EXTERNAL`,
		`INSERT INTO t SELECT i, repeat(i::text, 5000), 0 FROM generate_series(1, 3) i`)
	run.settle()
	run.db.Exec(t, `UPDATE t SET n = 1 WHERE id = 1`, `ALTER TABLE t RENAME big TO large`, `UPDATE t SET n = 2 WHERE id = 2`,
		`ALTER TABLE t ALTER large TYPE bytea USING convert_to(large, 'UTF8')`, `UPDATE t SET n = 3 WHERE id = 3`, `ALTER TABLE t RENAME n TO m`)
	run = run.rig.streaming()
	run.caughtUp()
	for _, rec := range run.records("t") {
		said, _ := rec.Header("incomplete")
		whole := strings.Contains(string(rec.Value), `"big":`) || strings.Contains(string(rec.Value), `"large":`)
		if whole == (len(said) > 0) {
			t.Errorf("record %.60s: header incomplete is %q", rec.Value, said)
		}
	}
	run.db.Exec(t, `UPDATE t SET m = 9`)
	run.settle()
}

// 57: once the replica identity holds the key again the pipeline goes on, although
// rows under the other one still lie in its way.
func TestCase057IdentityMended(t *testing.T) {
	t.Parallel()
	run := flow(t, `CREATE TABLE t(id int PRIMARY KEY, code text NOT NULL UNIQUE)`, `INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')`)
	run.db.Exec(t, `ALTER TABLE t REPLICA IDENTITY USING INDEX t_code_key`, `DELETE FROM t WHERE id = 1`, `UPDATE t SET id = 20 WHERE id = 2`)
	run.fails("key-changed")
	te := run.rig.start().fails("key-outside-identity")
	run.db.Exec(t, te.Mend, `UPDATE t SET code = 'd' WHERE id = 3`)
	run = run.rig.streaming()
	run.settle()
	run.sameAsTable("t", "id")
}

// 55: a table is dropped and made again while the service runs, under a
// publication that covers it at once. It is noticed at the first row, and copied.
func TestCase055MadeAgainWhileRunning(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t VALUES (1, 'old'), (2, 'old')`,
		`CREATE PUBLICATION `+r.cfg.Name+` FOR ALL TABLES WITH (publish_via_partition_root = true)`)
	run := r.streaming()
	r.db.Exec(t, `UPDATE t SET v = 'older'`, `DROP TABLE t`, `CREATE TABLE t(id int PRIMARY KEY, w int)`, `INSERT INTO t VALUES (2, 2), (3, 3)`)
	run.wait("the copy of the new table", func(s cdc.Status) bool { return s.Restarts == 1 && s.State == cdc.StateStreaming })
	r.db.Exec(t, `UPDATE t SET w = 20 WHERE id = 2`)
	run.settle()
	r.sameAsTable("t", "id")
	if s := run.p.Status(); s.Restarts != 1 {
		t.Errorf("%d restarts, want one: %s", s.Restarts, s.Error)
	}
}

// 56: the primary key is gone for a while and comes back as it was, with rows
// written in between, while the service is down.
func TestCase056KeyGoneAndBack(t *testing.T) {
	t.Parallel()
	run := flow(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t VALUES (1, 'a'), (2, 'b')`)
	run.settle()
	run.db.Exec(t, `DELETE FROM t WHERE id = 1`, `ALTER TABLE t DROP CONSTRAINT t_pkey`, `INSERT INTO t VALUES (3, 'c')`, `ALTER TABLE t ADD PRIMARY KEY (id)`, `INSERT INTO t VALUES (4, 'd')`)
	run.rig.start().fails("key-changed")
	run = run.rig.streaming()
	run.db.Exec(t, `UPDATE t SET v = 'e'`)
	run.settle()
	run.sameAsTable("t", "id")
}
