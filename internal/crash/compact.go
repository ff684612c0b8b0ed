package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// compactLimit bounds a compaction: Apache Kafka's cleaner takes its time.
const compactLimit = 2 * time.Minute

// compacted has all topics compacted while cdc is stopped, has cdc go on from what is
// left of them, and compares: the latest record of every key is still the table's row.
func (s *seed) compacted(ctx context.Context) error {
	began := time.Now()
	defer func() { s.phase("compacted", began) }()
	if err := s.compactTopics(ctx); err != nil {
		return fmt.Errorf("compact the topics: %w", err)
	}
	if _, err := s.crew.start(""); err != nil {
		return err
	}
	n := len(s.plan.sessions)
	more := plan{sessions: [][]step{newGenerator(rand.New(rand.NewPCG(s.plan.seed, 100+uint64(n))), n).steps(stepsAfter)}}
	if err := startWorkload(ctx, s.url, more, s.commits).wait(); err != nil {
		return err
	}
	caughtUp, err := s.quiet(ctx)
	s.violations = append(s.violations, s.crew.ended()...)
	if err != nil || !caughtUp {
		return err
	}
	got, err := s.finish(ctx)
	if err != nil {
		return err
	}
	return s.compare(ctx, got, checkLatest)
}

// stepsAfter is how much is changed after a compaction.
const stepsAfter = 15

func (s *seed) compactTopics(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, compactLimit, errors.New("it took too long"))
	defer cancel()
	topics := append(s.topics(), "_cdc.progress."+s.name)
	if s.broker != nil {
		return s.observer.Compact(ctx, s.broker.Compact, topics...)
	}
	return s.observer.CompactEmbedded(ctx, s.embedded, s.brokers[0], topics...)
}
