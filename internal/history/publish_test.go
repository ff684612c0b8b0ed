package history_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
	"cdc/internal/history"
)

// Order per stream and completeness, with events that come while others are written.
func TestEveryEventOnceInOrder(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.s.add(streams(2000, "course", "student")...)
	run := r.start()
	for range 50 {
		r.s.add(streams(40, "course", "student")...)
	}
	run.published()
	s := run.p.Status()
	if s.Records != 4000 || s.Skipped != 0 || s.Topics != 2 || s.Head != 4000 {
		t.Errorf("status %+v, want 4000 records in 2 topics", s)
	}
	run.stop()
	if s := run.p.Status(); s.Position != 4000 || s.Recorded != 4000 || s.State != cdc.StateStopped || s.Bytes == 0 || s.BufferedBytes != 0 {
		t.Errorf("status after the stop %+v", s)
	}
	r.check()
}

// A category that nobody named gets its topic when its first event is met, and the
// next start knows it.
func TestUnknownCategoryAtRunTime(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	run := r.start()
	run.until("streaming", func(s history.Status) bool { return s.State == cdc.StateStreaming })
	r.s.add("course/1", "lecturer/1", "course/1", "room/7", "lecturer/1")
	run.published()
	r.s.add("building/1", "room/7", "course/2")
	run.published()
	run.stop()
	r.check()
	if n := run.errs.Load(); n != 0 {
		t.Errorf("%d lives ended with an error, want none: a new category is no fault", n)
	}
	got := r.k.Topics(t, r.k.Prefix)
	want := []string{r.cfg.Progress, r.topic("building"), r.topic("course"), r.topic("lecturer"), r.topic("room")}
	if !slices.Equal(got, want) {
		t.Errorf("topics %v, want %v", got, want)
	}
	// The next start takes them all over, though the configuration names one.
	again := r.start()
	again.until("streaming", func(s history.Status) bool { return s.State == cdc.StateStreaming })
	if s := again.p.Status(); s.Topics != 4 || s.TakeOvers != 1 || s.Lives != 1 {
		t.Errorf("status of the next start %+v, want 4 topics in one take-over", s)
	}
	again.stop()
}

// One topic for all categories: nothing is made at run time.
func TestOneTopicForAll(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *history.Config) { c.Topic = strings.ReplaceAll(c.Topic, "{category}", "all") })
	r.s.add(streams(300, "course", "student", "room")...)
	r.once()
	r.s.add("building/1")
	r.once()
	checkTopics(t, r.k, r.s.events, func(string) string { return r.topic("all") }, 3)
	if got := r.k.Topics(t, r.k.Prefix); len(got) != 2 {
		t.Errorf("topics %v, want one beside the progress topic", got)
	}
}

// The next life begins behind the progress, not at the start of the log.
func TestResumesFromProgress(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.s.add(streams(1000, "course")...)
	r.once()
	r.s.asked = nil
	r.s.add(streams(10, "course")...)
	s := r.once()
	for _, after := range r.s.asked {
		if after < 999 { // 999: the event at the progress itself is compared
			t.Errorf("the log was read behind %d", after)
		}
	}
	if s.Records != 10 || s.Skipped != 0 {
		t.Errorf("%d records and %d left out, want 10 and none", s.Records, s.Skipped)
	}
	r.check()
}

// The progress topic is lost: the stamps in the topics say what is there.
func TestProgressTopicLost(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.s.add(streams(500, "course", "student")...)
	r.once()
	r.deleteTopic(r.cfg.Progress)
	r.s.add(streams(20, "course", "room")...)
	s := r.once()
	if s.Records != 20 || s.Skipped != 500 {
		t.Errorf("%d records and %d left out, want 20 and 500", s.Records, s.Skipped)
	}
	r.check()
}

// An error of the store ends a life and nothing else.
func TestStoreComesAndGoes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.s.add(streams(100, "course")...)
	run := r.start()
	run.published()
	r.s.breakWith(errors.New("connection refused"))
	r.s.add(streams(100, "course")...)
	run.until("backing off", func(s history.Status) bool { return s.State == cdc.StateBackingOff && s.Error != "" })
	r.s.breakWith(nil)
	run.published()
	run.stop()
	r.check()
}

// Positions of the log have no gap; one that has is not published past it.
func TestLogWithAGap(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.s.add(streams(10, "course")...)
	r.s.events[6].Position = 9
	r.start().fails("log-gap")
	if got := len(cdctest.Read(t, r.k.Brokers, r.topic("course"))); got > 6 {
		t.Errorf("%d records, want none behind the gap", got)
	}
}

// At-least-once: no take-over, and what was recorded is not written again.
func TestAtLeastOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *history.Config) { c.Delivery = history.AtLeastOnce })
	r.s.add(streams(500, "course", "student")...)
	r.once()
	r.s.add(streams(100, "course", "room")...)
	r.once()
	r.check()
}

// A record that the topic does not take stops the publication; once the topic takes
// it, everything goes on.
func TestRecordTooLarge(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *history.Config) { c.TopicConfig = map[string]string{"max.message.bytes": "20000"} })
	r.s.add("course/1")
	r.s.addSized(30_000, "course/2")
	r.s.add("course/1")
	te := r.start().fails("record-too-large")
	if !strings.Contains(te.Mend, "max.message.bytes") || !strings.Contains(te.Error(), r.s.events[1].ID.String()) {
		t.Errorf("error %q does not name the event and the setting", te)
	}
	r.cfg.TopicConfig = map[string]string{"max.message.bytes": "100000"}
	r.once()
	r.check()
}

// Large events make the pieces of the log smaller; memory is bounded by what is
// configured, whatever the broker does.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	k, proxy := cdctest.ProxiedKafka(t)
	r := rigOn(t, k, newStore(), func(c *history.Config) { c.Writer.Memory = 4 << 20 })
	r.s.add(streams(37, "course")...)
	run := r.start()
	run.published()
	proxy.Stall()
	r.s.addSized(50_000, streams(400, "course")...)
	var most int64
	run.until("a full buffer", func(s history.Status) bool {
		most = max(most, s.BufferedBytes)
		return s.BufferedBytes >= 3<<20
	})
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		most = max(most, run.p.Status().BufferedBytes)
	}
	if limit := int64(4<<20 + history.ChunkBytes + 1<<20); most > limit {
		t.Errorf("%d bytes were buffered, want at most %d", most, limit)
	}
	proxy.Heal()
	run.published()
	run.stop()
	r.check()
}
