package cdctest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// What follows is the kit for programs that are no tests: they have no
// testing.TB, so errors are returned and things are closed by hand.

// FakeBroker is the kind of broker that StartBroker starts without a JVM.
const FakeBroker = "fake"

// ServeBroker is called first in the main function of a program that starts a
// FakeBroker: the broker is the program itself, run again. There it does not
// return.
func ServeBroker() {
	if os.Getenv(fakePortVariable) != "" {
		os.Exit(serveFake())
	}
}

// StandaloneBroker is a broker in a process of its own, with its data on disk.
type StandaloneBroker struct{ node node }

// StartBroker starts FakeBroker or a version of Apache Kafka. advertise is the
// address that clients are told to use; "" is the broker's own. Its directory is
// made in under; "" is where temporary files are. It returns when clients are
// served.
func StartBroker(ctx context.Context, kind, advertise, under string) (*StandaloneBroker, error) {
	var n node
	var err error
	if kind == FakeBroker {
		n, err = startFakeProcess(ctx, advertise, under)
	} else {
		n, err = startApache(ctx, kind, advertise, under, "log.cleaner.backoff.ms=100", brief)
	}
	if err != nil {
		return nil, err
	}
	return &StandaloneBroker{node: n}, nil
}

// Addr is the broker's own address; it stays the same over Kill and Start.
func (b *StandaloneBroker) Addr() string { return b.node.addr() }

// Kill ends it with SIGKILL; what it has acknowledged stays.
func (b *StandaloneBroker) Kill() { b.node.kill() }

// Ended waits until it answers, or says that it has ended by itself, as when it
// cannot write its log. Kill it then before it is started again.
func (b *StandaloneBroker) Ended(ctx context.Context) (bool, error) {
	ended := b.node.ended()
	err := awaitBroker(ctx, b.Addr(), ended)
	select {
	case <-ended:
		return true, nil
	default:
		return false, err
	}
}

// AwaitBroker returns when a broker answers at addr.
func AwaitBroker(ctx context.Context, addr string) error { return awaitBroker(ctx, addr, nil) }

// Start starts it again after Kill.
func (b *StandaloneBroker) Start(ctx context.Context) error { return b.node.start(ctx) }

// Close ends it and removes its data.
func (b *StandaloneBroker) Close() { b.node.close() }

// StartPostgres starts a private server with the kit's settings and these, in an
// empty directory or, where dir is "", in a temporary one. The caller closes it.
func StartPostgres(extra map[string]string, dir string) (*PG, error) {
	return startPostgres(extra, dir)
}

// StartProxy listens on a free port of 127.0.0.1 and passes everything to target
// until stop is called.
func StartProxy(target string) (p *Proxy, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, fmt.Errorf("start a proxy: %w", err)
	}
	p = &Proxy{
		Addr: l.Addr().String(), target: target, listener: l,
		changed: make(chan struct{}), pairs: make(map[*pair]struct{}),
	}
	p.wg.Go(p.accept)
	return p, p.close, nil
}

// Observer looks at topics with a client of its own. Its methods may be called
// concurrently.
type Observer struct {
	brokers []string
	once    sync.Once
	client  *kgo.Client
	err     error
}

// NewObserver makes an observer; it connects when it is first asked.
func NewObserver(brokers ...string) *Observer { return &Observer{brokers: brokers} }

func (o *Observer) admin() (*kadm.Client, error) {
	o.once.Do(func() { o.client, o.err = kgo.NewClient(kgo.SeedBrokers(o.brokers...)) })
	if o.err != nil {
		return nil, o.err
	}
	return kadm.NewClient(o.client), nil
}

// Close ends its connections.
func (o *Observer) Close() {
	o.once.Do(func() { o.err = errors.New("the observer is closed") })
	if o.client != nil {
		o.client.Close()
	}
}

// Ends returns the offsets behind the last record of every partition that a
// read_committed client sees; a topic that does not exist is left out.
func (o *Observer) Ends(ctx context.Context, topics ...string) (map[string]map[int32]int64, error) {
	adm, err := o.admin()
	if err != nil {
		return nil, err
	}
	listed, err := adm.ListCommittedOffsets(ctx, topics...)
	if err != nil {
		return nil, err
	}
	return offsets(listed)
}

func offsets(listed kadm.ListedOffsets) (map[string]map[int32]int64, error) {
	all := map[string]map[int32]int64{}
	for topic, partitions := range listed {
		of := map[int32]int64{}
		for id, p := range partitions {
			if errors.Is(p.Err, kerr.UnknownTopicOrPartition) {
				continue
			}
			if p.Err != nil {
				return nil, fmt.Errorf("offsets of %s/%d: %w", topic, id, p.Err)
			}
			of[id] = p.Offset
		}
		if len(of) > 0 {
			all[topic] = of
		}
	}
	return all, nil
}

// DeleteTopics deletes topics; one that does not exist is no error.
func (o *Observer) DeleteTopics(ctx context.Context, topics ...string) error {
	adm, err := o.admin()
	if err != nil {
		return err
	}
	answers, err := adm.DeleteTopics(ctx, topics...)
	if err != nil {
		return err
	}
	for _, a := range answers {
		if a.Err != nil && !errors.Is(a.Err, kerr.UnknownTopicOrPartition) {
			return fmt.Errorf("delete topic %s: %w", a.Topic, a.Err)
		}
	}
	return nil
}

// Read returns, by topic, everything that a read_committed client sees up to the
// end offsets now, each partition in offset order. A topic that does not exist is
// left out.
func (o *Observer) Read(ctx context.Context, topics ...string) (map[string][]Record, error) {
	adm, err := o.admin()
	if err != nil {
		return nil, err
	}
	ends, err := o.Ends(ctx, topics...)
	if err != nil {
		return nil, err
	}
	listed, err := adm.ListStartOffsets(ctx, topics...)
	if err != nil {
		return nil, err
	}
	starts, err := offsets(listed)
	if err != nil {
		return nil, err
	}
	r := stretchReader{brokers: o.brokers, left: map[string]map[int32]int64{}, next: map[string]map[int32]int64{}, got: map[string][]Record{}}
	for topic, of := range ends {
		r.got[topic] = nil
		for id, end := range of {
			if start := starts[topic][id]; end > start {
				r.add(topic, id, start, end)
			}
		}
	}
	if err := r.read(ctx); err != nil {
		return nil, err
	}
	return r.got, nil
}

// stretchReader reads several stretches with one client.
type stretchReader struct {
	brokers []string
	next    map[string]map[int32]int64
	left    map[string]map[int32]int64 // end of the stretches that are not read to it yet
	got     map[string][]Record
}

func (r *stretchReader) add(topic string, partition int32, start, end int64) {
	if r.left[topic] == nil {
		r.left[topic], r.next[topic] = map[int32]int64{}, map[int32]int64{}
	}
	r.left[topic][partition], r.next[topic][partition] = end, start
}

func (r *stretchReader) read(ctx context.Context) error {
	if len(r.left) == 0 {
		return nil
	}
	from := map[string]map[int32]kgo.Offset{}
	for topic, of := range r.next {
		from[topic] = map[int32]kgo.Offset{}
		for id, at := range of {
			from[topic][id] = kgo.NewOffset().At(at)
		}
	}
	cl, err := kgo.NewClient(
		kgo.SeedBrokers(r.brokers...),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // a marker may be the last thing there is
		kgo.FetchMaxWait(100*time.Millisecond),
		kgo.ConsumePartitions(from),
	)
	if err != nil {
		return err
	}
	defer cl.Close()
	for len(r.left) > 0 {
		poll, cancel := context.WithTimeout(ctx, silence)
		fetches := cl.PollFetches(poll)
		cancel()
		for _, e := range fetches.Errors() {
			if ctx.Err() != nil || !errors.Is(e.Err, context.DeadlineExceeded) {
				return fmt.Errorf("read %s/%d: %w", e.Topic, e.Partition, e.Err)
			}
		}
		fetches.EachRecord(r.take)
		if fetches.NumRecords() == 0 {
			if err := r.skipEmptied(ctx, cl); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *stretchReader) take(rec *kgo.Record) {
	end, open := r.left[rec.Topic][rec.Partition]
	if !open {
		return
	}
	if rec.Offset < end && !rec.Attrs.IsControl() {
		r.got[rec.Topic] = append(r.got[rec.Topic], convert(rec))
	}
	r.next[rec.Topic][rec.Partition] = rec.Offset + 1
	if rec.Offset+1 >= end {
		r.done(rec.Topic, rec.Partition)
	}
}

func (r *stretchReader) done(topic string, partition int32) {
	delete(r.left[topic], partition)
	if len(r.left[topic]) == 0 {
		delete(r.left, topic)
	}
}

// skipEmptied ends the stretches whose last records compaction has taken.
func (r *stretchReader) skipEmptied(ctx context.Context, cl *kgo.Client) error {
	for topic, of := range r.left {
		for id := range of {
			left, err := anyLeft(ctx, cl, topic, id, r.next[topic][id])
			if err != nil {
				return fmt.Errorf("read %s/%d: %w", topic, id, err)
			}
			if !left {
				r.done(topic, id)
			}
		}
	}
	return nil
}
