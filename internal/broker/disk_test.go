package broker_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"cdc/internal/broker"
)

// lines is a log that can be waited for.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{} // one token: something was written
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case l.more <- struct{}{}:
	default:
	}
	return l.text.Write(b)
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), text)
}

func (l *lines) wait(t *testing.T, text string) {
	t.Helper()
	for ctx := within(t); l.count(text) == 0; {
		select {
		case <-l.more:
		case <-ctx.Done():
			t.Fatalf("%q was never logged", text)
		}
	}
}

// While the disk is full nothing is written and what is there can be read; the
// log says so once; with room again the client's own tries go on, and the record
// is there once.
func TestCase116FullDiskRefusesWrites(t *testing.T) {
	t.Parallel()
	var free atomic.Uint64
	free.Store(1 << 30)
	log := &lines{more: make(chan struct{}, 1)}
	cfg := broker.WithFree(broker.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", Logger: slog.New(slog.NewTextHandler(log, nil))},
		func(string) (uint64, error) { return free.Load(), nil })
	b, err := broker.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	createTopic(t, b.Addr(), "rows", 1, nil)
	cl := client(t, b.Addr())
	produce(t, cl, &kgo.Record{Topic: "rows", Value: []byte("first")})

	free.Store(1 << 20)
	written := make(chan error, 1)
	ctx := within(t)
	go func() {
		written <- cl.ProduceSync(ctx, &kgo.Record{Topic: "rows", Value: []byte("second")}).FirstErr()
	}()
	log.wait(t, "the disk is full")
	if got := readAll(t, b.Addr(), "rows", 0); len(got) != 1 {
		t.Errorf("got %d records while the disk is full, want 1", len(got))
	}
	if err := b.Compact(ctx); err == nil || !strings.Contains(err.Error(), "the disk is full") {
		t.Errorf("compaction on a full disk: got %v, want an error that says so", err)
	}
	select {
	case err := <-written:
		t.Fatalf("the write on a full disk came back: %v", err)
	default:
	}

	free.Store(1 << 30)
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, b.Addr(), "rows", 0); len(got) != 2 {
		t.Errorf("got %d records, want 2", len(got))
	}
	for _, text := range []string{"the disk is full", "the disk has room again"} {
		if n := log.count(text); n != 1 {
			t.Errorf("%q was logged %d times, want once", text, n)
		}
	}
}

// kfake counts the sequence number of a batch that it could not write as used:
// sent again it would be acknowledged, and lost. So the broker ends, and the next
// one writes it. Here a file stands where the partition's directory goes; a disk
// that something else has filled in that moment is the usual way.
func TestCase116UnwrittenBatchIsNotAcknowledged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := startChild(t, dir)
	createTopic(t, c.addr, "rows", 1, nil)
	parts := filepath.Join(dir, "log", "partitions")
	if err := os.MkdirAll(parts, 0o750); err != nil {
		t.Fatal(err)
	}
	blocker := filepath.Join(parts, "rows-0")
	if err := os.WriteFile(blocker, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var addr atomic.Value // the next broker has another port
	addr.Store(c.addr)
	cl := client(t, c.addr, kgo.Dialer(func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, addr.Load().(string))
	}))
	ctx := within(t)
	written := make(chan error, 1)
	go func() {
		written <- cl.ProduceSync(ctx, &kgo.Record{Topic: "rows", Value: []byte("v")}).FirstErr()
	}()
	ended := make(chan struct{})
	go func() {
		c.cmd.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case err := <-written:
		t.Fatalf("the broker goes on, and answered a batch that is not written with %v", err)
	case <-ctx.Done():
		t.Fatal("neither has the broker ended nor was the batch answered")
	}
	if err := os.Remove(blocker); err != nil {
		t.Fatal(err)
	}
	c = startChild(t, dir)
	addr.Store(c.addr)
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, c.addr, "rows", 0); len(got) != 1 {
		t.Errorf("the batch was acknowledged, and %d records are there, want 1", len(got))
	}
}
