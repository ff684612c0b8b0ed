package history_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
	"cdc/internal/history"
	"cdc/internal/sink"
)

// verify compares and returns the outcome of a category's topic.
func (r *rig) verify(category string) cdc.Verification {
	r.t.Helper()
	all, err := history.Verify(r.t.Context(), r.cfg, history.VerifyOptions{Samples: 20, Patience: waitLimit})
	if err != nil {
		r.t.Fatalf("verify: %v", err)
	}
	for _, v := range all {
		if v.Subject != "topic "+v.Topic || v.At.IsZero() || v.Took <= 0 {
			r.t.Errorf("of what and when: %+v", v)
		}
		if v.Topic == r.topic(category) {
			return v
		}
	}
	r.t.Fatalf("no topic of %s in %+v", category, all)
	return cdc.Verification{}
}

// counted fails unless the verdict and the counts are as wanted.
func counted(t *testing.T, got, want cdc.Verification) {
	t.Helper()
	short := func(v cdc.Verification) string {
		return fmt.Sprintf("%s at %d: %d rows, %d records, %d missing, %d ghosts, %d different", v.Verdict, v.Position, v.Rows, v.Records, v.Missing, v.Ghosts, v.Different)
	}
	if short(got) != short(want) {
		text, _ := json.MarshalIndent(got, "", " ")
		t.Errorf("got  %s\nwant %s\n%s", short(got), short(want), text)
	}
}

// told fails unless a text has each of the words.
func told(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("%q does not say %q", text, word)
		}
	}
}

// samples are the differences shown, as JSON.
func samples(t *testing.T, v cdc.Verification) string {
	t.Helper()
	b, err := json.Marshal(v.Samples)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// rewrite makes a topic anew with what change leaves of each partition's records.
func (r *rig) rewrite(topic string, change func(partition int32, records []*kgo.Record) []*kgo.Record) {
	r.t.Helper()
	parts := make([][]*kgo.Record, r.cfg.Partitions)
	for _, rec := range cdctest.Read(r.t, r.k.Brokers, topic) {
		next := &kgo.Record{Topic: topic, Partition: rec.Partition, Key: rec.Key, Value: rec.Value, Timestamp: rec.Time}
		for _, h := range rec.Headers {
			next.Headers = append(next.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
		}
		parts[rec.Partition] = append(parts[rec.Partition], next)
	}
	r.recreate(topic)
	client := r.k.Client(r.t, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for i, records := range parts {
		if err := client.ProduceSync(r.t.Context(), change(int32(i), records)...).FirstErr(); err != nil {
			r.t.Fatal(err)
		}
	}
}

// While events are appended and published every topic is equal, and so it is when
// nothing moves.
func TestVerifyTopicsWhileRunning(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.s.add(streams(500, "course", "student")...)
	run := r.start()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
				r.s.add("course/1", "student/2", "room/3")
			}
		}
	}()
	quiet := sync.OnceFunc(func() { close(stop); <-stopped })
	defer quiet()
	run.until("events come", func(s history.Status) bool { return s.Position > 500 })
	for equal, deadline := 0, time.Now().Add(waitLimit); equal < 3; {
		head, _ := r.s.Head(t.Context())
		v := r.verify("course")
		if v.Verdict == cdc.VerdictUnchecked && time.Now().Before(deadline) {
			continue // the publication did not come up to the head in time
		}
		equal++
		if v.Verdict != cdc.VerdictEqual || v.Position < head || v.Rows < 250 || v.Records < v.Rows {
			t.Errorf("with the log at %d: %+v", head, v)
		}
	}
	quiet()
	run.published()
	run.stop()
	head, _ := r.s.Head(t.Context())
	n := (head - 500) / 3
	for category, want := range map[string]int64{"course": 250 + n, "student": 250 + n, "room": n} {
		counted(t, r.verify(category), cdc.Verification{Verdict: cdc.VerdictEqual, Position: head, Rows: want, Records: want})
	}
	if n := run.fenced.Load(); n != 0 {
		t.Errorf("the publication was replaced %d times", n)
	}
}

// Whatever is wrong with a record is found, and what the verdict says mends it.
func TestVerifyDamagedTopic(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.s.add(streams(200, "course", "student")...)
	r.once()
	topic := r.topic("course")
	var total int64
	r.rewrite(topic, func(partition int32, records []*kgo.Record) []*kgo.Record {
		total += int64(len(records))
		switch partition {
		case 0: // two are missing
			return slices.Concat(records[:3], records[4:7], records[8:])
		case 1: // data, a header and the time of three
			records[1].Value = []byte(strings.Replace(string(records[1].Value), `{"n": `, `{"n": 1`, 1))
			for i, h := range records[4].Headers {
				if h.Key == "type" {
					records[4].Headers[i].Value = []byte("forged")
				}
			}
			records[6].Timestamp = records[6].Timestamp.Add(time.Second)
			return records
		}
		// Twice, by others, of another partition, and beyond the log.
		stranger := &kgo.Record{Topic: topic, Partition: partition, Key: []byte("stranger"), Value: []byte("x")}
		beyond := *records[0]
		beyond.Headers = []kgo.RecordHeader{{Key: "p", Value: cdc.AppendStamp(nil, cdc.Stamp{Generation: history.GenerationOf(r.s.id), Position: cdc.Position{Tx: 5000}})}}
		other := *records[0]
		other.Headers = []kgo.RecordHeader{{Key: "p", Value: cdc.AppendStamp(nil, cdc.Stamp{Generation: 7, Position: cdc.Position{Tx: 5}})}}
		return slices.Concat(records[:5], records[4:5], []*kgo.Record{stranger, &beyond, &other}, records[5:])
	})
	v := r.verify("course")
	counted(t, v, cdc.Verification{Verdict: cdc.VerdictDifferent, Position: 200, Rows: 100, Records: total - 2 + 4, Missing: 2, Ghosts: 3, Different: 4})
	told(t, samples(t, v),
		`{"kind":"missing","key":"course/`, `"partition":0,"offset":-1}`,
		`{"column":"data.n","source":"`, `{"column":"header type","source":"\"happened\"","target":"\"forged\""}`, `{"column":"time",`,
		`"column":"order (twice`, `"key":"stranger"`, `"target":"5000"`, `a position of this store`)
	told(t, v.Mend, "delete the topic", "cdc es republish --from 1")
	told(t, v.Why, "made again")
	counted(t, r.verify("student"), cdc.Verification{Verdict: cdc.VerdictEqual, Position: 200, Rows: 100, Records: 100})

	r.deleteTopic(topic)
	v = r.verify("course")
	counted(t, v, cdc.Verification{Verdict: cdc.VerdictUnchecked, Position: 200})
	told(t, v.Mend, "cdc es republish --from 1")
	r.republish(1)
	r.once()
	counted(t, r.verify("course"), cdc.Verification{Verdict: cdc.VerdictEqual, Position: 200, Rows: 100, Records: 100})
}

// Events that are missing behind the last records of a topic are published again by
// what the verdict says.
func TestVerifyEndOfTopicLost(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.s.add(streams(60, "course", "student")...)
	r.once()
	r.s.add("course/1", "student/1", "course/2")
	// As if the topic had had them: the progress says so.
	r.s.mu.Lock()
	last := r.s.events[62]
	r.s.mu.Unlock()
	claim, err := json.Marshal(history.Progress{
		Format: 1, Store: r.s.id, Generation: history.GenerationOf(r.s.id), Position: 63, Event: last.ID, Released: true, At: time.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.k.Client(t).ProduceSync(t.Context(), &kgo.Record{Topic: r.cfg.Progress, Key: []byte("progress"), Value: claim}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	v := r.verify("course")
	counted(t, v, cdc.Verification{Verdict: cdc.VerdictDifferent, Position: 63, Rows: 32, Records: 30, Missing: 2})
	if v.Mend != "cdc es republish --from 61" {
		t.Errorf("mend %q", v.Mend)
	}
	r.republish(61)
	r.once()
	counted(t, r.verify("course"), cdc.Verification{Verdict: cdc.VerdictEqual, Position: 63, Rows: 32, Records: 32})
}

// Records that were deleted from the front of a topic are missing, and the verdict
// says where it was cut.
func TestVerifyTruncatedTopic(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *history.Config) { c.Partitions = 1 })
	r.s.add(streams(40, "course")...)
	r.once()
	records := cdctest.Read(t, r.k.Brokers, r.topic("course"))
	cut := kadm.Offsets{}
	cut.Add(kadm.Offset{Topic: r.topic("course"), Partition: 0, At: records[9].Offset})
	if _, err := r.admin().DeleteRecords(t.Context(), cut); err != nil {
		t.Fatal(err)
	}
	v := r.verify("course")
	counted(t, v, cdc.Verification{Verdict: cdc.VerdictDifferent, Position: 40, Rows: 40, Records: 31, Missing: 9})
	told(t, v.Why, fmt.Sprintf("partition 0 begins at offset %d", records[9].Offset))
	told(t, v.Mend, "delete the topic")
}

// What is not published yet is no difference; what is, is compared all the same.
func TestVerifyPublicationBehind(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.s.add("course/1")
	all, err := history.Verify(t.Context(), r.cfg, history.VerifyOptions{Patience: time.Millisecond})
	if err != nil || len(all) != 1 {
		t.Fatalf("never published: %+v, %v", all, err)
	}
	counted(t, all[0], cdc.Verification{Verdict: cdc.VerdictUnchecked})
	told(t, all[0].Why, "cdc run")
	r.s.add(streams(39, "course")...)
	r.once()
	r.s.add(streams(5, "course")...)
	v := r.verify("course")
	counted(t, v, cdc.Verification{Verdict: cdc.VerdictUnchecked, Position: 40, Rows: 40, Records: 40})
	told(t, v.Why, "ends at position 45 and is published to 40")
	r.s.events[3].Data = json.RawMessage(`{"n": 77}`)
	counted(t, r.verify("course"), cdc.Verification{Verdict: cdc.VerdictDifferent, Position: 40, Rows: 40, Records: 40, Different: 1})
}

// A store that was put back to an earlier moment: what the topics have more is shown.
func TestVerifyTopicsAheadOfTheStore(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.s.add(streams(50, "course")...)
	r.once()
	r.s.truncate(30)
	v := r.verify("course")
	counted(t, v, cdc.Verification{Verdict: cdc.VerdictDifferent, Position: 30, Rows: 30, Records: 50, Ghosts: 20})
	told(t, v.Mend, "Restore the store")
}

// Without a fence records may be there twice.
func TestVerifyRepeatedRecords(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *history.Config) { c.Delivery = history.AtLeastOnce })
	r.s.add(streams(100, "course", "student")...)
	r.once()
	r.deleteTopic(r.cfg.Progress)
	r.once()
	v := r.verify("course")
	counted(t, v, cdc.Verification{Verdict: cdc.VerdictEqual, Position: 100, Rows: 50, Records: 100})
	told(t, v.Why, "50 records stand there again")
	r.cfg.Delivery = history.ExactlyOnce
	want := cdc.Verification{Verdict: cdc.VerdictDifferent, Position: 100, Rows: 50, Records: 100, Different: 50}
	counted(t, r.verify("student"), want)
	// The same where the log is gone over several times, for a few partitions each.
	for _, readers := range []int{1, 4} {
		all, err := history.VerifyBeside(t.Context(), r.cfg, history.VerifyOptions{}, readers)
		if err != nil || len(all) != 2 {
			t.Fatalf("%+v, %v", all, err)
		}
		for _, v := range all {
			counted(t, v, want)
		}
	}
}

// What cannot be looked at is an error, not a verdict.
func TestVerifyWithoutKafka(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.cfg.Sink = sink.Config{Brokers: []string{fmt.Sprintf("127.0.0.1:%d", cdctest.FreePort(t))}}
	if all, err := history.Verify(t.Context(), r.cfg, history.VerifyOptions{}); err == nil {
		t.Errorf("got %+v", all)
	}
}
