package eventstore

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"cdc/internal/cdctest"
	"cdc/internal/intent"
)

// testLimit bounds what a test waits for in all.
const testLimit = 2 * time.Minute

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testLimit)
	t.Cleanup(cancel)
	return ctx
}

// newStore makes a database with a store and opens it as a role.
func newStore(t testing.TB, role string) (*Store, *cdctest.DB) {
	t.Helper()
	ctx := testContext(t)
	db := cdctest.Database(t)
	if _, err := Init(ctx, db.URL, InitOptions{}); err != nil {
		t.Fatal(err)
	}
	s, err := Open(ctx, Config{URL: db.URL, Role: role, MaxConns: 16})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, db
}

// one is a batch of one event with a fresh id.
func one(stream string, expect intent.Expect, typ string) intent.Batch {
	return intent.Batch{Stream: stream, Expect: expect, Events: []intent.NewEvent{{ID: intent.NewID(), Type: typ, Data: json.RawMessage(`{"n": 1}`)}}}
}

func TestAppendAndRead(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t, RoleWriter)
	ctx := testContext(t)
	b := one("course/ddia", intent.None, "student-enrolled")
	b.Events[0].Subjects = []string{"stu_9", `a "quoted", one`}
	r, err := s.Append(ctx, []intent.Batch{b})
	if err != nil {
		t.Fatal(err)
	}
	if r.Duplicate || r.Token != b.Events[0].ID || len(r.Streams) != 1 || r.Streams[0] != (intent.StreamVersion{Stream: "course/ddia", Version: 1}) {
		t.Fatalf("got receipt %+v", r)
	}
	again, err := s.Append(ctx, []intent.Batch{b})
	if err != nil || !again.Duplicate || again.Token != r.Token || again.Streams[0] != r.Streams[0] {
		t.Fatalf("repeated: got %+v, %v, want %+v as a duplicate", again, err, r)
	}
	var got []*intent.Event
	if err := s.Read(ctx, "course/ddia", 1, 0, func(e *intent.Event) error { got = append(got, e); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0].ID != b.Events[0].ID || string(got[0].Data) != `{"n": 1}` || string(got[0].Meta) != `{}` || len(got[0].Subjects) != 2 || got[0].Subjects[1] != `a "quoted", one` || got[0].Schema != 1 {
		t.Fatalf("got %d events, first %+v", len(got), got[0])
	}
}
