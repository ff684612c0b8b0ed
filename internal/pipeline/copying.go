package pipeline

import (
	"context"
	"fmt"
	"slices"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/compaction"
	"cdc/internal/source"
)

// copying is the copy of one table by chunks. Its record in the progress topic
// moves when the rows of a chunk are acknowledged, so a killed copy goes on behind
// the last of them; the chunk that was not finished is read afresh.
type copying struct {
	k       *copier
	capture *capture
	record  CopyRecord
	total   int64  // planner's estimate, 0 unknown
	bytes   int64  // of this life
	trouble string // why it is being tried again
	anew    bool   // what was copied so far has keys of other words: see begin
}

func (k *copier) add(c *capture, rec CopyRecord) *copying {
	c1 := &copying{k: k, capture: c, record: rec}
	k.copies = slices.DeleteFunc(k.copies, func(o *copying) bool { return o.capture == c })
	k.copies = append(k.copies, c1)
	return c1
}

// next does the next thing: chunks, then the ghosts of each partition.
func (c *copying) next(ctx context.Context) error {
	k := c.k
	if k.capture != c.capture {
		k.take(c.capture)
		reader := k.reader
		k.async(ctx, func(ctx context.Context, deliver func(func() error)) {
			total, err := reader.Estimate(ctx)
			if err == nil {
				err = k.l.src.Settle(ctx)
			}
			deliver(func() error {
				c.total = total
				return err
			})
		})
		return nil
	}
	switch {
	case c.anew:
		c.begin(ctx)
		return nil
	case !c.record.All:
		after, rows := c.record.After, k.limit
		k.l.hook("chunk-read")
		k.read(ctx, func(ctx context.Context, r *source.ChunkReader) (*source.Chunk, error) {
			return r.Next(ctx, after, rows, chunkBytes)
		}, c.wrote)
		return nil
	case k.enc == nil:
		k.describe(ctx)
		return nil
	case c.record.Cleared < len(c.record.Before):
		c.clear(ctx, c.record.Cleared)
		return nil
	}
	return c.finish()
}

// begin begins the copy anew where the text of its keys has changed: records under
// the old text are ghosts now, those of this copy too, so they must all lie before
// its beginning. That is certain once the table was settled, the stream has passed
// the end of a chunk that was read then, and what was written is acknowledged.
func (c *copying) begin(ctx context.Context) {
	k := c.k
	k.read(ctx, func(ctx context.Context, r *source.ChunkReader) (*source.Chunk, error) {
		return r.Next(ctx, nil, 1, chunkBytes)
	}, func(*source.Chunk) error {
		k.written(func() error {
			rec, err := k.l.newCopy(ctx, c.capture)
			if err != nil {
				return err
			}
			c.record, c.anew = rec, false
			return c.save(rec)
		})
		return nil
	})
}

// wrote runs when the rows of a chunk are written: the next chunk may be read
// while their acknowledgement is awaited.
func (c *copying) wrote(ch *source.Chunk) error {
	c.trouble = ""
	c.bytes += ch.Bytes
	c.record.Rows += int64(len(ch.Rows))
	if ch.Last != nil {
		c.record.After = ch.Last
	}
	c.record.All = ch.Done
	k, rec := c.k, c.record
	k.l.hook("chunk-written")
	k.l.afterAck(func() error {
		if c.dropped() {
			return nil
		}
		k.l.hook("chunk-acknowledged")
		return c.save(rec)
	})
	if !ch.Done {
		return nil
	}
	// Ghosts are looked for in what is acknowledged.
	k.written(func() error {
		k.l.hook("copy-rows")
		return nil
	})
	return nil
}

// dropped: the copy was cancelled, or begun anew.
func (c *copying) dropped() bool { return !slices.Contains(c.k.copies, c) }

// save appends the copy's record, with the state it has now.
func (c *copying) save(rec CopyRecord) error {
	rec.Format, rec.State, rec.Error = progressFormat, c.record.State, c.record.Error
	return c.k.l.append(copyPrefix+c.capture.table.FullName(), rec)
}

// clear tombstones what was alive in one partition before the copy and has no
// record since: rows that are gone without a delete in this stream. Another
// goroutine lists them, batch by batch.
func (c *copying) clear(ctx context.Context, n int) {
	k := c.k
	p := c.capture.partitions[n]
	batches := make(chan map[string]struct{})
	var read int64
	failed := make(chan error, 1)
	list, cancel := context.WithCancel(ctx)
	k.unlist = cancel
	k.readers.Go(func() {
		defer close(batches)
		defer cancel()
		failed <- func() error {
			starts, ends, err := k.l.client.Offsets(list, []cdc.TopicPartition{p.tp})
			if err != nil {
				return err
			}
			read = ends[p.tp]
			return listGhosts(list, logReader{k.l.client}, compaction.Stretch{TopicPartition: p.tp, From: starts[p.tp], To: read}, c.record.Before[n], batches)
		}()
	})
	var more func()
	more = func() {
		k.async(ctx, func(ctx context.Context, deliver func(func() error)) {
			batch, ok := <-batches
			deliver(func() error {
				if ok {
					k.writeOff(ctx, p, read, batch, func(int64, int64) { more() })
					return nil
				}
				if err := <-failed; err != nil {
					return fmt.Errorf("look for keys of earlier copies in %s: %w", p.tp, err)
				}
				c.record.Cleared = n + 1
				k.l.hook("copy-ghosts")
				return c.save(c.record)
			})
		})
	}
	more()
}

// listGhosts sends the ghosts of a stretch in batches.
func listGhosts(ctx context.Context, r compaction.KeyReader, s compaction.Stretch, horizon int64, batches chan<- map[string]struct{}) error {
	batch, size := map[string]struct{}{}, 0
	send := func() error {
		select {
		case batches <- batch:
			batch, size = map[string]struct{}{}, 0
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	err := compaction.Ghosts(ctx, r, s, horizon, liveKeysMemory, func(key []byte, _ int64) error {
		batch[string(key)] = struct{}{}
		if size += len(key); len(batch) < maxSuspects && size < maxSuspectBytes {
			return nil
		}
		return send()
	})
	if err != nil || len(batch) == 0 {
		return err
	}
	return send()
}

// finish ends the copy: its record goes.
func (c *copying) finish() error {
	c.k.l.log.Info("table copied", "table", c.capture.table.FullName(), "rows", c.record.Rows)
	return c.k.remove(c.capture)
}

// fail gives the copy up until it is asked for again.
func (c *copying) fail(cause error) error {
	c.record.State, c.record.Error = copyFailed, cause.Error()
	c.k.l.log.Error("copying a table failed: ask for it again when it is mended (cdc snapshot)", "table", c.capture.table.FullName(), "error", cause)
	c.k.leave()
	return c.save(c.record)
}

// progress is what Status shows.
func (c *copying) progress() cdc.TableProgress {
	p := cdc.TableProgress{
		Table: c.capture.table.FullName(), Rows: c.record.Rows, RowsTotal: c.total, Bytes: c.bytes,
		State: string(c.record.State), Error: c.record.Error,
	}
	if c.trouble != "" {
		p.Error = c.trouble
	}
	return p
}

// writeOff tombstones the suspects among a batch of keys of a partition, found in
// the topic before the offset read, that nothing has cleared. then gets how many
// were written off and how many not; all is acknowledged.
func (k *copier) writeOff(ctx context.Context, p *partition, read int64, batch map[string]struct{}, then func(gone, left int64)) {
	total := int64(len(batch))
	s := &suspects{p: p, read: read, keys: batch}
	k.suspects = s
	keys := make(map[string]struct{}, len(batch))
	for key := range batch {
		keys[key] = struct{}{}
	}
	k.written(func() error {
		k.async(ctx, func(ctx context.Context, deliver func(func() error)) {
			found, err := tail(ctx, logReader{k.l.client}, k.l.end, p.tp, read, keys)
			deliver(func() error {
				if err != nil {
					return fmt.Errorf("read the end of %s: %w", p.tp, err)
				}
				for _, key := range found {
					s.strike([]byte(key))
				}
				if err := k.tombstones(ctx, s); err != nil {
					return err
				}
				k.suspects = nil
				gone := int64(len(s.keys))
				k.written(func() error {
					then(gone, total-gone)
					return nil
				})
				return nil
			})
		})
		return nil
	})
}

func (k *copier) tombstones(ctx context.Context, s *suspects) error {
	l := k.l
	if len(s.keys) == 0 {
		return nil
	}
	change, capture := l.change, l.capture
	defer func() { l.change, l.capture = change, capture }()
	l.change = &cdc.Change{Op: cdc.OpDelete, Relation: k.rel, Tx: &cdc.Tx{Final: l.mark.End, CommitTime: time.Now().UnixMicro()}, LSN: l.mark.End}
	l.capture = k.capture
	for key := range s.keys {
		err := k.enc.Tombstone([]byte(key), l.change, emitTo(func(r *cdc.Record) error { return l.putPlaced(s.p, r) }))
		if err != nil {
			return err
		}
		if err := l.room(ctx); err != nil {
			return err
		}
	}
	l.log.Info("tombstoned keys that are gone from the table", "table", k.capture.table.FullName(), "partition", s.p.tp.Partition, "keys", len(s.keys))
	return nil
}
