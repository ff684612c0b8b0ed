package api

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"cdc/internal/intent"
)

// counting is definitions with a fold of category a and one of category b/….
var counting = intent.Definitions{Undeclared: true, MaxEvent: 1 << 20, Folds: []intent.Fold{
	{Category: "a", Initial: json.RawMessage(`0`), When: map[string]string{"x": "to_jsonb((:state)::int + 1)"}},
}}

func TestStreamOf(t *testing.T) {
	for _, tc := range []struct {
		path, name string
		state      bool
	}{
		{"/v1/streams/course/ddia", "course/ddia", false},
		{"/v1/streams/course/ddia/state", "course/ddia", true},
		{"/v1/streams/a/state", "a", true},
		{"/v1/streams/a%2Fstate", "a/state", false},
		{"/v1/streams/a%2fstate/state", "a/state", true},
		{"/v1/streams/a/state/state", "a/state", true},
		{"/v1/streams/a%2F%2Fb", "a//b", false},
		{"/v1/streams/a%2F%2E%2E", "a/..", false},
		{"/v1/streams/state", "state", false},
		{"/v1/streams/%C3%A9/a%20b", "é/a b", false},
		{"/v1/streams/a%253F", "a%3F", false},
	} {
		u, err := url.Parse("http://x" + tc.path)
		if err != nil {
			t.Fatal(err)
		}
		if name, state, err := streamOf(u); name != tc.name || state != tc.state || err != nil {
			t.Errorf("%s: got %q, state %v, %v, want %q, %v", tc.path, name, state, err, tc.name, tc.state)
		}
	}
}

func TestStreams(t *testing.T) {
	t.Parallel()
	w := newWorld(t, counting)
	for _, stream := range []string{"a/1", "a/state", "a/1/b//c?d#e %f", "a"} {
		w.add(t, stream, "x", 3)
	}
	w.add(t, "b/1", "x", 1)
	for _, tc := range []struct {
		path string
		want string // the stream, and versions
	}{
		{"a/1", "a/1 1 2 3"},
		{"a%2F1", "a/1 1 2 3"},
		{"a/1?from=2", "a/1 2 3"},
		{"a/1?to=2", "a/1 1 2"},
		{"a/1?from=2&to=2", "a/1 2"},
		{"a/1?from=4", ""},
		{"a/1?from=3&to=2", ""},
		{"a", "a 1 2 3"},
		{"a%2Fstate", "a/state 1 2 3"},
		{"a/1/b%2F%2Fc%3Fd%23e%20%25f", "a/1/b//c?d#e %f 1 2 3"},
	} {
		t.Run(tc.path, func(t *testing.T) {
			status, text := w.get(t, "/v1/streams/"+tc.path)
			var got strings.Builder
			for i, e := range events(t, text) {
				if i == 0 {
					got.WriteString(e.Stream)
				}
				fmt.Fprintf(&got, " %d", e.Version)
			}
			if status != 200 || got.String() != tc.want {
				t.Errorf("got %d %q, want %q", status, got.String(), tc.want)
			}
		})
	}
	for _, tc := range []struct {
		path, want string
	}{
		{"a/1/state", `{"stream":"a/1","version":3,"state":3}`},
		{"a/1/state?version=2", `{"stream":"a/1","version":2,"state":2}`},
		{"a/1/state?version=9", `{"stream":"a/1","version":3,"state":3}`},
		{"a/1/state?at=2000-01-01T00:00:00Z", `{"stream":"a/1","version":0,"state":0}`},
		{"a/1/state?at=2999-01-01T00:00:00Z", `{"stream":"a/1","version":3,"state":3}`},
		{"a/state", `{"stream":"a","version":3,"state":3}`},
		{"a%2Fstate/state", `{"stream":"a/state","version":3,"state":3}`},
		{"a/new/state", `{"stream":"a/new","version":0,"state":0}`},
	} {
		t.Run(tc.path, func(t *testing.T) {
			if status, got := w.get(t, "/v1/streams/"+tc.path); status != 200 || strings.TrimSpace(got) != tc.want {
				t.Errorf("got %d %s, want %s", status, got, tc.want)
			}
		})
	}
	for _, tc := range []struct {
		path       string
		status     int
		code, fate string
	}{
		{"streams/a/none", 404, "not-found", ""},
		{"streams/a/none?from=2", 404, "not-found", ""},
		{"streams/b/1/state", 404, "not-found", ""},
		{"streams/", 400, "malformed", "stream"},
		{"streams/a/1?from=0", 400, "malformed", "from"},
		{"streams/a/1?to=x", 400, "malformed", "to"},
		{"streams/a/1?form=2", 400, "malformed", "form"},
		{"streams/a/1?from=1&from=2", 400, "malformed", "from"},
		{"streams/a/1?from=%zz", 400, "malformed", "query"},
		{"streams/a/1/state?version=0", 400, "malformed", "version"},
		{"streams/a/1/state?version=1&at=2999-01-01T00:00:00Z", 400, "malformed", "at"},
		{"streams/a/1/state?at=yesterday", 400, "malformed", "at"},
		{"nothing", 404, "not-found", ""},
	} {
		t.Run(tc.path, func(t *testing.T) {
			status, text := w.get(t, "/v1/"+tc.path)
			if f := failureOf(t, text).Error; status != tc.status || f.Code != tc.code || f.Path != tc.fate {
				t.Errorf("got %d %s, want %d %s %s", status, text, tc.status, tc.code, tc.fate)
			}
		})
	}
	for path, method := range map[string]string{"/v1/append": "GET", "/v1/log": "POST", "/v1/streams/a": "DELETE", "/v1/views/v": "PUT", "/v1/views/v/wait": "POST"} {
		res := w.do(t, method, path, "")
		status, text := read(t, res)
		if f := failureOf(t, text).Error; status != 405 || f.Code != "method" || res.Header.Get("Allow") == "" {
			t.Errorf("%s %s: got %d %s", method, path, status, text)
		}
	}
	res := w.do(t, "POST", "/v1/append", `{}`, "Origin", "http://evil.example", "Sec-Fetch-Site", "cross-site")
	if status, text := read(t, res); status != 403 || failureOf(t, text).Error.Code != "cross-origin" {
		t.Errorf("from another site: got %d %s", status, text)
	}
}
