package sink

import (
	"errors"
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
)

// losses are the two truths behind a request without an answer.
var losses = []struct {
	name    string
	carried bool
	lose    func(l *cdctest.Lossy, key kmsg.Key, skip, times int)
}{
	{"carried out", true, (*cdctest.Lossy).LoseAnswers},
	{"never arrived", false, (*cdctest.Lossy).LoseRequests},
}

// zombieRow is one that the old owner tries to write; its time must be one that
// brokers take.
const zombieRow = 1 << 30

// lossy is a broker behind a network that loses what it is told to, with a topic.
func lossy(t *testing.T, partitions int) (connect func() *Client, l *cdctest.Lossy, k *cdctest.Cluster, tps []cdc.TopicPartition) {
	t.Helper()
	k, l = cdctest.LossyKafka(t)
	connect = func() *Client { return dialConfig(t, Config{Brokers: k.Brokers}) }
	topic := k.Prefix + "data"
	must(t, connect().CreateTopic(testContext(t), cdc.TopicSpec{Name: topic, Partitions: partitions, Replication: 1}, nil))
	return connect, l, k, parts(topic, int32(partitions))
}

// 190: a request of the fence gets no answer, whether it was carried out or never
// arrived; twice in a row. The take-over succeeds, for a process that is new and
// for one that owned the id before, the owner before is refused, and what it wrote
// is found.
func TestCase190FenceWithoutAnswers(t *testing.T) {
	const times = 2
	connect, l, k, tps := lossy(t, 3)
	tp := tps[0]
	row := uint64(0)
	write := func(w *Writer) {
		row++
		put(t, w, tp, row)
		must(t, w.Flush(testContext(t)))
	}
	cfg := WriterConfig{TransactionalID: k.Prefix + "p"}
	for _, key := range []kmsg.Key{kmsg.FindCoordinator, kmsg.InitProducerID, kmsg.AddPartitionsToTxn, kmsg.EndTxn, kmsg.ListOffsets, kmsg.Fetch} {
		for _, loss := range losses {
			for _, own := range []bool{false, true} {
				for skip := range 2 {
					if skip == 1 && !(own && key == kmsg.EndTxn) {
						continue // who owned the id ends what may be open first; the second is the fence's
					}
					t.Run(fmt.Sprintf("%s %s, owner before %v, after %d", key.Name(), loss.name, own, skip), func(t *testing.T) {
						c := connect()
						old := owner(t, c, cfg, tps)
						write(old)
						if own {
							must(t, old.Close())
						} else {
							c = connect()
						}
						loss.lose(l, key, skip, times)
						w := owner(t, c, cfg, tps)
						if got := l.Lost(); got != times {
							t.Errorf("%d of %d requests were lost: nothing was tested", got, times)
						}
						if !own {
							put(t, old, tps[1], zombieRow)
							wantErr(t, old.Flush(testContext(t)), ErrFenced)
							must(t, old.Close())
						}
						lastStamp(t, w, tp, row)
						lastStamp(t, w, tps[1], 0)
						write(w)
						must(t, w.Close())
					})
				}
			}
		}
	}
	onceInOrder(t, seenAt(t, k.Brokers, tp.Topic, int(row)), int(row))
}

// 190: a produce request gets no answer. The writer ends; the log says which of the
// two it was, and the row is written where it is missing and only there.
func TestCase190ProduceWithoutAnswer(t *testing.T) {
	connect, l, k, tps := lossy(t, 2)
	tp, row := tps[0], uint64(0)
	cfg := WriterConfig{TransactionalID: k.Prefix + "p"}
	for _, loss := range losses {
		for _, before := range []bool{false, true} { // whether the partition knows this owner's sequence already
			t.Run(fmt.Sprintf("%s, batches before %v", loss.name, before), func(t *testing.T) {
				c := connect()
				w := owner(t, c, cfg, tps)
				if before {
					row++
					put(t, w, tp, row)
					must(t, w.Flush(testContext(t)))
				}
				loss.lose(l, kmsg.Produce, 0, 1)
				row++
				put(t, w, tp, row)
				wantErr(t, w.Flush(testContext(t)), ErrNeedTakeOver)
				if got := l.Lost(); got != 1 {
					t.Errorf("%d requests were lost, want 1", got)
				}
				must(t, w.Close())
				w = owner(t, c, cfg, tps)
				if loss.carried {
					lastStamp(t, w, tp, row)
				} else {
					lastStamp(t, w, tp, row-1)
					put(t, w, tp, row)
					must(t, w.Flush(testContext(t)))
				}
				must(t, w.Close())
			})
		}
	}
	onceInOrder(t, seenAt(t, k.Brokers, tp.Topic, int(row)), int(row))
}

// 190: the same with five requests in flight: those behind the lost one may be there
// or not.
func TestCase190LostUnderLoad(t *testing.T) {
	connect, l, k, tps := lossy(t, 6)
	const rows = 3000
	cfg := WriterConfig{TransactionalID: k.Prefix + "p", RequestBytes: 2 << 10, BatchBytes: 1 << 10, Memory: 16 << 10}
	lost, turns, highest := 0, 0, uint64(0)
	lives := byPosition(t, connect(), cfg, tps, rows, func(row uint64) {
		if row%250 == 0 && row > highest {
			highest = row
			lost += l.Lost()
			losses[turns%2].lose(l, kmsg.Produce, int(row/250)%3, 1)
			turns++
		}
	})
	lost += l.Lost()
	t.Logf("%d requests or answers lost, %d take-overs", lost, lives)
	if lost == 0 || lives == 1 {
		t.Error("nothing was lost: nothing was tested")
	}
	onceInOrder(t, seenAt(t, k.Brokers, tps[0].Topic, rows), rows)
}

// 180: every partition refuses the old owner, also where the new one has not
// written.
func TestCase180ZombieInEveryPartition(t *testing.T) {
	k := cdctest.Kafka(t)
	connect := func() *Client { return dialConfig(t, Config{Brokers: k.Brokers}) }
	tps := parts(k.Prefix+"data", 4)
	must(t, connect().CreateTopic(testContext(t), cdc.TopicSpec{Name: tps[0].Topic, Partitions: len(tps), Replication: 1}, nil))
	for i, tp := range tps {
		cfg := WriterConfig{TransactionalID: fmt.Sprint(k.Prefix, i)}
		old := owner(t, connect(), cfg, tps)
		put(t, old, tps[0], uint64(i)+1)
		must(t, old.Flush(testContext(t)))
		fresh := owner(t, connect(), cfg, tps)
		_, before, err := fresh.c.Offsets(testContext(t), tps)
		must(t, err)
		put(t, old, tp, zombieRow)
		wantErr(t, old.Flush(testContext(t)), ErrFenced)
		_, after, err := fresh.c.Offsets(testContext(t), tps)
		must(t, err)
		if after[tp] != before[tp] {
			t.Errorf("%s: the old owner wrote, offsets %d to %d", tp, before[tp], after[tp])
		}
	}
	onceInOrder(t, seenAt(t, k.Brokers, tps[0].Topic, len(tps)), len(tps))
}

// 182: the last position on the broker of make test-kafka: behind a pile of markers,
// at the end of large and compressed batches, and where the log starts above it.
func TestCase182LastPositionOnEveryBroker(t *testing.T) {
	k := cdctest.Kafka(t)
	c := dialConfig(t, Config{Brokers: k.Brokers})
	for _, codec := range []string{"none", "zstd"} {
		t.Run(codec, func(t *testing.T) {
			tps := parts(k.Prefix+codec, 2)
			must(t, c.CreateTopic(testContext(t), cdc.TopicSpec{Name: tps[0].Topic, Partitions: len(tps), Replication: 1}, nil))
			cfg := WriterConfig{TransactionalID: k.Prefix + codec, Compression: codec}
			w := owner(t, c, cfg, tps)
			lastStamp(t, w, tps[0], 0)
			for row := uint64(1); row <= 3000; row++ {
				put(t, w, tps[0], row)
			}
			must(t, w.Flush(testContext(t)))
			lastStamp(t, w, tps[0], 3000)
			for range 8 {
				must(t, w.Close())
				w = owner(t, c, cfg, tps)
			}
			lastStamp(t, w, tps[0], 3000)
			lastStamp(t, w, tps[1], 0)
			put(t, w, tps[0], 3001) // a batch of one
			must(t, w.Flush(testContext(t)))
			lastStamp(t, w, tps[0], 3001)
			_, ends, err := c.Offsets(testContext(t), tps)
			must(t, err)
			var gone kadm.Offsets
			gone.AddOffset(tps[0].Topic, tps[0].Partition, ends[tps[0]], -1)
			res, err := kadm.NewClient(k.Client(t)).DeleteRecords(testContext(t), gone)
			must(t, err)
			must(t, res.Error())
			lastStamp(t, w, tps[0], 0)
			must(t, w.Close())
		})
	}
}

// 181: the broker is killed in the moment it calls the transaction of the fence
// committed. The take-over ends when a marker of its owner is in every partition,
// however many transactions that takes, and not before: the old owner is refused
// everywhere, and what it wrote is found.
func TestCase181KilledWhenEnded(t *testing.T) {
	const rounds = 3
	k := cdctest.PrivateKafka(t)
	connect := func() *Client { return dialConfig(t, Config{Brokers: k.Brokers}) }
	tps := parts(k.Prefix+"data", 3)
	must(t, connect().CreateTopic(testContext(t), cdc.TopicSpec{Name: tps[0].Topic, Partitions: len(tps), Replication: 1}, nil))
	id := k.Prefix + "p"
	old := owner(t, connect(), WriterConfig{TransactionalID: id}, tps)
	transactions := 0
	for round := range rounds {
		row := uint64(round) + 1
		put(t, old, tps[0], row)
		must(t, old.Flush(testContext(t)))
		var points []string
		w := connect().NewWriter(WriterConfig{TransactionalID: id, Hook: func(p string) {
			points = append(points, p)
			if p == HookTakeoverEnded && len(points) == 3 { // init, added, ended: the first of them
				k.Kill(t)
				k.Start(t)
			}
		}})
		must(t, w.TakeOver(testContext(t), tps))
		if len(points) < 4 || points[len(points)-1] != HookTakeoverMarker {
			t.Fatalf("points passed: %v, want the marker to be the last", points)
		}
		transactions += len(points)/2 - 1
		put(t, old, tps[1], zombieRow)
		if err := old.Flush(testContext(t)); !errors.Is(err, ErrFenced) && !errors.Is(err, ErrNeedTakeOver) {
			t.Fatalf("the old owner says %v, want %v or %v", err, ErrFenced, ErrNeedTakeOver)
		}
		must(t, old.Close())
		for _, tp := range tps[1:] {
			lastStamp(t, w, tp, 0)
		}
		lastStamp(t, w, tps[0], row)
		w.Start(t.Context())
		t.Cleanup(func() { _ = w.Close() })
		old = w
	}
	t.Logf("%d take-overs took %d transactions", rounds, transactions)
	onceInOrder(t, seenAt(t, k.Brokers, tps[0].Topic, rounds), rounds)
}
