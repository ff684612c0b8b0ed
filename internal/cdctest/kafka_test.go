package cdctest

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

func produce(t *testing.T, c *Cluster, topic string, from, to int) {
	t.Helper()
	cl := c.Client(t)
	for i := from; i < to; i++ {
		r := &kgo.Record{Topic: topic, Key: fmt.Appendf(nil, "k%d", i%5), Value: fmt.Appendf(nil, "v%d", i)}
		if err := cl.ProduceSync(context.Background(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSharedKafka(t *testing.T) {
	c := Kafka(t)
	topic := c.Prefix + "a"
	c.CreateTopic(t, topic, 3, nil)
	produce(t, c, topic, 0, 20)
	records := WaitRecords(t, c.Brokers, topic, AtLeast(20))
	if len(records) != 20 {
		t.Fatalf("got %d records, want 20", len(records))
	}
	state := Fold(records)
	if len(state) != 5 || state["k4"] != "v19" {
		t.Fatalf("got %v", state)
	}
}

func TestPrivateKafkaKeepsDataOverKill(t *testing.T) {
	c := PrivateKafka(t)
	topic := c.Prefix + "a"
	c.CreateTopic(t, topic, 1, nil)
	produce(t, c, topic, 0, 10)
	c.Kill(t)
	c.Start(t)
	produce(t, c, topic, 10, 12)
	if got := len(Read(t, c.Brokers, topic)); got != 12 {
		t.Fatalf("got %d records, want 12", got)
	}
}

func TestProxiedKafkaLeadsClientsThroughTheProxy(t *testing.T) {
	c, p := ProxiedKafka(t)
	topic := c.Prefix + "a"
	c.CreateTopic(t, topic, 1, nil)
	before := p.Connections()
	produce(t, c, topic, 0, 3)
	if p.Connections() <= before {
		t.Errorf("the producer made no connection through the proxy")
	}
	p.Refuse()
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	if _, err := read(ctx, c.Brokers, topic); err == nil {
		t.Error("a read succeeds while the proxy refuses")
	}
	p.Heal()
	if got := len(Read(t, c.Brokers, topic)); got != 3 {
		t.Errorf("got %d records, want 3", got)
	}
}

// A reader must come to the end of a partition whose last record was compacted
// away or aborted.
func TestReadPassesMarkersAndHoles(t *testing.T) {
	c := Kafka(t)
	topic := c.Prefix + "a"
	c.CreateTopic(t, topic, 1, map[string]string{"cleanup.policy": "compact"})
	produce(t, c, topic, 0, 3)
	cl := c.Client(t, kgo.TransactionalID(c.Prefix+"tx"))
	for _, commit := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort} {
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		r := &kgo.Record{Topic: topic, Key: []byte("k"), Value: []byte("v")}
		if err := cl.ProduceSync(context.Background(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := cl.EndTransaction(context.Background(), commit); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(Read(t, c.Brokers, topic)); got != 4 {
		t.Errorf("got %d records, want 4", got)
	}
	// Silence behind the last record: as after compaction of the end of the log.
	records, err := readPartition(context.Background(), c.Brokers, topic, 0, 0, 100)
	if err != nil || len(records) != 4 {
		t.Errorf("got %d records and %v, want 4", len(records), err)
	}
}

func TestHoldsRecords(t *testing.T) {
	batch := func(base int64, last, records uint32) []byte {
		b := make([]byte, 70)
		binary.BigEndian.PutUint64(b, uint64(base))
		binary.BigEndian.PutUint32(b[8:], 70-12)
		binary.BigEndian.PutUint32(b[23:], last)
		binary.BigEndian.PutUint32(b[57:], records)
		return b
	}
	empty, full := batch(10, 4, 0), batch(15, 4, 5)
	for _, test := range []struct {
		name    string
		batches []byte
		offset  int64
		want    bool
	}{
		{"nothing", nil, 10, false},
		{"an emptied batch", empty, 10, false},
		{"records behind an emptied batch", append(slices.Clip(empty), full...), 10, true},
		{"records before the offset", full, 20, false},
		{"records at the offset", full, 19, true},
		{"a cut header", full[:60], 15, false},
		{"a cut batch", full[:65], 15, true},
	} {
		if got := holdsRecords(test.batches, test.offset); got != test.want {
			t.Errorf("%s: got %v, want %v", test.name, got, test.want)
		}
	}
}
