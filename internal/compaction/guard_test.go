package compaction_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/compaction"
)

// G4, while running: whatever may lose records ends the guard with a terminal
// error that names the topic and the command.
func TestCase087Case088GuardStopsThePipeline(t *testing.T) {
	for _, tt := range []struct {
		name string
		harm func(*cluster)
		want []string
	}{
		{"case 87: partitions added", func(c *cluster) {
			_, err := c.admin.UpdatePartitions(c.t.Context(), 6, "rows")
			c.must(err)
		}, []string{`topic "rows": partitions is 6, want 3`, "kafka-topics.sh"}},
		{"case 88: state topic to be deleted from", func(c *cluster) { c.set("rows", "cleanup.policy", "compact,delete") },
			[]string{`topic "rows": cleanup.policy is compact,delete, want compact`, "kafka-configs.sh", "cdc drop PIPELINE"}},
		{"case 88: state topic not compacted", func(c *cluster) { c.set("rows", "cleanup.policy", "delete") },
			[]string{`topic "rows": cleanup.policy is delete`}},
		{"history compacted", func(c *cluster) { c.set("events", "cleanup.policy", "compact") },
			[]string{`topic "events": cleanup.policy is compact, want delete`, "es.log"}},
		{"history with an end", func(c *cluster) { c.set("events", "retention.ms", "86400000") },
			[]string{`topic "events": retention.ms is 86400000, want -1`}},
		{"progress expires", func(c *cluster) { c.set("_cdc.progress.p", "cleanup.policy", "delete") },
			[]string{`topic "_cdc.progress.p": cleanup.policy is delete`}},
		{"topic deleted", func(c *cluster) { c.remove("rows") }, []string{`topic "rows": topic is missing`, "cdc topics --apply"}},
		{"topic deleted and made again", func(c *cluster) {
			c.remove("rows")
			c.must(compaction.Apply(c.t.Context(), c, c.look()))
		}, []string{`topic "rows": topic is another`, "made again"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCluster(t)
			c.must(compaction.Apply(t.Context(), c, c.look()))
			v := watch(c)
			done := make(chan error, 1)
			g := compaction.NewGuard(v, time.Millisecond, quiet(), specs()...)
			go func() { done <- g.Run(within(t)) }()
			v.turn(t, 2) // all is well, twice
			tt.harm(c)
			err := v.last(t, done)
			if !cdc.IsTerminal(err) {
				t.Fatalf("guard ended with %v, want a terminal error", err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in:\n%v", want, err)
				}
			}
		})
	}
}

func (c *cluster) remove(topic string) {
	c.t.Helper()
	_, err := c.admin.DeleteTopic(c.t.Context(), topic)
	c.must(err)
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// watcher lets the guard look when a test says so, and can make a look fail.
// Between two turns of the test no look is on its way.
type watcher struct {
	compaction.Viewer
	look, looked chan struct{}
	blind        atomic.Bool
}

func watch(v compaction.Viewer) *watcher {
	return &watcher{Viewer: v, look: make(chan struct{}), looked: make(chan struct{})}
}

var errBlind = errors.New("no broker answers")

func (w *watcher) Topics(ctx context.Context, names ...string) (map[string]cdc.TopicState, error) {
	select {
	case <-w.look:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { w.looked <- struct{}{} }()
	if w.blind.Load() {
		return nil, errBlind
	}
	return w.Viewer.Topics(ctx, names...)
}

// turn lets the guard look n times.
func (w *watcher) turn(t *testing.T, n int) {
	t.Helper()
	for range n {
		select {
		case w.look <- struct{}{}:
			<-w.looked
		case <-within(t).Done():
			t.Fatal("the guard does not look")
		}
	}
}

// last lets the guard look once more, which must be its last.
func (w *watcher) last(t *testing.T, done chan error) error {
	t.Helper()
	w.turn(t, 1)
	select {
	case err := <-done:
		return err
	case w.look <- struct{}{}:
		<-w.looked
		t.Fatal("the guard goes on")
	}
	return nil
}

// A harmless change is told once; not to see is told once, and no fault.
func TestGuardGoesOn(t *testing.T) {
	c := newCluster(t)
	c.must(compaction.Apply(t.Context(), c, c.look()))
	var out bytes.Buffer // written by the guard alone, read when it is gone
	v := watch(c)
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	done := make(chan error, 1)
	g := compaction.NewGuard(v, time.Millisecond, slog.New(slog.NewTextHandler(&out, nil)), specs()...)
	go func() { done <- g.Run(ctx) }()
	c.set("rows", "min.compaction.lag.ms", "1")
	v.turn(t, 4)
	v.blind.Store(true)
	v.turn(t, 4)
	v.blind.Store(false)
	v.turn(t, 3)
	c.must(c.CreateTopic(t.Context(), cdc.TopicSpec{Name: "late", Partitions: 1, Replication: -1}, map[string]string{"cleanup.policy": "compact"}))
	g.Watch(cdc.TopicSpec{Name: "late", Partitions: 1, Policy: cdc.PolicyState})
	v.turn(t, 3)
	cancel()
	if err := <-done; err != nil {
		t.Errorf("the guard ended with %v", err)
	}
	for text, times := range map[string]int{
		"setting=min.compaction.lag.ms got=1": 1,
		"cannot look":                         1,
		"can be seen again":                   1,
		"topic=late setting=retention.ms":     1,
	} {
		if got := strings.Count(out.String(), text); got != times {
			t.Errorf("%q was logged %d times, want %d:\n%s", text, got, times, &out)
		}
	}
}

func TestGuardWithoutTopics(t *testing.T) {
	c := newCluster(t)
	if err := compaction.NewGuard(c, 0, quiet()).Check(t.Context()); err != nil {
		t.Error(err)
	}
	var _ compaction.Admin = c
}
