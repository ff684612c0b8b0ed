package sink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
)

func TestMain(m *testing.M) {
	cdctest.Main(m) // with goleak
}

// testTimeout ends a test that waits for something that never comes. A killed
// Apache Kafka on a busy machine takes its time.
const testTimeout = 3 * time.Minute

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	t.Cleanup(cancel)
	return ctx
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// cluster starts a broker cluster in the process.
func cluster(t testing.TB, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)...)
	must(t, err)
	t.Cleanup(c.Close)
	return c
}

func dial(t testing.TB, k *kfake.Cluster) *Client {
	t.Helper()
	return dialConfig(t, Config{Brokers: k.ListenAddrs()})
}

func dialConfig(t testing.TB, cfg Config) *Client {
	t.Helper()
	if testing.Verbose() {
		cfg.Logger = slog.New(slog.NewTextHandler(testLog{t}, nil))
	}
	c, err := Dial(testContext(t), cfg)
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })
	return c
}

type testLog struct{ t testing.TB }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Log(string(bytes.TrimRight(p, "\n")))
	return len(p), nil
}

func parts(topic string, n int32) []cdc.TopicPartition {
	var tps []cdc.TopicPartition
	for i := range n {
		tps = append(tps, cdc.TopicPartition{Topic: topic, Partition: i})
	}
	return tps
}

// owner is a Writer that has taken over and runs.
func owner(t testing.TB, c *Client, cfg WriterConfig, tps []cdc.TopicPartition) *Writer {
	t.Helper()
	w := c.NewWriter(cfg)
	must(t, w.TakeOver(testContext(t), tps))
	w.Start(context.Background())
	t.Cleanup(func() { _ = w.Close() }) // many tests have closed or broken it already
	return w
}

// stampAt is the n-th position of a stream.
func stampAt(n uint64) cdc.Stamp {
	return cdc.Stamp{Generation: 7, Position: cdc.Position{Tx: cdc.LSN(n), Change: 1, Record: 1}}
}

// put appends row n with its position.
func put(t testing.TB, w *Writer, tp cdc.TopicPartition, n uint64) {
	t.Helper()
	must(t, w.Append(w.Target(tp), &cdc.Record{Key: fmt.Append(nil, n), Value: fmt.Append(nil, "row ", n), Time: int64(1700000000000 + n)}, stampAt(n)))
}

// seen is what an independent client, reading committed, finds in a topic.
func seen(t testing.TB, k *kfake.Cluster, topic string, want int, opts ...kgo.Opt) map[int32][]*kgo.Record {
	t.Helper()
	return seenAt(t, k.ListenAddrs(), topic, want, opts...)
}

func seenAt(t testing.TB, addrs []string, topic string, want int, opts ...kgo.Opt) map[int32][]*kgo.Record {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(addrs...), kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	}, opts...)...)
	must(t, err)
	defer cl.Close()
	ctx := testContext(t)
	out := map[int32][]*kgo.Record{}
	for n := 0; n < want; {
		fs := cl.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			t.Fatalf("read %d records of %s, want %d: %v", n, topic, want, err)
		}
		fs.EachRecord(func(r *kgo.Record) { out[r.Partition] = append(out[r.Partition], r); n++ })
	}
	// Whatever else is there comes at once: nothing is being written any more.
	more, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	cl.PollFetches(more).EachRecord(func(r *kgo.Record) {
		t.Errorf("%s/%d offset %d: one record too many, %q", topic, r.Partition, r.Offset, r.Value)
	})
	return out
}

// onceInOrder checks that the rows 0 to n-1 are there, each once, with rising
// positions in every partition.
func onceInOrder(t testing.TB, got map[int32][]*kgo.Record, n int) {
	t.Helper()
	var rows []uint64
	for p, rs := range got {
		last := cdc.Position{}
		for _, r := range rs {
			i := slices.IndexFunc(r.Headers, func(h kgo.RecordHeader) bool { return h.Key == cdc.StampHeader })
			if i < 0 {
				t.Fatalf("partition %d offset %d: no stamp", p, r.Offset)
			}
			s, err := cdc.ParseStamp(r.Headers[i].Value)
			must(t, err)
			if !last.Before(s.Position) {
				t.Errorf("partition %d offset %d: position %v after %v", p, r.Offset, s.Position, last)
			}
			last = s.Position
			rows = append(rows, uint64(s.Position.Tx)-1)
		}
	}
	slices.Sort(rows)
	if len(rows) != n {
		t.Errorf("%d rows, want %d", len(rows), n)
	}
	for i, r := range rows {
		if r != uint64(i) {
			t.Fatalf("row %d in place %d: lost or twice", r, i)
		}
	}
}

// load appends rows 0 to n-1 round the partitions, each with a mark, as a
// source does it, and flushes.
func load(t testing.TB, w *Writer, tps []cdc.TopicPartition, n int) {
	t.Helper()
	ctx := testContext(t)
	for i := range n {
		put(t, w, tps[i%len(tps)], uint64(i)+1)
		w.Mark(Mark{End: cdc.LSN(i + 1)})
		if i%7 == 0 {
			w.Handover()
		}
		for w.Full() {
			select {
			case <-w.Space():
			case <-w.Failed():
				t.Fatalf("writer failed at row %d: %v", i, w.Err())
			}
		}
	}
	must(t, w.Flush(ctx))
	if got, want := w.Acked().End, cdc.LSN(n); got != want {
		t.Fatalf("acknowledged up to %v, want %v", got, want)
	}
}

func wantErr(t testing.TB, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("got error %v, want %v", got, want)
	}
}
