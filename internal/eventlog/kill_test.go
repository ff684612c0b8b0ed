package eventlog_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/eventstore"
)

// childEnv holds a config: the test binary then is a numberer that a test can kill.
const childEnv = "CDC_TEST_CHILD"

func child() int {
	var c config
	if err := json.Unmarshal([]byte(os.Getenv(childEnv)), &c); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	store, err := eventstore.Open(ctx, eventstore.Config{URL: c.URL, MaxConns: 2})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var mu sync.Mutex
	passed := 0
	n := c.numberer(store, eventstore.NewHead(), slog.New(slog.NewTextHandler(os.Stderr, nil)), func(point string) {
		mu.Lock()
		defer mu.Unlock()
		if point != c.Kill {
			return
		}
		if passed++; passed == c.Count {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	})
	go func() { // the parent's end of the pipe: closed means stop in order
		_, _ = os.Stdin.Read(make([]byte, 1))
		cancel()
	}()
	if err := n.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// victim is a numberer in a process of its own.
type victim struct {
	cmd  *exec.Cmd
	log  strings.Builder
	done chan struct{}
	in   interface{ Close() error }
}

func (r *rig) spawn(c config, kill string, count int) *victim {
	r.t.Helper()
	c.Kill, c.Count = kill, count
	b, err := json.Marshal(c)
	if err != nil {
		r.t.Fatal(err)
	}
	v := &victim{cmd: exec.Command(os.Args[0], "-test.run=^$"), done: make(chan struct{})}
	v.cmd.Env = append(os.Environ(), childEnv+"="+string(b))
	v.cmd.Stderr = &v.log
	if v.in, err = v.cmd.StdinPipe(); err != nil {
		r.t.Fatal(err)
	}
	if err := v.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	go func() {
		_ = v.cmd.Wait()
		close(v.done)
	}()
	r.t.Cleanup(v.end)
	return v
}

func (v *victim) end() {
	_ = v.cmd.Process.Kill()
	<-v.done
}

// killed waits until the process has killed itself at its point.
func (v *victim) killed(t testing.TB, point string) {
	t.Helper()
	select {
	case <-v.done:
	case <-time.After(waitLimit):
		v.end()
		t.Fatalf("point %q was never reached\n%s", point, v.log.String())
	}
	if ws, ok := v.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !ws.Signaled() {
		t.Fatalf("the process ended by itself before point %q: %s\n%s", point, v.cmd.ProcessState, v.log.String())
	}
}

// kill -9 at every point of the stream, under load, the slot never lost: the log is
// the WAL, event by event.
func TestKilledAtEachPointOfTheStream(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := newRig(t)
	u := r.start(r.config(), nil)
	u.state(cdc.StateStreaming)
	u.stop()
	second := r.witness()
	w := r.workload(4, 0, seed)
	for _, p := range []struct {
		name  string
		count int
	}{
		{"locked", 1}, {"publish", 1}, {"stream", 1},
		{"commit", 1}, {"commit", 7}, {"committed", 1}, {"committed", 9}, {"confirm", 1}, {"confirm", 2}, {"confirm", 11},
	} {
		r.spawn(r.config(), p.name, p.count).killed(t, p.name)
	}
	c := r.config()
	c.Idle = time.Millisecond
	w.finish()
	r.spawn(c, "idle", 2).killed(t, "idle")
	u = r.start(r.config(), nil)
	u.state(cdc.StateStreaming)
	r.append("last/1", 1)
	r.barrier()
	u.stop()
	r.same(r.exactlyOnce(), second.order())
	if contains(u.log, "looking at every event") {
		t.Errorf("a kill made it distrust the slot:\n%s", u.log)
	}
}

// kill -9 in the middle of a large transaction: none of it was numbered, then all of
// it at once.
func TestKilledInALargeTransaction(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	u := r.start(r.config(), nil)
	u.state(cdc.StateStreaming)
	u.stop()
	second := r.witness()
	r.append("small/1", 3)
	r.large(20_000)
	r.append("small/2", 3)
	for _, count := range []int{1, 12, 20} {
		r.spawn(r.config(), "rows", count).killed(t, "rows")
		if got := r.db.Value(t, `select count(*) from es.log join es.event on id = event where stream <> 'small/1'`); got != "0" {
			t.Fatalf("killed at piece %d: %s events of the large transaction or behind it are numbered, want none", count, got)
		}
	}
	r.spawn(r.config(), "committed", 1).killed(t, "committed")
	u = r.start(r.config(), nil)
	u.state(cdc.StateStreaming)
	r.barrier()
	u.stop()
	r.same(r.exactlyOnce(), second.order())
}

// kill -9 at every point of an adoption, under load: no event is lost, none is
// numbered twice, and no slot is left that lies.
func TestKilledAtEachPointOfAnAdoption(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := newRig(t)
	r.append("old/1", 50)
	w := r.workload(2, 0, seed)
	points := []string{"publish", "adopt", "adopt-snapshot", "adopt-rows", "adopt-commit", "adopt-committed", "adopt-slot"}
	for _, point := range points {
		r.spawn(r.config(), point, 1).killed(t, point)
		r.dropSlot()
	}
	u := r.start(r.config(), nil)
	u.state(cdc.StateStreaming)
	r.barrier()
	u.stop()
	// The slot is worthless and is dropped first.
	r.db.Exec(t, fmt.Sprintf(`select pg_replication_slot_advance('%s', pg_current_wal_lsn())`, r.slot))
	r.append("skipped/1", 5)
	r.db.Exec(t, fmt.Sprintf(`select pg_replication_slot_advance('%s', pg_current_wal_lsn())`, r.slot))
	r.spawn(r.config(), "drop-slot", 1).killed(t, "drop-slot")
	r.spawn(r.config(), "adopt-rows", 1).killed(t, "adopt-rows")
	r.spawn(r.config(), "adopt-committed", 1).killed(t, "adopt-committed")
	u = r.start(r.config(), nil)
	u.state(cdc.StateStreaming)
	w.finish()
	r.barrier()
	u.stop()
	r.exactlyOnce()
	if got := r.db.Slots(t); len(got) != 1 || got[0] != r.slot {
		t.Errorf("slots %v, want %s alone", got, r.slot)
	}
}

// dropSlot drops the slot once nobody holds it, if it is there.
func (r *rig) dropSlot() {
	r.t.Helper()
	r.until("the slot is free", func() bool {
		return r.db.Value(r.t, fmt.Sprintf(`select count(*) from pg_replication_slots where slot_name like '%s%%' and active`, r.slot)) == "0"
	})
	r.db.Exec(r.t, fmt.Sprintf(`select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = '%s'`, r.slot))
}

func contains(o *output, s string) bool { return strings.Contains(o.String(), s) }
