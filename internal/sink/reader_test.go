package sink

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"cdc/internal/cdc"
)

func producing(t *testing.T, k *kfake.Cluster, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(k.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner())}, opts...)...)
	must(t, err)
	t.Cleanup(cl.Close)
	return cl
}

func values(t *testing.T, c *Client, tp cdc.TopicPartition, from int64) []string {
	t.Helper()
	var out []string
	_, end, err := c.Offsets(testContext(t), []cdc.TopicPartition{tp})
	must(t, err)
	must(t, c.ReadAll(testContext(t), tp, from, end[tp], func(m *Message) error {
		out = append(out, string(m.Value))
		return nil
	}))
	return out
}

func TestReaderReadsEveryCodecOfAnotherClient(t *testing.T) {
	for name, codec := range map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	} {
		t.Run(name, func(t *testing.T) {
			k := cluster(t, kfake.SeedTopics(1, "data"))
			cl := producing(t, k, kgo.ProducerBatchCompression(codec))
			var want []string
			var rs []*kgo.Record
			for n := range 3000 {
				want = append(want, fmt.Sprint("value ", n))
				rs = append(rs, &kgo.Record{Topic: "data", Value: []byte(want[n]), Key: []byte("k"), Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("x")}, {Key: "null"}}})
			}
			must(t, cl.ProduceSync(testContext(t), rs...).FirstErr())
			r := dial(t, k).NewReader(parts("data", 1)[0], 0)
			defer func() { must(t, r.Close()) }()
			for n := range want {
				m, err := r.Next(testContext(t))
				must(t, err)
				if m.Offset != int64(n) || string(m.Value) != want[n] || string(m.Key) != "k" || len(m.Headers) != 2 || m.Headers[0].Key != "h" || m.Headers[1].Value != nil {
					t.Fatalf("record %d: %+v", n, m)
				}
			}
			if got := r.HighWatermark(); got != 3000 {
				t.Errorf("high watermark %d, want 3000", got)
			}
			if got := values(t, dial(t, k), parts("data", 1)[0], 2990); !slices.Equal(got, want[2990:]) {
				t.Errorf("from inside a batch: %q", got)
			}
		})
	}
}

func TestReaderLeavesAbortedRecordsAndMarkersOut(t *testing.T) {
	k := cluster(t, kfake.SeedTopics(1, "data"))
	cl := producing(t, k, kgo.TransactionalID("foreign"))
	ctx := testContext(t)
	for n := range 20 {
		must(t, cl.BeginTransaction())
		must(t, cl.ProduceSync(ctx, &kgo.Record{Topic: "data", Value: fmt.Append(nil, n)}).FirstErr())
		must(t, cl.EndTransaction(ctx, kgo.TransactionEndTry(n%3 > 0)))
	}
	var want []string
	for n := range 20 {
		if n%3 > 0 {
			want = append(want, fmt.Sprint(n))
		}
	}
	c := dial(t, k)
	if got := values(t, c, parts("data", 1)[0], 0); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	r := c.NewReader(parts("data", 1)[0], 0)
	r.committed = false
	defer func() { must(t, r.Close()) }()
	n := 0
	must(t, r.until(ctx, 40, func(*Message) error { n++; return nil }))
	if n != 20 {
		t.Errorf("uncommitted: %d records, want 20 and no marker", n)
	}
}

func TestReaderBlocksAtTheEnd(t *testing.T) {
	k := cluster(t, kfake.SeedTopics(1, "data"))
	cl := producing(t, k)
	r := dial(t, k).NewReader(parts("data", 1)[0], 0)
	defer func() { must(t, r.Close()) }()
	ctx, cancel := context.WithTimeout(testContext(t), 50*time.Millisecond)
	defer cancel()
	_, err := r.Next(ctx)
	wantErr(t, err, context.DeadlineExceeded)

	got := make(chan error, 1)
	go func() {
		m, err := r.Next(testContext(t))
		if err == nil && string(m.Value) != "late" {
			err = fmt.Errorf("got %q", m.Value)
		}
		got <- err
	}()
	must(t, cl.ProduceSync(testContext(t), &kgo.Record{Topic: "data", Value: []byte("late")}).FirstErr())
	must(t, <-got)
}

func TestReaderGoesOverHolesAndStops(t *testing.T) {
	k := cluster(t)
	c := dial(t, k)
	must(t, c.CreateTopic(testContext(t), cdc.TopicSpec{Name: "data", Partitions: 1, Replication: 1}, map[string]string{"cleanup.policy": "compact"}))
	tp := parts("data", 1)[0]
	cl := producing(t, k)
	for n := range 50 { // a batch each, the same three keys
		must(t, cl.ProduceSync(testContext(t), &kgo.Record{Topic: "data", Key: fmt.Append(nil, n%3), Value: fmt.Append(nil, n)}).FirstErr())
	}
	k.Compact()
	got := values(t, c, tp, 0)
	if len(got) < 3 || len(got) > 5 || got[len(got)-1] != "49" {
		t.Errorf("after compaction: %q", got)
	}
	for to := int64(0); to <= 50; to++ { // every end, most of them in a hole
		must(t, c.ReadAll(testContext(t), tp, 0, to, func(m *Message) error {
			if m.Offset >= to {
				t.Errorf("offset %d beyond %d", m.Offset, to)
			}
			return nil
		}))
	}
}

func TestReaderAcrossRetentionAndBeyondTheEnd(t *testing.T) {
	k := cluster(t, kfake.SeedTopics(1, "data"))
	c := dial(t, k)
	tp := parts("data", 1)[0]
	cl := producing(t, k)
	must(t, cl.ProduceSync(testContext(t), &kgo.Record{Topic: "data", Value: []byte("gone")}).FirstErr())
	deleteRecords(t, k, tp)
	must(t, cl.ProduceSync(testContext(t), &kgo.Record{Topic: "data", Value: []byte("kept")}).FirstErr())
	if got := values(t, c, tp, 0); !slices.Equal(got, []string{"kept"}) {
		t.Errorf("got %q", got)
	}
	r := c.NewReader(tp, 77)
	defer func() { must(t, r.Close()) }()
	if _, err := r.Next(testContext(t)); err == nil {
		t.Error("an offset beyond the end was accepted")
	}
}

func TestReaderFollowsItsLeader(t *testing.T) {
	r := newRough(5)
	k := cluster(t, kfake.NumBrokers(3), kfake.SeedTopics(1, "data"), r.opt())
	c := dial(t, k)
	cl := producing(t, k)
	rd := c.NewReader(parts("data", 1)[0], 0)
	defer func() { must(t, rd.Close()) }()
	for n := range 30 {
		must(t, cl.ProduceSync(testContext(t), &kgo.Record{Topic: "data", Value: fmt.Append(nil, n)}).FirstErr())
		m, err := rd.Next(testContext(t))
		must(t, err)
		if string(m.Value) != fmt.Sprint(n) {
			t.Fatalf("got %q, want %d", m.Value, n)
		}
		if n%3 == 0 {
			must(t, k.MoveTopicPartition("data", 0, int32(n/3%3)))
		}
		if n%5 == 0 {
			r.cut()
		}
	}
}
