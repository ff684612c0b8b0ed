package history_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
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

// childEnv holds a childConfig: the test binary then is a publication that a test
// can kill as hard as it likes.
const childEnv = "CDC_TEST_CHILD"

type childConfig struct {
	Prefix  string
	Brokers []string
	Store   intent.ID
	Events  string // file with the streams of the events
	Kill    string // point at which the process kills itself …
	Count   int    // … when it is passed for the so manieth time
	Sleep   bool   // it stops itself there (SIGSTOP) instead, and goes on when it is woken
}

func child() int {
	var c childConfig
	if err := json.Unmarshal([]byte(os.Getenv(childEnv)), &c); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	b, err := os.ReadFile(c.Events)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	s := newStore()
	s.id = c.Store
	s.add(strings.Fields(string(b))...)
	cfg := baseConfig(c.Prefix, c.Brokers, s)
	cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	var mu sync.Mutex
	passed := 0
	cfg.Hook = func(point string) {
		mu.Lock()
		defer mu.Unlock()
		if point != c.Kill {
			return
		}
		if passed++; passed == c.Count && c.Sleep {
			_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		} else if passed == c.Count {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	p := history.New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { // the parent's end of the pipe: closed means stop in order
		_, _ = os.Stdin.Read(make([]byte, 1))
		cancel()
	}()
	for ctx.Err() == nil {
		if err := p.Run(ctx); cdc.IsTerminal(err) {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return 0
}

// victim is a publication in a process of its own.
type victim struct {
	cmd   *exec.Cmd
	stdin interface{ Close() error }
	log   *strings.Builder
	done  chan struct{}
}

// spawn starts a child over a copy of the events there are.
func (r *rig) spawn(kill string, count int) *victim {
	r.t.Helper()
	return r.child(childConfig{Kill: kill, Count: count})
}

func (r *rig) child(c childConfig) *victim {
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
	c.Prefix, c.Brokers, c.Store, c.Events = r.k.Prefix, r.cfg.Sink.Brokers, r.s.id, file.Name()
	b, err := json.Marshal(c)
	if err != nil {
		r.t.Fatal(err)
	}
	v := &victim{cmd: exec.Command(os.Args[0], "-test.run=^$"), log: &strings.Builder{}, done: make(chan struct{})}
	v.cmd.Env = append(os.Environ(), childEnv+"="+string(b))
	v.cmd.Stderr = v.log
	if v.stdin, err = v.cmd.StdinPipe(); err != nil {
		r.t.Fatal(err)
	}
	if err := v.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	go func() {
		_ = v.cmd.Wait()
		close(v.done)
	}()
	r.t.Cleanup(v.kill)
	return v
}

func (v *victim) kill() {
	_ = v.cmd.Process.Kill()
	<-v.done
}

// killed waits until the process has killed itself at its point.
func (v *victim) killed(t *testing.T, point string) {
	t.Helper()
	select {
	case <-v.done:
	case <-time.After(waitLimit):
		v.kill()
		t.Fatalf("point %q was never reached\n%s", point, tail(v.log.String()))
	}
	if ws, ok := v.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !ws.Signaled() {
		t.Fatalf("the process ended by itself before point %q: %s\n%s", point, v.cmd.ProcessState, tail(v.log.String()))
	}
}

func tail(s string) string { return s[max(0, len(s)-4000):] }

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
		r.spawn(p.name, p.count).killed(t, p.name)
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
		case <-v.done:
			t.Fatalf("the publication ended by itself\n%s", tail(v.log.String()))
		case <-time.After(time.Duration(50+rnd.IntN(400)) * time.Millisecond):
		}
		v.kill()
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

// asleep waits until the process has stopped itself.
func (v *victim) asleep(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(waitLimit); ; time.Sleep(5 * time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", v.cmd.Process.Pid))
		if err != nil || time.Now().After(end) {
			t.Fatalf("never asleep: %v\n%s", err, tail(v.log.String()))
		}
		if _, state, _ := strings.Cut(string(stat), ") "); strings.HasPrefix(state, "T") {
			return
		}
	}
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
			zombie := r.child(childConfig{Kill: c.point, Count: c.count, Sleep: true})
			zombie.asleep(t)
			run := r.start()
			run.published()
			if err := zombie.cmd.Process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			r.s.add(streams(30_000, "course", "student")...)
			run.published()
			if n := run.errs.Load(); n != 0 {
				t.Errorf("the newer one was disturbed %d times", n)
			}
			zombie.kill()
			run.stop()
			r.check()
		})
	}
}
