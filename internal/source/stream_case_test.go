package source

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
)

func TestCase005ConfirmIsNotStartPlusLength(t *testing.T) {
	b := newBed(t, nil, plainTable)
	st := b.stream(t, b.from)
	b.Exec(t, `INSERT INTO t VALUES (0, repeat('x', 1000000))`)
	for i := range 5 {
		b.Exec(t, fmt.Sprintf(`INSERT INTO t VALUES (%d, 'small')`, i+1))
	}
	first := readTxns(t, st, 1)[0]
	st.Confirm(first.end)
	if err := st.ConfirmNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := st.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := b.confirmed(t); got != first.end {
		t.Errorf("confirmed: got %s, want %s", got, first.end)
	}
	for i, x := range readTxns(t, b.stream(t, first.end), 5) {
		wantChanges(t, x, fmt.Sprintf("1c public.t → %d|small", i+1))
	}
}

func TestCase006KeepaliveRegress(t *testing.T) {
	db := cdctest.Database(t)
	db.Exec(t, fmt.Sprintf(`ALTER DATABASE %s SET wal_sender_timeout = '1s'`, db.Name))
	b := bedOn(t, db, nil, plainTable, `CREATE TABLE u(id int PRIMARY KEY)`)
	open := b.Conn(t) // pins restart_lsn
	if _, err := open.Exec(t.Context(), `BEGIN; INSERT INTO u VALUES (1)`); err != nil {
		t.Fatal(err)
	}
	var last, confirmed cdc.LSN
	from := b.from
	for round := range 3 {
		b.Exec(t, `INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(1, 5000) g`, `TRUNCATE t`, `CHECKPOINT`)
		if round == 0 {
			b.Exec(t, `SELECT pg_switch_wal()`)
		}
		end := mustLSN(t, b.Value(t, `SELECT pg_current_wal_flush_lsn()`))
		st := b.stream(t, from)
		for deadline := time.Now().Add(patience); from < end; {
			ev, err := st.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if ev.Kind == cdc.EventIdle || ev.Kind == cdc.EventCommit {
				if ev.End < last {
					t.Errorf("position went back from %s to %s", last, ev.End)
				}
				last, from = ev.End, ev.End
				st.Confirm(ev.End)
			}
			if time.Now().After(deadline) {
				t.Fatalf("server did not reach %s", end)
			}
		}
		if err := st.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := b.confirmed(t); got < confirmed || got != from {
			t.Errorf("confirmed: got %s after %s, want %s", got, confirmed, from)
		}
		confirmed = b.confirmed(t)
	}
}

func TestCase015ShortSenderTimeout(t *testing.T) {
	db := cdctest.Database(t)
	db.Exec(t, fmt.Sprintf(`ALTER DATABASE %s SET wal_sender_timeout = '2400ms'`, db.Name))
	b := bedOn(t, db, func(c *Config) { c.Tick = time.Second }, plainTable)
	st := b.stream(t, b.from)
	if got, want := st.Interval(), 800*time.Millisecond; got != want {
		t.Errorf("interval: got %s, want %s", got, want)
	}
	pid := fmt.Sprintf(`SELECT active_pid FROM pg_replication_slots WHERE slot_name = '%s'`, b.cfg.Slot)
	before := b.Value(t, pid)
	for range 5 { // an idle stream, two timeouts long
		if _, err := st.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	inserted := make(chan struct{})
	go func() {
		defer close(inserted)
		b.Exec(t, `INSERT INTO t SELECT g, repeat('x', 1000) FROM generate_series(1, 20000) g`)
	}()
	for ticks := 0; ticks < 4 || inserted != nil; ticks++ { // a stream nobody reads, a timeout long
		time.Sleep(st.Interval()) // the time is what is tested
		if err := st.Tick(t.Context()); err != nil {
			t.Fatal(err)
		}
		select {
		case <-inserted:
			inserted = nil
		default:
		}
	}
	if got := len(readTxns(t, st, 1)[0].changes); got != 20000 {
		t.Errorf("rows: got %d, want 20000", got)
	}
	if after := b.Value(t, pid); after != before {
		t.Errorf("walsender: got %s, want still %s", after, before)
	}
}

func TestCase017RelationsAreKept(t *testing.T) {
	const tables = 200
	var ddl []string
	for i := range tables {
		ddl = append(ddl, fmt.Sprintf(`CREATE TABLE t%d(id int PRIMARY KEY, v text)`, i))
	}
	b := newBed(t, nil, strings.Join(ddl, ";"))
	touch := func() {
		for i := range tables {
			ddl[i] = fmt.Sprintf(`INSERT INTO t%d SELECT coalesce(max(id), 0) + 1, 'x' FROM t%d`, i, i)
		}
		b.Exec(t, strings.Join(ddl, ";"))
	}
	seen := map[uint32]*cdc.Relation{}
	from := b.from
	for round := range 2 {
		touch()
		st := b.stream(t, from)
		for n := 0; n < tables; {
			ev := next(t, st)
			if ev.Kind != cdc.EventChange {
				continue
			}
			n++
			rel := ev.Change.Relation
			if old := seen[rel.ID]; round > 0 && old != rel {
				t.Errorf("%s after a reconnect: another pointer for the same relation", rel.FullName())
			}
			seen[rel.ID] = rel
		}
		from = readTxn(t, st).end
		if err := st.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if len(seen) != tables {
		t.Errorf("relations: got %d, want %d", len(seen), tables)
	}
}

func TestCase020PublicationDropped(t *testing.T) {
	b := newBed(t, nil, plainTable)
	b.Exec(t, `INSERT INTO t VALUES (1, 'x')`, `DROP PUBLICATION p`, `INSERT INTO t VALUES (2, 'x')`)
	st := b.stream(t, b.from)
	var term *cdc.TerminalError
	if err := nextError(t, st); !errors.As(err, &term) || term.Reason != "publication-missing" {
		t.Errorf("got %v, want a terminal error publication-missing", err)
	}
}

func TestCase022LogicalMessages(t *testing.T) {
	b := newBed(t, func(c *Config) { c.Messages = []string{"ours"} }, plainTable)
	if b.src.Version() < 140000 {
		t.Skip("logical messages need Postgres 14")
	}
	b.Exec(t, `BEGIN; SELECT pg_logical_emit_message(false, 'ours', 'rolled back, and out'); SELECT pg_logical_emit_message(true, 'ours', 'never'); ROLLBACK`,
		`BEGIN; INSERT INTO t VALUES (1, 'x'); SELECT pg_logical_emit_message(true, 'ours', 'in'); SELECT pg_logical_emit_message(true, 'theirs', 'no');
			INSERT INTO t VALUES (2, 'y'); COMMIT`,
		`SELECT pg_logical_emit_message(false, 'theirs', 'no')`, `SELECT pg_logical_emit_message(false, 'ours', E'\\x00ff'::bytea)`)
	st := b.stream(t, b.from)
	want := []string{`0m ours="rolled back, and out"`, "1c public.t → 1|x", `1m ours="in"`, "2c public.t → 2|y", "commit", `0m ours="\x00\xff"`}
	read := func(st *Stream, want []string) (lsns []cdc.LSN) {
		t.Helper()
		for i, w := range want {
			ev := next(t, st)
			got := "commit"
			if ev.Kind == cdc.EventChange {
				got = describe(ev.Change)
				if (ev.Change.Tx == nil) != (ev.Change.Op == cdc.OpMessage && !ev.Change.Transactional) {
					t.Errorf("event %d: transaction %v of %s", i, ev.Change.Tx, got)
				}
				lsns = append(lsns, ev.Change.LSN)
			}
			if got != w {
				t.Errorf("event %d: got %s, want %s", i, got, w)
			}
		}
		return lsns
	}
	lsns := read(st, want)
	if err := st.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Resumed at the first message's own LSN, it does not come again.
	again := b.stream(t, lsns[0])
	read(again, want[1:])
}

func TestCase023Origin(t *testing.T) {
	b := newBed(t, nil, plainTable)
	name := b.Name + "_origin"
	b.Exec(t, fmt.Sprintf(`SELECT pg_replication_origin_create('%s')`, name))
	t.Cleanup(func() { b.Exec(t, fmt.Sprintf(`SELECT pg_replication_origin_drop('%s')`, name)) })
	b.Exec(t, `INSERT INTO t VALUES (1, 'here')`,
		fmt.Sprintf(`SELECT pg_replication_origin_session_setup('%s'); BEGIN; SELECT pg_replication_origin_xact_setup('0/ABCD', '2020-01-01 00:00:00+00');
			INSERT INTO t VALUES (2, 'there'); COMMIT; SELECT pg_replication_origin_session_reset()`, name),
		`INSERT INTO t VALUES (3, 'here')`)
	txns := readTxns(t, b.stream(t, b.from), 3)
	for i, want := range []string{"", name, ""} {
		if got := txns[i].tx.Origin; got != want {
			t.Errorf("transaction %d: got origin %q, want %q", i, got, want)
		}
	}
	if got := txns[1].tx; got.OriginLSN != 0xABCD || time.UnixMicro(got.CommitTime).UTC().Year() != 2020 {
		t.Errorf("transaction from elsewhere: got %+v", got)
	}
}

func TestCase025PublicationNames(t *testing.T) {
	for _, name := range []string{`P,x`, `we"ird`, `MixedCase`, `it's`, `p'), (x`} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, func(c *Config) { c.Publication = name }, plainTable)
			b.Exec(t, `INSERT INTO t VALUES (1, 'x')`)
			wantChanges(t, readTxns(t, b.stream(t, b.from), 1)[0], "1c public.t → 1|x")
		})
	}
}

func TestCase026SlotNames(t *testing.T) {
	long := fmt.Sprintf("1abc_%s_", strings.Repeat("x", 40))
	b := newBed(t, func(c *Config) { c.Slot = long }, plainTable)
	b.Exec(t, `INSERT INTO t VALUES (1, 'x')`)
	readTxns(t, b.stream(t, b.from), 1)
	for _, name := range []string{"", "Bad-Name", "ä", strings.Repeat("x", 64), `a" LOGICAL 0/0; --`} {
		cfg := b.cfg
		cfg.Slot = name
		src, err := Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := src.Stream(t.Context(), 0, 0); !cdc.IsTerminal(err) {
			t.Errorf("slot %q: got %v, want a terminal error", name, err)
		}
		if err := src.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestSlotMissing(t *testing.T) {
	b := newBed(t, nil, plainTable)
	b.cfg.Slot = "no_such_slot"
	src, err := Open(t.Context(), b.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	var term *cdc.TerminalError
	if _, err := src.Stream(t.Context(), 0, 0); !errors.As(err, &term) || term.Reason != "slot-missing" {
		t.Errorf("got %v, want slot-missing", err)
	}
}

func TestSlotActive(t *testing.T) {
	b := newBed(t, nil, plainTable)
	st := b.stream(t, b.from)
	_, err := b.src.Stream(t.Context(), b.from, 0)
	var active *ErrSlotActive
	if !errors.As(err, &active) || active.PID != int(st.conn.PID) {
		t.Errorf("got %v, want the slot in use by %d", err, st.conn.PID)
	}
}

func TestCase046ZeroColumns(t *testing.T) {
	b := newBed(t, nil, `CREATE TABLE z()`, `ALTER TABLE z REPLICA IDENTITY FULL`)
	b.Exec(t, `INSERT INTO z DEFAULT VALUES`)
	st := b.stream(t, b.from)
	ev := next(t, st)
	if c := ev.Change; c == nil || c.Op != cdc.OpInsert || c.New == nil && len(c.New) != 0 || len(c.Relation.Columns) != 0 || len(c.Relation.Key) != 0 {
		t.Errorf("got %+v, want an insert without columns", c)
	}
}

func TestCase053DDLInsideTransaction(t *testing.T) {
	b := newBed(t, nil, plainTable)
	b.Exec(t, `BEGIN; INSERT INTO t VALUES (1, 'a'); ALTER TABLE t ADD n int; INSERT INTO t VALUES (2, 'b', 3);
		ALTER TABLE t DROP v; INSERT INTO t VALUES (4, 5); COMMIT`)
	st := b.stream(t, b.from)
	want := [][]string{{"id", "v"}, {"id", "v", "n"}, {"id", "n"}}
	for i, w := range want {
		c := next(t, st).Change
		var names []string
		for _, col := range c.Relation.Columns {
			names = append(names, col.Name)
			if col.Type == nil || col.Type.OID != col.TypeOID {
				t.Errorf("row %d, column %s: got type %+v", i, col.Name, col.Type)
			}
		}
		if !slices.Equal(names, w) || len(c.New) != len(w) || !slices.Equal(c.Relation.Key, []int{0}) {
			t.Errorf("row %d: got %v, %s, key %v, want %v", i, names, describe(c), c.Relation.Key, w)
		}
	}
}

func TestCase054DDLRolledBack(t *testing.T) {
	b := newBed(t, nil, plainTable)
	b.Exec(t, `BEGIN; INSERT INTO t VALUES (1, 'a'); SAVEPOINT s; ALTER TABLE t ADD n int; INSERT INTO t VALUES (9, 'gone', 9); ROLLBACK TO s;
		INSERT INTO t VALUES (2, 'b'); COMMIT`, `VACUUM ANALYZE t`, `INSERT INTO t VALUES (3, 'c')`)
	st := b.stream(t, b.from)
	first := next(t, st).Change.Relation
	for i := range 2 {
		ev := next(t, st)
		for ev.Kind == cdc.EventCommit { // up to 14 empty transactions come too
			ev = next(t, st)
		}
		if ev.Change.Relation != first {
			t.Errorf("row %d: a relation sent again without a change has another pointer", i+2)
		}
	}
}

func TestCase061Partitions(t *testing.T) {
	b := newBed(t, nil, `CREATE TABLE p(id int, region text, v text, PRIMARY KEY (id, region)) PARTITION BY LIST (region)`,
		`CREATE TABLE p_eu PARTITION OF p FOR VALUES IN ('eu')`,
		`CREATE TABLE p_us(dead int, v text, region text NOT NULL, id int NOT NULL, PRIMARY KEY (id, region))`, `ALTER TABLE p_us DROP dead`,
		`ALTER TABLE p ATTACH PARTITION p_us FOR VALUES IN ('us')`)
	b.Exec(t, `INSERT INTO p VALUES (1, 'eu', 'a'), (2, 'us', 'b')`, `UPDATE p SET v = 'c' WHERE id = 2`, `DELETE FROM p WHERE id = 2`)
	txns := readTxns(t, b.stream(t, b.from), 3)
	wantChanges(t, txns[0], "1c public.p → 1|eu|a", "2c public.p → 2|us|b")
	wantChanges(t, txns[1], "1u public.p → 2|us|c")
	wantChanges(t, txns[2], "1d public.p 2|us|∅")
}

func TestCase062PartitionKeyUpdate(t *testing.T) {
	b := newBed(t, nil, `CREATE TABLE p(id int, region text, v text, PRIMARY KEY (id, region)) PARTITION BY LIST (region)`,
		`CREATE TABLE p_eu PARTITION OF p FOR VALUES IN ('eu')`, `CREATE TABLE p_us PARTITION OF p FOR VALUES IN ('us')`,
		`INSERT INTO p VALUES (1, 'eu', 'a')`)
	b.Exec(t, `UPDATE p SET region = 'us'`)
	wantChanges(t, readTxns(t, b.stream(t, b.from), 1)[0], "1d public.p 1|eu|∅", "2c public.p → 1|us|a")
}

func TestCase063TruncateOfSeveral(t *testing.T) {
	b := newBed(t, nil, plainTable, `CREATE TABLE u(id int PRIMARY KEY REFERENCES t)`, `CREATE TABLE w(id int PRIMARY KEY)`)
	b.Exec(t, `BEGIN; INSERT INTO t VALUES (1, 'x'); TRUNCATE t, w RESTART IDENTITY CASCADE; INSERT INTO t VALUES (2, 'y'); COMMIT`)
	got := readTxns(t, b.stream(t, b.from), 1)[0]
	for i, c := range got.changes[1:4] {
		number, table, _ := strings.Cut(c, "t ")
		if want := strconv.Itoa(i + 2); number != want {
			t.Errorf("truncated table %s has number %s, want %s", table, number, want)
		}
		got.changes[1+i] = table
	}
	slices.Sort(got.changes[1:4])
	wantChanges(t, got, "1c public.t → 1|x", "public.t", "public.u", "public.w", "5c public.t → 2|y")
}

func TestCase074ToastUnderFullIdentity(t *testing.T) {
	b := newBed(t, nil, `CREATE TABLE t(id int PRIMARY KEY, big text, v text)`, `ALTER TABLE t ALTER big SET STORAGE EXTERNAL`)
	b.Exec(t, `INSERT INTO t VALUES (1, repeat('big', 3000), 'a')`, `UPDATE t SET v = 'b'`, `ALTER TABLE t REPLICA IDENTITY FULL`, `UPDATE t SET v = 'c'`)
	txns := readTxns(t, b.stream(t, b.from), 3)
	wantChanges(t, txns[1], "1u public.t → 1|?|b")
	wantChanges(t, txns[2], "1u public.t 1|bigbi…9000|b → 1|bigbi…9000|c")
}

func TestToastedKeyComesFromOldKey(t *testing.T) {
	b := newBed(t, nil, `CREATE TABLE t(id text PRIMARY KEY, v text)`, `ALTER TABLE t ALTER id SET STORAGE EXTERNAL`)
	b.Exec(t, `INSERT INTO t VALUES (repeat('k', 2300), 'a')`, `UPDATE t SET v = 'b'`)
	wantChanges(t, readTxns(t, b.stream(t, b.from), 2)[1], "1u public.t kkkkk…2300|∅ → kkkkk…2300|b")
}

func TestCase091RolledBack(t *testing.T) {
	b := newBed(t, nil, plainTable)
	b.Exec(t, `BEGIN; INSERT INTO t VALUES (1, 'gone'); ROLLBACK`,
		`BEGIN; INSERT INTO t VALUES (2, 'a'); SAVEPOINT s; INSERT INTO t VALUES (3, 'gone'); ROLLBACK TO s; INSERT INTO t VALUES (4, 'b'); COMMIT`,
		`DO $$ BEGIN FOR i IN 1..200 LOOP BEGIN
			INSERT INTO t VALUES (100 + i, 'x'); IF i % 2 = 0 THEN RAISE EXCEPTION 'no'; END IF;
		EXCEPTION WHEN OTHERS THEN NULL; END; END LOOP; END $$`)
	txns := readTxns(t, b.stream(t, b.from), 2)
	wantChanges(t, txns[0], "1c public.t → 2|a", "2c public.t → 4|b")
	var want []string
	for i := 1; i <= 200; i += 2 {
		want = append(want, fmt.Sprintf("%dc public.t → %d|x", len(want)+1, 100+i))
	}
	wantChanges(t, txns[1], want...)
}

func TestCase098Prepared(t *testing.T) {
	b := newBed(t, nil, plainTable)
	b.Exec(t, `BEGIN; INSERT INTO t VALUES (1, 'prepared'); PREPARE TRANSACTION 'keep'`,
		`BEGIN; INSERT INTO t VALUES (2, 'dropped'); PREPARE TRANSACTION 'drop'`, `INSERT INTO t VALUES (3, 'between')`)
	st := b.stream(t, b.from)
	first := readTxns(t, st, 1)[0]
	wantChanges(t, first, "1c public.t → 3|between")
	if err := st.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	st = b.stream(t, first.end)
	b.Exec(t, `COMMIT PREPARED 'keep'`, `ROLLBACK PREPARED 'drop'`, `INSERT INTO t VALUES (4, 'after')`)
	txns := readTxns(t, st, 2)
	wantChanges(t, txns[0], "1c public.t → 1|prepared")
	wantChanges(t, txns[1], "1c public.t → 4|after")
}

func TestTwoPhaseSlotIsRefused(t *testing.T) {
	b := newBed(t, nil, plainTable)
	if b.src.Version() < 150000 {
		t.Skip("pgoutput of Postgres 14 delivers prepared transactions at their commit")
	}
	b.Exec(t, fmt.Sprintf(`SELECT pg_drop_replication_slot('%s')`, b.cfg.Slot),
		fmt.Sprintf(`SELECT pg_create_logical_replication_slot('%s', 'pgoutput', false, true)`, b.cfg.Slot),
		`BEGIN; INSERT INTO t VALUES (1, 'x'); PREPARE TRANSACTION 'refused'`)
	defer b.Exec(t, `ROLLBACK PREPARED 'refused'`)
	st := b.stream(t, 0)
	var term *cdc.TerminalError
	if err := nextError(t, st); !errors.As(err, &term) || term.Reason != "slot-two-phase" {
		t.Errorf("got %v, want slot-two-phase", err)
	}
}

func TestCase100CommitOrder(t *testing.T) {
	b := newBed(t, nil, plainTable)
	long := b.Conn(t)
	for _, sql := range []string{`BEGIN`, `INSERT INTO t VALUES (1, 'first to start')`} {
		if _, err := long.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	b.Exec(t, `INSERT INTO t VALUES (2, 'between')`)
	if _, err := long.Exec(t.Context(), `COMMIT`); err != nil {
		t.Fatal(err)
	}
	txns := readTxns(t, b.stream(t, b.from), 2)
	wantChanges(t, txns[0], "1c public.t → 2|between")
	wantChanges(t, txns[1], "1c public.t → 1|first to start")
	if txns[1].tx.XID > txns[0].tx.XID {
		t.Errorf("xids: got %d, %d, want the later transaction to have the lower", txns[0].tx.XID, txns[1].tx.XID)
	}
}

func TestOtherTablesAreLeftOut(t *testing.T) {
	b := newBed(t, func(c *Config) { c.Include, c.Exclude = []string{"public.*"}, []string{"public.no*"} },
		plainTable, `CREATE TABLE nothing(id int PRIMARY KEY)`, `CREATE SCHEMA s`, `CREATE TABLE s.t(id int PRIMARY KEY)`)
	b.Exec(t, `BEGIN; INSERT INTO nothing VALUES (1); INSERT INTO s.t VALUES (1); INSERT INTO t VALUES (1, 'x'); TRUNCATE nothing; INSERT INTO t VALUES (2, 'y'); COMMIT`)
	// Left out, but counted: a change of the patterns moves no position.
	wantChanges(t, readTxns(t, b.stream(t, b.from), 1)[0], "3c public.t → 1|x", "5c public.t → 2|y")
}

func TestCase011IdleOtherDatabase(t *testing.T) {
	b := newBed(t, nil, plainTable)
	st := b.stream(t, b.from)
	other := cdctest.Database(t)
	other.Exec(t, `CREATE TABLE u AS SELECT generate_series(1, 1000) id`)
	end := mustLSN(t, b.Value(t, `SELECT pg_current_wal_flush_lsn()`))
	for deadline := time.Now().Add(patience); b.confirmed(t) < end; {
		ev, err := st.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if ev.Kind == cdc.EventIdle {
			st.Confirm(ev.End)
		}
		if time.Now().After(deadline) {
			t.Fatalf("slot stays at %s, WAL of the other database ends at %s", b.confirmed(t), end)
		}
	}
}

func TestFastShutdownDoesNotWait(t *testing.T) {
	pg := cdctest.PrivatePostgres(t, nil)
	b := bedOn(t, pg.Database(t), nil, plainTable)
	st := b.stream(t, b.from)
	b.Exec(t, `INSERT INTO t VALUES (1, 'x')`)
	st.Confirm(readTxns(t, st, 1)[0].end)
	stopped := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		stopped <- pg.Stop(ctx, "fast")
	}()
	for {
		ev, err := st.Next(t.Context())
		if err != nil {
			if !errors.Is(err, ErrServerClosed) {
				t.Errorf("got %v, want the end of the stream", err)
			}
			break
		}
		if ev.Kind == cdc.EventCommit || ev.Kind == cdc.EventIdle {
			st.Confirm(ev.End)
		}
	}
	if err := <-stopped; err != nil {
		t.Errorf("fast shutdown: %v", err)
	}
}

func TestCancelledContextLosesNothing(t *testing.T) {
	b := newBed(t, nil, plainTable)
	st := b.stream(t, b.from)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for {
		if _, err := st.Next(ctx); err != nil {
			if !errors.Is(err, context.Canceled) {
				t.Fatalf("got %v, want context canceled", err)
			}
			break
		}
	}
	b.Exec(t, `INSERT INTO t VALUES (1, 'x')`)
	got := readTxns(t, st, 1)[0]
	st.Confirm(got.end)
	if err := st.ConfirmNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := st.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c := b.confirmed(t); c != got.end {
		t.Errorf("confirmed: got %s, want %s", c, got.end)
	}
}

func TestConfirmBeyondReceivedIsRefused(t *testing.T) {
	b := newBed(t, nil, plainTable)
	st := b.stream(t, b.from)
	st.Confirm(0xFF << 32)
	if err := st.ConfirmNow(t.Context()); err == nil {
		t.Error("confirming what was not received: want an error")
	}
	if err := st.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if got := b.confirmed(t); got > b.from {
		t.Errorf("confirmed: got %s, want %s", got, b.from)
	}
}

func TestSystem(t *testing.T) {
	b := newBed(t, nil, plainTable)
	end := mustLSN(t, b.Value(t, `SELECT pg_current_wal_flush_lsn()`))
	got, err := b.src.System(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := cdc.System{ID: b.Value(t, `SELECT system_identifier FROM pg_control_system()`), Timeline: 1, End: got.End, Database: b.Name, Version: b.src.Version()}
	if got != want || got.End < end || got.Version < minVersion {
		t.Errorf("got %+v, want %+v behind %s", got, want, end)
	}
}
