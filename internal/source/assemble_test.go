package source

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"cdc/internal/cdc"
	"cdc/internal/source/pgoutput"
	"cdc/internal/source/pgoutput/pgoutputtest"
)

// bareCompleter completes relations without a catalogue and counts.
type bareCompleter struct{ calls int }

func (b *bareCompleter) complete(_ context.Context, raw *pgoutput.Relation, _ typeNames) (*cdc.Relation, bool, error) {
	b.calls++
	return bare(raw), true, nil
}

var testTable = pgoutput.Relation{ID: 7, Namespace: []byte("public"), Name: []byte("t"), Identity: cdc.IdentityDefault,
	Columns: []pgoutput.Column{{Name: []byte("id"), TypeOID: 23, Mod: -1, Identity: true}, {Name: []byte("v"), TypeOID: 25, Mod: -1}}}

func beginAt(final cdc.LSN) []byte { return pgoutputtest.Begin(pgoutput.Begin{Final: final, XID: 5}) }

func commitAt(final, end cdc.LSN) []byte {
	return pgoutputtest.Commit(pgoutput.Commit{LSN: final, End: end})
}

func row(kind pgoutput.OldKind, old, now []cdc.Value) pgoutput.Row {
	return pgoutput.Row{Relation: 7, Kind: kind, Old: old, New: now}
}

var (
	insertRow = pgoutputtest.Insert(row(0, nil, pgoutputtest.Values("1", "a")))
	relation7 = pgoutputtest.Relation(testTable)
)

// feed gives an assembler messages and writes down what it makes of them.
func feed(a *assembler, msgs ...[]byte) (got []string, err error) {
	for i, m := range msgs {
		ev, err := a.message(context.Background(), pgoutput.XLogData{Start: cdc.LSN(i), Data: m})
		for ev != nil && err == nil {
			switch ev.Kind {
			case cdc.EventChange:
				got = append(got, describe(ev.Change))
			case cdc.EventCommit:
				got = append(got, fmt.Sprintf("commit %s previous %s", ev.End, ev.Tx.PrevEnd))
			}
			if ev = nil; a.pending() {
				ev, err = a.nextTruncated(context.Background())
			}
		}
		if err != nil {
			return got, err
		}
	}
	return got, nil
}

func TestAssemble(t *testing.T) {
	full := testTable
	full.Identity = cdc.IdentityFull
	second := testTable
	second.ID, second.Name = 8, []byte("u")
	v := pgoutputtest.Values
	tests := []struct {
		name string
		msgs [][]byte
		want string
	}{
		{"empty transaction", [][]byte{beginAt(0x10), commitAt(0x10, 0x20)}, "commit 0/20 previous 0/8"},
		{"left out before the start", [][]byte{beginAt(0x8), relation7, insertRow, commitAt(0x8, 0xC), beginAt(0x10), insertRow, commitAt(0x10, 0x20)},
			"1c public.t → 1|a; commit 0/20 previous 0/C"},
		{"a commit at the start is taken", [][]byte{beginAt(0xE), relation7, insertRow, commitAt(0xE, 0x10)}, "1c public.t → 1|a; commit 0/10 previous 0/8"},
		{"adjacent transactions", [][]byte{beginAt(0x10), commitAt(0x10, 0x20), beginAt(0x20), commitAt(0x20, 0x30)},
			"commit 0/20 previous 0/8; commit 0/30 previous 0/20"},
		{"truncate of two and what follows", [][]byte{beginAt(0x10), relation7, pgoutputtest.Relation(second), insertRow,
			pgoutputtest.Truncate(pgoutput.Truncate{Relations: []uint32{7, 8}}), insertRow, commitAt(0x10, 0x20)},
			"1c public.t → 1|a; 2t public.t; 3t public.u; 4c public.t → 1|a; commit 0/20 previous 0/8"},
		{"unchanged value of a full old row", [][]byte{beginAt(0x10), pgoutputtest.Relation(full),
			pgoutputtest.Update(row('O', v("1", "big"), v("1", cdc.Unchanged))), commitAt(0x10, 0x20)},
			"1u public.t 1|big → 1|big; commit 0/20 previous 0/8"},
		{"unchanged key of an old key", [][]byte{beginAt(0x10), relation7,
			pgoutputtest.Update(row('K', v("key", nil), v(cdc.Unchanged, cdc.Unchanged))), commitAt(0x10, 0x20)},
			"1u public.t key|∅ → key|?; commit 0/20 previous 0/8"},
		{"logical messages", [][]byte{
			pgoutputtest.Logical(pgoutput.Logical{LSN: 0xE, Prefix: []byte("ours")}),
			pgoutputtest.Logical(pgoutput.Logical{LSN: 0xF, Prefix: []byte("ours"), Content: []byte("x")}),
			pgoutputtest.Logical(pgoutput.Logical{LSN: 0x10, Prefix: []byte("theirs")}),
			beginAt(0x10), relation7, insertRow,
			pgoutputtest.Logical(pgoutput.Logical{Transactional: true, LSN: 0x11, Prefix: []byte("ours")}), insertRow, commitAt(0x10, 0x20)},
			`0m ours="x"; 1c public.t → 1|a; 1m ours=""; 2c public.t → 1|a; commit 0/20 previous 0/8`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := newAssembler(&bareCompleter{}, 0xE, 0x8, []string{"ours"})
			got, err := feed(a, tt.msgs...)
			if err != nil || strings.Join(got, "; ") != tt.want {
				t.Errorf("got %q, %v\nwant %q", strings.Join(got, "; "), err, tt.want)
			}
		})
	}
}

func TestOriginBelongsToItsTransactionAlone(t *testing.T) {
	a := newAssembler(&bareCompleter{}, 0, 0, nil)
	if _, err := feed(a, beginAt(0x10), pgoutputtest.Origin(pgoutput.Origin{LSN: 9, Name: []byte("o")}), commitAt(0x10, 0x20)); err != nil {
		t.Fatal(err)
	}
	if a.tx.Origin != "o" || a.tx.OriginLSN != 9 {
		t.Errorf("got %+v, want origin o at 0/9", a.tx)
	}
	if _, err := feed(a, beginAt(0x20), commitAt(0x20, 0x30)); err != nil {
		t.Fatal(err)
	}
	if a.tx.Origin != "" || a.tx.OriginLSN != 0 {
		t.Errorf("got %+v, want no origin", a.tx)
	}
}

func TestRelationsAreCompletedOnUse(t *testing.T) {
	c := &bareCompleter{}
	a := newAssembler(c, 0, 0, nil)
	if _, err := feed(a, beginAt(0x10), relation7, relation7, insertRow, insertRow, commitAt(0x10, 0x20), beginAt(0x20), insertRow); err != nil {
		t.Fatal(err)
	}
	if c.calls != 1 {
		t.Errorf("completed %d times, want once", c.calls)
	}
}

func TestCase171Rows(t *testing.T) {
	begun := [][]byte{beginAt(0x10), relation7}
	v := pgoutputtest.Values
	tests := map[string][]byte{
		"unknown relation":        pgoutputtest.Insert(pgoutput.Row{Relation: 99}),
		"truncate of unknown":     pgoutputtest.Truncate(pgoutput.Truncate{Relations: []uint32{99}}),
		"too few columns":         pgoutputtest.Insert(row(0, nil, v("1"))),
		"too many columns":        pgoutputtest.Insert(row(0, nil, v("1", "a", "b"))),
		"old row of other length": pgoutputtest.Update(row('O', v("1"), v("1", "a"))),
		"delete of other length":  pgoutputtest.Delete(row('K', v("1"), nil)),
	}
	for name, msg := range tests {
		t.Run(name, func(t *testing.T) {
			a := newAssembler(&bareCompleter{}, 0, 0, nil)
			if _, err := feed(a, append(begun, msg)...); !errors.Is(err, ErrProtocol) {
				t.Errorf("got %v, want %v", err, ErrProtocol)
			}
		})
	}
}

func TestCase172Order(t *testing.T) {
	m := func(transactional bool) []byte {
		return pgoutputtest.Logical(pgoutput.Logical{Transactional: transactional, LSN: 0x10, Prefix: []byte("p")})
	}
	tests := map[string][][]byte{
		"commit outside":                {commitAt(0x10, 0x20)},
		"commit twice":                  {beginAt(0x10), commitAt(0x10, 0x20), commitAt(0x10, 0x20)},
		"begin inside":                  {beginAt(0x10), beginAt(0x20)},
		"row outside":                   {relation7, insertRow},
		"truncate outside":              {relation7, pgoutputtest.Truncate(pgoutput.Truncate{Relations: []uint32{7}})},
		"origin outside":                {pgoutputtest.Origin(pgoutput.Origin{})},
		"transactional message outside": {m(true)},
		"other message inside":          {beginAt(0x10), m(false)},
	}
	for name, msgs := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := feed(newAssembler(&bareCompleter{}, 0, 0, nil), msgs...); !errors.Is(err, ErrProtocol) {
				t.Errorf("got %v, want %v", err, ErrProtocol)
			}
		})
	}
}

func TestCase173Positions(t *testing.T) {
	tests := map[string][][]byte{
		"commits elsewhere":          {beginAt(0x10), commitAt(0x11, 0x20)},
		"ends at its start":          {beginAt(0x10), commitAt(0x10, 0x10)},
		"ends before its start":      {beginAt(0x10), commitAt(0x10, 0xF)},
		"goes back":                  {beginAt(0x10), commitAt(0x10, 0x20), beginAt(0x8)},
		"begins inside the last":     {beginAt(0x10), commitAt(0x10, 0x20), beginAt(0x1F)},
		"commits at nothing":         {beginAt(0)},
		"the same transaction twice": {beginAt(0x10), commitAt(0x10, 0x20), beginAt(0x10)},
	}
	for name, msgs := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := feed(newAssembler(&bareCompleter{}, 0, 0, nil), msgs...); !errors.Is(err, ErrProtocol) {
				t.Errorf("got %v, want %v", err, ErrProtocol)
			}
		})
	}
}

func TestIdlePositionsNeverGoBack(t *testing.T) {
	a := newAssembler(&bareCompleter{}, 0x100, 0, nil)
	for _, tt := range []struct{ end, want cdc.LSN }{{0x80, 0x100}, {0x120, 0x120}, {0x110, 0x120}} {
		if ev := a.keepalive(tt.end, false); ev == nil || ev.Kind != cdc.EventIdle || ev.End != tt.want {
			t.Errorf("keepalive at %s: got %+v, want %s", tt.end, ev, tt.want)
		}
	}
	if _, err := feed(a, beginAt(0x200)); err != nil {
		t.Fatal(err)
	}
	if ev := a.keepalive(0x180, false); ev != nil {
		t.Errorf("keepalive inside a transaction: got %+v, want none", ev)
	}
	if a.seen != 0x120 {
		t.Errorf("received: got %s, want 0/120: the transaction is not complete", a.seen)
	}
}

// runs is a transaction of one relation and n rows of each kind, decoded and
// assembled without an allocation.
func TestAssembleRowAllocatesNothing(t *testing.T) {
	a := newAssembler(&bareCompleter{}, 0, 0, nil)
	if _, err := feed(a, beginAt(0x10), relation7, insertRow); err != nil {
		t.Fatal(err)
	}
	v := pgoutputtest.Values
	ctx := context.Background()
	for _, msg := range [][]byte{insertRow, pgoutputtest.Update(row('O', v("1", "x"), v("1", cdc.Unchanged))), pgoutputtest.Delete(row('K', v("1", nil), nil))} {
		take := func() {
			if ev, err := a.message(ctx, pgoutput.XLogData{Data: msg}); ev == nil || err != nil {
				t.Fatal(ev, err)
			}
		}
		take()
		if got := testing.AllocsPerRun(100, take); got != 0 {
			t.Errorf("message %q: got %v allocations a row, want 0", msg[0], got)
		}
	}
}

func BenchmarkAssembleRow(b *testing.B) {
	wide := pgoutput.Relation{ID: 7, Namespace: []byte("public"), Name: []byte("orders"), Identity: 'd'}
	for _, name := range []string{"id", "customer", "status", "amount", "note", "at", "payload"} {
		wide.Columns = append(wide.Columns, pgoutput.Column{Name: []byte(name), TypeOID: 25, Mod: -1, Identity: name == "id"})
	}
	a := newAssembler(&bareCompleter{}, 0, 0, nil)
	if _, err := feed(a, beginAt(0x10), pgoutputtest.Relation(wide)); err != nil {
		b.Fatal(err)
	}
	msg := pgoutputtest.XLogData(0x8, pgoutputtest.Update(row(0, nil,
		pgoutputtest.Values("4711", "42", "open", "123.40", strings.Repeat("n", 80), "2026-02-03 04:05:06+00", `{"a": 1}`))))
	ctx := context.Background()
	b.ReportAllocs()
	b.SetBytes(int64(len(msg)))
	for b.Loop() {
		x, err := pgoutput.ParseXLogData(msg)
		if err != nil {
			b.Fatal(err)
		}
		if ev, err := a.message(ctx, x); ev == nil || err != nil {
			b.Fatal(ev, err)
		}
	}
}

// FuzzAssemble: no sequence of messages panics, and one that is accepted keeps
// the promises about positions.
func FuzzAssemble(f *testing.F) {
	join := func(msgs ...[]byte) (b []byte) {
		for _, m := range msgs {
			b = append(append(b, byte(len(m))), m...)
		}
		return b
	}
	f.Add(join(beginAt(0x10), relation7, insertRow, commitAt(0x10, 0x20), beginAt(0x20), insertRow, commitAt(0x20, 0x30)))
	f.Add(join(beginAt(0x10), relation7, pgoutputtest.Truncate(pgoutput.Truncate{Relations: []uint32{7, 7}}), commitAt(0x10, 0x20)))
	f.Fuzz(func(t *testing.T, b []byte) {
		a := newAssembler(&bareCompleter{}, 0x8, 0, []string{"*"})
		var end cdc.LSN
		var index uint32
		for len(b) > 0 {
			n := min(int(b[0]), len(b)-1)
			msg := b[1 : 1+n]
			b = b[1+n:]
			ev, err := a.message(context.Background(), pgoutput.XLogData{Data: msg})
			for ; ev != nil && err == nil; ev, err = a.nextTruncated(context.Background()) {
				switch {
				case ev.Kind == cdc.EventCommit && (ev.End <= end || ev.End <= ev.Tx.Final || ev.Tx.Final < end):
					t.Fatalf("commit at %s, end %s after %s: %s", ev.Tx.Final, ev.End, end, hex.EncodeToString(msg))
				case ev.Kind == cdc.EventCommit:
					end, index = ev.End, 0
				case ev.Change.Tx != nil && ev.Change.Op != cdc.OpMessage:
					if ev.Change.Index != index+1 {
						t.Fatalf("change %d after %d", ev.Change.Index, index)
					}
					index++
				}
				if !a.pending() {
					break
				}
			}
			if err != nil {
				return
			}
		}
	})
}
