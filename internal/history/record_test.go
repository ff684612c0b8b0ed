package history

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/intent"
)

var update = flag.Bool("update", false, "rewrite testdata")

// goldenEvents have what headers can have.
func goldenEvents(t testing.TB) []*intent.Event {
	t.Helper()
	id, err := intent.ParseID("018f4e2c-7b1a-7c3d-9e5f-0a1b2c3d4e5f")
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 3, 29, 2, 30, 0, 120_000_000, time.FixedZone("CEST", 7200))
	return []*intent.Event{
		{ID: id, Stream: "course/ddia", Version: 7, Type: "enrolment-cancelled", Schema: 2,
			Data: json.RawMessage(`{"course": "ddia", "reason": null, "student": "s<1>"}`),
			Meta: json.RawMessage(`{"actor": "s-17", "causation": "018f4e2c-0000-7c3d-9e5f-0a1b2c3d4e5f", "correlation": "req \"9\" é"}`), Subjects: []string{"person/17", `a "b"`},
			At: at, Position: 12345678901, Tx: 4294967295, LSN: 0x16B374D848},
		{ID: id.Derive("2"), Stream: "room", Version: 1, Type: "t", Schema: 1, Data: json.RawMessage(`{}`), Meta: json.RawMessage(`{}`),
			At: time.Unix(0, 0), Position: 1, Tx: 3, LSN: 8},
		{ID: id.Derive("3"), Stream: "straße/1", Version: 2, Type: "größe", Schema: 1, Data: json.RawMessage(`[1, 1e400, 10000000000000000000001]`),
			Meta: json.RawMessage(`{"n": 1.10, "correlation": {"id": 5}, "causation": ""}`), At: at.Add(time.Microsecond), Position: 2, Tx: 4, LSN: 16},
	}
}

func describe(r *cdc.Record) string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "key %q\ntimestamp %d\n", r.Key, r.Time)
	for _, h := range r.Headers {
		fmt.Fprintf(&b, "header %s %q\n", h.Key, h.Value)
	}
	fmt.Fprintf(&b, "value %s\n\n", r.Value)
	return b.String()
}

// Key, value, timestamp and headers of records, to the byte.
func TestRecordGolden(t *testing.T) {
	var enc encoder
	var got bytes.Buffer
	for _, ev := range goldenEvents(t) {
		got.WriteString(describe(enc.encode(ev)))
	}
	path := filepath.Join("testdata", "records.golden")
	if *update {
		if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("got\n%s\nwant\n%s", got.Bytes(), want)
	}
}

// An encoder that was used before gives the same as a new one.
func TestEncoderKeepsNothing(t *testing.T) {
	var used encoder
	events := goldenEvents(t)
	for _, first := range events {
		for _, ev := range events {
			used.encode(first)
			var fresh encoder
			if got, want := describe(used.encode(ev)), describe(fresh.encode(ev)); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		}
	}
}

func TestSplitMeta(t *testing.T) {
	for _, c := range []struct{ meta, correlation, causation, rest string }{
		{``, "", "", ``},
		{`{}`, "", "", ``},
		{` { } `, "", "", ``},
		{`{"correlation": "c"}`, "c", "", ``},
		{`{"correlation":"c","causation":"d"}`, "c", "d", ``},
		{`{"actor": "a", "correlation": "c", "x": [1, {"y": "}"}]}`, "c", "", `{"actor": "a", "x": [1, {"y": "}"}]}`},
		{`{"x": 1.10, "correlation": 5, "causation": null}`, "", "", `{"x": 1.10, "correlation": 5, "causation": null}`},
		{`{"a\"b": "\\", "causation": "\u00e9\n"}`, "", "é\n", `{"a\"b": "\\"}`},
		{`{"x": {"correlation": "inner"}}`, "", "", `{"x": {"correlation": "inner"}}`},
		{`{"correlation": ""}`, "", "", `{"correlation": ""}`},
		{`[1]`, "", "", `[1]`},
		{`null`, "", "", `null`},
		{`{"x": tru`, "", "", `{"x": tru`},
		{`{"x" 1}`, "", "", `{"x" 1}`},
	} {
		t.Run(c.meta, func(t *testing.T) {
			got := splitMeta([]byte(c.meta), nil)
			if got.correlation != c.correlation || got.causation != c.causation || string(got.rest) != c.rest {
				t.Errorf("got %q %q %s, want %q %q %s", got.correlation, got.causation, got.rest, c.correlation, c.causation, c.rest)
			}
		})
	}
}

// FuzzSplitMeta compares with encoding/json: what was a JSON object comes apart into
// its members, and nothing else happens to them.
func FuzzSplitMeta(f *testing.F) {
	for _, seed := range []string{`{}`, `{"correlation": "c", "actor": "a"}`, `{"a": {"b": ["}", "\""]}, "causation": "\ud83d\ude00"}`, `{"a":1,"a":2}`, `[`, `{"correlation": "c"`, `{"x": 1e5 , "y":-0}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, meta []byte) {
		got := splitMeta(meta, nil)
		var want map[string]json.RawMessage
		if json.Unmarshal(meta, &want) != nil || want == nil {
			return // never stored; it must not panic, that is all
		}
		seen := map[string]int{}
		dec := json.NewDecoder(bytes.NewReader(meta))
		for depth := 0; ; {
			tok, err := dec.Token()
			if err != nil {
				break
			}
			if d, ok := tok.(json.Delim); ok {
				if d == '{' || d == '[' {
					depth++
				} else {
					depth--
				}
				continue
			}
			if s, ok := tok.(string); ok && depth == 1 {
				seen[s]++ // keys and strings alike: enough to see members that come twice
			}
		}
		if seen["correlation"] > 1 || seen["causation"] > 1 {
			return // jsonb has each member once
		}
		for name, text := range map[string]string{"correlation": got.correlation, "causation": got.causation} {
			var s string
			if json.Unmarshal(want[name], &s) == nil && s != "" && bytes.Contains(meta, []byte(`"`+name+`"`)) {
				if text != s {
					t.Errorf("%s is %q, want %q", name, text, s)
				}
				delete(want, name)
			} else if text != "" {
				t.Errorf("%s is %q, want none", name, text)
			}
		}
		rest := map[string]json.RawMessage{}
		if len(got.rest) > 0 {
			if err := json.Unmarshal(got.rest, &rest); err != nil {
				t.Fatalf("rest %q: %v", got.rest, err)
			}
		}
		if len(rest) != len(want) {
			t.Fatalf("rest %q has %d members, want %d", got.rest, len(rest), len(want))
		}
		for name, value := range want {
			if !bytes.Equal(rest[name], value) {
				t.Errorf("member %q is %s, want %s", name, rest[name], value)
			}
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	var enc encoder
	ev := goldenEvents(b)[0]
	ev.Subjects = nil
	b.ReportAllocs()
	for b.Loop() {
		enc.encode(ev)
	}
}
