package rights

import (
	"context"
	"encoding/json"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
	"cdc/internal/eventpipe"
	"cdc/internal/eventstore"
	"cdc/internal/history"
	"cdc/internal/intent"
	"cdc/internal/source"
)

// 177: with the documented rights and no others a pipeline of events publishes,
// starts again and is verified. Without one of them the publication stops and says
// so, the numbering goes on, and everything is published once when it was given.
func TestCase177RightsOfEvents(t *testing.T) {
	k := cdctest.RestrictedKafka(t)
	db := cdctest.Database(t)
	db.KeepSlot(db.Name)
	if _, err := eventstore.Init(t.Context(), db.URL, eventstore.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	store, err := eventstore.Open(t.Context(), eventstore.Config{URL: db.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	const topics, progress = "university.events.", "_cdc.progress.intents"
	cfg := eventpipe.Config{
		Name:   "intents",
		Source: source.Config{URL: db.URL, Slot: db.Name, Publication: db.Name},
		Definitions: intent.Definitions{MaxEvent: 1 << 20, Events: []intent.EventType{{
			Name: "student-enrolled", Stream: "course/{course}", Schema: 1, Fields: []intent.Field{{Name: "course", Type: intent.TypeString}},
		}}},
		Publication: history.Config{
			Topic: topics + "{category}", Progress: progress, Partitions: 2, Sink: sinkConfig(k), GuardEvery: 50 * time.Millisecond,
		},
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	appended := 0
	enrol := func() {
		t.Helper()
		appended++
		_, err := store.Append(t.Context(), []intent.Batch{{Stream: "course/ddia", Expect: intent.Any,
			Events: []intent.NewEvent{{ID: intent.NewID(), Type: "student-enrolled", Data: json.RawMessage(`{"course":"ddia"}`)}}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	// run appends an event to a running pipeline, does harm, appends another and waits
	// until ok; then it stops in order.
	run := func(harm func(), ok func(cdc.Status, cdc.PartStatus) bool) (publication cdc.PartStatus) {
		t.Helper()
		p, done := eventpipe.New(cfg), make(chan error, 1)
		ctx, cancel := context.WithCancel(context.Background())
		go func() { done <- p.Run(ctx) }()
		defer func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("stop: %v", err)
			}
		}()
		await := func(ok func(cdc.Status, cdc.PartStatus) bool) {
			t.Helper()
			for deadline := time.Now().Add(waitLimit); ; time.Sleep(10 * time.Millisecond) {
				s := p.Status()
				if s.Log != nil {
					for _, part := range s.Log.Parts {
						if part.Name == "publication" {
							publication = part
						}
					}
					if ok(s, publication) {
						return
					}
				}
				if time.Now().After(deadline) {
					t.Fatalf("not in time: %+v, publication %+v", s, publication)
				}
			}
		}
		enrol()
		if harm != nil {
			await(published(&appended))
			harm()
			enrol()
		}
		await(ok)
		return publication
	}
	once := func() {
		t.Helper()
		records := cdctest.Read(t, k.Brokers, topics+"course")
		for i, r := range records {
			if pos, _ := r.Header("position"); string(pos) != strconv.Itoa(i+1) {
				t.Fatalf("record %d has position %s", i+1, pos)
			}
		}
		if len(records) != appended {
			t.Errorf("%d records of %d events", len(records), appended)
		}
	}
	rights := documented(t, "### mode: events")
	k.Allow(t, rights...)
	run(nil, published(&appended))
	run(nil, published(&appended))
	once()
	found, err := eventpipe.Verify(t.Context(), cfg, eventpipe.VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		if f.Verdict != cdc.VerdictEqual {
			t.Errorf("verify %s: %s (%s), want %s", f.Subject, f.Verdict, f.Why, cdc.VerdictEqual)
		}
	}

	failed := func(s cdc.Status, publication cdc.PartStatus) bool {
		return publication.State == cdc.StateFailed && s.Log.Head == int64(appended)
	}
	topic := func(op kmsg.ACLOperation, name string) cdctest.Right {
		return cdctest.Right{Operation: op, Type: kmsg.ACLResourceTypeTopic, Name: name}
	}
	for _, tt := range []struct {
		name   string
		revoke cdctest.Right
		says   []string
		runs   bool // when it is taken away
	}{
		{"write as the transactional id", cdctest.Right{Operation: kmsg.ACLOperationWrite, Type: kmsg.ACLResourceTypeTransactionalId, Name: "intents"},
			[]string{`"intents"`, "right Write"}, false},
		{"write", topic(kmsg.ACLOperationWrite, topics), []string{topics + "course", "right Write"}, true},
		{"read", topic(kmsg.ACLOperationRead, topics), []string{topics + "course", "right Read"}, false},
		{"read of the progress", topic(kmsg.ACLOperationRead, progress), []string{progress, "right Read"}, false},
		{"settings", topic(kmsg.ACLOperationDescribeConfigs, topics), []string{topics + "course", "right DescribeConfigs"}, true},
	} {
		k.Revoke(t, cdctest.Right{Operation: kmsg.ACLOperationAny})
		k.Allow(t, rights...)
		harm := func() { k.Revoke(t, tt.revoke) }
		if !tt.runs {
			harm()
			harm = nil
		}
		publication := run(harm, failed)
		for _, text := range tt.says {
			if !strings.HasPrefix(publication.Reason, "acl-") || !strings.Contains(publication.Error, text) {
				t.Errorf("%s: refused for %s with %q, want it to say %q", tt.name, publication.Reason, publication.Error, text)
			}
		}
		k.Allow(t, commanded(t, publication.Mend)...)
		run(nil, published(&appended))
		once()
	}
}

// published waits for so many events to be in their topics.
func published(n *int) func(cdc.Status, cdc.PartStatus) bool {
	return func(s cdc.Status, _ cdc.PartStatus) bool { return s.Log.Published == int64(*n) }
}
