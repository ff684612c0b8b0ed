package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"cdc/internal/intent"
)

func TestAppend(t *testing.T) {
	t.Parallel()
	w := newWorld(t, undeclared)
	a, b := intent.NewID(), intent.NewID()
	body := fmt.Sprintf(`{"batches": [
		{"stream": "course/ddia", "expect": "none", "events": [
			{"id": %q, "type": "student-enrolled", "data": {"student": "stu_9"}, "meta": {"actor": "stu_9"}, "subjects": ["stu_9"]},
			{"id": %q, "type": "student-enrolled", "schema": 3, "data": {}}]},
		{"stream": "student/stu_9", "expect": 0}]}`, a, b)
	status, got := w.post(t, body)
	want := fmt.Sprintf(`{"streams":[{"stream":"course/ddia","version":2},{"stream":"student/stu_9","version":0}],"duplicate":false,"token":"%s"}`+"\n", b)
	if status != 200 || got != want {
		t.Fatalf("got %d %s, want %s", status, got, want)
	}
	status, got = w.post(t, body)
	if want = strings.Replace(want, "false", "true", 1); status != 200 || got != want {
		t.Errorf("again: got %d %s, want %s", status, got, want)
	}
	_, text := w.get(t, "/v1/streams/course/ddia")
	stored := events(t, text)
	if len(stored) != 2 || stored[0].ID != a || stored[0].Subjects[0] != "stu_9" || string(stored[0].Meta) != `{"actor": "stu_9"}` || stored[1].Schema != 3 || stored[1].Position != 0 {
		t.Errorf("got stored %s", text)
	}
	// Without an id each call is another event, and the token says which.
	status, got = w.post(t, `{"batches": [{"stream": "course/ddia", "events": [{"type": "x", "data": {}}]}]}`)
	var r intent.Receipt
	if err := json.Unmarshal([]byte(got), &r); err != nil || status != 200 || r.Token.IsZero() || r.Streams[0].Version != 3 {
		t.Errorf("without an id: got %d %s", status, got)
	}
}

func TestAppendRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, intent.Definitions{MaxEvent: 200, Events: []intent.EventType{
		{Name: "enrolled", Stream: "course/{course}", Schema: 1, Fields: []intent.Field{{Name: "course", Type: intent.TypeString}}},
	}})
	one := func(stream, expect, kind, data string) string {
		return fmt.Sprintf(`{"batches": [{"stream": %q, "expect": %s, "events": [{"id": %q, "type": %q, "data": %s}]}]}`, stream, expect, intent.NewID(), kind, data)
	}
	good := `{"course": "a"}`
	if status, got := w.post(t, one("course/a", `"none"`, "enrolled", good)); status != 200 {
		t.Fatalf("got %d %s", status, got)
	}
	if status, got := w.post(t, one("course/c", `"none"`, "enrolled", `{"course": "c"}`)); status != 200 {
		t.Fatalf("got %d %s", status, got)
	}
	w.Exec(t, "select es.close('course/c')")
	for _, tc := range []struct {
		name, body         string
		status             int
		code, stream, path string
		expected           any
		actual             int64 // -1: not given
	}{
		{"none is there", one("course/a", `"none"`, "enrolled", good), 409, "conflict", "course/a", "", 0.0, 1},
		{"another version", one("course/a", `7`, "enrolled", good), 409, "conflict", "course/a", "", 7.0, 1},
		{"some, and none is there", one("course/b", `"some"`, "enrolled", `{"course": "b"}`), 409, "conflict", "course/b", "", "some", 0},
		{"closed", one("course/c", `"any"`, "enrolled", `{"course": "c"}`), 410, "closed", "course/c", "", nil, -1},
		{"not declared", one("course/a", `"any"`, "enroled", good), 422, "invalid", "", "type", nil, -1},
		{"a field that is not declared", one("course/a", `"any"`, "enrolled", `{"course": "a", "x": 1}`), 422, "invalid", "", "data.x", nil, -1},
		{"a bad name", one("co urse/a", `"any"`, "enrolled", good), 422, "invalid", "", "stream", nil, -1},
		{"larger than an event may be", one("course/a", `"any"`, "enrolled", `{"course": "`+strings.Repeat("a", 300)+`"}`), 422, "invalid", "", "", nil, -1},
		{"a stream twice", `{"batches": [{"stream": "course/a"}, {"stream": "course/a"}]}`, 422, "invalid", "", "", nil, -1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			status, got := w.post(t, tc.body)
			f := failureOf(t, got).Error
			if status != tc.status || f.Code != tc.code || f.Stream != tc.stream || f.Path != tc.path || f.Expected != tc.expected ||
				(f.Actual == nil) != (tc.actual < 0) || f.Actual != nil && *f.Actual != tc.actual {
				t.Errorf("got %d %s, want %+v", status, got, tc)
			}
		})
	}
	if n := w.Value(t, "select count(*) from es.event"); n != "2" {
		t.Errorf("%s events are stored, want 2", n)
	}
}

func TestBodyIsBounded(t *testing.T) {
	t.Parallel()
	const limit = 1000
	w := newWorld(t, undeclared, func(h *handler) { *h = *newHandler(func(c Config) Config { c.MaxBody = limit; return c }(h.Config)) })
	body := func(n int) string {
		text := `{"batches": [{"stream": "a/1", "events": [{"type": "x", "data": {"pad": "%s"}}]}]}`
		return fmt.Sprintf(text, strings.Repeat("x", n-len(text)+2))
	}
	for _, tc := range []struct {
		name   string
		body   io.Reader
		status int
	}{
		{"as large as it may be", strings.NewReader(body(limit)), 200},
		{"a byte more", strings.NewReader(body(limit + 1)), 413},
		{"as large, of unknown length", io.MultiReader(strings.NewReader(body(limit))), 200},
		{"a byte more, of unknown length", io.MultiReader(strings.NewReader(body(limit + 1))), 413},
		{"much more, of unknown length", io.MultiReader(strings.NewReader(body(1 << 20))), 413},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(testContext(t), "POST", w.server.URL+"/v1/append", tc.body)
			if err != nil {
				t.Fatal(err)
			}
			res, err := w.server.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			status, got := read(t, res)
			if status != tc.status || status == 413 && failureOf(t, got).Error.Code != "too-large" {
				t.Errorf("got %d %s, want %d", status, got, tc.status)
			}
		})
	}
	if !w.handler.bodies.TryAcquire(bodiesAtOnce * limit) {
		t.Error("room for bodies was not given back")
	}
}

// TestBodyThatDoesNotCome: a client that sends half a body is cut off by the server,
// and its room given back.
func TestBodyThatDoesNotCome(t *testing.T) {
	t.Parallel()
	w := newWorld(t, undeclared)
	r, half := io.Pipe()
	go func() {
		_, _ = half.Write([]byte(`{"batches": [`))
		for ctx := testContext(t); w.handler.bodies.TryAcquire(bodiesAtOnce*w.handler.MaxBody) && ctx.Err() == nil; {
			w.handler.bodies.Release(bodiesAtOnce * w.handler.MaxBody)
			time.Sleep(time.Millisecond) // nothing tells that a handler has begun
		}
		half.CloseWithError(io.ErrUnexpectedEOF) // the connection breaks
	}()
	req, err := http.NewRequestWithContext(testContext(t), "POST", w.server.URL+"/v1/append", r)
	if err != nil {
		t.Fatal(err)
	}
	if res, err := w.server.Client().Do(req); err == nil {
		res.Body.Close()
		t.Fatalf("got %s for half a body", res.Status)
	}
	if err := w.handler.bodies.Acquire(testContext(t), bodiesAtOnce*w.handler.MaxBody); err != nil {
		t.Errorf("room for bodies was not given back: %v", err)
	}
}

// TestNoRoomForABody: an append that finds no room for long is told so.
func TestNoRoomForABody(t *testing.T) {
	t.Parallel()
	h := newHandler(Config{})
	h.bodies.TryAcquire(bodiesAtOnce * h.MaxBody)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var f *fault
	if err := h.takeRoom(ctx, 1); !errors.As(err, &f) || f.status != 503 || f.Code != "busy" {
		t.Errorf("got %v, want busy", err)
	}
}
