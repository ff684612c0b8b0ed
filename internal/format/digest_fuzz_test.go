package format

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
)

// members reads an object as the digester does. A byte that is not UTF-8 is made
// U+FFFD in a name, which is what encoding/json does.
func members(value []byte) (map[string]string, bool) {
	all := make(map[string]string)
	var s objectScanner
	s.open(value)
	for name, raw, ok := s.next(); ok; name, raw, ok = s.next() {
		all[string([]rune(string(name)))] = string(raw)
	}
	return all, s.done()
}

// oracleMembers reads an object with encoding/json; deep says that it refuses it
// for its depth alone, which the digester does not limit.
func oracleMembers(value []byte) (all map[string]string, ok, deep bool) {
	if trimmed := bytes.TrimLeft(value, " \t\r\n"); len(trimmed) == 0 || trimmed[0] != '{' {
		return nil, false, false
	}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(value, &raw); err != nil {
		return nil, false, strings.Contains(err.Error(), "max depth")
	}
	all = make(map[string]string)
	for name, m := range raw {
		all[name] = string(m)
	}
	return all, true, false
}

// FuzzDigest: nothing panics; what is an object and which members it has,
// encoding/json says the same; a digest does not depend on the order of the
// members; and two rows have the same digest exactly where Diff finds nothing.
func FuzzDigest(f *testing.F) {
	seeds := []string{
		`{}`, `{"id":1,"a":null,"b":"x"}`, ` { "b" : [1, {"c": -1.5e+3}], "id":1 } `, `{"a":{"b":[[],{}]}}`,
		`{"\u0061":"\ud83d\ude00","\ud800":1}`, "{\"\xff\":\"\xff\"}", `{"a":1,"a":2}`, `{"a":`, `{"op":"c","after":{"id":1}}`, `{"a":"\\\""}`,
	}
	for i, s := range seeds {
		f.Add([]byte(s), []byte(seeds[(i+1)%len(seeds)]))
	}
	columns := []string{"id", "a", "b"}
	lean := testFormat(f, Options{Format: JSON}).NewDigester(columns)
	envelopes := testFormat(f, Options{Format: DebeziumJSON}).NewDigester(columns)
	f.Fuzz(func(t *testing.T, value, other []byte) {
		got, ok := members(value)
		want, valid, deep := oracleMembers(value)
		if deep {
			return
		}
		if ok != valid || ok && !maps.Equal(got, want) {
			t.Fatalf("%q: got %q, an object: %v, want %q, %v", value, got, ok, want, valid)
		}
		dig, alive, older, err := lean.Digest(value)
		if alive != valid || (err == nil) != (valid || value == nil) {
			t.Fatalf("%q: got alive %v, error %v, want an object: %v", value, alive, err, valid)
		}
		if _, _, _, err := envelopes.Digest(value); err == nil && value != nil && !valid {
			t.Fatalf("%q: was taken for an envelope", value)
		}
		if !valid {
			return
		}
		checkOrder(t, lean, got, dig, older)
		envelope := slices.Concat([]byte(`{"before":null,"after":`), value, []byte(`,"op":"c"}`))
		if in, alive, _, err := envelopes.Digest(envelope); in != dig || !alive || err != nil {
			t.Fatalf("%q: got %x in an envelope, alive %v, error %v, want %x", value, in, alive, err, dig)
		}
		second, alive, _, err := lean.Digest(other)
		if err != nil || !alive {
			return
		}
		diffs, err := lean.Diff(value, other)
		if err != nil || (len(diffs) == 0) != (dig == second) {
			t.Fatalf("%q and %q: got digests %x and %x and the differences %v, error %v", value, other, dig, second, diffs, err)
		}
	})
}

// checkOrder writes the members in the order of their names.
func checkOrder(t *testing.T, d *Digester, all map[string]string, want Digest, wantOlder bool) {
	var b strings.Builder
	for i, name := range slices.Sorted(maps.Keys(all)) {
		if i > 0 {
			b.WriteByte(',')
		}
		quoted, err := json.Marshal(name)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(quoted)
		b.WriteString(":" + all[name])
	}
	got, alive, older, err := d.Digest([]byte("{" + b.String() + "}"))
	if got != want || older != wantOlder || !alive || err != nil {
		t.Fatalf("{%s}: got %x, older %v, alive %v, error %v, want %x, %v", b.String(), got, older, alive, err, want, wantOlder)
	}
}
