package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
)

// begin publishes and begins a snapshot that is closed with the test.
func begin(t testing.TB, s *Source, workers int) *Snapshot {
	t.Helper()
	sn, err := s.Snapshot(t.Context(), mustPublish(t, s), workers)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sn.Close() })
	return sn
}

// until waits for a condition in the database.
func until(t testing.TB, db *cdctest.DB, what, sql, want string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for db.Value(t, sql) != want {
		if time.Now().After(deadline) {
			t.Fatalf("%s: %s is still %s, want %s", what, sql, db.Value(t, sql), want)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func slotCount(db *cdctest.DB) string {
	return fmt.Sprintf("SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE '%s%%'", db.Name+`\_`)
}

func TestSnapshotThenSlot(t *testing.T) {
	db := cdctest.Database(t)
	s := openOps(t, db, nil,
		"CREATE TABLE a(id int PRIMARY KEY, v text)", `INSERT INTO a VALUES (1, E'tab\there\nline\\N'), (2, NULL), (3, ''), (4, '\N')`,
		"CREATE TABLE b(id int PRIMARY KEY)", "CREATE TABLE one(id int PRIMARY KEY)", "INSERT INTO one VALUES (7)")
	sn := begin(t, s, 2)
	db.Exec(t, "INSERT INTO a VALUES (5, 'later')")
	if err := sn.Finish(t.Context()); err == nil {
		t.Fatal("finish before the last row: got no error")
	}
	first, err := sn.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if first.Op != cdc.OpRead || first.Mark != cdc.MarkFirst || first.LSN != sn.LSN() || first.Index != 0 || first.Tx.CommitTime == 0 || first.Tx.XID == 0 {
		t.Errorf("first row: got %+v of %+v", first, first.Tx)
	}
	if rel, err := s.Relation(t.Context(), first.Relation.ID); err != nil || rel != first.Relation {
		t.Errorf("relation: got %p, %v, want that of the source, %p", first.Relation, err, rel)
	}
	got := append(drain(t, sn, false), rowText(first))
	if len(got) != 5 { // the first row's text is of a reused buffer
		t.Fatalf("got %d rows, want 5", len(got))
	}
	for _, p := range sn.Progress() {
		if !p.Done {
			t.Errorf("table %s is not done", p.Table)
		}
	}
	if err := sn.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := sn.Finish(t.Context()); err != nil {
		t.Fatalf("finish again: %v", err)
	}
	db.KeepSlot(s.cfg.Slot)
	slot, ok, err := s.Slot(t.Context())
	if err != nil || !ok || slot.Confirmed != sn.LSN() || slot.Temporary || slot.Plugin != plugin || slot.Database != db.Name {
		t.Fatalf("slot: got %+v, %v, %v; want it at %s", slot, ok, err, sn.LSN())
	}
	if got := db.Slots(t); len(got) != 1 {
		t.Fatalf("slots: got %v, want one", got)
	}
	// Beside the slot tables can be copied; another slot is not made of it.
	beside := begin(t, s, 1)
	drain(t, beside, false)
	wantTerminal(t, beside.Finish(t.Context()), "slot-exists", "pg_drop_replication_slot")
	_ = beside.Close()
	if again, ok, err := s.Slot(t.Context()); err != nil || !ok || again.Confirmed != slot.Confirmed {
		t.Fatalf("the slot after a snapshot beside it: got %+v, %t, %v", again, ok, err)
	}
	for range 2 {
		if err := s.DropSlot(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok, err := s.Slot(t.Context()); ok || err != nil {
		t.Fatalf("after the drop: got %t, %v", ok, err)
	}
	equalRows(t, copyAll(t, s, 3), []string{"public.a|1|tab\there\nline\\N", "public.a|2|NULL", "public.a|3|", `public.a|4|\N`, "public.a|5|later", "public.one|7"})
	if n := db.Value(t, slotCount(db)); n != "0" {
		t.Fatalf("slots after Close without Finish: got %s, want none", n)
	}
}

// Case 129: six writers run from before the snapshot to behind it; snapshot and
// stream together are the table, nothing missing and nothing twice.
func TestCase129JoinIsExact(t *testing.T) {
	db := cdctest.Database(t)
	s := openOps(t, db, nil, "CREATE TABLE t(id bigint PRIMARY KEY, v bigint NOT NULL, pad text)",
		"INSERT INTO t SELECT g, 0, repeat('x', 300) FROM generate_series(1, 60000) g")
	stop := make(chan struct{})
	var writers sync.WaitGroup
	var wrote atomic.Int64
	for w := range 6 {
		conn := db.Conn(t)
		writers.Go(func() {
			for n := int64(0); ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				id := n*6 + int64(w)
				_, err := conn.Exec(context.Background(), fmt.Sprintf(`BEGIN; INSERT INTO t VALUES (%d, 1, 'new'); UPDATE t SET v = v + 1 WHERE id = %d;
					DELETE FROM t WHERE id = %d; COMMIT`, 1_000_000+id, 1+id*7%30000, 30001+id*11%30000))
				if err != nil {
					t.Errorf("writer %d: %v", w, err)
					return
				}
				wrote.Add(1)
			}
		})
	}
	tables := mustPublish(t, s)
	for wrote.Load() < 50 {
		time.Sleep(time.Millisecond)
	}
	sn, err := s.Snapshot(t.Context(), tables, 4)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sn.Close() }()
	state := map[string]string{}
	apply := func(c *cdc.Change) {
		t.Helper()
		key := func(vals []cdc.Value) string { return string(vals[0].Data) }
		switch c.Op {
		case cdc.OpRead, cdc.OpInsert:
			if _, twice := state[key(c.New)]; twice {
				t.Fatalf("%s of key %s, which is there", c.Op, key(c.New))
			}
			state[key(c.New)] = rowText(c)
		case cdc.OpUpdate:
			if _, there := state[key(c.New)]; !there {
				t.Fatalf("update of key %s, which is not there", key(c.New))
			}
			state[key(c.New)] = rowText(c)
		case cdc.OpDelete:
			if _, there := state[key(c.Old)]; !there {
				t.Fatalf("delete of key %s, which is not there", key(c.Old))
			}
			delete(state, key(c.Old))
		}
	}
	rows := 0
	for {
		c, err := sn.Next(t.Context())
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		rows++
		apply(c)
	}
	if err := sn.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	db.KeepSlot(s.cfg.Slot)
	before := wrote.Load()
	for wrote.Load() < before+50 {
		time.Sleep(time.Millisecond)
	}
	close(stop)
	writers.Wait()
	end := mustLSN(t, db.Value(t, "SELECT pg_current_wal_lsn()"))
	st, err := s.Stream(t.Context(), sn.LSN(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = st.Close(context.Background()) }()
	changes := 0
	for {
		e, err := st.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == cdc.EventChange {
			changes++
			apply(e.Change)
		}
		if (e.Kind == cdc.EventIdle || e.Kind == cdc.EventCommit) && e.End >= end {
			break
		}
	}
	var got, want []string
	for _, text := range state {
		got = append(got, text)
	}
	for _, row := range db.Query(t, "SELECT 'public.t', id, v, pad FROM t") {
		want = append(want, strings.Join(row, "|"))
	}
	t.Logf("%d rows in the snapshot, %d changes streamed, %d transactions written", rows, changes, wrote.Load())
	equalRows(t, sorted(got), sorted(want))
}

// Case 144: an empty table, one row, and a table that grows while it is read.
func TestCase144EmptyOneAndGrowing(t *testing.T) {
	db := cdctest.Database(t)
	s := openOps(t, db, nil, "CREATE TABLE empty(id int PRIMARY KEY)", "CREATE TABLE one(id int PRIMARY KEY)", "INSERT INTO one VALUES (1)",
		"CREATE TABLE grow(id int PRIMARY KEY, pad text)", "INSERT INTO grow SELECT g, repeat('x', 900) FROM generate_series(1, 40000) g")
	sn := begin(t, s, 3)
	counts := map[string]int{}
	for n := 0; ; n++ {
		if n%8000 == 0 {
			db.Exec(t, fmt.Sprintf("INSERT INTO grow SELECT g, repeat('y', 900) FROM generate_series(%d, %d) g", 100_000+n, 100_000+n+7999))
		}
		c, err := sn.Next(t.Context())
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		counts[c.Relation.Name]++
	}
	if counts["empty"] != 0 || counts["one"] != 1 || counts["grow"] != 40000 {
		t.Fatalf("got %v, want one row and 40000", counts)
	}
	_ = sn.Close()
	empty := openOps(t, db, func(c *Config) { c.Include, c.Publication = []string{"public.empty"}, "e" })
	equalRows(t, copyAll(t, empty, 2), nil)
}

// Case 145: leaves by the hundred, other column orders, lists and filters.
func TestCase145PartitionsFiltersLists(t *testing.T) {
	db := cdctest.Database(t)
	ddl := []string{"CREATE TABLE p(id int, v text, secret text, PRIMARY KEY (id)) PARTITION BY RANGE (id)",
		"CREATE TABLE odd(gone int, secret text, v text, id int NOT NULL PRIMARY KEY)", "ALTER TABLE odd DROP COLUMN gone",
		"ALTER TABLE p ATTACH PARTITION odd FOR VALUES FROM (100000) TO (200000)",
		"DO $$ BEGIN FOR i IN 0..499 LOOP EXECUTE format('CREATE TABLE p%s PARTITION OF p FOR VALUES FROM (%s) TO (%s)', i, i*10, i*10+10); END LOOP; END $$",
		"INSERT INTO p SELECT g, 'v' || g, 's' FROM generate_series(0, 4999) g", "INSERT INTO p VALUES (100001, 'odd', 's')",
		"CREATE TABLE f(id int PRIMARY KEY, keep bool, big text)", "INSERT INTO f VALUES (1, true, 'x'), (2, false, 'y'), (3, NULL, 'z')"}
	s := openOps(t, db, func(c *Config) {
		c.Columns = map[string][]string{"public.p": {"v", "id"}, "public.f": {"id", "keep"}}
	}, ddl...)
	needs15(t, s)
	mustPublish(t, s)
	db.Exec(t, "ALTER PUBLICATION pub SET TABLE ONLY p (id, v) WHERE (id <> 7), ONLY f (id, keep) WHERE (id < 3)")
	if changed, err := s.Publish(t.Context(), mustTables(t, s)); changed || err != nil {
		t.Fatalf("publish: got %t, %v, want no change", changed, err)
	}
	var want []string
	for i := range 5000 {
		if i != 7 {
			want = append(want, fmt.Sprintf("public.p|%d|v%d", i, i))
		}
	}
	want = append(want, "public.p|100001|odd", "public.f|1|t", "public.f|2|f")
	equalRows(t, copyAll(t, s, 4), sorted(want))
}

// Rows beyond a chunk, and one beyond the whole budget, go through.
func TestHugeRows(t *testing.T) {
	db := cdctest.Database(t)
	s := openOps(t, db, nil, "CREATE TABLE t(id int PRIMARY KEY, v text)",
		"INSERT INTO t SELECT g, repeat(chr(64 + g), 600000) FROM generate_series(1, 20) g",
		fmt.Sprintf("INSERT INTO t VALUES (21, repeat('z', %d))", chunkBudget+1))
	sn := begin(t, s, 3)
	seen := map[string]int{}
	for {
		c, err := sn.Next(t.Context())
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		v := c.New[1].Data
		if strings.Trim(string(v), string(v[:1])) != "" {
			t.Fatalf("row %s: its value is torn", c.New[0].Data)
		}
		seen[string(c.New[0].Data)] = len(v)
	}
	if len(seen) != 21 || seen["1"] != 600000 || seen["21"] != chunkBudget+1 {
		t.Fatalf("got %v", seen)
	}
}

// Rows cost no allocation between the socket and Next's caller.
func TestNextDoesNotAllocatePerRow(t *testing.T) {
	const rows = 50_000
	s := openOps(t, cdctest.Database(t), nil, "CREATE TABLE t(id int PRIMARY KEY, v text, n numeric)",
		fmt.Sprintf(`INSERT INTO t SELECT g, E'some\ttext', NULL FROM generate_series(1, %d) g`, rows))
	sn := begin(t, s, 2)
	for range 1000 {
		if _, err := sn.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	perRow := testing.AllocsPerRun(rows-5000, func() {
		if _, err := sn.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	if perRow != 0 {
		t.Fatalf("got %v allocations a row, want 0", perRow)
	}
	drain(t, sn, false)
}

func BenchmarkSnapshot(b *testing.B) {
	db := cdctest.Database(b)
	s := openOps(b, db, nil, "CREATE TABLE t(id bigint PRIMARY KEY, a bigint, v text, n numeric, pad text, ts timestamptz, j jsonb)",
		`INSERT INTO t SELECT g, g*7, 'name ' || g, g / 100.0, repeat('x', 80), now(), '{"a": 1, "b": "text"}' FROM generate_series(1, 200000) g`)
	n := 0
	for b.Loop() {
		sn := begin(b, s, 2)
		for {
			_, err := sn.Next(b.Context())
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		if err := sn.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "rows/s")
}
