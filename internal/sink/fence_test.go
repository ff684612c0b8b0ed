package sink

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"cdc/internal/cdc"
)

// The old instance goes on after the new one took over: it is refused in every
// partition, also where the new one has not written, and says that it was fenced.
func TestCase180Zombie(t *testing.T) {
	const n = 4
	k := cluster(t, kfake.NumBrokers(2), kfake.SeedTopics(n, "data"))
	tps := parts("data", n)
	for _, tp := range tps {
		t.Run(tp.String(), func(t *testing.T) {
			id := "p" + tp.String()
			old := owner(t, dial(t, k), WriterConfig{TransactionalID: id}, tps)
			put(t, old, tps[0], 1)
			must(t, old.Flush(testContext(t)))

			fresh := owner(t, dial(t, k), WriterConfig{TransactionalID: id}, tps) // another process: another client
			_, before, err := fresh.c.Offsets(testContext(t), tps)
			must(t, err)
			put(t, old, tp, 2)
			err = old.Flush(testContext(t))
			wantErr(t, err, ErrFenced)
			if !cdc.IsTerminal(err) {
				t.Errorf("%v is not terminal", err)
			}
			_, after, err := fresh.c.Offsets(testContext(t), tps)
			must(t, err)
			if after[tp] != before[tp] {
				t.Errorf("the zombie wrote: %d to %d", before[tp], after[tp])
			}
			put(t, fresh, tp, 2)
			must(t, fresh.Flush(testContext(t)))
		})
	}
}

// The same client takes over again with its own id and epoch: that is no fence.
// Against a newer owner it is.
func TestTakeOverAgain(t *testing.T) {
	k := cluster(t, kfake.SeedTopics(2, "data"))
	tps := parts("data", 2)
	c := dial(t, k)
	next := uint64(1)
	for range 3 {
		w := owner(t, c, WriterConfig{TransactionalID: "p"}, tps)
		for range 10 {
			put(t, w, tps[next%2], next)
			next++
		}
		must(t, w.Flush(testContext(t)))
		must(t, w.Close())
	}
	onceInOrder(t, seen(t, k, "data", 30), 30)

	owner(t, dial(t, k), WriterConfig{TransactionalID: "p"}, tps)
	wantErr(t, c.NewWriter(WriterConfig{TransactionalID: "p"}).TakeOver(testContext(t), tps), ErrFenced)
}

// An epoch that was raised by nobody else (the coordinator ended a transaction)
// is not a fence: the writer asks with its own id and epoch.
func TestStaleEpochOfNobodyNeedsTakeOver(t *testing.T) {
	k := cluster(t, kfake.SeedTopics(1, "data"))
	c := dial(t, k)
	w := owner(t, c, WriterConfig{TransactionalID: "p"}, parts("data", 1))
	k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.InvalidProducerEpoch})
	put(t, w, parts("data", 1)[0], 1)
	wantErr(t, w.Flush(testContext(t)), ErrNeedTakeOver)
	must(t, w.Close())
	w = owner(t, c, WriterConfig{TransactionalID: "p"}, parts("data", 1))
	put(t, w, parts("data", 1)[0], 1)
	must(t, w.Flush(testContext(t)))
	onceInOrder(t, seen(t, k, "data", 1), 1)
}

// Codes of a coordinator that loads, is elected, moves or is busy, and of a topic
// that was made a moment ago, are waits.
func TestCase187CoordinatorCodes(t *testing.T) {
	for _, code := range []*kerr.Error{
		kerr.CoordinatorLoadInProgress, kerr.CoordinatorNotAvailable, kerr.NotCoordinator,
		kerr.ConcurrentTransactions, kerr.UnknownTopicOrPartition,
	} {
		for _, key := range []kmsg.Key{kmsg.InitProducerID, kmsg.AddPartitionsToTxn, kmsg.EndTxn, kmsg.FindCoordinator, kmsg.ListOffsets} {
			t.Run(fmt.Sprintf("%d on %s", code.Code, key.Name()), func(t *testing.T) {
				t.Parallel()
				k := cluster(t, kfake.SeedTopics(2, "data"))
				const times = 6
				// FindCoordinator knows only some of them, and no fault reaches it with the others: it passes then.
				h := k.Fault(kfake.Fault{Keys: []kmsg.Key{key}, Err: code, Count: times},
					kfake.Fault{Keys: []kmsg.Key{key}, Err: code, Count: times, TopLevel: true})
				w := owner(t, dial(t, k), WriterConfig{TransactionalID: "p"}, parts("data", 2))
				if h.Hits() == 0 {
					t.Error("no fault was hit: nothing was tested")
				}
				put(t, w, parts("data", 2)[0], 1)
				must(t, w.Flush(testContext(t)))
			})
		}
	}
}

// A coordinator that calls a transaction complete whose markers it did not write
// is not believed: the transaction is done again.
func TestCase181MarkerMissing(t *testing.T) {
	k := cluster(t, kfake.SeedTopics(3, "data"))
	k.ControlKey(int16(kmsg.EndTxn), func(req kmsg.Request) (kmsg.Response, error, bool) {
		return req.ResponseKind(), nil, true // "committed", and nothing done; once
	})
	var points []string
	w := dial(t, k).NewWriter(WriterConfig{TransactionalID: "p", Hook: func(p string) { points = append(points, p) }})
	must(t, w.TakeOver(testContext(t), parts("data", 3)))
	if got, want := fmt.Sprint(points), fmt.Sprint([]string{HookTakeoverInit, HookTakeoverAdded, HookTakeoverEnded, HookTakeoverAdded, HookTakeoverEnded, HookTakeoverMarker}); got != want {
		t.Errorf("hooks %v, want %v", got, want)
	}
}

// Two instances take over at once, again and again: one owns it in the end, and
// whoever lost knows.
func TestTwoTakeOversAtOnce(t *testing.T) {
	k := cluster(t, kfake.SeedTopics(3, "data"))
	tps := parts("data", 3)
	for range 10 {
		var wg sync.WaitGroup
		ws := [2]*Writer{dial(t, k).NewWriter(WriterConfig{TransactionalID: "p"}), dial(t, k).NewWriter(WriterConfig{TransactionalID: "p"})}
		var errs [2]error
		for i, w := range ws {
			wg.Go(func() { errs[i] = w.TakeOver(testContext(t), tps) })
		}
		wg.Wait()
		wrote := 0
		for i, w := range ws {
			if errs[i] == nil {
				w.Start(context.Background())
				put(t, w, tps[0], 1)
				errs[i] = w.Flush(testContext(t))
			}
			must(t, w.Close())
			if errs[i] == nil {
				wrote++
			} else if !errors.Is(errs[i], ErrFenced) {
				t.Errorf("the loser says %v, want %v", errs[i], ErrFenced)
			}
		}
		if wrote != 1 {
			t.Errorf("%d of two wrote, want 1: %v", wrote, errs)
		}
	}
}

func TestCase184TakeOverInChunks(t *testing.T) {
	const n = 2*partitionChunk + 10
	k := cluster(t, kfake.NumBrokers(3), kfake.SeedTopics(n, "data"))
	var fetches atomic.Int32
	k.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		fetches.Add(1)
		return nil, nil, false
	})
	w := owner(t, dial(t, k), WriterConfig{TransactionalID: "p"}, parts("data", n))
	t.Logf("%d fetches for %d partitions", fetches.Load(), n)
	if fetches.Load() > n/10 {
		t.Errorf("%d fetches for the markers of %d partitions", fetches.Load(), n)
	}
	put(t, w, parts("data", n)[n-1], 1)
	must(t, w.Flush(testContext(t)))
}

func lastStamp(t *testing.T, w *Writer, tp cdc.TopicPartition, want uint64) {
	t.Helper()
	s, found, err := w.LastStamp(testContext(t), tp)
	must(t, err)
	if found != (want > 0) || found && s != stampAt(want) {
		t.Fatalf("last stamp of %s: %+v (found %v), want that of row %d", tp, s, found, want)
	}
}

func TestCase182LastPosition(t *testing.T) {
	for _, codec := range []string{"none", "zstd"} {
		t.Run(codec, func(t *testing.T) {
			k := cluster(t)
			c := dial(t, k)
			must(t, c.CreateTopic(testContext(t), cdc.TopicSpec{Name: "data", Partitions: 3, Replication: 1}, map[string]string{"cleanup.policy": "compact"}))
			tps := parts("data", 3)
			cfg := WriterConfig{TransactionalID: "p", Compression: codec}
			w := owner(t, c, cfg, tps)
			lastStamp(t, w, tps[0], 0) // nothing but a marker
			put(t, w, tps[0], 1)
			must(t, w.Flush(testContext(t)))
			lastStamp(t, w, tps[0], 1) // one record, no marker behind
			lastStamp(t, w, tps[1], 0)
			must(t, w.Close())

			for range 12 { // a pile of markers
				w = owner(t, c, cfg, tps)
				must(t, w.Close())
			}
			w = owner(t, c, cfg, tps)
			lastStamp(t, w, tps[0], 1)
			lastStamp(t, w, tps[1], 0)
			for n := uint64(2); n <= 5000; n++ { // one key over and over, in large batches
				must(t, w.Append(w.Target(tps[0]), &cdc.Record{Key: []byte("k"), Value: []byte("v"), Time: time.Now().UnixMilli()}, stampAt(n)))
			}
			must(t, w.Flush(testContext(t)))
			must(t, w.Close())
			w = owner(t, c, cfg, tps)
			lastStamp(t, w, tps[0], 5000)
			k.Compact()
			lastStamp(t, w, tps[0], 5000)
			must(t, w.Close())
			for range 5 {
				w = owner(t, c, cfg, tps)
				must(t, w.Close())
				k.Compact() // takes markers away too, or leaves empty batches
			}
			w = owner(t, c, cfg, tps)
			lastStamp(t, w, tps[0], 5000)

			deleteRecords(t, k, tps[0])
			lastStamp(t, w, tps[0], 0) // the log starts behind it
		})
	}
}

func deleteRecords(t *testing.T, k *kfake.Cluster, tp cdc.TopicPartition) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(k.ListenAddrs()...))
	must(t, err)
	defer cl.Close()
	req := kmsg.NewPtrDeleteRecordsRequest()
	topic := kmsg.NewDeleteRecordsRequestTopic()
	topic.Topic = tp.Topic
	p := kmsg.NewDeleteRecordsRequestTopicPartition()
	p.Partition, p.Offset = tp.Partition, -1
	topic.Partitions = append(topic.Partitions, p)
	req.Topics = append(req.Topics, topic)
	_, err = req.RequestWith(testContext(t), cl)
	must(t, err)
}

func TestCase188ForeignRecord(t *testing.T) {
	k := cluster(t, kfake.SeedTopics(1, "data"))
	c := dial(t, k)
	tp := parts("data", 1)[0]
	w := owner(t, c, WriterConfig{TransactionalID: "p"}, parts("data", 1))
	put(t, w, tp, 1)
	must(t, w.Flush(testContext(t)))
	cl, err := kgo.NewClient(kgo.SeedBrokers(k.ListenAddrs()...))
	must(t, err)
	defer cl.Close()
	must(t, cl.ProduceSync(testContext(t), &kgo.Record{Topic: "data", Value: []byte("foreign")}).FirstErr())
	must(t, w.Close())

	w = owner(t, c, WriterConfig{TransactionalID: "p"}, parts("data", 1))
	_, _, err = w.LastStamp(testContext(t), tp)
	var f *ForeignRecordError
	if !errors.As(err, &f) || f.Topic != "data" || f.Partition != 0 || f.Offset != 2 {
		t.Fatalf("got %v, want a foreign record at data/0 offset 2", err)
	}
}

// Somebody writes behind our marker before we have looked: the marker counts.
func TestForeignRecordBehindTheMarker(t *testing.T) {
	k := cluster(t, kfake.SeedTopics(1, "data"))
	cl, err := kgo.NewClient(kgo.SeedBrokers(k.ListenAddrs()...))
	must(t, err)
	defer cl.Close()
	w := dial(t, k).NewWriter(WriterConfig{TransactionalID: "p", Hook: func(p string) {
		if p == HookTakeoverEnded {
			must(t, cl.ProduceSync(testContext(t), &kgo.Record{Topic: "data", Value: []byte("foreign")}).FirstErr())
		}
	}})
	must(t, w.TakeOver(testContext(t), parts("data", 1)))
}
