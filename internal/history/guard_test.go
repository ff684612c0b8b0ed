package history_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"cdc/internal/cdc"
	"cdc/internal/history"
)

func (r *rig) admin() *kadm.Client { return kadm.NewClient(r.k.Client(r.t)) }

func (r *rig) deleteTopic(name string) {
	r.t.Helper()
	if _, err := r.admin().DeleteTopics(r.t.Context(), name); err != nil {
		r.t.Fatal(err)
	}
	for {
		d, err := r.admin().ListTopics(r.t.Context())
		if err != nil {
			r.t.Fatal(err)
		}
		if !d.Has(name) {
			return
		}
	}
}

func (r *rig) setTopic(name, setting, value string) {
	r.t.Helper()
	res, err := r.admin().AlterTopicConfigs(r.t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: setting, Value: &value}}, name)
	if err == nil {
		err = res[0].Err
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// recreate makes a topic anew with the settings of its kind.
func (r *rig) recreate(name string) {
	r.t.Helper()
	r.deleteTopic(name)
	r.k.CreateTopic(r.t, name, int32(r.cfg.Partitions), map[string]string{
		"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"})
}

// G4: a topic that could lose history stops the publication, while it runs and at
// the start, and goes on when it is mended.
func TestG4TopicThatCouldLoseHistory(t *testing.T) {
	t.Parallel()
	for _, change := range []struct{ setting, bad, good string }{
		{"cleanup.policy", "compact", "delete"},
		{"retention.ms", "86400000", "-1"},
		{"retention.bytes", "1000000", "-1"},
	} {
		t.Run(change.setting, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.s.add(streams(100, "course")...)
			run := r.start()
			run.published()
			r.setTopic(r.topic("course"), change.setting, change.bad)
			te := run.fails("topic-policy")
			for _, want := range []string{r.topic("course"), change.setting + "=" + change.good, "cdc es republish --from 1"} {
				if !strings.Contains(te.Error(), want) {
					t.Errorf("error %q does not say %q", te, want)
				}
			}
			r.s.add(streams(100, "course")...)
			r.start().fails("topic-policy")
			r.setTopic(r.topic("course"), change.setting, change.good)
			r.once()
			r.check()
		})
	}
}

// G4: streams would move to other partitions.
func TestG4PartitionsAdded(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.s.add(streams(100, "course")...)
	run := r.start()
	run.published()
	if _, err := r.admin().CreatePartitions(t.Context(), 1, r.topic("course")); err != nil {
		t.Fatal(err)
	}
	run.fails("topic-policy")
}

// A topic that vanished while it was written: told from the recorded id, also by the
// next start; republish makes it whole again, and the others are left as they are.
func TestTopicDeletedAndRepublished(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.s.add(streams(500, "course", "student")...)
	run := r.start()
	run.published()
	r.deleteTopic(r.topic("course"))
	te := run.fails("topic-missing")
	if te.Mend != "cdc es republish --from 1" {
		t.Errorf("mend %q", te.Mend)
	}
	r.s.add(streams(10, "course", "student")...)
	r.start().fails("topic-missing")
	r.republish(1)
	s := r.once()
	if s.Skipped != 250 {
		t.Errorf("%d left out, want the 250 of the other topic", s.Skipped)
	}
	r.check()
}

func (r *rig) republish(from int64, topics ...string) {
	r.t.Helper()
	if err := history.Republish(r.t.Context(), r.cfg, from, topics); err != nil {
		r.t.Fatalf("republish from %d: %v", from, err)
	}
}

// A topic with the name and settings of the one that was written, and another id.
func TestTopicMadeAgain(t *testing.T) {
	t.Parallel()
	for _, running := range []bool{true, false} {
		name := map[bool]string{true: "running", false: "at the start"}[running]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.s.add(streams(300, "course", "student")...)
			run := r.start()
			run.published()
			if !running {
				run.stop()
				run = nil
			}
			r.recreate(r.topic("course"))
			if run == nil {
				run = r.start()
				run.fails("topic-recreated")
			} else {
				select {
				case <-run.done:
				case <-time.After(waitLimit):
					t.Fatalf("still running: %+v", run.p.Status())
				}
				if !cdc.IsTerminal(run.err) { // missing, if the guard looked in between
					t.Fatalf("ended with %v", run.err)
				}
			}
			r.s.add(streams(30, "course", "student")...)
			r.republish(1)
			r.once()
			r.check()
		})
	}
}

// A topic made again and written without its first events is never taken for whole.
func TestTopicMadeAgainAndWritten(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.s.add(streams(300, "course")...)
	r.once()
	other := r.cfg
	r.recreate(r.topic("course"))
	// What an instance would write that has not looked at the topic yet: the events
	// behind its progress.
	stamp := cdc.AppendStamp(nil, cdc.Stamp{Generation: history.GenerationOf(r.s.id), Position: cdc.Position{Tx: 290}})
	err := r.k.Client(t).ProduceSync(t.Context(), &kgo.Record{Topic: r.topic("course"), Key: []byte("course/1"),
		Value: []byte("{}"), Headers: []kgo.RecordHeader{{Key: "p", Value: stamp}, {Key: "id", Value: []byte(r.s.events[289].ID.String())}}}).FirstErr()
	if err != nil {
		t.Fatal(err)
	}
	err = history.Republish(t.Context(), other, 1, nil)
	if !cdc.IsTerminal(err) || !strings.Contains(err.Error(), "Delete the topic") {
		t.Fatalf("republish gave %v, want a refusal that says to delete the topic", err)
	}
	r.start().fails("topic-recreated")
	r.deleteTopic(r.topic("course"))
	r.republish(1)
	r.once()
	r.check()
}

// A store that was put back to before what was published.
func TestTopicsAheadOfTheStore(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.s.add(streams(100, "course")...)
	r.once()
	r.s.truncate(60)
	te := r.start().fails("topics-ahead")
	if !strings.Contains(te.Error(), "position 100") || !strings.Contains(te.Error(), "ends at 60") {
		t.Errorf("error %q does not give both numbers", te)
	}
	if err := history.Republish(t.Context(), r.cfg, 1, nil); !cdc.IsTerminal(err) {
		t.Errorf("republish over topics that are ahead gave %v", err)
	}
	// The progress is lost too: the topics themselves say so.
	r.deleteTopic(r.cfg.Progress)
	r.start().fails("topics-ahead")
	// What was lost is lost: the topics begin anew.
	r.deleteTopic(r.topic("course"))
	r.s.add(streams(80, "course")...)
	r.republish(1)
	r.once()
	r.check()
}

// The same store, gone on from the earlier moment, past what was published: other
// events have the positions now.
func TestStoreWentOnFromAnEarlierMoment(t *testing.T) {
	t.Parallel()
	for _, progress := range []bool{true, false} {
		t.Run(map[bool]string{true: "by the progress", false: "by the topics"}[progress], func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.s.add(streams(100, "course")...)
			r.once()
			r.s.truncate(60)
			r.s.add(streams(200, "course")...)
			for _, ev := range r.s.events[60:] {
				ev.ID = ev.ID.Derive("another past")
			}
			if !progress {
				r.deleteTopic(r.cfg.Progress)
			}
			r.start().fails("log-forked")
		})
	}
}

// Progress and topics of another store.
func TestAnotherStore(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.s.add(streams(100, "course")...)
	r.once()
	other := rigOn(t, r.k, newStore())
	other.cfg.Name, other.cfg.Topic, other.cfg.Progress = r.cfg.Name, r.cfg.Topic, r.cfg.Progress
	other.s.add(streams(200, "course")...)
	te := other.start().fails("other-store")
	if !strings.Contains(te.Error(), r.s.id.String()) || !strings.Contains(te.Error(), other.s.id.String()) {
		t.Errorf("error %q does not name both stores", te)
	}
	if err := history.Republish(t.Context(), other.cfg, 1, nil); !cdc.IsTerminal(err) {
		t.Errorf("republish gave %v", err)
	}
	r.deleteTopic(r.cfg.Progress)
	other.start().fails("other-store") // the topics say it too
}

// Somebody else writes to the topic.
func TestForeignRecord(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.s.add("course/1")
	r.once()
	for p := range int32(3) {
		err := r.k.Client(t, kgo.RecordPartitioner(kgo.ManualPartitioner())).
			ProduceSync(t.Context(), &kgo.Record{Topic: r.topic("course"), Partition: p, Value: []byte("x")}).FirstErr()
		if err != nil {
			t.Fatal(err)
		}
	}
	r.s.add("course/1")
	r.start().fails("foreign-record")
}

// topic: was changed: the events before are not in the new topics, and that is not
// passed over.
func TestTopicTemplateChanged(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.s.add(streams(100, "course", "student")...)
	r.once()
	before := r.cfg.Topic
	r.cfg.Topic = r.k.Prefix + "new.{category}"
	r.start().fails("topic-changed")
	r.cfg.Topic = before
	r.once()
	r.cfg.Topic = r.k.Prefix + "new.{category}"
	r.republish(1)
	r.once()
	checkTopics(t, r.k, r.s.events, func(s string) string { return r.k.Prefix + "new." + strings.Split(s, "/")[0] }, 3)
}

// Names that Kafka takes for one.
func TestTopicCollision(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.s.add("a.b/1", "a_b/1")
	r.start().fails("topic-collision")
}

func TestConfigurationFaults(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *history.Config) { c.TopicConfig = map[string]string{"cleanup.policy": "compact"} })
	r.start().fails("configuration")
	r.cfg.TopicConfig, r.cfg.Topic = nil, "{database}.{schema}"
	r.start().fails("topic-name")
	r.cfg.Topic = newRig(t).cfg.Topic
	for _, from := range []int64{0, -1, 2} {
		if err := history.Republish(context.Background(), r.cfg, from, nil); !cdc.IsTerminal(err) {
			t.Errorf("republish from %d of an empty log gave %v", from, err)
		}
	}
	if err := history.Republish(context.Background(), r.cfg, 1, []string{"nobody"}); !cdc.IsTerminal(err) {
		t.Errorf("republish of a topic that is not ours gave %v", err)
	}
}
