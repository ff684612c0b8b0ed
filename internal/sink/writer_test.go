package sink

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"cdc/internal/cdc"
)

func TestEveryCodecIsReadBackByAnotherClient(t *testing.T) {
	for _, codec := range []string{"none", "snappy", "lz4", "zstd"} {
		t.Run(codec, func(t *testing.T) {
			k := cluster(t, kfake.SeedTopics(3, "data"))
			c := dial(t, k)
			w := owner(t, c, WriterConfig{TransactionalID: "p", Compression: codec, RequestBytes: 8 << 10, BatchBytes: 3 << 10}, parts("data", 3))
			load(t, w, parts("data", 3), 2000)
			onceInOrder(t, seen(t, k, "data", 2000), 2000)
		})
	}
}

// gate holds Produce requests back until it is opened.
type gate struct {
	k    *kfake.Cluster
	open func() // may be called again; the end of the test does
	came chan struct{}
}

func newGate(t testing.TB, k *kfake.Cluster) *gate {
	opened := make(chan struct{})
	g := &gate{k: k, open: sync.OnceFunc(func() { close(opened) }), came: make(chan struct{}, 100)}
	t.Cleanup(g.open)
	k.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		g.came <- struct{}{}
		k.SleepControl(func() { <-opened })
		k.DropControl()
		return nil, nil, false
	})
	return g
}

func await(t testing.TB, ch <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-ch:
	case <-testContext(t).Done():
		t.Fatalf("%s: never came", what)
	}
}

func TestMarkIsAckedWithEverythingBeforeIt(t *testing.T) {
	k := cluster(t, kfake.SeedTopics(1, "data"))
	tp := parts("data", 1)[0]
	w := owner(t, dial(t, k), WriterConfig{TransactionalID: "p"}, parts("data", 1))

	w.Mark(Mark{End: 1}) // nothing was ever appended
	if got := w.Acked().End; got != 1 {
		t.Fatalf("mark on nothing: acknowledged %v, want 0/1", got)
	}
	await(t, w.Changed(), "change")

	g := newGate(t, k)
	put(t, w, tp, 1)
	w.Mark(Mark{End: 2})
	w.Handover()
	await(t, g.came, "produce")
	w.Mark(Mark{End: 3}) // nothing open, one set in flight: with that set
	put(t, w, tp, 2)
	w.Mark(Mark{End: 4})
	w.Handover() // stays in the slot: something is in flight
	w.Mark(Mark{End: 5})
	if got := w.Acked().End; got != 1 {
		t.Fatalf("acknowledged %v while the broker has not answered, want 0/1", got)
	}
	g.open()
	must(t, w.Flush(testContext(t)))
	if got := w.Acked().End; got != 5 {
		t.Fatalf("acknowledged %v, want 0/5", got)
	}
	if got := w.Stats(); got.Batches != 2 || got.Records != 2 || got.Buffered != 0 {
		t.Fatalf("stats %+v, want 2 batches of 2 records and nothing buffered", got)
	}
}

// While something is in flight the set that was handed over goes on filling.
func TestHandedOverSetIsTakenBack(t *testing.T) {
	k := cluster(t, kfake.SeedTopics(1, "data"))
	tp := parts("data", 1)[0]
	w := owner(t, dial(t, k), WriterConfig{TransactionalID: "p"}, parts("data", 1))
	g := newGate(t, k)
	put(t, w, tp, 1)
	w.Handover()
	await(t, g.came, "produce")
	for n := uint64(2); n <= 100; n++ {
		put(t, w, tp, n)
		w.Handover()
	}
	g.open()
	must(t, w.Flush(testContext(t)))
	if got := w.Stats().Batches; got != 2 {
		t.Errorf("%d batches, want 2: one in flight, one that filled meanwhile", got)
	}
	onceInOrder(t, seen(t, k, "data", 100), 100)
}

func TestHandedOverSetIsSentWhenTheSinkIsFree(t *testing.T) {
	k := cluster(t, kfake.SeedTopics(1, "data"))
	w := owner(t, dial(t, k), WriterConfig{TransactionalID: "p"}, parts("data", 1))
	for n := uint64(1); n <= 20; n++ {
		put(t, w, parts("data", 1)[0], n)
		w.Mark(Mark{End: cdc.LSN(n)})
		w.Handover()
		await(t, w.Changed(), "acknowledgement") // nobody flushes
	}
	if got := w.Stats().Batches; got != 20 {
		t.Errorf("%d batches, want 20", got)
	}
}

func TestLingerGathers(t *testing.T) {
	k := cluster(t, kfake.SeedTopics(1, "data"))
	w := owner(t, dial(t, k), WriterConfig{TransactionalID: "p", Linger: 50 * time.Millisecond}, parts("data", 1))
	for n := uint64(1); n <= 20; n++ {
		put(t, w, parts("data", 1)[0], n)
		w.Mark(Mark{End: cdc.LSN(n)})
		w.Handover()
	}
	await(t, w.Changed(), "acknowledgement")
	must(t, w.Flush(testContext(t)))
	if got := w.Stats().Batches; got > 2 { // 2: the goroutine may be held up for longer than the linger
		t.Errorf("%d batches of 20 records within one linger", got)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	k := cluster(t, kfake.SeedTopics(2, "data"))
	const memory = 64 << 10
	w := owner(t, dial(t, k), WriterConfig{TransactionalID: "p", Memory: memory, RequestBytes: 8 << 10, BatchBytes: 8 << 10}, parts("data", 2))
	g := newGate(t, k)
	n := uint64(0)
	for !w.Full() {
		n++
		put(t, w, parts("data", 2)[n%2], n)
		if n > memory {
			t.Fatal("never full")
		}
	}
	if got := w.Stats().Buffered; got > memory+8<<10 {
		t.Errorf("%d bytes buffered, bound is %d", got, memory)
	}
	g.open()
	for w.Full() {
		await(t, w.Space(), "space")
	}
	must(t, w.Flush(testContext(t)))
	onceInOrder(t, seen(t, k, "data", int(n)), int(n))
}

func TestCase177RecordTooLarge(t *testing.T) {
	k := cluster(t, kfake.SeedTopics(1, "data"))
	w := owner(t, dial(t, k), WriterConfig{TransactionalID: "p", MaxRecordBytes: 1000}, parts("data", 1))
	tp := parts("data", 1)[0]
	big := &cdc.Record{Key: []byte("k"), Value: make([]byte, 1000)}
	for _, before := range []int{0, 3} {
		for n := range before {
			put(t, w, tp, uint64(n)+1)
		}
		err := w.Append(w.Target(tp), big, stampAt(99))
		var e *RecordTooLargeError
		if !errors.As(err, &e) || !errors.Is(err, ErrRecordTooLarge) || e.Topic != "data" || e.Limit != 1000 || e.Size <= 1000 {
			t.Fatalf("after %d records: got %v", before, err)
		}
	}
	if strings.Contains(w.Append(w.Target(tp), big, stampAt(99)).Error(), "\x00") {
		t.Error("the error shows the record")
	}
	must(t, w.Flush(testContext(t)))
	onceInOrder(t, seen(t, k, "data", 3), 3) // what stood beside it is there
}

// A batch that the broker finds too large is made smaller by the next Writer; a
// record that is too large alone cannot be.
func TestCase177BatchTooLargeForTheTopic(t *testing.T) {
	k := cluster(t)
	c := dial(t, k)
	must(t, c.CreateTopic(testContext(t), cdc.TopicSpec{Name: "data", Partitions: 1, Replication: 1}, map[string]string{"max.message.bytes": "2000"}))
	tps := parts("data", 1)
	next := uint64(1)
	for try := 0; ; try++ {
		if try == 10 {
			t.Fatal("batches never became small enough")
		}
		w := owner(t, c, WriterConfig{TransactionalID: "p"}, tps)
		s, _, err := w.LastStamp(testContext(t), tps[0])
		must(t, err)
		for next = uint64(s.Position.Tx) + 1; next <= 500; next++ {
			put(t, w, tps[0], next)
		}
		err = w.Flush(testContext(t))
		must(t, w.Close())
		if err == nil {
			break
		}
		wantErr(t, err, ErrNeedTakeOver)
	}
	onceInOrder(t, seen(t, k, "data", 500), 500)
	w := owner(t, c, WriterConfig{TransactionalID: "p"}, tps)
	must(t, w.Append(w.Target(tps[0]), &cdc.Record{Value: make([]byte, 3000)}, stampAt(501)))
	wantErr(t, w.Flush(testContext(t)), ErrRecordTooLarge)
}

func TestCloseIsIdempotentAndEndsEverything(t *testing.T) {
	k := cluster(t, kfake.SeedTopics(1, "data"))
	c := dial(t, k)
	w := owner(t, c, WriterConfig{TransactionalID: "p"}, parts("data", 1))
	newGate(t, k) // never opened: the answer never comes
	put(t, w, parts("data", 1)[0], 1)
	w.Handover()
	must(t, w.Close())
	must(t, w.Close())
	await(t, w.Failed(), "end")
	wantErr(t, w.Err(), ErrClosed)
	wantErr(t, w.Flush(testContext(t)), ErrClosed)

	must(t, c.NewWriter(WriterConfig{}).Close()) // never started

	w = c.NewWriter(WriterConfig{})
	ctx, cancel := context.WithCancelCause(context.Background())
	w.Start(ctx)
	cause := errors.New("the reason")
	cancel(cause)
	await(t, w.Failed(), "end")
	wantErr(t, w.Err(), cause)
	must(t, w.Close())
}

func TestStartWithoutTakeOverPanics(t *testing.T) {
	w := dial(t, cluster(t)).NewWriter(WriterConfig{TransactionalID: "p"})
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	w.Start(context.Background())
}

// nobody is a Writer whose sets are dropped where the sender would take them.
func nobody(cfg WriterConfig) (*Writer, func()) {
	c := &Client{limits: map[string]int{}}
	w := c.NewWriter(cfg)
	return w, func() {
		w.mu.Lock()
		for _, s := range w.queue {
			for _, b := range s.batches {
				b.wire = b.buf
			}
			w.buffered.Add(-s.bytes)
			w.pool.put(s)
		}
		w.queue = w.queue[:0]
		w.mu.Unlock()
	}
}

func TestAppendAllocatesNothing(t *testing.T) {
	w, drop := nobody(WriterConfig{TransactionalID: "p"})
	tps := parts("data", 6)
	r := &cdc.Record{Key: make([]byte, 16), Value: make([]byte, 300), Time: 1_700_000_000_000}
	n := uint64(0)
	some := func() {
		for range 1000 {
			n++
			if err := w.Append(w.Target(tps[n%6]), r, stampAt(n)); err != nil {
				t.Fatal(err)
			}
			w.Mark(Mark{End: cdc.LSN(n)})
		}
		w.Handover()
		drop()
	}
	for range 20 {
		some() // fills the pool
	}
	if got := testing.AllocsPerRun(50, some) / 1000; got > 0.001 {
		t.Errorf("%.4f allocations a record, want 0", got)
	}
}

func BenchmarkAppend(b *testing.B) {
	w, drop := nobody(WriterConfig{TransactionalID: "p"})
	t := w.Target(cdc.TopicPartition{Topic: "data"})
	r := &cdc.Record{Key: make([]byte, 16), Value: make([]byte, 300), Time: 1_700_000_000_000}
	b.ReportAllocs()
	b.SetBytes(316)
	for n := range b.N {
		if err := w.Append(t, r, stampAt(uint64(n)+1)); err != nil {
			b.Fatal(err)
		}
		if n%1024 == 0 {
			drop()
		}
	}
}

func BenchmarkWriter(b *testing.B) {
	for _, codec := range []string{"none", "snappy", "zstd"} {
		b.Run(codec, func(b *testing.B) {
			k := cluster(b, kfake.SeedTopics(6, "data"), kfake.BlackholeProduce())
			c := dial(b, k)
			w := c.NewWriter(WriterConfig{TransactionalID: "p", Compression: codec})
			must(b, w.TakeOver(testContext(b), nil)) // a blackhole shows no markers
			w.Start(context.Background())
			defer func() { _ = w.Close() }() // never fails
			var ts []*Target
			for _, tp := range parts("data", 6) {
				ts = append(ts, w.Target(tp))
			}
			r := &cdc.Record{Key: make([]byte, 16), Value: []byte(strings.Repeat(`{"id":4711,"x":"some text"}`, 11)), Time: 1_700_000_000_000}
			b.ReportAllocs()
			b.ResetTimer()
			for n := range b.N {
				for w.Full() {
					<-w.Space()
				}
				if err := w.Append(ts[n%6], r, stampAt(uint64(n)+1)); err != nil {
					b.Fatal(err)
				}
			}
			must(b, w.Flush(context.Background()))
		})
	}
}
