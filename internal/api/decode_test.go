package api

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"cdc/internal/intent"
)

func TestDecodeAppend(t *testing.T) {
	id := "018f4e2c-7b1a-7c3d-9e5f-0a1b2c3d4e5f"
	got, err := decodeAppend([]byte(` {"batches" : [
		{"stream": "a/é\n", "expect": 7, "events": [{"id": "` + strings.ToUpper(id) + `", "type": "x", "schema": 2, "data": { "k" : [1, {}] }, "meta": {}, "subjects": ["s", "t"]}]},
		{"stream": "b", "expect": "some", "events": []}, {"stream": "c"}, {"stream": "d", "expect": "3"}]} `))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 4 || got[0].Stream != "a/é\n" || got[0].Expect != 7 || got[1].Expect != intent.Some || got[2].Expect != intent.Any || got[3].Expect != 3 {
		t.Errorf("got %+v", got)
	}
	if e := got[0].Events[0]; e.ID.String() != id || e.Type != "x" || e.Schema != 2 || string(e.Data) != `{ "k" : [1, {}] }` || string(e.Meta) != "{}" || strings.Join(e.Subjects, ",") != "s,t" {
		t.Errorf("got event %+v", e)
	}
}

func TestDecodeAppendRefuses(t *testing.T) {
	event := func(s string) string { return `{"batches":[{"stream":"a","events":[` + s + `]}]}` }
	for _, tc := range []struct {
		name, body, path, text string
		offset                 int64
	}{
		{"nothing", ``, "", "unexpected end", 0},
		{"not JSON", `{"batches":[}`, "", "invalid character '}'", 13},
		{"ends early", `{"batches":[`, "", "unexpected end", 12},
		{"more behind it", `{"batches":[]} {}`, "", "after top-level value", 16},
		{"not UTF-8", "{\"batches\":\"\xff\"}", "", "not UTF-8 at byte 12", 12},
		{"a list", `[]`, "body", "must be an object", 1},
		{"null", `null`, "body", "must be an object", 4},
		{"no batches", `{}`, "batches", "no batches", -1},
		{"empty batches", `{"batches":[]}`, "batches", "no batches", -1},
		{"batches in capitals", `{"Batches":[]}`, "Batches", "not known here", 10},
		{"batches twice", `{"batches":[{"stream":"a"}],"batches":[]}`, "batches", "given twice", -1},
		{"no stream", `{"batches":[{"expect":1}]}`, "batches[0].stream", "missing", -1},
		{"a misspelt expect", `{"batches":[{"stream":"a","expected":1}]}`, "batches[0].expected", "not known here", -1},
		{"expect is null", `{"batches":[{"stream":"a","expect":null}]}`, "batches[0].expect", "any, none, some", -1},
		{"expect is below zero", `{"batches":[{"stream":"a","expect":-1}]}`, "batches[0].expect", "any, none, some", -1},
		{"expect has a fraction", `{"batches":[{"stream":"a","expect":1.5}]}`, "batches[0].expect", "any, none, some", -1},
		{"expect is too large", `{"batches":[{"stream":"a","expect":9223372036854775808}]}`, "batches[0].expect", "any, none, some", -1},
		{"expect is another word", `{"batches":[{"stream":"a","expect":"all"}]}`, "batches[0].expect", "any, none, some", -1},
		{"expect is empty", `{"batches":[{"stream":"a","expect":""}]}`, "batches[0].expect", "any, none, some", -1},
		{"expect is a list", `{"batches":[{"stream":"a","expect":[1]}]}`, "batches[0].expect", "any, none, some", -1},
		{"events are an object", `{"batches":[{"stream":"a","events":{}}]}`, "batches[0].events", "must be a list", -1},
		{"an event is a string", event(`"x"`), "batches[0].events[0]", "must be an object", -1},
		{"no type", event(`{"data":{}}`), "batches[0].events[0].type", "missing", -1},
		{"no data", event(`{"type":"x"}`), "batches[0].events[0].data", "missing", -1},
		{"data is a list", event(`{"type":"x","data":[]}`), "batches[0].events[0].data", "must be an object", -1},
		{"data is null", event(`{"type":"x","data":null}`), "batches[0].events[0].data", "must be an object", -1},
		{"meta is a string", event(`{"type":"x","data":{},"meta":"m"}`), "batches[0].events[0].meta", "must be an object", -1},
		{"schema is zero", event(`{"type":"x","data":{},"schema":0}`), "batches[0].events[0].schema", "whole number", -1},
		{"schema is a string", event(`{"type":"x","data":{},"schema":"1"}`), "batches[0].events[0].schema", "whole number", -1},
		{"schema is too large", event(`{"type":"x","data":{},"schema":2147483648}`), "batches[0].events[0].schema", "whole number", -1},
		{"an id that is none", event(`{"id":"7","type":"x","data":{}}`), "batches[0].events[0].id", "not a UUID", -1},
		{"subjects of numbers", event(`{"type":"x","data":{},"subjects":[1]}`), "batches[0].events[0].subjects[0]", "must be a string", -1},
		{"the second event", event(`{"type":"x","data":{}},{"type":"x","date":{}}`), "batches[0].events[1].date", "not known here", -1},
		{"too deep", event(`{"type":"x","data":{"a":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}}`), "", "depth", -1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := decodeAppend([]byte(tc.body))
			var f *fault
			if !errors.As(err, &f) || f.status != 400 || f.Code != "malformed" || f.Path != tc.path || !strings.Contains(f.Message, tc.text) {
				t.Fatalf("got %+v (%v), want %q at %q", f, err, tc.text, tc.path)
			}
			if tc.offset >= 0 && (f.Offset == nil || *f.Offset != tc.offset) {
				t.Errorf("got offset %v, want %d", f.Offset, tc.offset)
			}
		})
	}
}

// FuzzDecodeAppend: whatever is taken, encoding/json takes too, and sees the same.
func FuzzDecodeAppend(f *testing.F) {
	f.Add([]byte(`{"batches":[{"stream":"a","expect":"any","events":[{"type":"x","data":{"n":1},"meta":{},"schema":1,"subjects":["s"],"id":"018f4e2c-7b1a-7c3d-9e5f-0a1b2c3d4e5f"}]}]}`))
	f.Add([]byte(`{"batches":[{"stream":"a","expect":3}]}`))
	f.Add([]byte(`{"batches":[{"stream":"\ud800"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := decodeAppend(body)
		if err != nil {
			return
		}
		var want struct {
			Batches []struct {
				Stream string
				Expect any
				Events []struct {
					ID, Type   string
					Schema     int
					Data, Meta json.RawMessage
					Subjects   []string
				}
			}
		}
		if err := json.Unmarshal(body, &want); err != nil {
			t.Fatalf("taken, and is not JSON: %v", err)
		}
		if len(got) != len(want.Batches) {
			t.Fatalf("got %d batches, want %d", len(got), len(want.Batches))
		}
		for i, b := range want.Batches {
			if got[i].Stream != b.Stream || len(got[i].Events) != len(b.Events) {
				t.Fatalf("batch %d: got %+v, want %+v", i, got[i], b)
			}
			for j, e := range b.Events {
				if g := got[i].Events[j]; g.Type != e.Type || string(g.Data) != string(e.Data) || string(g.Meta) != string(e.Meta) || g.Schema != e.Schema || len(g.Subjects) != len(e.Subjects) {
					t.Fatalf("event %d.%d: got %+v, want %+v", i, j, g, e)
				}
			}
		}
	})
}
