package pipeline_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
	"cdc/internal/pipeline"
)

// 22, 178: logical messages of the configured prefixes stand between the changes,
// once, also across a restart; those of other prefixes are left out.
func TestCase022LogicalMessages(t *testing.T) {
	t.Parallel()
	run := flowWith(t, func(c *pipeline.Config) {
		c.Messages, c.Source.Messages = c.Name+".messages", []string{"ours"}
	}, `CREATE TABLE t(id int PRIMARY KEY, v text)`)
	run.db.Exec(t,
		`BEGIN; SELECT pg_logical_emit_message(false, 'ours', 'one'); SELECT pg_logical_emit_message(true, 'ours', 'never'); ROLLBACK`,
		`BEGIN; INSERT INTO t VALUES (1, 'x'); SELECT pg_logical_emit_message(true, 'ours', 'two'); SELECT pg_logical_emit_message(true, '_cdc.progress', 'theirs');
			INSERT INTO t VALUES (2, 'y'); SELECT pg_logical_emit_message(true, 'ours', 'three'); COMMIT`)
	run.settle()
	run.db.Exec(t, `SELECT pg_logical_emit_message(false, 'ours', 'four')`, `INSERT INTO t VALUES (3, 'z')`)
	run = run.rig.streaming()
	run.settle()
	var got []string
	var last cdc.Position
	for _, rec := range cdctest.Read(t, run.k.Brokers, run.cfg.Messages) {
		p := stamp(t, rec).Position
		if !last.Before(p) {
			t.Errorf("message at %s stands behind %s", p, last)
		}
		last = p
		for _, word := range []string{"b25l", "dHdv", "dGhyZWU=", "Zm91cg==", "bmV2ZXI="} { // base64 of the contents
			if strings.Contains(string(rec.Value), word) {
				got = append(got, word)
			}
		}
	}
	if want := "b25l dHdv dGhyZWU= Zm91cg=="; strings.Join(got, " ") != want {
		t.Errorf("messages: got %v, want %s", got, want)
	}
	run.sameAsTable("t", "id")
}

// 23, 24: transactions whose commit times go back, as those of another origin and
// of a clock that was set back do: the order is that of the log.
func TestCase024CommitTimesGoBack(t *testing.T) {
	t.Parallel()
	run := flowWith(t, func(c *pipeline.Config) { c.Partitions = 1 }, `CREATE TABLE t(id int PRIMARY KEY, v int)`, `INSERT INTO t VALUES (1, 0)`)
	origin := run.db.Name + "_origin"
	run.db.Exec(t, `SELECT pg_replication_origin_create('`+origin+`')`)
	t.Cleanup(func() { run.db.Exec(t, `SELECT pg_replication_origin_drop('`+origin+`')`) })
	var b strings.Builder
	fmt.Fprintf(&b, `SELECT pg_replication_origin_session_setup('%s');`, origin)
	for i, year := range []int{2030, 2020, 2025, 2001} {
		fmt.Fprintf(&b, `BEGIN; SELECT pg_replication_origin_xact_setup('0/%d', '%d-01-01'); UPDATE t SET v = %d; COMMIT;`, i+1, year, i+1)
	}
	run.db.Exec(t, b.String()+`SELECT pg_replication_origin_session_reset()`, `UPDATE t SET v = 5`)
	run.settle()
	run.wantHistory("t", `{"id":1}`, `{"id":1,"v":0}`, `{"id":1,"v":1}`, `{"id":1,"v":2}`, `{"id":1,"v":3}`, `{"id":1,"v":4}`, `{"id":1,"v":5}`)
	run.inOrder(run.topic("t"))
}

// 25, 47: names that must be quoted, from the publication to the topic.
func TestCase025Case047OddNames(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *pipeline.Config) {
		c.Source.Publication = `P,x "we"ird'; --`
		c.Source.Include = []string{"we ird.*"}
	})
	r.db.Exec(t, `CREATE SCHEMA "we ird"`,
		`CREATE TABLE "we ird"."T""a,c"("Id X" int, "ü😀" text, "select" int, PRIMARY KEY ("select", "Id X"))`, `INSERT INTO "we ird"."T""a,c" VALUES (1, 'v', 2)`)
	run := r.streaming()
	r.db.Exec(t, `INSERT INTO "we ird"."T""a,c" VALUES (3, 'w', 4)`, `UPDATE "we ird"."T""a,c" SET "Id X" = 5 WHERE "select" = 2`)
	run.settle()
	got := cdctest.Fold(cdctest.Read(t, r.k.Brokers, r.cfg.Name+".we_ird.T_a_c"))
	want := map[string]string{`{"select":4,"Id X":3}`: `{"Id X":3,"ü😀":"w","select":4}`, `{"select":2,"Id X":5}`: `{"Id X":5,"ü😀":"v","select":2}`}
	if len(got) != len(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for k, v := range want {
		if got[k] != v {
			t.Errorf("key %s: got %s, want %s", k, got[k], v)
		}
	}
}

// 47, 89: two tables whose names become one topic's are refused before anything
// is made.
func TestCase047TopicCollision(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.db.Exec(t, `CREATE TABLE "a b"(id int PRIMARY KEY)`, `CREATE TABLE a_b(id int PRIMARY KEY)`)
	te := r.start().fails("topic-collision")
	for _, name := range []string{"a b", "a_b"} {
		if !strings.Contains(te.Error(), name) {
			t.Errorf("error %q does not name %q", te, name)
		}
	}
	if got := r.k.Topics(t, r.cfg.Name+"."); len(got) != 0 {
		t.Errorf("topics %v were made", got)
	}
}

// 44: generated columns: snapshot and stream agree on what they leave out.
func TestCase044GeneratedColumns(t *testing.T) {
	t.Parallel()
	run := flow(t, `CREATE TABLE t(id int PRIMARY KEY, g int GENERATED ALWAYS AS (id * 2) STORED, i int GENERATED ALWAYS AS IDENTITY, v text)`,
		`INSERT INTO t(id, v) VALUES (1, 'a')`)
	run.db.Exec(t, `INSERT INTO t(id, v) VALUES (2, 'b')`)
	run.settle()
	run.wantValues("t", map[string]string{`{"id":1}`: `{"id":1,"i":1,"v":"a"}`, `{"id":2}`: `{"id":2,"i":2,"v":"b"}`})
}

// 46: a table without columns cannot have a key: it is refused, and the
// application may go on using it.
func TestCase046ZeroColumns(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.db.Exec(t, `CREATE TABLE z()`)
	r.start().fails("unkeyed-table")
	r.db.Exec(t, `INSERT INTO z DEFAULT VALUES`)
}

// 65: parent and child of an inheritance are two tables; no row comes twice.
func TestCase065Inheritance(t *testing.T) {
	t.Parallel()
	run := flow(t, `CREATE TABLE parent(id int PRIMARY KEY, v text)`, `CREATE TABLE child(w int, PRIMARY KEY (id)) INHERITS (parent)`,
		`INSERT INTO parent VALUES (1, 'p')`, `INSERT INTO child VALUES (2, 'c', 20)`)
	run.db.Exec(t, `INSERT INTO parent VALUES (3, 'p')`, `INSERT INTO child VALUES (4, 'c', 40)`, `UPDATE parent SET v = 'both'`)
	run.settle()
	run.sameAsTable("child", "id")
	if got := run.fold("parent"); len(got) != 2 || got[`{"id":1}`] != `{"id":1,"v":"both"}` || got[`{"id":3}`] != `{"id":3,"v":"both"}` {
		t.Errorf("the parent's topic holds %v, want its own rows 1 and 3", got)
	}
}

// 64: what is no table of its own is not captured, also where the publication
// covers everything; a table that comes later waits for the next start.
func TestCase064ForAllTables(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY)`, `CREATE UNLOGGED TABLE u(id int PRIMARY KEY)`, `CREATE MATERIALIZED VIEW m AS SELECT 1 AS id`,
		`CREATE PUBLICATION `+r.cfg.Name+` FOR ALL TABLES WITH (publish_via_partition_root = true)`)
	run := r.streaming()
	conn := r.db.Conn(t)
	for _, sql := range []string{`CREATE TEMP TABLE tmp(id int PRIMARY KEY)`, `INSERT INTO tmp VALUES (1)`, `INSERT INTO u VALUES (1)`, `REFRESH MATERIALIZED VIEW m`,
		`CREATE TABLE later AS SELECT 1 AS id`, `ALTER TABLE later ADD PRIMARY KEY (id)`, `INSERT INTO later VALUES (2)`, `INSERT INTO t VALUES (1)`} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	run.settle()
	r.sameAsTable("t", "id")
	if got := r.k.Topics(t, r.cfg.Name+".public."); len(got) != 1 {
		t.Errorf("topics %v, want that of t", got)
	}
	run = r.streaming()
	run.settle()
	r.sameAsTable("later", "id")
}

// 136: TRUNCATE in the middle of the copy waits for it, and is then honoured.
func TestCase136TruncateDuringSnapshot(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t SELECT i, 'x' FROM generate_series(1, 500) i`)
	conn := r.db.Conn(t)
	done := make(chan error, 1)
	r.cfg.Hook = r.meanwhile(conn, done, `TRUNCATE t; INSERT INTO t VALUES (7, 'after')`)
	run := r.streaming()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	run.settle()
	r.sameAsTable("t", "id")
}

// 136: DROP TABLE in the middle of the copy waits for it too. What was copied
// stays; a new life goes on without the table.
func TestCase136DropDuringSnapshot(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `CREATE TABLE other(id int PRIMARY KEY)`, `INSERT INTO t SELECT i, 'x' FROM generate_series(1, 500) i`)
	conn := r.db.Conn(t)
	done := make(chan error, 1)
	r.cfg.Hook = r.meanwhile(conn, done, `DROP TABLE t`)
	r.cfg.MonitorEvery = 50 * time.Millisecond
	run := r.streaming()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	run.wait("a life without the table", func(s cdc.Status) bool {
		return s.Restarts > 0 && s.State == cdc.StateStreaming && s.Tables == 1
	})
	r.db.Exec(t, `INSERT INTO other VALUES (1)`)
	run.settle()
	r.sameAsTable("other", "id")
	if got := len(r.fold("t")); got != 500 {
		t.Errorf("%d rows in the topic of the table that was dropped, want 500", got)
	}
}

// meanwhile runs sql when the rows of the snapshot were copied, and lets the
// pipeline go on once it waits for the snapshot's lock.
func (r *rig) meanwhile(conn *pgx.Conn, done chan error, sql string) func(string) {
	pid := conn.PgConn().PID()
	return func(point string) {
		if point != "snapshot-rows" {
			return
		}
		go func() {
			_, err := conn.PgConn().Exec(r.t.Context(), sql).ReadAll()
			done <- err
		}()
		for deadline := time.Now().Add(waitLimit); ; {
			select {
			case err := <-done:
				r.t.Errorf("%q did not wait for the snapshot: %v", sql, err)
				done <- err
				return
			default:
			}
			if time.Now().After(deadline) {
				r.t.Errorf("%q neither waits nor ends", sql)
				return
			}
			if r.db.Value(r.t, fmt.Sprintf(`SELECT count(*) FROM pg_locks WHERE pid = %d AND NOT granted`, pid)) != "0" {
				return
			}
		}
	}
}

// 143: keys of every awkward kind, with rows that change and move while they are
// copied. Tables are read by their pages, not by their keys.
func TestCase143Keys(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.db.Exec(t, `CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)`,
		`CREATE TABLE composite(a int, b text, v int, PRIMARY KEY (b, a))`, `INSERT INTO composite SELECT i, 'b' || i % 7, 0 FROM generate_series(1, 2000) i`,
		`CREATE TABLE uu(id uuid PRIMARY KEY, v int)`, `INSERT INTO uu SELECT md5(i::text)::uuid, 0 FROM generate_series(1, 2000) i`,
		`CREATE TABLE icu(id text COLLATE ci PRIMARY KEY, v int)`, `INSERT INTO icu SELECT 'Ключ ' || i, 0 FROM generate_series(1, 2000) i`,
		`CREATE TABLE fl(id float8 PRIMARY KEY, v int)`, `INSERT INTO fl VALUES ('NaN', 0), ('Infinity', 0), ('-Infinity', 0), (0.1, 0), (-1.5, 0)`,
		`CREATE TABLE ts(id timestamp PRIMARY KEY, v int)`, `INSERT INTO ts VALUES ('2024-02-29 12:00:00.000001', 0), ('0001-01-01', 0)`)
	conn := r.db.Conn(t)
	ctx := t.Context()
	r.cfg.Hook = func(point string) {
		if point != "snapshot-rows" && point != "snapshot-begin" {
			return
		}
		if _, err := conn.Exec(ctx, `UPDATE composite SET a = a + 10000 WHERE a % 3 = 0; UPDATE composite SET v = v + 1 WHERE a % 5 = 0;
			DELETE FROM uu WHERE id::text > 'f'; UPDATE uu SET id = md5(id::text)::uuid WHERE id::text < '2'; UPDATE icu SET id = upper(id) WHERE id LIKE '%1' COLLATE "C";
			UPDATE fl SET v = v + 1 WHERE id = 'NaN'; DELETE FROM fl WHERE id = 0.1; UPDATE ts SET v = v + 1`); err != nil {
			t.Error(err)
		}
	}
	run := r.streaming()
	run.settle()
	r.sameAsTable("composite", "b", "a")
	r.sameAsTable("uu", "id")
	r.sameAsTable("icu", "id")
	if got := r.fold("fl"); len(got) != 4 || got[`{"id":"NaN"}`] != `{"id":"NaN","v":2}` {
		t.Errorf("floats: got %v", got)
	}
	r.sameAsTable("ts", "id")
}

// 144, 145: an empty table, one row; partitions through their root.
func TestCase144Case145Shapes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.db.Exec(t, `CREATE TABLE empty(id int PRIMARY KEY)`, `CREATE TABLE one(id int PRIMARY KEY)`, `INSERT INTO one VALUES (1)`,
		`CREATE TABLE p(id int PRIMARY KEY, v text) PARTITION BY HASH (id)`,
		`DO $$ BEGIN FOR i IN 0..19 LOOP EXECUTE format('CREATE TABLE p%s PARTITION OF p FOR VALUES WITH (MODULUS 20, REMAINDER %s)', i, i); END LOOP; END $$`,
		`INSERT INTO p SELECT i, 'x' FROM generate_series(1, 400) i`)
	run := r.streaming()
	r.db.Exec(t, `INSERT INTO empty VALUES (5)`, `DELETE FROM one`, `UPDATE p SET v = 'y' WHERE id % 7 = 0`)
	run.settle()
	for _, table := range []string{"empty", "one", "p"} {
		r.sameAsTable(table, "id")
	}
	if got := r.k.Topics(t, r.cfg.Name+".public."); len(got) != 3 {
		t.Errorf("topics %v, want one for each of three tables", got)
	}
}
