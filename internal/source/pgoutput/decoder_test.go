package pgoutput_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/source/pgoutput"
	"cdc/internal/source/pgoutput/pgoutputtest"
)

// samples has every message of the protocol, in plain and in odd forms.
var samples = []struct {
	name string
	tag  pgoutput.Tag
	d    pgoutput.Decoder
}{
	{"begin", 'B', pgoutput.Decoder{Begin: pgoutput.Begin{Final: 0x153A0B0, CommitTime: 784_000_000_000_000, XID: 729}}},
	{"commit", 'C', pgoutput.Decoder{Commit: pgoutput.Commit{LSN: 0x153A0B0, End: 0x153A0E0, CommitTime: -1}}},
	{"origin", 'O', pgoutput.Decoder{Origin: pgoutput.Origin{LSN: 0xABCD, Name: []byte("elsewhere")}}},
	{"relation", 'R', pgoutput.Decoder{Relation: pgoutput.Relation{ID: 16385, Namespace: []byte("we ird"), Name: []byte(`T"a.b`), Identity: 'd',
		Columns: []pgoutput.Column{{Name: []byte("id"), TypeOID: 23, Mod: -1, Identity: true}, {Name: []byte("ü😀"), TypeOID: 1700, Mod: 655366}}}}},
	{"relation without columns in pg_catalog", 'R', pgoutput.Decoder{Relation: pgoutput.Relation{ID: 1, Namespace: []byte{}, Name: []byte("z"), Identity: 'n'}}},
	{"type", 'Y', pgoutput.Decoder{Type: pgoutput.Type{OID: 16390, Namespace: []byte("public"), Name: []byte("mood")}}},
	{"insert", 'I', pgoutput.Decoder{Row: pgoutput.Row{Relation: 16385, New: pgoutputtest.Values("1", nil, "", cdc.Unchanged)}}},
	{"insert without columns", 'I', pgoutput.Decoder{Row: pgoutput.Row{Relation: 16385}}},
	{"update", 'U', pgoutput.Decoder{Row: pgoutput.Row{Relation: 16385, New: pgoutputtest.Values("1", "x")}}},
	{"update with key", 'U', pgoutput.Decoder{Row: pgoutput.Row{Relation: 16385, Kind: 'K', Old: pgoutputtest.Values("1", nil), New: pgoutputtest.Values("2", cdc.Unchanged)}}},
	{"update with old row", 'U', pgoutput.Decoder{Row: pgoutput.Row{Relation: 16385, Kind: 'O', Old: pgoutputtest.Values("1", "a"), New: pgoutputtest.Values("1", "b")}}},
	{"delete by key", 'D', pgoutput.Decoder{Row: pgoutput.Row{Relation: 16385, Kind: 'K', Old: pgoutputtest.Values("1", nil)}}},
	{"delete with old row", 'D', pgoutput.Decoder{Row: pgoutput.Row{Relation: 16385, Kind: 'O', Old: pgoutputtest.Values("1", "a")}}},
	{"truncate", 'T', pgoutput.Decoder{Truncate: pgoutput.Truncate{Cascade: true, RestartIdentity: true, Relations: []uint32{16385, 16399}}}},
	{"message", 'M', pgoutput.Decoder{Logical: pgoutput.Logical{Transactional: true, LSN: 0x375EB4B8, Prefix: []byte("p"), Content: []byte{0, 1, 2}}}},
	{"empty message", 'M', pgoutput.Decoder{Logical: pgoutput.Logical{LSN: 8, Prefix: []byte{}, Content: []byte{}}}},
}

func TestDecodeRoundTrip(t *testing.T) {
	var d pgoutput.Decoder // reused: what one message leaves must not show in the next
	for range 2 {
		for _, s := range samples {
			t.Run(s.name, func(t *testing.T) {
				msg := pgoutputtest.Message(s.tag, &s.d)
				tag, err := d.Decode(msg)
				if err != nil || tag != s.tag {
					t.Fatalf("decode %x: got %c, %v, want %c", msg, tag, err, s.tag)
				}
				if again := pgoutputtest.Message(tag, &d); !bytes.Equal(again, msg) {
					t.Errorf("decoded and encoded again: got %x, want %x", again, msg)
				}
			})
		}
	}
}

func TestDecodedFields(t *testing.T) {
	var d pgoutput.Decoder
	row := pgoutput.Row{Relation: 7, Kind: 'K', Old: pgoutputtest.Values("1", nil), New: pgoutputtest.Values("2", cdc.Unchanged)}
	if _, err := d.Decode(pgoutputtest.Update(row)); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(d.Row, row) {
		t.Errorf("got %+v, want %+v", d.Row, row)
	}
	if _, err := d.Decode(pgoutputtest.Delete(row)); err != nil {
		t.Fatal(err)
	}
	if len(d.Row.New) != 0 || d.Row.Kind != 'K' {
		t.Errorf("delete after update: got %+v, want no new row", d.Row)
	}
	if _, err := d.Decode(pgoutputtest.Insert(row)); err != nil {
		t.Fatal(err)
	}
	if len(d.Row.Old) != 0 || d.Row.Kind != pgoutput.OldNone {
		t.Errorf("insert after delete: got %+v, want no old row", d.Row)
	}
}

func TestUnixMicro(t *testing.T) {
	if got, want := pgoutput.UnixMicro(0), time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro(); got != want {
		t.Errorf("got %d, want %d", got, want)
	}
}

func TestCase169Truncated(t *testing.T) {
	var d pgoutput.Decoder
	for _, s := range samples {
		msg := pgoutputtest.Message(s.tag, &s.d)
		for n := range msg {
			if tag, err := d.Decode(msg[:n]); err == nil {
				t.Errorf("%s cut to %d of %d bytes: got %c, want an error", s.name, n, len(msg), tag)
			}
		}
		// A lie about a length or a count must not cost memory.
		for at := 1; at+4 <= len(msg); at++ {
			lie := bytes.Clone(msg)
			binary.BigEndian.PutUint32(lie[at:], math.MaxInt32)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, _ = new(pgoutput.Decoder).Decode(lie)
			runtime.ReadMemStats(&after)
			if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20 {
				t.Errorf("%s with a lie at %d: %d bytes allocated for %d bytes", s.name, at, got, len(msg))
			}
		}
	}
}

func TestCase170BadInput(t *testing.T) {
	insert := func(tuple ...byte) []byte { return append([]byte{'I', 0, 0, 0, 1}, tuple...) }
	relation := func(tail ...byte) []byte { return append([]byte("R\x00\x00\x00\x01s\x00t\x00"), tail...) }
	tests := []struct {
		name string
		msg  []byte
		want string // part of the error
	}{
		{"empty", nil, "too early"},
		{"65535 columns", insert('N', 0xFF, 0xFF), "-1 columns"},
		{"1601 columns", insert(append([]byte{'N', 6, 0x41}, bytes.Repeat([]byte{'n'}, 1601)...)...), "1601 columns"},
		{"more columns than bytes", insert('N', 0, 9, 'n'), "too early"},
		{"length 0xFFFFFFFF", insert('N', 0, 1, 't', 0xFF, 0xFF, 0xFF, 0xFF), "negative length"},
		{"negative length", insert('N', 0, 1, 't', 0x80, 0, 0, 0), "negative length"},
		{"length beyond the end", insert('N', 0, 1, 't', 0, 0, 0, 2, 'x'), "too early"},
		{"kind of value", insert('N', 0, 1, 'x'), `'x'`},
		{"binary value", insert('N', 0, 1, 'b', 0, 0, 0, 0), `'b'`},
		{"kind of new row", insert('O', 0, 0), "want 'N'"},
		{"trailing bytes", insert('N', 0, 0, 0), "1 bytes too many"},
		{"2^31 truncated tables", []byte{'T', 0x80, 0, 0, 0, 0}, "too early"},
		{"more truncated tables than bytes", []byte{'T', 0, 0, 0, 2, 0, 0, 0, 0, 1}, "too early"},
		{"truncate flags", []byte{'T', 0, 0, 0, 0, 4}, "flags"},
		{"name without end", []byte("R\x00\x00\x00\x01public"), "terminator"},
		{"name not UTF-8", []byte("Y\x00\x00\x00\x01\xff\x00x\x00"), "UTF-8"},
		{"name too long", append([]byte("Y\x00\x00\x00\x01"), bytes.Repeat([]byte{'x'}, 253)...), "terminator"},
		{"long name", append(append([]byte("Y\x00\x00\x00\x01"), bytes.Repeat([]byte{'x'}, 253)...), 0, 0), "253 bytes"},
		{"replica identity", relation('x', 0, 0), "replica identity"},
		{"column flags", relation('d', 0, 1, 2, 'c', 0, 0, 0, 0, 23, 0xFF, 0xFF, 0xFF, 0xFF), "column flags"},
		{"commit flags", append([]byte{'C', 1}, make([]byte, 24)...), "flags"},
		{"message flags", append([]byte{'M', 2}, make([]byte, 13)...), "flags"},
		{"key not followed by new row", []byte{'U', 0, 0, 0, 1, 'K', 0, 0, 'O', 0, 0}, "want 'N'"},
		{"delete of a new row", []byte{'D', 0, 0, 0, 1, 'N', 0, 0}, "want 'K' or 'O'"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var d pgoutput.Decoder
			tag, err := d.Decode(tt.msg)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %c, %v, want an error with %q", tag, err, tt.want)
			}
		})
	}
}

func TestCase021UnknownTag(t *testing.T) {
	known := "BCORYIUDTM"
	for b := range 256 {
		if strings.IndexByte(known, byte(b)) >= 0 {
			continue
		}
		want := pgoutput.ErrUnknownTag
		switch {
		case strings.IndexByte("bPKrp", byte(b)) >= 0:
			want = pgoutput.ErrTwoPhase
		case strings.IndexByte("SEcA", byte(b)) >= 0:
			want = pgoutput.ErrStreamed
		}
		var d pgoutput.Decoder
		if _, err := d.Decode([]byte{byte(b), 1, 2, 3}); !errors.Is(err, want) {
			t.Errorf("tag %q: got %v, want %v", byte(b), err, want)
		}
	}
}

func TestCase174Envelope(t *testing.T) {
	x := pgoutputtest.XLogData(7, []byte("hello"))
	if got, err := pgoutput.ParseXLogData(x); err != nil || got.Start != 7 || string(got.Data) != "hello" {
		t.Errorf("XLogData: got %+v, %v", got, err)
	}
	for n := range 25 {
		if _, err := pgoutput.ParseXLogData(x[:n]); err == nil {
			t.Errorf("XLogData header of %d bytes: want an error", n)
		}
	}
	want := pgoutput.Keepalive{End: 0x375EB4B8, Reply: true}
	k := pgoutputtest.Keepalive(want)
	if got, err := pgoutput.ParseKeepalive(k); err != nil || got != want {
		t.Errorf("keepalive: got %+v, %v, want %+v", got, err, want)
	}
	for n := range k {
		if _, err := pgoutput.ParseKeepalive(k[:n]); err == nil {
			t.Errorf("keepalive of %d bytes: want an error", n)
		}
	}
	if _, err := pgoutput.ParseKeepalive(append(k, 0)); err == nil {
		t.Error("keepalive with a byte too many: want an error")
	}
	k[len(k)-1] = 2
	if _, err := pgoutput.ParseKeepalive(k); err == nil {
		t.Error("keepalive with reply flag 2: want an error")
	}
}

func TestCase010Status(t *testing.T) {
	at := time.Date(2026, 2, 3, 4, 5, 6, 7000, time.UTC)
	b := pgoutput.AppendStatus(nil, pgoutput.Status{Write: 0x300, Flush: 0, Apply: 0, Time: at, Reply: true})
	if len(b) != pgoutput.StatusSize || b[0] != 'r' {
		t.Fatalf("got %d bytes %x, want %d", len(b), b, pgoutput.StatusSize)
	}
	for i, want := range []uint64{0x300, 0, 0} {
		if got := binary.BigEndian.Uint64(b[1+8*i:]); got != want {
			t.Errorf("position %d: got %x, want %x", i, got, want)
		}
	}
	if got := pgoutput.UnixMicro(int64(binary.BigEndian.Uint64(b[25:]))); got != at.UnixMicro() {
		t.Errorf("clock: got %d, want %d", got, at.UnixMicro())
	}
	if b[33] != 1 {
		t.Errorf("reply flag: got %d, want 1", b[33])
	}
}

func wideRow() []byte {
	vals := make([]any, 12)
	for i := range vals {
		vals[i] = strings.Repeat("v", 5*i)
	}
	return pgoutputtest.Update(pgoutput.Row{Relation: 1, Kind: 'O', Old: pgoutputtest.Values(vals...), New: pgoutputtest.Values(vals...)})
}

func TestDecodeRowAllocatesNothing(t *testing.T) {
	msg := wideRow()
	var d pgoutput.Decoder
	if _, err := d.Decode(msg); err != nil {
		t.Fatal(err)
	}
	if got := testing.AllocsPerRun(100, func() { _, _ = d.Decode(msg) }); got != 0 {
		t.Errorf("got %v allocations a row, want 0", got)
	}
}

func BenchmarkDecodeRow(b *testing.B) {
	msg := pgoutputtest.Insert(pgoutput.Row{Relation: 1, New: pgoutputtest.Values("4711", "42", "open", "123.40", strings.Repeat("n", 80), "2026-02-03 04:05:06+00", `{"a": 1}`)})
	var d pgoutput.Decoder
	b.ReportAllocs()
	b.SetBytes(int64(len(msg)))
	for b.Loop() {
		if _, err := d.Decode(msg); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzDecode holds the decoder to its inverse: what it accepts, encoded again,
// is what it was given; and every proper prefix of it is refused.
func FuzzDecode(f *testing.F) {
	for _, s := range samples {
		f.Add(pgoutputtest.Message(s.tag, &s.d))
	}
	f.Add([]byte("b\x00"))
	f.Fuzz(func(t *testing.T, msg []byte) {
		var d pgoutput.Decoder
		tag, err := d.Decode(msg)
		if got := footprint(&d); got > footprintLimit(msg) {
			t.Fatalf("%x takes %d bytes for %d", msg, got, len(msg))
		}
		if err != nil {
			return
		}
		if again := pgoutputtest.Message(tag, &d); !bytes.Equal(again, msg) {
			t.Fatalf("decoded and encoded again: got %x, want %x", again, msg)
		}
		for n := range min(len(msg), 200) {
			if _, err := new(pgoutput.Decoder).Decode(msg[:n]); err == nil {
				t.Fatalf("%x cut to %d bytes was accepted", msg, n)
			}
		}
	})
}

// FuzzEnvelope: the same for the outer layer.
func FuzzEnvelope(f *testing.F) {
	f.Add(pgoutputtest.Keepalive(pgoutput.Keepalive{End: 1, Reply: true}))
	f.Add(pgoutputtest.XLogData(1, []byte("x")))
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, err := pgoutput.ParseKeepalive(b); err == nil {
			again := pgoutputtest.Keepalive(k)
			if !bytes.Equal(slices.Concat(again[:9], b[9:17], again[17:]), b) {
				t.Fatalf("keepalive %x: encoded again %x", b, again)
			}
		}
		if x, err := pgoutput.ParseXLogData(b); err == nil {
			if again := pgoutputtest.XLogData(x.Start, x.Data); !bytes.Equal(again[:9], b[:9]) || !bytes.Equal(again[25:], b[25:]) {
				t.Fatalf("XLogData %x: encoded again %x", b, again)
			}
		}
	})
}
