package history_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
	"cdc/internal/history"
	"cdc/internal/intent"
)

// childConfig is that of a publication in a process of its own.
type childConfig struct {
	cdctest.Point
	Prefix  string
	Brokers []string
	Store   intent.ID
	Events  string // file with the streams of the events
}

func child(ctx context.Context, c childConfig) error {
	b, err := os.ReadFile(c.Events)
	if err != nil {
		return err
	}
	s := newStore()
	s.id = c.Store
	s.add(strings.Fields(string(b))...)
	cfg := baseConfig(c.Prefix, c.Brokers, s)
	cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	cfg.Hook = c.Hook()
	p := history.New(cfg)
	for ctx.Err() == nil {
		if err := p.Run(ctx); cdc.IsTerminal(err) {
			return err
		}
	}
	return nil
}

// spawn starts a publication over a copy of the events there are.
func (r *rig) spawn(kill string, count int) *cdctest.Victim {
	r.t.Helper()
	return r.child(cdctest.Point{Kill: kill, Count: count})
}

func (r *rig) child(at cdctest.Point) *cdctest.Victim {
	r.t.Helper()
	file, err := os.CreateTemp(r.t.TempDir(), "streams")
	if err != nil {
		r.t.Fatal(err)
	}
	for _, ev := range r.s.events {
		fmt.Fprintln(file, ev.Stream)
	}
	if err := file.Close(); err != nil {
		r.t.Fatal(err)
	}
	return cdctest.Spawn(r.t, childConfig{Point: at, Prefix: r.k.Prefix, Brokers: r.cfg.Sink.Brokers, Store: r.s.id, Events: file.Name()})
}

// Killed with SIGKILL at every named point, in the middle of a long log with
// categories that are met on the way; nothing is lost, twice or out of order.
func TestG1KilledAtEachPoint(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.s.add(streams(20000, "course", "student")...)
	points := []struct {
		name  string
		count int
	}{
		{history.HookTopics, 1}, {history.HookTakeOver, 1}, {history.HookProgressRead, 1}, {history.HookCategories, 1},
		{history.HookProgress, 1}, {history.HookFollow, 1}, {history.HookTopics, 2}, {history.HookTakeOver, 2},
		{"takeover-init", 1}, {"takeover-added", 1}, {"takeover-ended", 1}, {"takeover-marker", 1},
		{"produce-before", 3}, {"produce-after", 4}, {"produce-before", 5}, {"produce-after", 3},
		{history.HookProgress, 3}, {"produce-before", 7},
	}
	for i, p := range points {
		if p.name == "produce-before" || p.name == "produce-after" || p.count > 1 {
			r.s.add(streams(20000, "course", "student", fmt.Sprintf("met-%d", i))...)
		}
		r.spawn(p.name, p.count).Killed(t, p.name)
	}
	s := r.once()
	if s.Skipped == 0 {
		t.Error("nothing was left out: the kills came too early to show anything")
	}
	r.check()
}

// Killed at moments drawn at random, while the instance before may still be alive.
func TestG1KilledAtRandom(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for i := range 8 {
		r.s.add(streams(15000, "course", "student", fmt.Sprintf("met-%d", i/3))...)
		v := r.spawn("", 0)
		select { // the moment is the fault itself
		case <-v.Done():
			t.Fatal("the publication ended by itself")
		case <-time.After(time.Duration(50+rnd.IntN(400)) * time.Millisecond):
		}
		v.Kill()
	}
	r.once()
	r.check()
}

// The broker is killed under load and comes back with its data.
func TestG1BrokerKilled(t *testing.T) {
	t.Parallel()
	k := cdctest.PrivateKafka(t)
	r := rigOn(t, k, newStore())
	run := r.start(func(p *history.Publisher) { p.SetSilence(2 * time.Second) })
	stop := make(chan struct{})
	var load sync.WaitGroup
	load.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
				r.s.add(streams(50, "course", "student")...)
			}
		}
	})
	for range 3 {
		at := run.p.Status().Position
		run.until("events", func(s history.Status) bool { return s.Position > at+500 })
		k.Kill(t)
		k.Start(t)
	}
	close(stop)
	load.Wait()
	run.published()
	run.stop()
	r.check()
}

// Answers are lost on the wire: carried out, not known.
func TestG1AnswersLost(t *testing.T) {
	t.Parallel()
	k, proxy := cdctest.ProxiedKafka(t)
	r := rigOn(t, k, newStore())
	run := r.start()
	for range 5 {
		r.s.add(streams(2000, "course", "student")...)
		proxy.DropAnswers(1)
		run.published()
		proxy.Cut()
	}
	r.s.add(streams(2000, "course", "student")...)
	run.published()
	run.stop()
	r.check()
}

// An instance that slept wakes with a batch in hand after a newer one has written.
func TestG1Zombie(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		point string
		count int
	}{{"produce-before", 3}, {"produce-before", 6}, {"produce-after", 4}, {history.HookProgress, 2}} {
		t.Run(fmt.Sprintf("%s %d", c.point, c.count), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.s.add(streams(30_000, "course", "student")...)
			zombie := r.child(cdctest.Point{Kill: c.point, Count: c.count, Freeze: true})
			zombie.Frozen(t)
			run := r.start()
			run.published()
			zombie.Signal(t, syscall.SIGCONT)
			r.s.add(streams(30_000, "course", "student")...)
			run.published()
			if n := run.errs.Load(); n != 0 {
				t.Errorf("the newer one was disturbed %d times", n)
			}
			zombie.Kill()
			run.stop()
			r.check()
		})
	}
}
