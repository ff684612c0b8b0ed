package pipeline_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
	"cdc/internal/pipeline"
)

// 91: nothing of what was rolled back, also from more subtransactions than a
// backend keeps in memory (64), and from a loop of exceptions.
func TestCase091RolledBack(t *testing.T) {
	t.Parallel()
	run := flow(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`)
	var b strings.Builder
	b.WriteString("BEGIN;")
	for i := range 80 {
		fmt.Fprintf(&b, "SAVEPOINT s%[1]d; INSERT INTO t VALUES (%[1]d, 'nested');", i)
	}
	b.WriteString("ROLLBACK TO s70; INSERT INTO t VALUES (1000, 'after'); COMMIT")
	run.db.Exec(t, `BEGIN; INSERT INTO t VALUES (2000, 'gone'); ROLLBACK`, b.String(),
		`DO $$ BEGIN FOR i IN 1..2000 LOOP BEGIN
			INSERT INTO t VALUES (10000 + i, 'x'); IF i % 2 = 0 THEN RAISE EXCEPTION 'no'; END IF;
		EXCEPTION WHEN OTHERS THEN NULL; END; END LOOP; END $$`)
	run.settle()
	run.sameAsTable("t", "id")
	if got, want := len(run.records("t")), 70+1+1000; got != want {
		t.Errorf("%d records, want %d", got, want)
	}
}

// 94: a transaction that stays open while the service stops, is killed and starts
// again is delivered once, as a whole.
func TestCase094OpenAcrossRestarts(t *testing.T) {
	t.Parallel()
	run := flow(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`)
	open := run.db.Conn(t)
	exec := func(sql string) {
		t.Helper()
		if _, err := open.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	exec(`BEGIN; INSERT INTO t SELECT i, 'first' FROM generate_series(1, 100) i`)
	run.db.Exec(t, `INSERT INTO t VALUES (1001, 'beside')`)
	run.settle()
	exec(`INSERT INTO t SELECT i, 'second' FROM generate_series(101, 200) i`)
	run.db.Exec(t, `INSERT INTO t VALUES (1002, 'beside')`)
	run.rig.spawn("produce-after", 1).Killed(t, "produce-after")
	run = run.rig.streaming()
	exec(`UPDATE t SET v = 'third' WHERE id = 150; COMMIT`)
	run.settle()
	run.sameAsTable("t", "id")
	run.inOrder(run.topic("t"))
	if got, want := len(run.records("t")), 200+1+2; got != want {
		t.Errorf("%d records, want %d", got, want)
	}
}

// 96: a transaction that the server has to spill to disk while it decodes.
func TestCase096Spilled(t *testing.T) {
	t.Parallel()
	const rows = 30_000
	r := newRig(t)
	r.db.Exec(t, `ALTER DATABASE `+r.db.Name+` SET logical_decoding_work_mem = '64kB'`, `CREATE TABLE t(id int PRIMARY KEY, v text)`)
	run := r.streaming()
	r.db.Exec(t, fmt.Sprintf(`INSERT INTO t SELECT i, repeat('x', 50) FROM generate_series(1, %d) i`, rows), `INSERT INTO t VALUES (0, 'behind')`)
	run.settle()
	if got := len(r.records("t")); got != rows+1 {
		t.Errorf("%d records, want %d", got, rows+1)
	}
	r.inOrder(r.topic("t"))
	if got := r.db.Value(t, `SELECT spill_txns > 0 FROM pg_stat_replication_slots WHERE slot_name = '`+r.cfg.Name+`'`); got != "t" {
		t.Error("the server spilled nothing: the test shows nothing")
	}
}

// 97: however long a transaction of the source takes, no transaction of Kafka is
// open meanwhile that could time out: the only one is the empty one of the
// take-over, and it is complete before the first row is sent.
func TestCase097NoTransactionIsOpen(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`)
	adm := kadm.NewClient(r.k.Client(t))
	var mu sync.Mutex
	seen := map[string]int{}
	r.cfg.Hook = func(point string) {
		if point != "produce-after" {
			return
		}
		txns, err := adm.DescribeTransactions(t.Context(), r.cfg.Name)
		if err != nil {
			t.Errorf("describe transaction %s: %v", r.cfg.Name, err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		seen[txns[r.cfg.Name].State]++
	}
	run := r.streaming()
	r.db.Exec(t, `INSERT INTO t SELECT i, repeat('x', 100) FROM generate_series(1, 20000) i`)
	run.settle()
	mu.Lock()
	defer mu.Unlock()
	t.Logf("states: %v", seen)
	for state := range seen {
		if state != "CompleteCommit" && state != "Empty" {
			t.Errorf("the transaction is in state %q while rows are sent", state)
		}
	}
	if len(seen) == 0 {
		t.Error("no row was sent: the test shows nothing")
	}
}

// 100: the order is that of the commits, not of the beginnings.
func TestCase100CommitOrder(t *testing.T) {
	t.Parallel()
	run := flowWith(t, func(c *pipeline.Config) { c.Partitions = 1 }, `CREATE TABLE t(id int PRIMARY KEY)`)
	open := run.db.Conn(t)
	if _, err := open.Exec(t.Context(), `BEGIN; INSERT INTO t VALUES (1)`); err != nil {
		t.Fatal(err)
	}
	run.db.Exec(t, `INSERT INTO t VALUES (2)`)
	if _, err := open.Exec(t.Context(), `COMMIT`); err != nil {
		t.Fatal(err)
	}
	run.settle()
	var keys []string
	for _, rec := range run.records("t") {
		keys = append(keys, string(rec.Key))
	}
	if got, want := strings.Join(keys, " "), `{"id":2} {"id":1}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// 101: every kind of statement that changes rows.
func TestCase101Statements(t *testing.T) {
	t.Parallel()
	run := flow(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `CREATE TABLE s(id int PRIMARY KEY, v text)`,
		`INSERT INTO t SELECT i, 'old' FROM generate_series(1, 10) i`, `INSERT INTO s SELECT i, 's' || i FROM generate_series(5, 15) i`)
	if run.db.Value(t, `SELECT current_setting('server_version_num')::int >= 150000`) == "t" {
		run.db.Exec(t, `MERGE INTO t USING s ON t.id = s.id WHEN MATCHED AND s.id = 5 THEN DELETE WHEN MATCHED THEN UPDATE SET v = s.v WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.v)`)
	}
	run.db.Exec(t,
		`INSERT INTO t VALUES (1, 'conflict') ON CONFLICT (id) DO UPDATE SET v = excluded.v`,
		`INSERT INTO t VALUES (2, 'no') ON CONFLICT DO NOTHING`,
		`INSERT INTO t VALUES (100, 'arm'), (3, 'arm') ON CONFLICT (id) DO UPDATE SET v = t.v || excluded.v WHERE t.id <> 3`,
		`UPDATE t SET v = 'from ' || s.v FROM s WHERE s.id = t.id AND s.id > 12`,
		`DELETE FROM t USING s WHERE s.id = t.id AND s.id = 15`,
		`INSERT INTO t SELECT id + 1000, v FROM t`,
		`WITH gone AS (DELETE FROM t WHERE id BETWEEN 1001 AND 1003 RETURNING *) INSERT INTO s SELECT id, v FROM gone`,
		`BEGIN; SELECT * FROM t WHERE id = 1 FOR UPDATE; SELECT * FROM t FOR KEY SHARE; UPDATE t SET v = v WHERE id = 1; COMMIT`)
	conn := run.db.Conn(t)
	// COPY FREEZE writes rows that are visible before the commit; the table must
	// be truncated in the same transaction.
	for _, sql := range []string{`BEGIN`, `TRUNCATE s`} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := conn.PgConn().CopyFrom(t.Context(), strings.NewReader("1\tone\n2\ttwo\n"), `COPY s FROM STDIN (FREEZE)`); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), `COMMIT`); err != nil {
		t.Fatal(err)
	}
	run.settle()
	run.sameAsTable("t", "id")
	run.sameAsTable("s", "id")
	run.inOrder(run.topic("t"))
}

// 102: changes made by triggers and by foreign keys are changes like any other,
// also where triggers are switched off.
func TestCase102TriggersAndCascades(t *testing.T) {
	t.Parallel()
	run := flow(t, `CREATE TABLE parent(id int PRIMARY KEY)`, `CREATE TABLE child(id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE)`,
		`CREATE TABLE orphan(id int PRIMARY KEY, parent int REFERENCES parent ON DELETE SET NULL)`, `CREATE TABLE log(id serial PRIMARY KEY, what text)`,
		`CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log(what) VALUES (TG_OP || COALESCE(NEW.id, OLD.id)); RETURN NULL; END $$`,
		`CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON child FOR EACH ROW EXECUTE FUNCTION note()`,
		`INSERT INTO parent SELECT generate_series(1, 5)`, `INSERT INTO child SELECT i, i FROM generate_series(1, 5) i`, `INSERT INTO orphan SELECT i, i FROM generate_series(1, 5) i`)
	run.db.Exec(t, `DELETE FROM parent WHERE id = 1`, `UPDATE orphan SET parent = NULL WHERE id = 2`, `UPDATE parent SET id = 20 WHERE id = 2`,
		`SET session_replication_role = replica; INSERT INTO child VALUES (100, 999); DELETE FROM parent WHERE id = 3`)
	run.settle()
	for _, table := range []string{"parent", "child", "orphan", "log"} {
		run.sameAsTable(table, "id")
	}
}

// 103: transactions that change nothing captured make no record, and are
// confirmed all the same.
func TestCase103EmptyTransactions(t *testing.T) {
	t.Parallel()
	run := flowWith(t, func(c *pipeline.Config) { c.Source.Include = []string{"public.t"} },
		`CREATE TABLE t(id int PRIMARY KEY, v text)`, `CREATE TABLE other(id int PRIMARY KEY)`)
	run.db.Exec(t, `BEGIN; SELECT 1; COMMIT`, `BEGIN; SELECT pg_current_xact_id(); COMMIT`, `BEGIN READ ONLY; SELECT count(*) FROM t; COMMIT`,
		`BEGIN; SAVEPOINT s; INSERT INTO t VALUES (1, 'x'); ROLLBACK TO s; COMMIT`, `INSERT INTO other SELECT generate_series(1, 1000)`, `CREATE TABLE third(id int)`)
	run.settle()
	if got := run.records("t"); len(got) != 0 {
		t.Errorf("%d records for nothing", len(got))
	}
	if got := run.k.Topics(t, run.cfg.Name+"."); len(got) != 1 {
		t.Errorf("topics %v, want the captured table's alone", got)
	}
}

// 104: thousands of tiny transactions: batches span them, order per key holds, and
// what is confirmed is the end of one that is wholly acknowledged.
func TestCase104TinyTransactions(t *testing.T) {
	t.Parallel()
	run := flow(t, `CREATE TABLE t(id int PRIMARY KEY, v int)`)
	const transactions = 4000
	run.db.Exec(t, fmt.Sprintf(`DO $$ BEGIN FOR i IN 1..%d LOOP
		INSERT INTO t VALUES (i %% 10, i) ON CONFLICT (id) DO UPDATE SET v = excluded.v; COMMIT; END LOOP; END $$`, transactions))
	run.settle()
	run.sameAsTable("t", "id")
	next := map[string]int{}
	for _, rec := range run.records("t") {
		var id, v int
		if _, err := fmt.Sscanf(string(rec.Value), `{"id":%d,"v":%d}`, &id, &v); err != nil {
			t.Fatal(err)
		}
		want := next[string(rec.Key)]
		if want == 0 {
			want = id
			if id == 0 {
				want = 10
			}
		}
		if v != want {
			t.Fatalf("key %s: version %d follows, want %d", rec.Key, v, want)
		}
		next[string(rec.Key)] = v + 10
	}
	if s := run.p.Status(); s.Transactions < transactions {
		t.Errorf("%d transactions were seen, want %d", s.Transactions, transactions)
	}
	confirmed := run.db.Value(t, run.slotSQL(`SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '%s'`))
	if p := run.newestProgress(); p.End.String() != confirmed {
		t.Errorf("confirmed is %s, the progress record says %s", confirmed, p.End)
	}
}

// 105: the records of a transaction share its commit position, and number its
// changes without a hole over all topics and partitions.
func TestCase105PositionsOfATransaction(t *testing.T) {
	t.Parallel()
	run := flow(t, `CREATE TABLE a(id int PRIMARY KEY)`, `CREATE TABLE b(id int PRIMARY KEY)`)
	run.db.Exec(t, `BEGIN; INSERT INTO a SELECT generate_series(1, 300); INSERT INTO b SELECT generate_series(1, 300); DELETE FROM a WHERE id <= 100; COMMIT`)
	run.settle()
	seen := map[cdc.Position]bool{}
	txs := map[cdc.LSN]bool{}
	for _, rec := range append(run.records("a"), run.records("b")...) {
		p := stamp(t, rec).Position
		if seen[p] {
			t.Errorf("position %s twice", p)
		}
		seen[p] = true
		txs[p.Tx] = true
	}
	if len(txs) != 1 {
		t.Fatalf("%d commit positions, want one", len(txs))
	}
	for tx := range txs {
		for n := range uint32(700) {
			if p := (cdc.Position{Tx: tx, Change: n + 1, Record: 1}); !seen[p] {
				t.Errorf("no record at %s", p)
			}
		}
	}
}

// 106: transactions whose commit does not wait for the disk may be lost by a crash
// of Postgres. None of those has a record: only flushed WAL is sent.
func TestCase106AsynchronousCommits(t *testing.T) {
	t.Parallel()
	pg := cdctest.PrivatePostgres(t, map[string]string{"wal_writer_delay": "2s"})
	r := rigOn(t, pg.Database(t), cdctest.Kafka(t))
	r.db.Exec(t, `CREATE TABLE t(id bigserial PRIMARY KEY, v text)`)
	run := r.streaming()
	lost := 0
	for range 2 {
		conn := r.db.Conn(t)
		if _, err := conn.Exec(t.Context(), `INSERT INTO t(v) SELECT 'kept' FROM generate_series(1, 100)`); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(t.Context(), `SET synchronous_commit = off`); err != nil {
			t.Fatal(err)
		}
		var last int
		for range 100 {
			if err := conn.QueryRow(t.Context(), `INSERT INTO t(v) VALUES ('perhaps') RETURNING id`).Scan(&last); err != nil {
				t.Fatal(err)
			}
		}
		pg.Kill()
		if err := pg.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		if r.db.Value(t, fmt.Sprintf(`SELECT count(*) FROM t WHERE id = %d AND v = 'perhaps'`, last)) == "0" {
			lost++
		}
		run.waitState(cdc.StateStreaming)
	}
	r.db.Exec(t, `INSERT INTO t(v) VALUES ('after')`)
	run.settle()
	t.Logf("the last commit was lost in %d of 2 crashes", lost)
	r.sameAsTable("t", "id")
	r.inOrder(r.topic("t"))
}
