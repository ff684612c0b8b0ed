package source

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
)

// patience bounds waiting for an event of a real server.
const patience = 30 * time.Second

// bed is a database with a slot, a publication and a Source on it.
type bed struct {
	*cdctest.DB
	src  *Source
	from cdc.LSN
	cfg  Config
}

// newBed runs the DDL, publishes all tables as p and creates the slot s.
func newBed(t *testing.T, edit func(*Config), ddl ...string) *bed {
	t.Helper()
	return bedOn(t, cdctest.Database(t), edit, ddl...)
}

func bedOn(t *testing.T, db *cdctest.DB, edit func(*Config), ddl ...string) *bed {
	t.Helper()
	db.Exec(t, ddl...)
	b := &bed{DB: db, cfg: Config{
		URL: db.URL, Slot: db.Name + "_s", Publication: "p", Include: []string{"*.*"},
		Tick: 20 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}}
	if edit != nil {
		edit(&b.cfg)
	}
	if b.Value(t, `SELECT count(*) FROM pg_publication`) == "0" {
		db.Exec(t, fmt.Sprintf(`CREATE PUBLICATION %s FOR ALL TABLES WITH (publish_via_partition_root = true)`, quote(b.cfg.Publication)))
	}
	src, err := Open(t.Context(), b.cfg)
	if err != nil {
		t.Fatal(err)
	}
	b.src = src
	t.Cleanup(func() { _ = src.Close() })
	b.from = b.makeSlot(t)
	return b
}

func (b *bed) makeSlot(t *testing.T) cdc.LSN {
	t.Helper()
	lsn := b.Value(t, fmt.Sprintf(`SELECT lsn FROM pg_create_logical_replication_slot('%s', 'pgoutput')`, b.cfg.Slot))
	b.KeepSlot(b.cfg.Slot) // it goes with the database
	return mustLSN(t, lsn)
}

func mustLSN(t testing.TB, s string) cdc.LSN {
	t.Helper()
	l, err := cdc.ParseLSN(s)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// stream starts at from and is closed with the test.
func (b *bed) stream(t *testing.T, from cdc.LSN) *Stream {
	t.Helper()
	st, err := b.open(t, from)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// open waits until the slot is free: an earlier walsender needs a moment to go.
func (b *bed) open(t *testing.T, from cdc.LSN) (*Stream, error) {
	t.Helper()
	for {
		st, err := b.src.Stream(t.Context(), from, 0)
		if active := (*ErrSlotActive)(nil); errors.As(err, &active) {
			continue
		}
		if st != nil {
			t.Cleanup(func() { _ = st.Close(context.Background()) })
		}
		return st, err
	}
}

// next returns the next event that says something.
func next(t testing.TB, st *Stream) *cdc.Event {
	t.Helper()
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		ev, err := st.Next(t.Context())
		if err != nil {
			t.Fatalf("next event: %v", err)
		}
		if ev.Kind == cdc.EventChange || ev.Kind == cdc.EventCommit {
			return ev
		}
	}
	t.Fatalf("no event within %s", patience)
	return nil
}

// txn is a transaction of the stream in words: "c public.t 1|x" a change.
type txn struct {
	final, end cdc.LSN
	changes    []string
	tx         cdc.Tx
}

// readTxn reads one transaction.
func readTxn(t testing.TB, st *Stream) txn {
	t.Helper()
	var got txn
	for {
		ev := next(t, st)
		if ev.Kind == cdc.EventCommit {
			got.final, got.end, got.tx = ev.Tx.Final, ev.End, *ev.Tx
			return got
		}
		got.changes = append(got.changes, describe(ev.Change))
	}
}

// readTxns reads n transactions that have changes.
func readTxns(t testing.TB, st *Stream, n int) []txn {
	t.Helper()
	var all []txn
	for len(all) < n {
		if got := readTxn(t, st); len(got.changes) > 0 {
			all = append(all, got)
		}
	}
	return all
}

func describe(c *cdc.Change) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d%s", c.Index, c.Op)
	if c.Relation != nil {
		b.WriteString(" " + c.Relation.FullName())
	} else {
		fmt.Fprintf(&b, " %s=%q", c.Prefix, c.Content)
	}
	if c.Old != nil {
		b.WriteString(" " + values(c.Old))
	}
	if c.New != nil {
		b.WriteString(" → " + values(c.New))
	}
	return b.String()
}

func values(vals []cdc.Value) string {
	texts := make([]string, len(vals))
	for i, v := range vals {
		switch v.Kind {
		case cdc.Text:
			texts[i] = string(v.Data)
			if len(texts[i]) > 40 {
				texts[i] = fmt.Sprintf("%.5s…%d", texts[i], len(texts[i]))
			}
		case cdc.Null:
			texts[i] = "∅"
		default:
			texts[i] = "?"
		}
	}
	return strings.Join(texts, "|")
}

func wantChanges(t testing.TB, got txn, want ...string) {
	t.Helper()
	if !slices.Equal(got.changes, want) {
		t.Errorf("changes of the transaction at %s:\ngot  %q\nwant %q", got.final, got.changes, want)
	}
}

func (b *bed) confirmed(t testing.TB) cdc.LSN {
	t.Helper()
	return mustLSN(t, b.Value(t, fmt.Sprintf(`SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '%s'`, b.cfg.Slot)))
}

const plainTable = `CREATE TABLE t(id int PRIMARY KEY, v text)`

func TestStreamDeliversTransactions(t *testing.T) {
	b := newBed(t, nil, plainTable)
	st := b.stream(t, b.from)
	b.Exec(t, `INSERT INTO t VALUES (1, 'a'), (2, NULL)`, `UPDATE t SET v = 'b' WHERE id = 1`,
		`UPDATE t SET id = 3 WHERE id = 1`, `DELETE FROM t WHERE id = 2`, `TRUNCATE t`)
	txns := readTxns(t, st, 5)
	wantChanges(t, txns[0], "1c public.t → 1|a", "2c public.t → 2|∅")
	wantChanges(t, txns[1], "1u public.t → 1|b")
	wantChanges(t, txns[2], "1u public.t 1|∅ → 3|b")
	wantChanges(t, txns[3], "1d public.t 2|∅")
	wantChanges(t, txns[4], "1t public.t")
	for i, x := range txns {
		if x.tx.XID == 0 || x.end <= x.final || time.Since(time.UnixMicro(x.tx.CommitTime)).Abs() > time.Hour {
			t.Errorf("transaction %d: got %+v", i, x)
		}
		if i > 0 && (x.final < txns[i-1].end || x.tx.PrevEnd != txns[i-1].end) {
			t.Errorf("transaction %d at %s, previous end %s: want it behind and after %s", i, x.final, x.tx.PrevEnd, txns[i-1].end)
		}
	}
}

func TestStreamResumesAtEnd(t *testing.T) {
	b := newBed(t, nil, plainTable)
	for i := range 4 {
		b.Exec(t, fmt.Sprintf(`INSERT INTO t VALUES (%d, 'x')`, i))
	}
	st := b.stream(t, b.from)
	txns := readTxns(t, st, 4)
	if err := st.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		st := b.stream(t, txns[i].end)
		got := readTxns(t, st, 3-i)
		for j := range got {
			wantChanges(t, got[j], txns[i+1+j].changes...)
		}
		if err := st.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
