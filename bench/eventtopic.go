package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"cdc/internal/eventstore"
	"cdc/internal/intent"
)

// paces are how many events a second are appended while the way of each to a reader
// of its topic is timed.
var paces = []int{100, 1000}

// latencies times appends from the call to the record in the hands of a client that
// shares no code with ours.
func (f *following) latencies(ctx context.Context, d *daemon, name string, j daemonJob) error {
	stop := d.drain()
	defer stop()
	store, err := openApp(ctx, f.url)
	if err != nil {
		return err
	}
	defer store.Close()
	g := f.figures.group("from the call of es.append, commit included, to a reader of the topic: "+name, "p50", "p99", "most", "of it the append (p50)")
	for _, pace := range paces {
		f.say("timing %d appends to readers of %s, %d/s", f.sizes.timed, name, pace)
		r, err := newTopicReader(ctx, j)
		if err != nil {
			return err
		}
		called, answered, err := f.paced(ctx, store, pace, f.sizes.timed)
		var seen map[intent.ID]time.Time
		if err == nil {
			seen, err = r.until(ctx, f.sizes.timed)
		}
		r.close()
		if err != nil {
			return err
		}
		var whole, first []float64
		for id, at := range called {
			arrived, ok := seen[id]
			if !ok {
				return fmt.Errorf("event %s was appended and is not in topic %s", id, j.topic())
			}
			whole = append(whole, milliseconds(arrived.Sub(at)))
			first = append(first, milliseconds(answered[id].Sub(at)))
		}
		f.written += int64(f.sizes.timed)
		g.add(line{name: fmt.Sprintf("%d events a second", pace), cells: []string{
			millis(quantile(whole, .5)), millis(quantile(whole, .99)), millis(quantile(whole, 1)), millis(quantile(first, .5)),
		}})
	}
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// paced appends n events, so many a second, from as many clients as it takes, and
// returns when each was called and answered.
func (f *following) paced(ctx context.Context, store *eventstore.Store, pace, n int) (called, answered map[intent.ID]time.Time, err error) {
	called, answered = map[intent.ID]time.Time{}, map[intent.ID]time.Time{}
	var mu sync.Mutex
	var errs []error
	var all sync.WaitGroup
	began := time.Now()
	for c := range clients {
		all.Go(func() {
			for i := c; i < n; i += clients {
				due := began.Add(time.Duration(i) * time.Second / time.Duration(pace))
				select {
				case <-time.After(time.Until(due)):
				case <-ctx.Done():
					return
				}
				id, course := intent.NewID(), fmt.Sprintf("timed-%d-%d", c, i/clients%streamsOfClient)
				at := time.Now()
				_, err := store.Append(ctx, []intent.Batch{{Stream: "course/" + course, Expect: intent.Any, Events: []intent.NewEvent{
					{ID: id, Type: enrolled, Data: eventData(course, fmt.Sprintf("stu_%d", i))},
				}}})
				end := time.Now()
				mu.Lock()
				called[id], answered[id] = at, end
				if err != nil {
					errs = append(errs, err)
				}
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	all.Wait()
	return called, answered, errors.Join(append(errs, context.Cause(ctx))...)
}

// topicReader reads a topic from its end on and notes when each event came.
type topicReader struct {
	client *kgo.Client
	stop   context.CancelFunc
	done   sync.WaitGroup

	mu   sync.Mutex
	seen map[intent.ID]time.Time
	err  error
	more chan struct{} // holds one token where something came
}

func newTopicReader(ctx context.Context, j daemonJob) (*topicReader, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(j.Brokers...), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(500*time.Millisecond))
	if err != nil {
		return nil, fmt.Errorf("read topic %s: %w", j.topic(), err)
	}
	ends, err := kadm.NewClient(client).ListCommittedOffsets(ctx, j.topic())
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		client.Close()
		return nil, fmt.Errorf("read topic %s: %w", j.topic(), err)
	}
	from := map[int32]kgo.Offset{}
	for p, o := range ends[j.topic()] {
		from[p] = kgo.NewOffset().At(o.Offset)
	}
	client.AddConsumePartitions(map[string]map[int32]kgo.Offset{j.topic(): from})
	r := &topicReader{client: client, seen: map[intent.ID]time.Time{}, more: make(chan struct{}, 1)}
	ctx, r.stop = context.WithCancel(ctx)
	r.done.Go(func() { r.read(ctx) })
	return r, nil
}

func (r *topicReader) read(ctx context.Context) {
	for ctx.Err() == nil {
		fetches := r.client.PollFetches(ctx)
		now := time.Now()
		r.mu.Lock()
		fetches.EachRecord(func(rec *kgo.Record) {
			for _, h := range rec.Headers {
				if h.Key == "id" {
					if id, err := intent.ParseID(string(h.Value)); err == nil {
						r.seen[id] = now
					}
				}
			}
		})
		if err := fetches.Err(); err != nil && ctx.Err() == nil {
			r.err = err
		}
		r.mu.Unlock()
		select {
		case r.more <- struct{}{}:
		default:
		}
	}
}

// arrival bounds the wait for the last records.
const arrival = time.Minute

// until waits for so many events and returns when each came.
func (r *topicReader) until(ctx context.Context, n int) (map[intent.ID]time.Time, error) {
	late := time.After(arrival)
	for {
		r.mu.Lock()
		got, err := len(r.seen), r.err
		r.mu.Unlock()
		switch {
		case err != nil:
			return nil, fmt.Errorf("read the topic: %w", err)
		case got >= n:
			r.stop()
			r.done.Wait()
			return r.seen, nil
		}
		select {
		case <-r.more:
		case <-late:
			return nil, fmt.Errorf("%d of %d events arrived in the topic within %s", got, n, arrival)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (r *topicReader) close() {
	r.stop()
	r.done.Wait()
	r.client.Close()
}
