package format

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"cdc/internal/cdc"
)

func digestOf(t *testing.T, d *Digester, value string) (Digest, bool) {
	t.Helper()
	dig, alive, older, err := d.Digest([]byte(value))
	if err != nil || !alive {
		t.Fatalf("digest of %s: alive %v, error %v", value, alive, err)
	}
	return dig, older
}

func TestDigestLean(t *testing.T) {
	d := testFormat(t, Options{Format: JSON}).NewDigester([]string{"id", "name", `q"ä😀`, "doc"})
	const base = `{"id":1,"name":"a","q\"ä😀":null,"doc":{"a": [1, {}]}}`
	tests := []struct {
		name, value  string
		equal, older bool
	}{
		{"itself", base, true, false},
		{"other order and space", " {\n\"doc\" : {\"a\": [1, {}]} ,\t\"q\\\"ä😀\":null,\"name\":\"a\",\"id\":1}\r\n", true, false},
		{"names in other escapes", `{"\u0069d":1,"n\u0061me":"a","q\u0022\u00E4\ud83d\ude00":null,"doc":{"a": [1, {}]}}`, true, false},
		{"null is absent", `{"id":1,"name":"a","doc":{"a": [1, {}]}}`, true, true},
		{"a column that is no more", `{"id":1,"gone":[true,false],"name":"a","q\"ä😀":null,"doc":{"a": [1, {}]}}`, true, true},
		{"the last of two", `{"id":1,"name":"b","name":"a","q\"ä😀":2,"doc":{"a": [1, {}]},"q\"ä😀":null}`, true, false},
		{"another value", `{"id":2,"name":"a","q\"ä😀":null,"doc":{"a": [1, {}]}}`, false, false},
		{"number and text", `{"id":"1","name":"a","q\"ä😀":null,"doc":{"a": [1, {}]}}`, false, false},
		{"values that changed places", `{"id":"a","name":1,"q\"ä😀":null,"doc":{"a": [1, {}]}}`, false, false},
		{"a value that moved to a column that was null", `{"id":1,"name":null,"q\"ä😀":"a","doc":{"a": [1, {}]}}`, false, false},
		{"a document of other bytes", `{"id":1,"name":"a","q\"ä😀":null,"doc":{"a":[1,{}]}}`, false, false},
		{"null as a text", `{"id":1,"name":"a","q\"ä😀":"null","doc":{"a": [1, {}]}}`, false, false},
		{"a value that is not there", `{"id":1,"q\"ä😀":null,"doc":{"a": [1, {}]}}`, false, true},
		{"names are case sensitive", `{"id":1,"Name":"a","q\"ä😀":null,"doc":{"a": [1, {}]}}`, false, true},
		{"nothing", `{}`, false, true},
	}
	want, _ := digestOf(t, d, base)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, older := digestOf(t, d, tt.value)
			if (got == want) != tt.equal || older != tt.older {
				t.Errorf("%s: got equal %v, older %v, want %v, %v", tt.value, got == want, older, tt.equal, tt.older)
			}
			diffs, err := d.Diff([]byte(base), []byte(tt.value))
			if err != nil || (len(diffs) == 0) != tt.equal {
				t.Errorf("%s: got differences %v, error %v, want equal %v", tt.value, diffs, err, tt.equal)
			}
		})
	}
}

// Digesters of several goroutines must agree, and so must those with the columns
// in another order.
func TestDigestersAgree(t *testing.T) {
	f := testFormat(t, Options{Format: JSON})
	const value = `{"a":1,"b":[2],"c":"3"}`
	one, _ := digestOf(t, f.NewDigester([]string{"a", "b", "c"}), value)
	two, _ := digestOf(t, f.NewDigester([]string{"c", "a", "b"}), value)
	if one != two {
		t.Errorf("got %x and %x for the same row", one, two)
	}
}

func TestDigestDebezium(t *testing.T) {
	d := testFormat(t, Options{Format: DebeziumJSON}).NewDigester([]string{"id", "name"})
	const after = `{"id":1,"name":"a"}`
	want, _ := digestOf(t, d, testEnvelope("c", "null", after))
	tests := []struct {
		name, value         string
		equal, alive, older bool
	}{
		{"an update, of which before does not matter", testEnvelope("u", `{"id":7,"name":"z"}`, after), true, true, false},
		{"a row that was read", testEnvelope("r", "null", after), true, true, false},
		{"older", testEnvelope("u", "null", `{"id":1,"name":"a","gone":null}`), true, true, true},
		{"members in another order", `{"op":"u", "after": ` + after + ` ,"before":null}`, true, true, false},
		{"another value", testEnvelope("u", "null", `{"id":1,"name":"b"}`), false, true, false},
		{"the placeholder is a value", testEnvelope("u", "null", `{"id":1,"name":"__debezium_unavailable_value"}`), false, true, false},
		{"a delete", testEnvelope("d", after, "null"), false, false, false},
		{"a delete without after", `{"op":"d","before":` + after + `}`, false, false, false},
		{"nothing after", testEnvelope("u", after, "null"), false, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, alive, older, err := d.Digest([]byte(tt.value))
			if err != nil || alive != tt.alive || older != tt.older || (got == want) != tt.equal {
				t.Errorf("got equal %v, alive %v, older %v, error %v, want %v, %v, %v",
					got == want, alive, older, err, tt.equal, tt.alive, tt.older)
			}
		})
	}
}

func TestDigestTombstone(t *testing.T) {
	for _, name := range []string{JSON, DebeziumJSON} {
		_, alive, older, err := testFormat(t, Options{Format: name}).NewDigester([]string{"id"}).Digest(nil)
		if alive || older || err != nil {
			t.Errorf("%s: got alive %v, older %v, error %v, want none", name, alive, older, err)
		}
	}
}

func TestDigestRefuses(t *testing.T) {
	const secret = "row-data"
	lean := []string{
		"", " ", "null", "1", `"` + secret + `"`, `["` + secret + `"]`, "{", `{"a"}`, `{"a":}`, `{"a":1`, `{"a":1,}`, `{,"a":1}`, `{"a":1 "b":2}`,
		`{"a":1}}`, `{"a":1} x`, `{"a":01}`, `{"a":1.}`, `{"a":-}`, `{"a":1e}`, `{"a":+1}`, `{"a":.5}`, `{"a":tru}`, `{"a":nul}`, `{"a":NaN}`,
		`{"a":"` + secret + `}`, "{\"a\":\"\n\"}", `{"a":"\x"}`, `{"a":"\u12g4"}`, `{"a":"\`, `{"a":"\u00`, `{a:1}`, `{"a":[1,]}`, `{"a":[1}`, `{"a":{"b":1]}`,
		`{"a":{"b" 1}}`, `{"a":{1:1}}`, `{"a":[`, `{"a":{"` + secret + `":1,}}`, "{\"a\":1\x00}", "{\"a\":\x00}",
	}
	check := func(t *testing.T, d *Digester, value string) {
		_, alive, _, err := d.Digest([]byte(value))
		if !errors.Is(err, ErrForeignValue) || alive {
			t.Errorf("%q: got alive %v, error %v, want ErrForeignValue", value, alive, err)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("%q: the error holds data of the row: %v", value, err)
		}
		if _, err := d.Diff(nil, []byte(value)); !errors.Is(err, ErrForeignValue) {
			t.Errorf("%q: difference: got error %v, want ErrForeignValue", value, err)
		}
	}
	t.Run(JSON, func(t *testing.T) {
		d := testFormat(t, Options{Format: JSON}).NewDigester([]string{"a"})
		for _, value := range lean {
			check(t, d, value)
		}
	})
	t.Run(DebeziumJSON, func(t *testing.T) {
		d := testFormat(t, Options{Format: DebeziumJSON}).NewDigester([]string{"a"})
		for _, value := range lean {
			if value != "null" {
				check(t, d, `{"op":"c","after":`+value+`}`)
			}
		}
		for _, value := range []string{`{"a":1}`, `{"op":"c"}`, `{"after":{"a":1}}`, `{"op":1,"after":{"a":1}}`, `{"op":"m","message":{}}`, `{"op":"c","after":{}`} {
			check(t, d, value)
		}
	})
}

func TestDiff(t *testing.T) {
	d := testFormat(t, Options{Format: JSON}).NewDigester([]string{"id", "name", "added"})
	long := strings.Repeat("ä", 300)
	tests := []struct {
		name, source, target string
		want                 []cdc.ColumnDiff
	}{
		{"two columns", `{"id":1,"name":"a","added":[1]}`, `{"gone":5,"added":[2],"name":null,"id":1}`,
			[]cdc.ColumnDiff{{Column: "name", Source: `"a"`, Target: "null"}, {Column: "added", Source: "[1]", Target: "[2]"}}},
		{"no record", `{"id":1,"name":null}`, "", []cdc.ColumnDiff{{Column: "id", Source: "1"}}},
		{"long", `{"name":"` + long + `"}`, `{"name":"b"}`,
			[]cdc.ColumnDiff{{Column: "name", Source: `"` + long[:254] + "…", Target: `"b"`}}},
		{"long with a shared front", `{"name":"` + long + `"}`, `{"name":"` + long + `+"}`,
			[]cdc.ColumnDiff{{Column: "name", Source: "…" + long[:64] + `"`, Target: "…" + long[:64] + `+"`}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var target []byte
			if tt.target != "" {
				target = []byte(tt.target)
			}
			got, err := d.Diff([]byte(tt.source), target)
			if err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("got %q, error %v, want %q", got, err, tt.want)
			}
			for _, diff := range got {
				for _, s := range []string{diff.Source, diff.Target} {
					if len(s) > diffText+2*len(ellipsis) || !utf8.ValidString(s) {
						t.Errorf("%s: got %d bytes, valid UTF-8 %v", diff.Column, len(s), utf8.ValidString(s))
					}
				}
			}
		})
	}
}

// What the encoder writes is read by the digester: every type, both formats.
func TestDigestOfEncoded(t *testing.T) {
	rel, values := orders()
	for _, name := range []string{JSON, DebeziumJSON} {
		t.Run(name, func(t *testing.T) {
			f := testFormat(t, Options{Format: name})
			e, err := f.Compile(rel)
			if err != nil {
				t.Fatal(err)
			}
			d := f.NewDigester(e.Columns())
			encode := func(op cdc.Op, values []cdc.Value) string {
				out := &capture{}
				if err := e.Encode(&cdc.Change{Op: op, Relation: rel, Tx: testTx(), LSN: 24023128, Index: 1, New: values}, out); err != nil {
					t.Fatal(err)
				}
				return string(out.records[0].Value)
			}
			want, older := digestOf(t, d, encode(cdc.OpInsert, values))
			if older {
				t.Error("a record just written: got older")
			}
			if got, _ := digestOf(t, d, encode(cdc.OpRead, values)); got != want {
				t.Errorf("the row read and the row inserted: got %x, want %x", got, want)
			}
			for i := range e.Columns() {
				changed := slices.Clone(values)
				changed[i] = cdc.Value{Kind: cdc.Null}
				if i == rel.Key[0] {
					changed[i] = row("43")[0]
				}
				if got, _ := digestOf(t, d, encode(cdc.OpUpdate, changed)); got == want {
					t.Errorf("column %s changed and the digest did not", e.Columns()[i])
				}
			}
		})
	}
}

func digestValues(tb testing.TB, format string) (*Digester, []byte) {
	rel, values := orders()
	f := testFormat(tb, Options{Format: format})
	e, err := f.Compile(rel)
	if err != nil {
		tb.Fatal(err)
	}
	out := &capture{}
	if err := e.Encode(&cdc.Change{Op: cdc.OpInsert, Relation: rel, Tx: testTx(), LSN: 24023128, Index: 1, New: values}, out); err != nil {
		tb.Fatal(err)
	}
	return f.NewDigester(e.Columns()), out.records[0].Value
}

func TestDigestDoesNotAllocate(t *testing.T) {
	for _, name := range []string{JSON, DebeziumJSON} {
		d, value := digestValues(t, name)
		n := testing.AllocsPerRun(100, func() {
			if _, _, _, err := d.Digest(value); err != nil {
				t.Fatal(err)
			}
		})
		if n != 0 {
			t.Errorf("%s: got %v allocations a value, want none", name, n)
		}
	}
}

func BenchmarkDigest(b *testing.B) {
	for _, name := range []string{JSON, DebeziumJSON} {
		b.Run(name, func(b *testing.B) {
			d, value := digestValues(b, name)
			b.SetBytes(int64(len(value)))
			b.ReportAllocs()
			for b.Loop() {
				if _, _, _, err := d.Digest(value); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
