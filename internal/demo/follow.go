package demo

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"cdc/internal/cdc"
	"cdc/internal/sink"
)

// follower reads the topics from a place on and hands every record to show, as
// any consumer of them would get it.
type follower struct {
	client *sink.Client
	show   func(change)
	began  time.Time

	mu   sync.Mutex
	next map[cdc.TopicPartition]int64 // one past the last record shown
}

const (
	// queued is how many records wait for the screen before readers wait for it too.
	queued = 1024
	// pollEvery is how often is asked for what nothing announces: topics that come
	// into being, a pipeline that catches up.
	pollEvery = 50 * time.Millisecond
)

// feed is a topic that is followed, and what its records are on the screen.
type feed struct {
	topic  string
	change func(m *sink.Message, now time.Time) change
}

// feeds are all topics of a run that began at a time.
func feeds(began time.Time) (list []feed) {
	for _, t := range tables {
		list = append(list, feed{t.topic(), func(m *sink.Message, now time.Time) change { return newChange(t, m, now) }})
	}
	for topic := range intentTopics {
		list = append(list, feed{topic, func(m *sink.Message, now time.Time) change { return newIntent(m, now, began) }})
	}
	return list
}

type arrival struct {
	change
	tp     cdc.TopicPartition
	offset int64
}

// newFollower begins behind what the topics hold now; topics that do not exist
// yet are read from their start.
func newFollower(ctx context.Context, client *sink.Client, show func(change)) (*follower, error) {
	f := &follower{client: client, show: show, began: time.Now(), next: map[cdc.TopicPartition]int64{}}
	for _, from := range feeds(f.began) {
		tps, err := partitions(ctx, client, from.topic)
		if err != nil {
			return nil, err
		}
		if len(tps) == 0 {
			continue
		}
		_, ends, err := client.Offsets(ctx, tps)
		if err != nil {
			return nil, err
		}
		for tp, end := range ends {
			f.next[tp] = end
		}
	}
	return f, nil
}

// partitions of a topic, none where it does not exist.
func partitions(ctx context.Context, client *sink.Client, topic string) ([]cdc.TopicPartition, error) {
	states, err := client.Topics(ctx, topic)
	if err != nil {
		return nil, fmt.Errorf("look at topic %s: %w", topic, err)
	}
	tps := make([]cdc.TopicPartition, states[topic].Partitions)
	for i := range tps {
		tps[i] = cdc.TopicPartition{Topic: topic, Partition: int32(i)}
	}
	return tps, nil
}

// run reads until ctx ends. A topic is waited for until it exists.
func (f *follower) run(ctx context.Context) error {
	arrivals := make(chan arrival, queued)
	var screen sync.WaitGroup
	screen.Go(func() {
		for a := range arrivals {
			f.show(a.change)
			f.mu.Lock()
			f.next[a.tp] = a.offset + 1
			f.mu.Unlock()
		}
	})
	group, inner := errgroup.WithContext(ctx)
	for _, from := range feeds(f.began) {
		group.Go(func() error { return f.topic(inner, from, arrivals) })
	}
	err := group.Wait()
	close(arrivals)
	screen.Wait()
	if ctx.Err() != nil {
		return nil // what failed then, failed because it was told to end
	}
	return err
}

func (f *follower) topic(ctx context.Context, from feed, arrivals chan<- arrival) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		tps, err := partitions(ctx, f.client, from.topic)
		if err != nil {
			return err
		}
		if len(tps) > 0 {
			group, ctx := errgroup.WithContext(ctx)
			for _, tp := range tps {
				group.Go(func() error { return f.partition(ctx, from, tp, arrivals) })
			}
			return group.Wait()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (f *follower) partition(ctx context.Context, from feed, tp cdc.TopicPartition, arrivals chan<- arrival) error {
	f.mu.Lock()
	next := f.next[tp]
	f.mu.Unlock()
	r := f.client.NewReader(tp, next)
	defer func() { _ = r.Close() }() // never fails
	for {
		m, err := r.Next(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return err
		}
		select {
		case arrivals <- arrival{change: from.change(m, time.Now()), tp: tp, offset: m.Offset}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// reach waits until every record before the given offsets has been shown.
func (f *follower) reach(ctx context.Context, ends map[cdc.TopicPartition]int64) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for !f.reached(ends) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for the last records to be read: %w", context.Cause(ctx))
		}
	}
	return nil
}

func (f *follower) reached(ends map[cdc.TopicPartition]int64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for tp, end := range ends {
		if f.next[tp] < end {
			return false
		}
	}
	return true
}
