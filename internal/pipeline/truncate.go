package pipeline

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/compaction"
)

// truncate writes a tombstone for every key that is alive in the table's topic.
// The tombstones of a partition carry the position before the TRUNCATE (record
// 0), the last of them its own: one that was cut off is done again for the keys
// still alive, one that was finished is left out.
func (l *life) truncate(ctx context.Context, r *route) error {
	if l.cfg.Truncate == "stop" {
		return cdc.Terminal("truncate",
			"Set truncate: tombstones for the pipeline to write a tombstone for every row.",
			"table %s was truncated at %s (truncate: stop)", r.rel.FullName(), l.change.LSN)
	}
	if err := l.flush(ctx); err != nil {
		return err
	}
	before := cdc.Position{Tx: l.change.Tx.Final, Change: l.change.Index}
	own := before
	own.Record = 1
	for _, p := range r.capture.partitions {
		if !p.caught {
			held, err := l.holds(p, own)
			if err != nil {
				return err
			}
			if held {
				l.tally.skipped++
				continue
			}
		}
		if err := l.clear(ctx, r, p, before, own); err != nil {
			return fmt.Errorf("truncate %s: %w", p.tp, err)
		}
		l.hook("truncate-partition")
	}
	return nil
}

// clear tombstones the live keys of one partition. Listing them reads the topic,
// which may take long: another goroutine does it, this one answers Postgres.
func (l *life) clear(ctx context.Context, r *route, p *partition, before, own cdc.Position) error {
	starts, ends, err := l.client.Offsets(ctx, []cdc.TopicPartition{p.tp})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	keys := make(chan []byte, 1024)
	done := make(chan error, 1)
	go func() {
		defer close(keys)
		done <- compaction.LiveKeys(ctx, logReader{l.client}, compaction.Stretch{TopicPartition: p.tp, From: starts[p.tp], To: ends[p.tp]}, liveKeysMemory, func(key []byte, _ int64) error {
			select {
			case keys <- slices.Clone(key):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	defer func() {
		cancel()
		for range keys { // closed when the goroutine ends
		}
	}()
	var held []byte // the last key so far: it carries the TRUNCATE's own position
	tombstone := func(at cdc.Position) error {
		return r.enc.Tombstone(held, l.change, emitTo(func(rec *cdc.Record) error { return l.put(p, rec, at) }))
	}
	for key := range l.ticking(ctx, keys) {
		if held != nil {
			if err := tombstone(before); err != nil {
				return err
			}
			if err := l.room(ctx); err != nil {
				return err
			}
		}
		held = key
	}
	if err := <-done; err != nil {
		return err
	}
	if held == nil {
		return l.w.Err()
	}
	return tombstone(own)
}

// ticking yields what a channel brings and answers Postgres while it brings
// nothing. A connection that breaks meanwhile shows itself at the next read.
func (l *life) ticking(ctx context.Context, keys <-chan []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		tick := time.NewTicker(houseEvery)
		defer tick.Stop()
		for {
			select {
			case key, ok := <-keys:
				if !ok || !yield(key) {
					return
				}
			case <-tick.C:
				if err := l.tickStream(ctx); err != nil {
					l.log.Debug("answering Postgres during a truncate", "error", err)
				}
			}
		}
	}
}
