package pipeline_test

import (
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
	"cdc/internal/pipeline"
)

// guarded is a pipeline over two rows whose topics are looked at often.
func guarded(t *testing.T, change ...func(*pipeline.Config)) (*rig, *running) {
	t.Helper()
	r := newRig(t, append([]func(*pipeline.Config){func(c *pipeline.Config) { c.GuardEvery = 100 * time.Millisecond }}, change...)...)
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY, v text)`, `INSERT INTO t VALUES (1, 'one'), (2, 'two')`)
	run := r.streaming()
	run.caughtUp()
	return r, run
}

func (r *rig) deleteTopic(name string) {
	r.t.Helper()
	if _, err := kadm.NewClient(r.k.Client(r.t)).DeleteTopic(r.t.Context(), name); err != nil {
		r.t.Fatal(err)
	}
}

// makeAgain deletes a topic and makes it again with all of its settings.
func (r *rig) makeAgain(name string) {
	r.t.Helper()
	adm := kadm.NewClient(r.k.Client(r.t))
	configs, err := adm.DescribeTopicConfigs(r.t.Context(), name)
	if err != nil {
		r.t.Fatal(err)
	}
	settings := map[string]*string{}
	for _, c := range configs[0].Configs {
		if c.Source.String() == "DYNAMIC_TOPIC_CONFIG" {
			settings[c.Key] = c.Value
		}
	}
	before, err := adm.ListTopics(r.t.Context(), name)
	if err != nil {
		r.t.Fatal(err)
	}
	r.deleteTopic(name)
	// A broker deletes and creates after it has answered.
	for deadline := time.Now().Add(waitLimit); ; time.Sleep(20 * time.Millisecond) {
		_, err := adm.CreateTopic(r.t.Context(), int32(r.cfg.Partitions), 1, settings, name)
		if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			r.t.Fatal(err)
		}
		now, err := adm.ListTopics(r.t.Context(), name)
		if err == nil && now[name].Err == nil && len(now[name].Partitions) > 0 && now[name].ID != before[name].ID {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("topic %s is not there again: %v", name, now[name].Err)
		}
	}
}

// failsEither waits for a terminal error with one of two reasons.
func (r *running) failsEither(a, b string) *cdc.TerminalError {
	r.t.Helper()
	r.wait("failure", func(s cdc.Status) bool { return s.State == cdc.StateFailed })
	if r.p.Status().Reason == b {
		return r.fails(b)
	}
	return r.fails(a)
}

// A state topic is deleted while the pipeline runs.
func TestG6TopicDeletedWhileRunning(t *testing.T) {
	t.Parallel()
	r, run := guarded(t)
	r.deleteTopic(r.topic("t"))
	te := run.fails("topic-missing")
	if !strings.Contains(te.Error(), r.topic("t")) {
		t.Errorf("error %q does not name the topic", te)
	}
	r.start().fails("topic-missing")
	r.dropAndRun(te)

	r.resnapshot()
	run = r.streaming()
	r.deleteTopic(r.topic("t"))
	run.wait("a new life", func(s cdc.Status) bool { return s.Restarts > 0 && s.State == cdc.StateStreaming })
	run.whole()
}

// A topic is gone when the pipeline is stopped with a row for it in hand: the stop
// does not wait for an acknowledgement that never comes. On a machine that is very
// busy its limit may be reached first; then nothing is shown, and it is done again.
func TestG6TopicGoneAtTheStop(t *testing.T) {
	t.Parallel()
	for round := 1; ; round++ {
		log, sent := &lines{}, make(chan struct{}, 1)
		var gone atomic.Bool
		r, run := guarded(t, func(c *pipeline.Config) {
			c.Logger = slog.New(slog.NewTextHandler(log, nil))
			c.Hook = func(point string) {
				if gone.Load() && point == "produce-before" {
					select {
					case sent <- struct{}{}:
					default:
					}
				}
			}
		}, func(c *pipeline.Config) { c.GuardEvery = time.Hour })
		topic := r.topic("t")
		r.deleteTopic(topic)
		adm := kadm.NewClient(r.k.Client(t))
		waitFor(t, "the topic to be gone", func() bool {
			topics, err := adm.ListTopics(t.Context(), topic)
			return err == nil && errors.Is(topics[topic].Err, kerr.UnknownTopicOrPartition)
		})
		gone.Store(true)
		r.db.Exec(t, `INSERT INTO t VALUES (3, 'three')`)
		select {
		case <-sent:
		case <-time.After(waitLimit):
			t.Fatal("the row is never sent")
		}
		run.finish()
		said := log.String()
		if strings.Contains(said, "stopped in disorder") && strings.Contains(said, "topic is missing") {
			return
		}
		if round == 3 {
			t.Fatalf("the stops do not say that the topic is gone:\n%s", tail(said))
		}
	}
}

// A state topic is deleted and made again while nobody looks: only its id tells.
func TestG6TopicMadeAgainWhileDown(t *testing.T) {
	t.Parallel()
	r, run := guarded(t)
	run.finish()
	r.makeAgain(r.topic("t"))
	te := r.start().fails("topic-recreated")
	if !strings.Contains(te.Error(), r.topic("t")) {
		t.Errorf("error %q does not name the topic", te)
	}
	r.start().fails("topic-recreated") // it is not forgotten by having been said
	r.dropAndRun(te)

	r.makeAgain(r.topic("t"))
	r.heals("topic-recreated", r.topic("t"))

	// And while it runs, with the same cure.
	run = r.streaming()
	r.makeAgain(r.topic("t"))
	run.wait("a new life", func(s cdc.Status) bool { return s.Restarts > 0 && s.State == cdc.StateStreaming })
	run.whole()
}

// Records of a version that kept no topic ids are valid, and get them.
func TestTopicIDIsAddedToOldRecords(t *testing.T) {
	t.Parallel()
	r, run := guarded(t)
	run.finish()
	record := func() map[string]any {
		var m map[string]any
		for _, rec := range cdctest.Read(t, r.k.Brokers, r.cfg.Progress) {
			if string(rec.Key) == "table:public.t" {
				m = nil
				if err := json.Unmarshal(rec.Value, &m); err != nil {
					t.Fatal(err)
				}
			}
		}
		return m
	}
	want := record()
	old := record()
	delete(old, "topic_id")
	b, err := json.Marshal(old)
	if err != nil || len(old) == len(want) {
		t.Fatalf("record %v has no topic id (%v)", want, err)
	}
	r.produce(r.cfg.Progress, 0, "table:public.t", string(b))
	before := len(r.records("t"))
	run = r.streaming()
	run.settle()
	if n := len(r.records("t")); n != before {
		t.Errorf("%d records were written, want none: the table was copied again", n-before)
	}
	if got := record(); got["topic_id"] != want["topic_id"] {
		t.Errorf("the record's topic id is %v, want %v", got["topic_id"], want["topic_id"])
	}
}

// 87: partitions are added while the pipeline runs. Kafka cannot take them away:
// the command deletes the topic.
func TestCase087PartitionsAddedWhileRunning(t *testing.T) {
	t.Parallel()
	r, run := guarded(t)
	adm := kadm.NewClient(r.k.Client(t))
	if _, err := adm.CreatePartitions(t.Context(), 2, r.topic("t")); err != nil {
		t.Fatal(err)
	}
	te := run.fails("topic-policy")
	if !strings.Contains(te.Error(), r.topic("t")) || !strings.Contains(te.Mend, "partitions: 5") {
		t.Errorf("error %q does not name the topic, or mend %q not the number", te, te.Mend)
	}
	r.cfg.OnGap = "resnapshot" // deletes nothing by itself
	te = r.start().fails("topic-policy")
	r.cfg.OnGap = "stop"
	r.cfg.Partitions = 5
	r.deleteTopic(r.topic("t"))
	if _, _, err := pipeline.Topics(t.Context(), r.cfg, true); err != nil {
		t.Fatalf("cdc topics --apply: %v", err)
	}
	r.dropAndRun(te)
}

// The progress topic is deleted while the pipeline runs.
func TestG6ProgressTopicDeletedWhileRunning(t *testing.T) {
	t.Parallel()
	r, run := guarded(t)
	end := run.p.Status().Confirmed
	r.deleteTopic(r.cfg.Progress)
	te := run.fails("progress-missing")
	if _, text, _ := strings.Cut(te.Error(), "it was "); lsn(t, strings.Fields(text + " ?")[0]) < end {
		t.Errorf("error %q, want a position from %s on", te, end)
	}
	r.cfg.OnGap = "resnapshot" // whose the slot is, nobody knows: not by itself
	r.start().fails("slot-without-progress")
	r.cfg.OnGap = "stop"
	r.dropAndRun(te)
}

// The progress topic is damaged while nobody runs.
func TestG6ProgressDamaged(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, reason string
		damage       func(t *testing.T, r *rig)
	}{
		{"deleted", "slot-without-progress", func(_ *testing.T, r *rig) { r.deleteTopic(r.cfg.Progress) }},
		{"truncated", "slot-without-progress", func(t *testing.T, r *rig) {
			adm := kadm.NewClient(r.k.Client(t))
			policy := func(value string) { // Kafka deletes no records of a topic that is compacted alone
				if _, err := adm.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Name: "cleanup.policy", Value: &value}}, r.cfg.Progress); err != nil {
					t.Fatal(err)
				}
				for deadline := time.Now().Add(waitLimit); ; time.Sleep(20 * time.Millisecond) { // brokers learn it a moment later
					configs, err := adm.DescribeTopicConfigs(t.Context(), r.cfg.Progress)
					if err == nil && slices.ContainsFunc(configs[0].Configs, func(c kadm.Config) bool { return c.Key == "cleanup.policy" && c.MaybeValue() == value }) {
						return
					}
					if time.Now().After(deadline) {
						t.Fatalf("cleanup.policy is not %s: %v", value, err)
					}
				}
			}
			policy("compact,delete")
			ends, err := adm.ListEndOffsets(t.Context(), r.cfg.Progress)
			if err != nil {
				t.Fatal(err)
			}
			for deadline := time.Now().Add(waitLimit); ; time.Sleep(20 * time.Millisecond) { // a change of policy is not there at once
				gone, err := adm.DeleteRecords(t.Context(), ends.Offsets())
				if err == nil {
					err = gone.Error()
				}
				if err == nil {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal(err)
				}
			}
			policy("compact")
		}},
		{"corrupt", "progress-unreadable", func(_ *testing.T, r *rig) { r.produce(r.cfg.Progress, 0, "progress", `{"format":1,"end":`) }},
		{"a foreign record", "progress-unreadable", func(_ *testing.T, r *rig) { r.produce(r.cfg.Progress, 0, "somebody's", `{}`) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r, run := guarded(t)
			run.finish()
			tt.damage(t, r)
			r.cfg.OnGap = "resnapshot" // for none of these: what is lost is the knowledge of what is ours
			r.start().fails(tt.reason)
			r.cfg.OnGap = "stop"
			te := r.start().fails(tt.reason)
			r.dropAndRun(te)
		})
	}
}

// The progress topic lost its newest records, as by an election of a replica that
// lacked them.
func TestG6ProgressSetBack(t *testing.T) {
	t.Parallel()
	r, run := guarded(t)
	run.finish()
	older := r.newestProgress()
	run = r.streaming()
	r.db.Exec(t, `INSERT INTO t VALUES (7, 'seven')`)
	run.settle()
	r.writeProgress(older)
	te := r.start().fails("slot-advanced")
	wantRange(t, te, older.End, lsn(t, r.slotField("confirmed_flush_lsn")))
	r.dropAndRun(te)
}
