package main

import (
	"context"
	"sync"
	"time"
)

const (
	// sampleEvery is how often the slot's position is held against the topics.
	sampleEvery = 150 * time.Millisecond
	// sampleLimit bounds one look: in the middle of faults many come to nothing.
	sampleLimit = time.Second
)

// sample is what the slot had confirmed at a moment, and what the topics held
// after it.
type sample struct {
	confirmed lsn
	ends      map[string]map[int32]int64 // by topic
}

// sampler takes samples while a seed runs.
type sampler struct {
	seed   *seed
	cancel context.CancelFunc
	wg     sync.WaitGroup
	// first is the slot's position when it was first seen to be read, 0 for never:
	// at or behind the place where the stream began.
	first   lsn
	samples []sample
}

func startSampler(s *seed) *sampler {
	ctx, cancel := context.WithCancel(context.Background())
	m := &sampler{seed: s, cancel: cancel}
	m.wg.Go(func() {
		for sleep(ctx, sampleEvery) == nil {
			m.look(ctx)
		}
	})
	return m
}

func (m *sampler) stop() {
	m.cancel()
	m.wg.Wait()
}

func (m *sampler) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, sampleLimit)
	defer cancel()
	m.seed.crew.current().measure()
	confirmed, err := m.seed.confirmed(ctx)
	if err != nil || confirmed == 0 {
		return
	}
	if m.first == 0 {
		m.first = m.begun(ctx)
	}
	ends, err := m.seed.observer.Ends(ctx, m.seed.topics()...)
	if err != nil || len(ends) == 0 {
		return
	}
	m.samples = append(m.samples, sample{confirmed, ends})
}

func (m *sampler) begun(ctx context.Context) lsn {
	rows, err := m.seed.db.query(ctx, streamed)
	if err != nil || len(rows) != 1 {
		return 0
	}
	at, err := parseLSN(rows[0][0])
	if err != nil {
		return 0
	}
	return at
}
