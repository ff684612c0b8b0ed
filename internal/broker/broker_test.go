package broker_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"cdc/internal/broker"
)

func TestListensOnLoopbackOnly(t *testing.T) {
	for _, tt := range []struct{ listen, want string }{
		{"0.0.0.0:9092", "loopback only"},
		{":9092", "loopback only"},
		{"[::]:9092", "loopback only"},
		{"192.168.0.7:9092", "loopback only"},
		{"db.example.org:9092", "loopback only"},
		{"127.0.0.1", "want host:port"},
		{"127.0.0.1:kafka", "port"},
		{"127.0.0.1:65536", "port"},
		{"", "want host:port"},
	} {
		t.Run(tt.listen, func(t *testing.T) {
			b, err := broker.Start(t.Context(), broker.Config{Dir: t.TempDir(), Listen: tt.listen})
			if err == nil {
				b.Close()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
	for _, listen := range []string{"127.0.0.1:0", "localhost:0", "127.0.0.2:0"} {
		t.Run(listen, func(t *testing.T) {
			b, err := broker.Start(t.Context(), broker.Config{Dir: t.TempDir(), Listen: listen})
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			if host, _, _ := net.SplitHostPort(b.Addr()); !net.ParseIP(host).IsLoopback() {
				t.Errorf("listens on %s", b.Addr())
			}
		})
	}
}

func TestPortInUse(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	dir := t.TempDir()
	_, err = broker.Start(t.Context(), broker.Config{Dir: dir, Listen: ln.Addr().String()})
	if err == nil || !strings.Contains(err.Error(), ln.Addr().String()) || !strings.Contains(err.Error(), "configure another") {
		t.Fatalf("got %v, want an error naming %s and the way out", err, ln.Addr())
	}
	start(t, dir) // the failed start has let go of the directory
}

func TestDirectoryInUse(t *testing.T) {
	dir := t.TempDir()
	c := startChild(t, dir)
	_, err := broker.Start(t.Context(), broker.Config{Dir: dir, Listen: "127.0.0.1:0"})
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("in use by process %d", c.cmd.Process.Pid)) {
		t.Fatalf("got %v, want an error naming process %d", err, c.cmd.Process.Pid)
	}
	c.kill()
	start(t, dir)
}

func TestCloseTwice(t *testing.T) {
	b := start(t, t.TempDir())
	if err := errors.Join(b.Close(), b.Close()); err != nil {
		t.Fatal(err)
	}
	if err := b.Compact(t.Context()); err == nil {
		t.Error("compacted a closed broker")
	}
}

func TestUnknownTopicIsNotCreated(t *testing.T) {
	b := start(t, t.TempDir())
	cl := client(t, b.Addr(), kgo.AllowAutoTopicCreation())
	req := kmsg.NewPtrMetadataRequest()
	req.AllowAutoTopicCreation = true
	req.Topics = append(req.Topics, kmsg.MetadataRequestTopic{Topic: kmsg.StringPtr("typo")})
	resp, err := req.RequestWith(within(t), cl)
	if err != nil {
		t.Fatal(err)
	}
	if got := kerr.ErrorForCode(resp.Topics[0].ErrorCode); !errors.Is(got, kerr.UnknownTopicOrPartition) {
		t.Errorf("metadata of an unknown topic: got %v, want UNKNOWN_TOPIC_OR_PARTITION", got)
	}
}

func TestConsumerGroup(t *testing.T) {
	b := start(t, t.TempDir())
	createTopic(t, b.Addr(), "rows", 3, nil)
	cl := client(t, b.Addr(), kgo.ConsumeTopics("rows"), kgo.ConsumerGroup("readers"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	for p := range 3 {
		produce(t, cl, &kgo.Record{Topic: "rows", Partition: int32(p), Key: []byte("k"), Value: []byte("v")})
	}
	seen := 0
	for ctx := within(t); seen < 3; {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		seen += fetches.NumRecords()
	}
	if err := cl.CommitUncommittedOffsets(within(t)); err != nil {
		t.Fatal(err)
	}
}

// What was acknowledged is there after kill -9, in order, also when it happens
// again and again.
func TestAcknowledgedSurvivesKill(t *testing.T) {
	for _, tt := range []struct {
		name string
		env  []string
	}{{"synced", nil}, {"not synced", []string{childNoSync + "=1"}}} {
		t.Run(tt.name, func(t *testing.T) { testKill(t, tt.env) })
	}
}

func testKill(t *testing.T, env []string) {
	const partitions, rounds, perRound = 4, 3, 400
	dir := t.TempDir()
	var sent int
	var acked [partitions]map[int]bool
	for p := range acked {
		acked[p] = make(map[int]bool)
	}
	for round := range rounds {
		c := startChild(t, dir, env...)
		if round == 0 {
			createTopic(t, c.addr, "rows", partitions, nil)
		}
		cl := client(t, c.addr)
		var mu sync.Mutex
		enough := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		inRound := 0
		for range 50_000 {
			sent++
			n, p := sent, sent%partitions
			cl.Produce(ctx, &kgo.Record{Topic: "rows", Partition: int32(p), Value: fmt.Append(nil, n)}, func(_ *kgo.Record, err error) {
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					acked[p][n] = true
					if inRound++; inRound == perRound {
						close(enough)
					}
				}
			})
		}
		select {
		case <-enough:
		case <-within(t).Done():
			t.Fatal("too few records acknowledged")
		}
		c.kill() // in the middle of the rest
		cancel()
		cl.Close()
	}
	b := start(t, dir)
	for p, want := range acked {
		last := 0
		there := make(map[int]bool)
		for _, r := range readAll(t, b.Addr(), "rows", int32(p)) {
			var n int
			fmt.Sscan(string(r.Value), &n)
			if n <= last {
				t.Fatalf("partition %d offset %d: record %d after %d", p, r.Offset, n, last)
			}
			last, there[n] = n, true
		}
		for n := range want {
			if !there[n] {
				t.Errorf("partition %d: record %d was acknowledged and is gone", p, n)
			}
		}
		t.Logf("partition %d: %d acknowledged, %d there", p, len(want), len(there))
	}
}

// A transactional id keeps its producer id and raises its epoch over a restart,
// and its empty transaction fences the epoch before.
func TestFenceAfterRestart(t *testing.T) {
	for _, how := range []string{"kill", "stop"} {
		t.Run(how, func(t *testing.T) {
			dir := t.TempDir()
			var addr string
			var stop func()
			if how == "kill" {
				c := startChild(t, dir)
				addr, stop = c.addr, c.kill
			} else {
				b := start(t, dir)
				addr, stop = b.Addr(), func() { b.Close() }
			}
			createTopic(t, addr, "rows", 1, nil)
			old := takeOver(t, addr, "rows")
			produceAs(t, addr, old, "rows", 0, 0)
			stop()

			b := start(t, dir)
			owner := takeOver(t, b.Addr(), "rows")
			if owner.id != old.id || owner.epoch <= old.epoch {
				t.Errorf("after the restart producer %d epoch %d, before %d epoch %d", owner.id, owner.epoch, old.id, old.epoch)
			}
			if code := produceAs(t, b.Addr(), old, "rows", 0, 1); code != kerr.InvalidProducerEpoch.Code && code != kerr.ProducerFenced.Code {
				t.Errorf("the older producer wrote with code %d, want it fenced", code)
			}
			if code := produceAs(t, b.Addr(), owner, "rows", 0, 0); code != 0 {
				t.Errorf("the owner's batch: code %d", code)
			}
		})
	}
}

type producer struct {
	id    int64
	epoch int16
}

// takeOver does what a pipeline does at its start: a new epoch, and an empty
// transaction that writes it into the partition.
func takeOver(t *testing.T, addr, topic string) producer {
	t.Helper()
	ctx, cl := within(t), client(t, addr)
	init := kmsg.NewPtrInitProducerIDRequest()
	init.TransactionalID, init.TransactionTimeoutMillis = kmsg.StringPtr("pipeline"), 60_000
	init.ProducerID, init.ProducerEpoch = -1, -1
	got, err := init.RequestWith(ctx, cl)
	if err = errors.Join(err, kerr.ErrorForCode(got.ErrorCode)); err != nil {
		t.Fatal("init producer id:", err)
	}
	p := producer{got.ProducerID, got.ProducerEpoch}
	// Version 3 of both: from EndTxn 5 on a commit raises the epoch (KIP-890).
	add := kmsg.NewPtrAddPartitionsToTxnRequest()
	add.TransactionalID, add.ProducerID, add.ProducerEpoch = "pipeline", p.id, p.epoch
	at := kmsg.NewAddPartitionsToTxnRequestTopic()
	at.Topic, at.Partitions = topic, []int32{0}
	add.Topics = append(add.Topics, at)
	add.SetVersion(3)
	if _, err := requestVersion(t, addr, add); err != nil {
		t.Fatal("add partitions:", err)
	}
	end := kmsg.NewPtrEndTxnRequest()
	end.TransactionalID, end.ProducerID, end.ProducerEpoch, end.Commit = "pipeline", p.id, p.epoch, true
	end.SetVersion(3)
	ended, err := requestVersion(t, addr, end)
	if err != nil {
		t.Fatal("end transaction:", err)
	}
	if err := kerr.ErrorForCode(ended.(*kmsg.EndTxnResponse).ErrorCode); err != nil {
		t.Fatal("end transaction:", err)
	}
	return p
}

func createTopic(t *testing.T, addr, topic string, partitions int32, config map[string]string) {
	t.Helper()
	settings := make(map[string]*string, len(config))
	for k, v := range config {
		settings[k] = &v
	}
	if _, err := kadm.NewClient(client(t, addr)).CreateTopic(within(t), partitions, -1, settings, topic); err != nil {
		t.Fatal(err)
	}
}

func produce(t *testing.T, cl *kgo.Client, records ...*kgo.Record) {
	t.Helper()
	if err := cl.ProduceSync(within(t), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// readAll reads a partition from its start to its high watermark.
func readAll(t *testing.T, addr, topic string, partition int32) []*kgo.Record {
	t.Helper()
	ctx := within(t)
	cl := client(t, addr, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().AtStart()}}), kgo.KeepControlRecords())
	defer cl.Close()
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, topic)
	if err != nil {
		t.Fatal(err)
	}
	end, _ := ends.Lookup(topic, partition)
	var all []*kgo.Record
	for next := int64(0); next < end.Offset; {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("read %s/%d from %d to %d: %v", topic, partition, next, end.Offset, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			next = r.Offset + 1
			if !r.Attrs.IsControl() {
				all = append(all, r)
			}
		})
	}
	return all
}
