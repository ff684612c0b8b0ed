package history_test

import (
	"testing"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/history"
)

// Two publishers at once: the newer one writes, the older one stops, does not fence
// it in turn, and goes on when the newer one has ended in order.
func TestTwoPublishers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.s.add(streams(500, "course", "student")...)
	old := r.start()
	old.published()
	next := r.start()
	next.until("streaming", func(s history.Status) bool { return s.State == cdc.StateStreaming })
	r.s.add(streams(500, "course", "student")...)
	next.published()
	old.until("waiting", func(s history.Status) bool { return s.State == cdc.StateWaiting && s.Stalled != "" })
	if n := old.fenced.Load(); n != 1 {
		t.Errorf("the older one was fenced %d times, want once", n)
	}
	r.s.add(streams(500, "course", "student")...)
	next.published()
	if n := next.errs.Load(); n != 0 {
		t.Errorf("the newer one was disturbed %d times", n)
	}
	next.stop()
	r.s.add(streams(500, "course", "student")...)
	old.published()
	old.stop()
	r.check()
}

// The newer one dies without a word: the older one goes on after a silence.
func TestTheOtherOneDies(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.s.add(streams(100, "course")...)
	old := r.start(func(p *history.Publisher) { p.SetSilence(2 * time.Second) })
	old.published()
	r.spawn(history.HookFollow, 1).Killed(t, history.HookFollow)
	r.s.add(streams(100, "course")...)
	old.until("fenced", func(history.Status) bool { return old.fenced.Load() == 1 })
	old.published()
	old.stop()
	r.check()
}

// Republish while a publication runs: it starts again by itself and writes what is
// missing; what is there is left out.
func TestRepublishWhileRunning(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.s.add(streams(600, "course", "student")...)
	run := r.start()
	run.until("the progress", func(s history.Status) bool { return s.Recorded == 600 })
	r.republish(101)
	r.s.add("course/1")
	run.until("fenced", func(history.Status) bool { return run.fenced.Load() == 1 })
	run.published()
	if s := run.p.Status(); s.Skipped != 500 {
		t.Errorf("%d left out, want the 500 from position 101 on", s.Skipped)
	}
	run.stop()
	r.check()
}

// A publication at rest finds out by its heartbeat.
func TestRepublishWhileAtRest(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.s.add(streams(300, "course")...)
	run := r.start()
	run.published()
	r.republish(1)
	run.until("the replay", func(s history.Status) bool { return s.Skipped == 300 })
	run.published()
	run.stop()
	r.check()
}

// Republish over topics that hold everything, half, or nothing doubles nothing.
func TestRepublishDoublesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.s.add(streams(400, "course", "student")...)
	r.once()
	r.republish(1)
	if s := r.once(); s.Skipped != 400 || s.Records != 0 {
		t.Errorf("%d left out and %d written, want 400 and none", s.Skipped, s.Records)
	}
	// One topic anew, and the publication killed in the middle of filling it.
	r.deleteTopic(r.topic("course"))
	r.republish(1, r.topic("course"))
	r.s.add(streams(20000, "course", "student")...)
	r.spawn("produce-after", 4).Killed(t, "produce-after")
	r.republish(1)
	s := r.once()
	if s.Skipped < 200 {
		t.Errorf("%d left out: what was there was not seen", s.Skipped)
	}
	r.check()
	// Only the named topic is made: the other is still missing.
	r.deleteTopic(r.topic("course"))
	r.deleteTopic(r.topic("student"))
	r.republish(1, r.topic("student"))
	r.start().fails("topic-missing")
	r.republish(1)
	r.once()
	r.check()
}

// A refusal of republish changes nothing, and it goes on only back, never over events
// that were not published.
func TestRepublishNeverSkips(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.s.add(streams(100, "course")...)
	r.once()
	r.s.add(streams(100, "course")...)
	r.republish(180)
	r.once()
	r.check()
	// Without any progress it begins at the start.
	r.deleteTopic(r.cfg.Progress)
	r.s.add(streams(100, "course")...)
	r.republish(250)
	r.once()
	r.check()
}

func TestRepublishAtLeastOnceRefusesWhileRunning(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *history.Config) { c.Delivery = history.AtLeastOnce })
	r.s.add(streams(100, "course")...)
	run := r.start()
	run.published()
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		for range 40 {
			r.s.add("course/1")
			time.Sleep(100 * time.Millisecond)
		}
	}()
	if err := history.Republish(t.Context(), r.cfg, 1, nil); !cdc.IsTerminal(err) {
		t.Errorf("republish gave %v, want a refusal", err)
	}
	<-stop
	run.published()
	run.stop()
	r.republish(1)
	r.once()
}
