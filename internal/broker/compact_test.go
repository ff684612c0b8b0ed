package broker_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"cdc/internal/broker"
)

var state = map[string]string{"cleanup.policy": "compact"}

// fill writes versions of keys to every partition, one batch a version, and
// returns the latest value of each key.
func fill(t *testing.T, addr, topic string, partitions, keys, versions int) map[string]string {
	t.Helper()
	cl := client(t, addr)
	defer cl.Close()
	latest := make(map[string]string)
	for v := range versions {
		var batch []*kgo.Record
		for p := range partitions {
			for k := range keys {
				r := &kgo.Record{Topic: topic, Partition: int32(p), Key: fmt.Appendf(nil, "%d-%d", p, k), Value: fmt.Append(nil, v)}
				latest[string(r.Key)] = string(r.Value)
				batch = append(batch, r)
			}
		}
		produce(t, cl, batch...)
	}
	return latest
}

// fold reads a topic's partitions and keeps the latest value of each key.
func fold(t *testing.T, addr, topic string, partitions int) (latest map[string]string, records int) {
	t.Helper()
	latest = make(map[string]string)
	for p := range partitions {
		for _, r := range readAll(t, addr, topic, int32(p)) {
			records++
			if r.Value == nil {
				delete(latest, string(r.Key))
			} else {
				latest[string(r.Key)] = string(r.Value)
			}
		}
	}
	return latest, records
}

func wantFold(t *testing.T, got, want map[string]string) {
	t.Helper()
	if maps.Equal(got, want) {
		return
	}
	for k, v := range want {
		if got[k] != v {
			t.Errorf("key %q: got %q, want %q (%d keys, want %d)", k, got[k], v, len(got), len(want))
			return
		}
	}
	t.Errorf("got %d keys, want %d", len(got), len(want))
}

func TestCompactKeepsTheLatest(t *testing.T) {
	const partitions, keys, versions = 3, 50, 8
	dir := t.TempDir()
	b := start(t, dir)
	createTopic(t, b.Addr(), "rows", partitions, state)
	want := fill(t, b.Addr(), "rows", partitions, keys, versions)
	if err := b.Compact(within(t)); err != nil {
		t.Fatal(err)
	}
	got, records := fold(t, b.Addr(), "rows", partitions)
	wantFold(t, got, want)
	if records >= partitions*keys*versions/2 {
		t.Errorf("%d records left of %d: nothing was compacted", records, partitions*keys*versions)
	}
	for _, name := range []string{"compaction-running", "compaction-backup"} {
		if _, err := os.Stat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there after the compaction (%v)", name, err)
		}
	}
	maps.Copy(want, fill(t, b.Addr(), "rows", partitions, keys/2, versions*2))
	b.Close()
	b = start(t, dir)
	got, _ = fold(t, b.Addr(), "rows", partitions)
	wantFold(t, got, want)
}

func TestCompactNothing(t *testing.T) {
	b := start(t, t.TempDir())
	if err := b.Compact(within(t)); err != nil {
		t.Fatal(err)
	}
}

// K6: rows older than kfake's default retention of seven days are still there.
func TestCompactDropsNothingForAge(t *testing.T) {
	b := start(t, t.TempDir())
	createTopic(t, b.Addr(), "rows", 1, state)
	createTopic(t, b.Addr(), "events", 1, nil)
	old := time.Now().AddDate(-1, 0, 0)
	cl := client(t, b.Addr())
	for _, topic := range []string{"rows", "events"} {
		for i := range 3 {
			produce(t, cl, &kgo.Record{Topic: topic, Key: fmt.Append(nil, i), Value: []byte("v"), Timestamp: old})
		}
	}
	if err := b.Compact(within(t)); err != nil {
		t.Fatal(err)
	}
	for _, topic := range []string{"rows", "events"} {
		if got := len(readAll(t, b.Addr(), topic, 0)); got != 3 {
			t.Errorf("%s: %d records left of 3", topic, got)
		}
	}
}

// K5: a process that is killed in the middle of a compaction loses nothing, and
// what was acknowledged between two compactions stays too.
func TestCompactKilled(t *testing.T) {
	const partitions, keys, versions, kills = 40, 150, 4, 6
	dir := t.TempDir()
	marker := filepath.Join(dir, "compaction-running")
	var want map[string]string
	undone := 0
	for kill := range kills {
		c := startChild(t, dir)
		if kill == 0 {
			createTopic(t, c.addr, "rows", partitions, state)
		}
		got, _ := fold(t, c.addr, "rows", partitions)
		if kill > 0 {
			wantFold(t, got, want)
		}
		want = fill(t, c.addr, "rows", partitions, keys, versions)
		c.kill()

		c = startChild(t, dir, childCompact+"=1")
		waitForFile(t, marker)
		// Kill at another moment of the compaction each time.
		time.Sleep(time.Duration(kill) * 3 * time.Millisecond)
		c.kill()
		if _, err := os.Stat(marker); err == nil {
			undone++
		}
	}
	b := start(t, dir)
	if b.Interrupted() {
		t.Error("the backup was there and yet the compaction counts as interrupted")
	}
	got, _ := fold(t, b.Addr(), "rows", partitions)
	wantFold(t, got, want)
	if undone == 0 {
		t.Error("no kill hit a compaction: this test has shown nothing")
	}
	t.Logf("%d of %d kills hit a compaction", undone, kills)
}

// waitForFile polls, because the process that makes the file is about to be
// killed and can tell nothing.
func waitForFile(t *testing.T, path string) {
	t.Helper()
	for ctx := within(t); ctx.Err() == nil; {
		if _, err := os.Stat(path); err == nil {
			return
		}
	}
	t.Fatalf("%s was never seen", path)
}

// A compaction that kfake could not carry through (here a directory stands where
// the new segment goes; a full disk is the usual way) ends the broker before it
// can acknowledge records that the next start would put away.
func TestCompactFails(t *testing.T) {
	dir := t.TempDir()
	b := start(t, dir)
	createTopic(t, b.Addr(), "rows", 1, state)
	want := fill(t, b.Addr(), "rows", 1, 10, 5)
	// Wherever the new first segment begins, a directory has its name.
	blocked := func(root string, offset int) string {
		return filepath.Join(root, "rows-0", fmt.Sprintf("%d.dat", offset))
	}
	for offset := 1; offset < 50; offset++ {
		if err := os.MkdirAll(filepath.Join(blocked(filepath.Join(dir, "log", "partitions"), offset), "x"), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Compact(within(t)); err == nil {
		t.Fatal("compaction reported no fault")
	}
	cl := client(t, b.Addr(), kgo.RecordRetries(0), kgo.RequestRetries(0))
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := cl.ProduceSync(ctx, &kgo.Record{Topic: "rows", Key: []byte("late"), Value: []byte("v")}).FirstErr(); err == nil {
		t.Error("a record was acknowledged after a failed compaction")
	}
	for offset := 1; offset < 50; offset++ {
		if err := os.RemoveAll(blocked(filepath.Join(dir, "compaction-backup"), offset)); err != nil {
			t.Fatal(err)
		}
	}
	b = start(t, dir)
	got, _ := fold(t, b.Addr(), "rows", 1)
	wantFold(t, got, want)
}

func TestInterruptedWithoutBackup(t *testing.T) {
	dir := t.TempDir()
	start(t, dir).Close()
	if err := os.WriteFile(filepath.Join(dir, "compaction-running"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b := start(t, dir)
	if !b.Interrupted() {
		t.Fatal("the marker was not found")
	}
	if err := b.Compact(within(t)); !errors.Is(err, broker.ErrInterrupted) {
		t.Errorf("compact: got %v, want ErrInterrupted", err)
	}
	b.Close()
	b = start(t, dir)
	if !b.Interrupted() {
		t.Error("a restart forgot the interrupted compaction")
	}
	if err := b.ClearInterrupted(); err != nil || b.Interrupted() {
		t.Errorf("clear: %v, interrupted %v", err, b.Interrupted())
	}
	b.Close()
	if b = start(t, dir); b.Interrupted() {
		t.Error("cleared, and after a restart back again")
	}
	if err := b.Compact(within(t)); err != nil {
		t.Error(err)
	}
}

// A kill while the backup is put back is followed by another start that goes on.
func TestRecoveryIsRepeatable(t *testing.T) {
	const partitions = 4
	dir := t.TempDir()
	b := start(t, dir)
	createTopic(t, b.Addr(), "rows", partitions, state)
	want := fill(t, b.Addr(), "rows", partitions, 20, 5)
	b.Close()
	parts, backup := filepath.Join(dir, "log", "partitions"), filepath.Join(dir, "compaction-backup")
	// As after a kill that had put two of four partitions back and emptied the others.
	if err := os.MkdirAll(backup, 0o750); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"rows-2", "rows-3"} {
		if err := os.Rename(filepath.Join(parts, p), filepath.Join(backup, p)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "compaction-running"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b = start(t, dir)
	got, _ := fold(t, b.Addr(), "rows", partitions)
	wantFold(t, got, want)
	if b.Interrupted() {
		t.Error("put back, and yet interrupted")
	}
}

func TestCompactHeedsContext(t *testing.T) {
	b := start(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Compact(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if err := b.Compact(within(t)); err != nil {
		t.Errorf("the next compaction: %v", err)
	}
}

// Compaction under load, killed: of each key the newest acknowledged version, or
// a later one that was never acknowledged, is there.
func TestCompactKilledUnderLoad(t *testing.T) {
	const partitions, keys, rounds, kills = 8, 40, 3, 5
	dir := t.TempDir()
	acked := make(map[string]int)
	version := 0
	for kill := range kills {
		c := startChild(t, dir, childCompact+"=1")
		if kill == 0 {
			createTopic(t, c.addr, "rows", partitions, state)
		}
		ctx, cancel := context.WithCancel(within(t))
		warm, killed := make(chan struct{}), make(chan struct{})
		cl := client(t, c.addr)
		go func() {
			defer close(killed)
			select {
			case <-warm:
			case <-ctx.Done():
			}
			// Each kill at another point of a compaction or behind it.
			waitForFile(t, filepath.Join(dir, "compaction-running"))
			time.Sleep(time.Duration(kill) * 40 * time.Millisecond)
			c.kill()
			cancel()
			cl.Close() // a canceled context alone leaves a batch under way waiting
		}()
		for round := 0; ctx.Err() == nil; round++ {
			if round == rounds {
				close(warm)
			}
			var batch []*kgo.Record
			for k := range keys {
				version++
				batch = append(batch, &kgo.Record{Topic: "rows", Partition: int32(k % partitions), Key: fmt.Append(nil, k), Value: fmt.Append(nil, version)})
			}
			for _, r := range cl.ProduceSync(ctx, batch...) {
				if r.Err == nil {
					var v int
					fmt.Sscan(string(r.Record.Value), &v)
					acked[string(r.Record.Key)] = v
				}
			}
		}
		<-killed
		b := start(t, dir)
		got, _ := fold(t, b.Addr(), "rows", partitions)
		b.Close()
		for key, want := range acked {
			var v int
			if fmt.Sscan(got[key], &v); v < want {
				t.Fatalf("kill %d: key %s has version %q, acknowledged was %d", kill, key, got[key], want)
			}
		}
	}
	t.Logf("%d versions written", version)
}
