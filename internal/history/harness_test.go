package history_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
	"cdc/internal/eventstore"
	"cdc/internal/history"
	"cdc/internal/intent"
	"cdc/internal/sink"
)

var discard = slog.New(slog.DiscardHandler)

// waitLimit bounds every wait of the tests.
const waitLimit = 90 * time.Second

// store is a log in memory: what the Kafka side needs of one, and nothing that
// Postgres would have to be slow for. The real one is in store_test.go.
type store struct {
	id intent.ID

	mu       sync.Mutex
	events   []*intent.Event
	versions map[string]int64
	asked    []int64 // positions that Log was asked to read behind
	fail     error
	head     *eventstore.Head
}

func newStore() *store {
	return &store{id: intent.NewID(), versions: map[string]int64{}, head: eventstore.NewHead()}
}

// add appends events to streams, and tells the head.
func (s *store) add(streams ...string) { s.addSized(0, streams...) }

// addSized appends events with data of a size; 0: as event makes it.
func (s *store) addSized(size int, streams ...string) {
	s.mu.Lock()
	for _, name := range streams {
		s.versions[name]++
		ev := event(s.id, int64(len(s.events)+1), name, s.versions[name])
		if size > 0 {
			ev.Data = json.RawMessage(`"` + strings.Repeat("x", size) + `"`)
		}
		s.events = append(s.events, ev)
	}
	n := int64(len(s.events))
	s.mu.Unlock()
	s.head.Set(n)
}

// event is the same for the same arguments, in every process.
func event(space intent.ID, pos int64, stream string, version int64) *intent.Event {
	return &intent.Event{
		ID: space.Derive(strconv.FormatInt(pos, 10)), Stream: stream, Version: version, Type: "happened", Schema: 1,
		Data: json.RawMessage(`{"n": ` + strconv.FormatInt(version, 10) + `, "pad": "0123456789012345678901234567890123456789"}`),
		Meta: json.RawMessage(`{}`), At: time.UnixMicro(1_700_000_000_000_000 + pos*1000).UTC(),
		Position: pos, Tx: uint32(1000 + pos), LSN: cdc.LSN(pos * 64),
	}
}

func (s *store) Log(ctx context.Context, after int64, limit int, _ []string, fn func(*intent.Event) error) (int64, error) {
	s.mu.Lock()
	s.asked = append(s.asked, after)
	events, fail := s.events, s.fail
	s.mu.Unlock()
	if fail != nil {
		return after, fail
	}
	for i := after; i < int64(len(events)) && i < after+int64(limit); i++ {
		ev := *events[i]
		if err := fn(&ev); err != nil {
			return ev.Position, err
		}
	}
	return min(int64(len(events)), after+int64(limit)), ctx.Err()
}

func (s *store) Head(context.Context) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int64(len(s.events)), s.fail
}

// truncate puts the store back to an earlier moment.
func (s *store) truncate(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = s.events[:n:n]
	s.versions = map[string]int64{}
	for _, ev := range s.events {
		s.versions[ev.Stream] = ev.Version
	}
	s.head = eventstore.NewHead()
}

func (s *store) breakWith(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

// rig is a store, a cluster and the configuration of a publication between them.
type rig struct {
	t   *testing.T
	k   *cdctest.Cluster
	s   *store
	cfg history.Config
}

func newRig(t *testing.T, change ...func(*history.Config)) *rig {
	t.Helper()
	return rigOn(t, cdctest.Kafka(t), newStore(), change...)
}

func rigOn(t *testing.T, k *cdctest.Cluster, s *store, change ...func(*history.Config)) *rig {
	t.Helper()
	cfg := baseConfig(k.Prefix, k.Brokers, s)
	cfg.Logger = slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelInfo}))
	for _, f := range change {
		f(&cfg)
	}
	return &rig{t: t, k: k, s: s, cfg: cfg}
}

func baseConfig(prefix string, brokers []string, s *store) history.Config {
	return history.Config{
		Name: prefix + "intents", Store: s, StoreID: s.id, Head: s.head,
		Sink:  sink.Config{Brokers: brokers},
		Topic: prefix + "{database}.events.{category}", Database: "university",
		Progress: prefix + "progress", Categories: []string{"course"},
		Partitions: 3, Replication: 1, GuardEvery: 200 * time.Millisecond,
	}
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", b)
	return len(b), nil
}

func (r *rig) topic(category string) string {
	return r.k.Prefix + "university.events." + category
}

// running is a publication with a supervisor: it calls Run again after every error
// that is not terminal.
type running struct {
	r      *rig
	p      *history.Publisher
	cancel context.CancelFunc
	done   chan struct{}
	err    error
	fenced atomic.Int64
	errs   atomic.Int64
}

func (r *rig) start(change ...func(*history.Publisher)) *running {
	r.t.Helper()
	r.cfg.Head = r.s.head
	run := &running{r: r, p: history.New(r.cfg), done: make(chan struct{})}
	for _, f := range change {
		f(run.p)
	}
	ctx, cancel := context.WithCancel(context.Background())
	run.cancel = cancel
	go func() {
		defer close(run.done)
		defer run.p.Close()
		for {
			err := run.p.Run(ctx)
			if ctx.Err() != nil || cdc.IsTerminal(err) {
				run.err = err
				return
			}
			r.cfg.Logger.Info("life ended", "error", err)
			run.errs.Add(1)
			if errors.Is(err, history.ErrFenced) {
				run.fenced.Add(1)
			}
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	r.t.Cleanup(func() { cancel(); <-run.done })
	return run
}

// until waits for a condition of the status.
func (run *running) until(what string, cond func(history.Status) bool) {
	run.r.t.Helper()
	limit := time.After(waitLimit)
	for !cond(run.p.Status()) {
		select {
		case <-run.done:
			if cond(run.p.Status()) {
				return
			}
			run.r.t.Fatalf("wait for %s: the publication ended: %v", what, run.err)
		case <-limit:
			run.r.t.Fatalf("wait for %s: not within %s, status %+v", what, waitLimit, run.p.Status())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// published waits until everything in the store is acknowledged.
func (run *running) published() {
	run.r.t.Helper()
	run.until("everything published", func(s history.Status) bool {
		head, _ := run.r.s.Head(context.Background())
		return s.Position == head && s.State == cdc.StateStreaming
	})
}

// stop ends the publication in order.
func (run *running) stop() {
	run.r.t.Helper()
	run.cancel()
	<-run.done
	if run.err != nil {
		run.r.t.Fatalf("stopped with %v", run.err)
	}
}

// fails waits for a terminal error with a reason.
func (run *running) fails(reason string) *cdc.TerminalError {
	run.r.t.Helper()
	select {
	case <-run.done:
	case <-time.After(waitLimit):
		run.r.t.Fatalf("wait for %s: still running, status %+v", reason, run.p.Status())
	}
	var te *cdc.TerminalError
	if !errors.As(run.err, &te) || te.Reason != reason {
		run.r.t.Fatalf("ended with %v, want the reason %s", run.err, reason)
	}
	if s := run.p.Status(); s.State != cdc.StateFailed || s.Reason != reason || s.Mend != te.Mend {
		run.r.t.Errorf("status %+v, want failed with reason %s", s, reason)
	}
	run.r.t.Logf("refused: %v", te)
	return te
}

// once runs until everything is published, and stops.
func (r *rig) once() history.Status {
	r.t.Helper()
	run := r.start()
	run.published()
	run.stop()
	return run.p.Status()
}

// check compares the topics with the store, as an independent client reads them:
// every event once, in its stream's partition, in the order of the log.
func (r *rig) check() {
	r.t.Helper()
	r.s.mu.Lock()
	events := r.s.events
	r.s.mu.Unlock()
	checkTopics(r.t, r.k, events, func(stream string) string { return r.topic(intent.Category(stream)) }, r.cfg.Partitions)
}

func checkTopics(t *testing.T, k *cdctest.Cluster, events []*intent.Event, topicOf func(string) string, partitions int) {
	t.Helper()
	hash := kgo.StickyKeyPartitioner(nil).ForTopic("")
	want := map[string][]string{}
	topics := map[string]bool{}
	for _, ev := range events {
		name := topicOf(ev.Stream)
		topics[name] = true
		at := fmt.Sprintf("%s/%d", name, hash.Partition(&kgo.Record{Key: []byte(ev.Stream)}, partitions))
		want[at] = append(want[at], fmt.Sprintf("%d %s %s", ev.Position, ev.Stream, ev.ID))
	}
	got := map[string][]string{}
	for name := range topics {
		for _, rec := range cdctest.Read(t, k.Brokers, name) {
			at := fmt.Sprintf("%s/%d", name, rec.Partition)
			pos, _ := rec.Header("position")
			id, _ := rec.Header("id")
			got[at] = append(got[at], fmt.Sprintf("%s %s %s", pos, rec.Key, id))
			p, _ := rec.Header("p")
			if s, err := cdc.ParseStamp(p); err != nil || strconv.FormatUint(uint64(s.Position.Tx), 10) != string(pos) {
				t.Fatalf("%s offset %d: stamp %v (%v), position %s", at, rec.Offset, s, err, pos)
			}
		}
	}
	for at, w := range want {
		g := got[at]
		for i := range max(len(w), len(g)) {
			if i >= len(g) || i >= len(w) || g[i] != w[i] {
				t.Errorf("%s: %d records, want %d; the first difference is at %d: got %q, want %q", at, len(g), len(w), i, at0(g, i), at0(w, i))
				break
			}
		}
		delete(got, at)
	}
	for at, g := range got {
		t.Errorf("%s holds %d records, want none", at, len(g))
	}
}

func at0(s []string, i int) string {
	if i < len(s) {
		return s[i]
	}
	return "nothing"
}

// streams makes names of streams over categories.
func streams(n int, categories ...string) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("%s/%d", categories[i%len(categories)], i%37)
	}
	return names
}
