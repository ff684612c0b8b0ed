package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/compaction"
	"cdc/internal/sink"
	"cdc/internal/source"
)

// copyAll copies every table under one snapshot and makes the slot at its
// consistent point. Until the last progress record is acknowledged, a restart
// begins anew; the slot is temporary until then, so a kill leaves none behind.
func (l *life) copyAll(ctx context.Context) error {
	if err := l.begin(ctx); err != nil {
		return err
	}
	sn, err := l.copy(ctx, l.order)
	if err != nil {
		return err
	}
	defer func() { _ = sn.Close() }()
	if l.cfg.Snapshot == SnapshotOnly {
		l.progress.Phase = PhaseDone
	} else {
		l.hook("snapshot-finish")
		if err := sn.Finish(ctx); err != nil {
			return err
		}
		l.hook("snapshot-slot")
		l.progress.Phase = PhaseStream
	}
	for _, c := range l.order {
		if err := l.putTable(c); err != nil {
			return err
		}
	}
	return l.settle(ctx, sn.LSN())
}

// createSlot is `snapshot: never`: the stream begins where the slot does.
func (l *life) createSlot(ctx context.Context) error {
	if err := l.begin(ctx); err != nil {
		return err
	}
	at, err := l.src.CreateSlot(ctx)
	if err != nil {
		return err
	}
	for _, c := range l.order {
		if err := l.putTable(c); err != nil {
			return err
		}
	}
	l.progress.Phase = PhaseStream
	return l.settle(ctx, at)
}

// begin records, before anything is made, that a snapshot is under way: what the
// next start then finds in Postgres is ours and worthless.
func (l *life) begin(ctx context.Context) error {
	l.progress.Phase = PhaseSnapshot
	l.progress.Generation = newGeneration(l.memory.progress)
	l.progress.Tx, l.progress.End, l.progress.PrevEnd = 0, 0, 0
	for name := range l.memory.tables {
		if err := l.append(tablePrefix+name, nil); err != nil {
			return err
		}
	}
	for name := range l.memory.copies {
		if err := l.append(copyPrefix+name, nil); err != nil {
			return err
		}
	}
	if err := l.putProgress(l.progress, time.Now()); err != nil {
		return err
	}
	l.hook("snapshot-begin")
	return l.flush(ctx)
}

// newGeneration never repeats the one before it.
func newGeneration(p *Progress) cdc.Generation {
	for {
		g := cdc.Generation(rand.Uint32())
		if g != 0 && (p == nil || g != p.Generation) {
			return g
		}
	}
}

// settle makes the consistent point the progress of the pipeline.
func (l *life) settle(ctx context.Context, at cdc.LSN) error {
	l.progress.Tx, l.progress.End, l.progress.PrevEnd = 0, at, 0
	l.mark = sink.Mark{End: at}
	l.hook("snapshot-progress")
	if err := l.putProgress(l.progress, time.Now()); err != nil {
		return err
	}
	if err := l.flush(ctx); err != nil {
		return err
	}
	l.confirmed = at
	return nil
}

// joining are the captured tables of a streaming pipeline that have to be copied.
func (l *life) joining() []*capture {
	var join []*capture
	for _, c := range l.order {
		rec, ok := l.memory.tables[c.table.FullName()]
		if ok && rec.OID == c.table.OID && rec.Member == c.member && slices.Equal(rec.Key, c.table.Key) && rec.Topic == c.topic && rec.Values == l.cfg.Format.Format {
			c.since = rec.Since
			continue
		}
		join = append(join, c)
	}
	return join
}

// join prepares tables that joined a streaming pipeline, and forgets those that
// left it. They are copied by chunks while the stream goes on; one that cannot be
// read in the order of its key is copied here, under one snapshot, and the stream
// goes on behind it.
func (l *life) join(ctx context.Context, join []*capture) error {
	if err := l.forgetOthers(); err != nil {
		return err
	}
	if l.cfg.Snapshot == SnapshotNever {
		for _, c := range join {
			if err := l.putTable(c); err != nil {
				return err
			}
		}
		return l.flush(ctx)
	}
	whole, err := l.joinByChunks(ctx, join)
	if err != nil || len(whole) == 0 {
		return err
	}
	sn, err := l.copy(ctx, whole)
	if err != nil {
		return err
	}
	defer func() { _ = sn.Close() }()
	for _, c := range whole {
		c.since = sn.LSN()
		if err := l.copier.remove(c); err != nil {
			return err
		}
		if err := l.putTable(c); err != nil {
			return err
		}
	}
	return l.flush(ctx)
}

// forgetOthers removes the records of tables that are not captured any more.
func (l *life) forgetOthers() error {
	captured := map[string]bool{}
	for _, c := range l.order {
		captured[c.table.FullName()] = true
	}
	for name := range l.memory.tables {
		if !captured[name] {
			if err := l.append(tablePrefix+name, nil); err != nil {
				return err
			}
		}
	}
	for name, rec := range l.memory.copies {
		c := l.byName(name)
		if c != nil && rec.OID == c.table.OID && len(rec.Before) == len(c.partitions) {
			l.copier.add(c, rec)
		} else if err := l.append(copyPrefix+name, nil); err != nil {
			return err
		}
	}
	return nil
}

// joinByChunks records that tables are to be copied by chunks, and returns those
// that cannot be. From the position recorded on their changes are written; those
// before it are shown by every chunk, which are read when all that had begun by
// now is visible.
func (l *life) joinByChunks(ctx context.Context, join []*capture) (whole []*capture, err error) {
	if len(join) == 0 {
		return nil, nil
	}
	system, err := l.src.System(ctx)
	if err != nil {
		return nil, err
	}
	for _, c := range join {
		if ordered, err := l.ordered(ctx, c); err != nil {
			return nil, err
		} else if !ordered {
			whole = append(whole, c)
			continue
		}
		rec, err := l.newCopy(ctx, c)
		if err != nil {
			return nil, err
		}
		c.since = system.End
		if err := l.copier.add(c, rec).save(rec); err != nil {
			return nil, err
		}
		if err := l.putTable(c); err != nil {
			return nil, err
		}
	}
	if err := l.flush(ctx); err != nil {
		return nil, err
	}
	l.hook("joined")
	return whole, nil
}

// ordered says that a table can be read in the order of its key.
func (l *life) ordered(ctx context.Context, c *capture) (bool, error) {
	r := l.src.ChunkReader(c.table)
	defer func() { _ = r.Close() }()
	_, err := r.Next(ctx, nil, 1, 1)
	if cdc.IsTerminal(err) {
		l.log.Info("table cannot be read in the order of its key: it is copied while the stream waits", "table", c.table.FullName(), "because", err)
		return false, nil
	}
	return err == nil, err
}

// copy reads tables under one snapshot into their topics and tombstones what is
// alive there and not in the snapshot. Everything is acknowledged when it returns.
func (l *life) copy(ctx context.Context, tables []*capture) (_ *source.Snapshot, err error) {
	l.p.enter(cdc.StateSnapshot, nil)
	var tps []cdc.TopicPartition
	list := make([]cdc.Table, len(tables))
	for i, c := range tables {
		list[i] = c.table
		for _, p := range c.partitions {
			tps = append(tps, p.tp)
		}
	}
	starts, before, err := l.client.Offsets(ctx, tps)
	if err != nil {
		return nil, err
	}
	l.log.Info("copying tables", "tables", len(tables), "workers", l.cfg.Workers)
	sn, err := l.src.Snapshot(ctx, list, l.cfg.Workers)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = sn.Close()
		}
	}()
	l.view.mu.Lock()
	l.view.snapshot = sn
	l.view.mu.Unlock()
	l.snapshot, l.running = sn.LSN(), 0
	for _, c := range tables {
		for _, p := range c.partitions {
			p.caught = true // nothing of this generation stands behind the snapshot
		}
	}
	if err := l.copyRows(ctx, sn); err != nil {
		return nil, err
	}
	if err := l.flush(ctx); err != nil {
		return nil, err
	}
	l.hook("snapshot-rows")
	if err := l.ghosts(ctx, tables, starts, before); err != nil {
		return nil, err
	}
	l.hook("snapshot-ghosts")
	l.snapshot = 0
	l.log.Info("tables copied", "tables", len(tables), "rows", l.running, "consistent_point", sn.LSN())
	return sn, l.flush(ctx)
}

func (l *life) copyRows(ctx context.Context, sn *source.Snapshot) error {
	for {
		c, err := sn.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		r, err := l.routeOf(c.Relation)
		if err != nil {
			return err
		}
		l.tally.changes++
		l.change, l.capture = c, r.capture
		if err := l.encode(r, c); err != nil {
			return err
		}
		if err := l.room(ctx); err != nil {
			return err
		}
		if l.ticks++; l.ticks&0xff != 0 {
			continue
		}
		if now := time.Now(); now.Sub(l.house) >= houseEvery {
			if err := l.keepHouse(ctx, now); err != nil {
				return err
			}
		}
	}
}

// ghosts tombstones the keys that were alive in the topics before the copy and
// have no record in it: rows that an earlier attempt or an earlier life of the
// pipeline saw and that are gone without a delete in this stream.
func (l *life) ghosts(ctx context.Context, tables []*capture, starts, before map[cdc.TopicPartition]int64) error {
	for _, c := range tables {
		var r *route
		for _, p := range c.partitions {
			if before[p.tp] <= starts[p.tp] {
				continue
			}
			if r == nil {
				rel, err := l.src.Relation(ctx, c.table.OID)
				if err != nil {
					return err
				}
				if r, err = l.routeOf(rel); err != nil {
					return err
				}
			}
			_, end, err := l.client.Offsets(ctx, []cdc.TopicPartition{p.tp})
			if err != nil {
				return err
			}
			ghost := cdc.Change{Op: cdc.OpDelete, Relation: r.rel, Tx: &cdc.Tx{Final: l.snapshot, CommitTime: time.Now().UnixMicro()}, LSN: l.snapshot}
			n := 0
			err = compaction.Ghosts(ctx, logReader{l.client}, compaction.Stretch{TopicPartition: p.tp, From: starts[p.tp], To: end[p.tp]}, before[p.tp], liveKeysMemory, func(key []byte, _ int64) error {
				n++
				return r.enc.Tombstone(key, &ghost, emitTo(func(rec *cdc.Record) error {
					if err := l.put(p, rec, l.next()); err != nil {
						return err
					}
					return l.room(ctx)
				}))
			})
			if err != nil {
				return fmt.Errorf("remove keys of earlier copies from %s: %w", p.tp, err)
			}
			if n > 0 {
				l.log.Info("tombstoned keys that are gone from the table", "table", c.table.FullName(), "partition", p.tp.Partition, "keys", n)
			}
		}
	}
	return nil
}

// logReader gives compaction the records of a partition.
type logReader struct{ c *sink.Client }

func (r logReader) ReadAll(ctx context.Context, tp cdc.TopicPartition, from, to int64, fn func(key []byte, tombstone bool, offset int64) error) error {
	return r.c.ReadAll(ctx, tp, from, to, func(m *sink.Message) error {
		return fn(m.Key, m.Value == nil, m.Offset)
	})
}

func (l *life) putTable(c *capture) error {
	return l.append(tablePrefix+c.table.FullName(), TableRecord{
		Format: progressFormat, OID: c.table.OID, Member: c.member, Key: c.table.Key, Topic: c.topic, TopicID: l.topicIDs[c.topic],
		Values: l.cfg.Format.Format, Since: c.since,
	})
}

// append writes a record to the progress topic.
func (l *life) append(key string, v any) error {
	rec, err := encode(key, v)
	if err != nil {
		return err
	}
	if err := l.w.Append(l.progressTo.target, rec, cdc.Stamp{}); err != nil {
		return fmt.Errorf("write %s record: %w", key, err)
	}
	return nil
}
