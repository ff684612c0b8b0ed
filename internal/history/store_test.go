package history_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
	"cdc/internal/eventstore"
	"cdc/internal/history"
	"cdc/internal/intent"
)

// realStore is an event store in Postgres. Nobody numbers its events but number.
type realStore struct {
	*eventstore.Store
	db *cdctest.DB
	id intent.ID
}

func openStore(t testing.TB) *realStore {
	t.Helper()
	db := cdctest.Database(t)
	if _, err := eventstore.Init(t.Context(), db.URL, eventstore.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	s, err := eventstore.Open(t.Context(), eventstore.Config{URL: db.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	id, err := s.ID(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return &realStore{Store: s, db: db, id: id}
}

// number gives positions to the events that have none, as the reader of the slot
// would, in the order of the transactions here.
func (s *realStore) number(t testing.TB) int64 {
	t.Helper()
	s.db.Exec(t, `insert into es.log (pos, event, lsn, tx)
		select (select coalesce(max(pos), 0) from es.log) + row_number() over (order by e.at, e.id), e.id, pg_current_wal_lsn(), e.xmin::text::bigint
		from es.event e where not exists (select from es.log l where l.event = e.id)`)
	head, err := s.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return head
}

func (s *realStore) append(t testing.TB, batches ...intent.Batch) {
	t.Helper()
	if _, err := s.Append(t.Context(), batches); err != nil {
		t.Fatal(err)
	}
}

func (s *realStore) all(t testing.TB) []*intent.Event {
	t.Helper()
	var events []*intent.Event
	if _, err := s.Log(t.Context(), 0, 1_000_000, nil, func(ev *intent.Event) error {
		events = append(events, ev)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return events
}

func (s *realStore) rig(t *testing.T) *rig {
	r := newRig(t)
	r.s.id = s.id
	r.cfg.Store, r.cfg.StoreID = s, s.id
	return r
}

// The record of an event of the real store, as an independent client reads it.
func TestRecordOfARealEvent(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	r := s.rig(t)
	id := intent.NewID()
	s.append(t, intent.Batch{Stream: "course/ddia", Expect: intent.None, Events: []intent.NewEvent{{
		ID: id, Type: "enrolment-cancelled", Data: json.RawMessage(`{"student":"s-17","n":1.10}`),
		Meta: json.RawMessage(`{"actor":"s-17","correlation":"req-9","causation":"cmd-1"}`), Subjects: []string{"person/17"},
	}}})
	r.s.head.Set(s.number(t))
	run := r.start()
	run.until("published", func(st history.Status) bool { return st.Position == 1 })
	run.stop()
	ev := s.all(t)[0]
	records := cdctest.Read(t, r.k.Brokers, r.topic("course"))
	if len(records) != 1 {
		t.Fatalf("%d records, want 1", len(records))
	}
	got := ""
	for _, h := range records[0].Headers {
		value := string(h.Value)
		if h.Key == cdc.StampHeader {
			value = hex.EncodeToString(h.Value)
		}
		got += h.Key + " " + value + "\n"
	}
	want := fmt.Sprintf(`p %08x00000000000000010000000000000000
id %s
type enrolment-cancelled
schema 1
version 1
position 1
tx %d
lsn %s
time %s
correlation req-9
causation cmd-1
meta {"actor": "s-17"}
subjects ["person/17"]
`, uint32(history.GenerationOf(s.id)), id, ev.Tx, ev.LSN, ev.At.UTC().Format(time.RFC3339Nano))
	if got != want {
		t.Errorf("headers\n%s\nwant\n%s", got, want)
	}
	if rec := records[0]; string(rec.Key) != "course/ddia" || string(rec.Value) != `{"n": 1.10, "student": "s-17"}` || rec.Time.UnixMilli() != ev.At.UnixMilli() {
		t.Errorf("key %q, value %s, time %s", rec.Key, rec.Value, rec.Time)
	}
}

// Appends, numbering and publication at once, categories met on the way, a restart
// and a lost topic in between.
func TestRealStore(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	r := s.rig(t)
	run := r.start()
	add := func(n int) {
		for i := range n {
			var b []intent.Batch
			for _, category := range []string{"course", "student", "room"} {
				events := make([]intent.NewEvent, 1+i%5)
				for j := range events {
					events[j] = intent.NewEvent{ID: intent.NewID(), Type: "happened", Data: json.RawMessage(fmt.Sprintf(`{"i":%d}`, i))}
				}
				b = append(b, intent.Batch{Stream: fmt.Sprintf("%s/%d", category, i%11), Expect: intent.Any, Events: events})
			}
			s.append(t, b...)
			if i%7 == 0 {
				r.s.head.Set(s.number(t))
			}
		}
		r.s.head.Set(s.number(t))
	}
	published := func() {
		t.Helper()
		head, err := s.Head(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		run.until("published", func(st history.Status) bool { return st.Position == head })
	}
	check := func() {
		t.Helper()
		checkTopics(t, r.k, s.all(t), func(stream string) string { return r.topic(intent.Category(stream)) }, r.cfg.Partitions)
	}
	add(50)
	published()
	run.stop()
	add(20)
	run = r.start()
	published()
	check()
	run.stop()
	r.deleteTopic(r.topic("room"))
	run = r.start()
	run.fails("topic-missing")
	if err := history.Republish(t.Context(), r.cfg, 1, nil); err != nil {
		t.Fatal(err)
	}
	run = r.start()
	add(20)
	published()
	run.stop()
	check()
}

// BenchmarkRealStore publishes a log of events of 200 bytes from Postgres.
func BenchmarkRealStore(b *testing.B) {
	const n = 200_000
	s := openStore(b)
	s.db.Exec(b, `set session_replication_role = replica`, fmt.Sprintf(`
		insert into es.stream select 'course/' || i, %[1]d / 1000 from generate_series(0, 999) i;
		insert into es.event (id, stream, version, type, data, meta)
		select gen_random_uuid(), 'course/' || i %% 1000, i / 1000 + 1, 'student-enrolled', jsonb_build_object('course', 'c' || i, 'student', repeat('x', 150)),
			jsonb_build_object('actor', 'a', 'correlation', gen_random_uuid())
		from generate_series(0, %[1]d - 1) i;
		insert into es.log select row_number() over (order by stream, version), id, '0/1000', 7 from es.event; analyze es.event; analyze es.log`, n))
	benchmark(b, s, s.id, n)
}

// BenchmarkMemory is the same without Postgres: the ceiling of the Kafka side.
func BenchmarkMemory(b *testing.B) {
	const n = 500_000
	s := newStore()
	for i := range n {
		s.addSized(200, fmt.Sprintf("course/%d", i%1000))
	}
	benchmark(b, s, s.id, n)
}

func benchmark(b *testing.B, log history.Log, id intent.ID, n int64) {
	k := cdctest.Kafka(b)
	for i := 0; b.Loop(); i++ {
		cfg := baseConfig(fmt.Sprintf("%sb%d.", k.Prefix, i), k.Brokers, newStore())
		cfg.Store, cfg.StoreID, cfg.Partitions = log, id, 6
		cfg.Logger = discard
		p := history.New(cfg)
		ctx, cancel := context.WithCancel(b.Context())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		begin := time.Now()
		for p.Status().Position < n {
			select {
			case err := <-done:
				b.Fatal(err)
			case <-time.After(time.Millisecond):
			}
		}
		b.ReportMetric(float64(n)/time.Since(begin).Seconds(), "events/s")
		cancel()
		if err := <-done; err != nil {
			b.Fatal(err)
		}
		p.Close()
	}
}
