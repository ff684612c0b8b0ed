package source

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"cdc/internal/cdc"
)

// appendCopy is the oracle: PostgreSQL's CopyAttributeOutText, written plainly.
func appendCopy(dst []byte, values []cdc.Value) []byte {
	for i, v := range values {
		if i > 0 {
			dst = append(dst, '\t')
		}
		if v.Kind == cdc.Null {
			dst = append(dst, `\N`...)
			continue
		}
		for _, c := range v.Data {
			if i := strings.IndexByte("\b\f\n\r\t\v\\", c); i >= 0 {
				dst = append(dst, '\\', `bfnrtv\`[i])
			} else {
				dst = append(dst, c)
			}
		}
	}
	return dst
}

func sameValues(a, b []cdc.Value) bool {
	return slices.EqualFunc(a, b, func(x, y cdc.Value) bool { return x.Kind == y.Kind && bytes.Equal(x.Data, y.Data) })
}

func TestDecodeRow(t *testing.T) {
	text := func(s string) cdc.Value { return cdc.Value{Kind: cdc.Text, Data: []byte(s)} }
	null := cdc.Value{Kind: cdc.Null}
	for _, c := range []struct {
		name, line string
		columns    int
		want       []cdc.Value
		err        string
	}{
		{"plain", "1\tabc", 2, []cdc.Value{text("1"), text("abc")}, ""},
		{"null and empty", "\\N\t", 2, []cdc.Value{null, text("")}, ""},
		{"text that reads as null", `\\N`, 1, []cdc.Value{text(`\N`)}, ""},
		{"every escape", `\b\f\n\r\t\v\\`, 1, []cdc.Value{text("\b\f\n\r\t\v\\")}, ""},
		{"escape between runs", `ab\ncd\tef`, 1, []cdc.Value{text("ab\ncd\tef")}, ""},
		{"null beside escapes", "\\N\ta\\\\b\t\\N", 3, []cdc.Value{null, text(`a\b`), null}, ""},
		{"no columns", "", 0, nil, ""},
		{"data without columns", "x", 0, nil, "has data"},
		{"too few", "1", 2, nil, "has 1 columns, want 2"},
		{"too many", "1\t2\t3", 2, nil, "more than 2 columns"},
		{"unknown escape", `\x41`, 1, nil, `escape \x`},
		{"torn escape", `a\`, 1, nil, "ends inside an escape"},
		{"null with more behind it", `\Nx`, 1, nil, `escape \N`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := make([]cdc.Value, c.columns)
			err := decodeRow([]byte(c.line), got)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("got %v, want an error with %q", err, c.err)
				}
				return
			}
			if err != nil || !sameValues(got, c.want) {
				t.Fatalf("got %q, %v, want %q", got, err, c.want)
			}
		})
	}
}

func randomRow(rng *rand.Rand) []cdc.Value {
	const letters = "ab\\Nn\t\n\r\b\f\v ü"
	values := make([]cdc.Value, 1+rng.IntN(6))
	for i := range values {
		if rng.IntN(4) == 0 {
			values[i] = cdc.Value{Kind: cdc.Null}
			continue
		}
		values[i] = cdc.Value{Kind: cdc.Text, Data: []byte{}}
		for range rng.IntN(12) {
			values[i].Data = append(values[i].Data, letters[rng.IntN(len(letters))])
		}
	}
	return values
}

func TestDecodeRowUndoesCopy(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 2))
	for range 20_000 {
		want := randomRow(rng)
		line := appendCopy(nil, want)
		got := make([]cdc.Value, len(want))
		if err := decodeRow(bytes.Clone(line), got); err != nil || !sameValues(got, want) {
			t.Fatalf("seed %d, line %q: got %q, %v, want %q", seed, line, got, err, want)
		}
	}
}

// Whatever decodes encodes to the same line again, and nothing panics.
func FuzzDecodeRow(f *testing.F) {
	f.Add([]byte("1\tabc"), 2)
	f.Add([]byte(`\N`), 1)
	f.Add([]byte("a\\\\b\t\\N\t\\n"), 3)
	f.Add([]byte(`\`), 1)
	f.Fuzz(func(t *testing.T, line []byte, columns int) {
		if columns < 0 || columns > 1600 {
			return
		}
		values := make([]cdc.Value, columns)
		if decodeRow(bytes.Clone(line), values) != nil {
			return
		}
		again := appendCopy(nil, values)
		got := make([]cdc.Value, columns)
		if err := decodeRow(bytes.Clone(again), got); err != nil || !sameValues(got, values) {
			t.Fatalf("line %q as %q: got %q, %v, want %q", line, again, got, err, values)
		}
	})
}

func TestDecodeRowDoesNotAllocate(t *testing.T) {
	line := []byte("12345\tsome text\t\\N\twith\\ttab\t2026-01-01 00:00:00+00")
	work := make([]byte, len(line))
	values := make([]cdc.Value, 5)
	if n := testing.AllocsPerRun(1000, func() {
		copy(work, line)
		if err := decodeRow(work, values); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Fatalf("got %v allocations a row, want 0", n)
	}
}

func BenchmarkDecodeRow(b *testing.B) {
	line := []byte("12345\t67890\tsome text of a name\t" + strings.Repeat("x", 80) + "\t123.45\t2026-01-01 00:00:00+00\t{\"a\": 1, \"b\": \"c\\\\\\\\d\"}")
	work := make([]byte, len(line))
	values := make([]cdc.Value, 7)
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	for b.Loop() {
		copy(work, line)
		if err := decodeRow(work, values); err != nil {
			b.Fatal(err)
		}
	}
}
