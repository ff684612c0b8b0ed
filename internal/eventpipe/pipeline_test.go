package eventpipe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
	"cdc/internal/eventstore"
	"cdc/internal/history"
	"cdc/internal/intent"
	"cdc/internal/sink"
	"cdc/internal/source"
	"cdc/internal/view"
)

func TestMain(m *testing.M) { cdctest.Main(m) }

// waitLimit is for a busy machine; nothing is measured with it.
const waitLimit = 2 * time.Minute

// university is the example of the documentation.
func university() intent.Definitions {
	course := []intent.Field{{Name: "course", Type: intent.TypeString}, {Name: "student", Type: intent.TypeString}}
	declare := func(name string) intent.EventType {
		return intent.EventType{Name: name, Stream: "course/{course}", Schema: 1, Fields: course}
	}
	return intent.Definitions{
		MaxEvent: 1 << 20,
		Events:   []intent.EventType{declare("enrolment-cancelled"), declare("place-offered"), declare("student-enrolled"), declare("student-waitlisted")},
		Views: []intent.View{
			{
				Name: "enrolments", Mode: intent.Inline, Table: "course text, student text, primary key (course, student)",
				When: map[string]string{
					"student-enrolled":    "insert into enrolments values (:course, :student) on conflict do nothing",
					"enrolment-cancelled": "delete from enrolments where course = :course and student = :student",
				},
			}, {
				Name: "waiting", Mode: intent.Async, Table: "course text, student text, since bigint, primary key (course, student)",
				When: map[string]string{
					"student-waitlisted": "insert into waiting values (:course, :student, :pos) on conflict do nothing",
					"place-offered":      "delete from waiting where course = :course and student = :student",
				},
			},
		},
		Reactions: []intent.Reaction{{
			Name: "offer", After: "waiting", When: []string{"enrolment-cancelled"}, From: intent.FromEnd,
			Append: `select 'place-offered' as type, jsonb_build_object('course', :course, 'student', student) as data
				from views.waiting where course = :course order by since limit 1`,
		}},
	}
}

// rig is a store and a pipeline on it.
type rig struct {
	t     *testing.T
	db    *cdctest.DB
	store *eventstore.Store
	cfg   Config
	topic string

	p    *Pipeline
	stop func() error
}

func newRig(t *testing.T, brokers []string, prefix string) *rig {
	t.Helper()
	db := cdctest.Database(t)
	if _, err := eventstore.Init(t.Context(), db.URL, eventstore.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	store, err := eventstore.Open(t.Context(), eventstore.Config{URL: db.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	db.KeepSlot(db.Name)
	return &rig{t: t, db: db, store: store, topic: prefix + "events.course", cfg: Config{
		Name:        prefix + "intents",
		Source:      source.Config{URL: db.URL, Slot: db.Name, Publication: db.Name},
		Definitions: university(),
		Publication: history.Config{
			Topic: prefix + "events.{category}", Progress: prefix + "progress", Partitions: 3,
			Sink: sink.Config{Brokers: brokers}, GuardEvery: 200 * time.Millisecond,
		},
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}}
}

func (r *rig) start() {
	r.p = New(r.cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.p.Run(ctx) }()
	r.stop = sync.OnceValue(func() error { cancel(); return <-done })
	r.t.Cleanup(func() { _ = r.stop() })
}

// append stores one event of a course.
func (r *rig) append(typ, course, student string) intent.ID {
	r.t.Helper()
	data := json.RawMessage(fmt.Sprintf(`{"course":%q,"student":%q}`, course, student))
	rec, err := r.store.Append(r.t.Context(), []intent.Batch{{
		Stream: "course/" + course, Expect: intent.Any, Events: []intent.NewEvent{{ID: intent.NewID(), Type: typ, Data: data}},
	}})
	if err != nil {
		r.t.Fatal(err)
	}
	return rec.Token
}

// until waits for the status to be as ok says.
func (r *rig) until(what string, ok func(s cdc.Status) bool) cdc.Status {
	r.t.Helper()
	deadline := time.Now().Add(waitLimit)
	for {
		s := r.p.Status()
		if ok(s) {
			return s
		}
		if time.Now().After(deadline) {
			text, _ := json.MarshalIndent(s, "", " ")
			r.t.Fatalf("not in time: %s\n%s", what, text)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func partOf(s cdc.Status, name string) cdc.PartStatus {
	if s.Log != nil {
		for _, p := range s.Log.Parts {
			if p.Name == name {
				return p
			}
		}
	}
	return cdc.PartStatus{}
}

// published reads the topic and checks it against the log: each position once, in
// order within its partition.
func (r *rig) published(brokers []string, n int) {
	r.t.Helper()
	records := cdctest.WaitRecords(r.t, brokers, r.topic, cdctest.AtLeast(n))
	seen := map[int64]bool{}
	last := map[int32]int64{}
	for _, rec := range records {
		text, _ := rec.Header("position")
		pos, err := strconv.ParseInt(string(text), 10, 64)
		if err != nil {
			r.t.Fatalf("offset %d: position %q", rec.Offset, text)
		}
		if seen[pos] {
			r.t.Errorf("position %d is there twice", pos)
		}
		if pos <= last[rec.Partition] {
			r.t.Errorf("partition %d: position %d stands behind %d", rec.Partition, pos, last[rec.Partition])
		}
		seen[pos], last[rec.Partition] = true, pos
	}
	for pos := int64(1); pos <= int64(n); pos++ {
		if !seen[pos] {
			r.t.Errorf("position %d is missing", pos)
		}
	}
	if len(records) != n {
		r.t.Errorf("%d records, want %d", len(records), n)
	}
}

// live counts the views that can be read.
func (r *rig) live() int {
	r.t.Helper()
	list, err := view.List(r.t.Context(), r.store)
	if err != nil {
		r.t.Fatal(err)
	}
	n := 0
	for _, v := range list {
		if v.State == "live" {
			n++
		}
	}
	return n
}

// viewsEqual verifies every view against a replay.
func (r *rig) viewsEqual() {
	r.t.Helper()
	for _, v := range r.cfg.Definitions.Views {
		rep, err := view.Verify(r.t.Context(), r.store, v.Name, view.VerifyOptions{})
		if err != nil {
			r.t.Fatal(err)
		}
		if !rep.Equal() {
			r.t.Errorf("view %s differs from a replay: %+v", v.Name, rep)
		}
	}
}

func TestEverythingFollowsFromTheLog(t *testing.T) {
	t.Parallel()
	k := cdctest.Kafka(t)
	r := newRig(t, k.Brokers, k.Prefix)
	r.append("student-enrolled", "ddia", "early") // before there is a slot
	r.start()
	r.until("ready, new views live", func(s cdc.Status) bool { return s.Ready && r.live() == 2 })
	r.append("student-enrolled", "ddia", "ada")
	r.append("student-waitlisted", "ddia", "bob")
	token := r.append("enrolment-cancelled", "ddia", "ada")
	if _, err := r.store.Wait(t.Context(), "waiting", token, waitLimit); err != nil {
		t.Fatal(err)
	}
	r.until("the offer is published", func(s cdc.Status) bool { return s.Log.Published == 5 })
	r.until("the offer is applied", func(s cdc.Status) bool { return partOf(s, "view waiting").Position == 5 })
	if got := r.db.Value(t, "select string_agg(student, ',') from views.enrolments"); got != "early" {
		t.Errorf("enrolled: %s", got)
	}
	if got := r.db.Value(t, "select count(*) from views.waiting"); got != "0" {
		t.Errorf("%s wait still", got)
	}
	r.published(k.Brokers, 5)
	r.viewsEqual()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if s := r.p.Status(); s.State != cdc.StateStopped {
		t.Errorf("state %s", s.State)
	}
}

// With Kafka down, appends, log, views and reactions go on and no WAL is held; when
// it is back, everything is published once.
func TestKafkaDownForTheWholeRunThenBack(t *testing.T) {
	t.Parallel()
	k := cdctest.PrivateKafka(t)
	r := newRig(t, k.Brokers, k.Prefix)
	k.Kill(t)
	r.start()
	const n = 300
	for i := range n {
		r.append("student-enrolled", "c"+strconv.Itoa(i%7), strconv.Itoa(i))
	}
	r.append("student-waitlisted", "c1", "next")
	r.append("enrolment-cancelled", "c1", "1")
	const all = n + 3 // the offer too
	end, err := r.store.ServerEnd(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := r.until("log and views", func(s cdc.Status) bool {
		return s.Log != nil && s.Log.Head == all && partOf(s, "view waiting").Position == all && s.Confirmed >= end
	})
	if s.Ready || s.Log.Published != 0 {
		t.Errorf("ready %v, published %d: Kafka is down", s.Ready, s.Log.Published)
	}
	k.Start(t)
	r.until("published", func(s cdc.Status) bool { return s.Ready && s.Log.Published == all })
	r.published(k.Brokers, all)
	r.viewsEqual()
}

// A history topic that could lose history stops its publication, with the command
// that mends it, and nothing else.
func TestHistoryTopicAlteredToCompactWhileRunning(t *testing.T) {
	t.Parallel()
	k := cdctest.Kafka(t)
	r := newRig(t, k.Brokers, k.Prefix)
	r.start()
	r.append("student-enrolled", "ddia", "ada")
	r.until("published", func(s cdc.Status) bool { return s.Ready && s.Log.Published == 1 })

	c, err := sink.Dial(t.Context(), sink.Config{Brokers: k.Brokers})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetTopicConfig(t.Context(), r.topic, map[string]string{"cleanup.policy": "compact"}); err != nil {
		t.Fatal(err)
	}
	s := r.until("refused", func(s cdc.Status) bool { return partOf(s, "publication").State == cdc.StateFailed })
	pub := partOf(s, "publication")
	if s.Ready || !strings.Contains(pub.Error, r.topic) || !strings.Contains(pub.Mend, "cleanup.policy") {
		t.Errorf("ready %v, error %q, mend %q", s.Ready, pub.Error, pub.Mend)
	}
	r.append("student-waitlisted", "ddia", "bob")
	r.until("log and views go on", func(s cdc.Status) bool {
		return s.Log.Head == 2 && partOf(s, "view waiting").Position == 2
	})
}

// Definitions that cannot be installed end the pipeline before it begins.
func TestDefinitionsAtFaultAreTerminal(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*intent.Definitions){
		"clock in a view": func(d *intent.Definitions) {
			d.Views[0].When["student-enrolled"] = "insert into enrolments values (now()::text, :student)"
		},
		"syntax in a view": func(d *intent.Definitions) { d.Views[1].When["place-offered"] = "delete waiting" },
		"write in a reaction": func(d *intent.Definitions) {
			d.Reactions[0].Append = "delete from views.waiting returning 'place-offered' as type, '{}'::jsonb as data"
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, []string{"127.0.0.1:1"}, "none-"+strings.ReplaceAll(name, " ", "-"))
			change(&r.cfg.Definitions)
			faults, err := Check(t.Context(), r.store, r.cfg.Definitions)
			if err != nil || len(faults) != 1 {
				t.Errorf("check: %v, error %v; want one fault", faults, err)
			}
			err = New(r.cfg).Run(t.Context())
			if !cdc.IsTerminal(err) {
				t.Errorf("run: %v", err)
			}
		})
	}
}

// Before the store was reached the API says so, and that it can pass.
func TestAPIBeforeThePipelineIsReady(t *testing.T) {
	t.Parallel()
	p := New(Config{Name: "x", Logger: slog.New(slog.DiscardHandler)})
	if _, err := p.API().Append(t.Context(), nil); !errors.Is(err, errNotReady) {
		t.Errorf("append: %v", err)
	}
	if _, err := p.API().Head(t.Context()); !errors.Is(err, errNotReady) {
		t.Errorf("head: %v", err)
	}
}
