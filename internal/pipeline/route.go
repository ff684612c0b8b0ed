package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/format"
	"cdc/internal/sink"
)

// capture is a captured table and its topic.
type capture struct {
	table      cdc.Table
	topic      string
	partitions []*partition
	member     uint32 // source.Memberships
	// since: changes of transactions below it are in the table's own snapshot.
	since cdc.LSN
}

// partition is one partition of the pipeline. Until it is caught up, a record
// whose position it already holds is left out.
type partition struct {
	tp     cdc.TopicPartition
	target *sink.Target
	asked  bool         // last is known
	last   cdc.Position // of the partition's last record, of this generation
	caught bool         // every further position is behind last
}

// route is what one version of a relation compiles to.
type route struct {
	rel     *cdc.Relation
	capture *capture
	enc     *format.Encoder
}

// routeOf finds or compiles the route of a relation. Relations are compared by
// pointer: the source gives a new one whenever anything about it changed.
func (l *life) routeOf(rel *cdc.Relation) (*route, error) {
	if l.last != nil && l.last.rel == rel {
		return l.last, nil
	}
	r := l.routes[rel.ID]
	if r == nil || r.rel != rel {
		var err error
		if r, err = l.compile(rel, r); err != nil {
			return nil, err
		}
		l.routes[rel.ID] = r
	}
	l.last = r
	return r, nil
}

// reasonKeyChanged is the reason of the error with which unroutable deals.
const reasonKeyChanged = "key-changed"

func (l *life) compile(rel *cdc.Relation, before *route) (*route, error) {
	c := l.captures[rel.ID]
	if c == nil {
		return nil, fmt.Errorf("table %s was delivered and is not captured", rel.FullName())
	}
	key := make([]string, len(rel.Key))
	for i, at := range rel.Key {
		key[i] = rel.Columns[at].Name
	}
	if !slices.Equal(key, c.table.Key) {
		mend := "Start the pipeline again: it copies the table under its new key and tombstones the old ones."
		if l.cfg.Snapshot == SnapshotNever {
			mend = "Set snapshot: initial for the pipeline and start it again: it copies the table under its new key and tombstones the old ones."
		}
		return nil, cdc.Terminal(reasonKeyChanged, mend,
			"the key of table %s changed from %v to %v", c.table.FullName(), c.table.Key, key)
	}
	enc, err := l.format.Compile(rel)
	if err != nil {
		return nil, cdc.Terminal("format", "", "table %s: %w", rel.FullName(), err)
	}
	if before != nil {
		l.reportRewrite(before.rel, rel)
	}
	return &route{rel: rel, capture: c, enc: enc}, nil
}

// reportRewrite says when a change of the table altered rows without sending
// them: Postgres' log has no row events for a rewrite.
func (l *life) reportRewrite(old, now *cdc.Relation) {
	for _, c := range now.Columns {
		i := slices.IndexFunc(old.Columns, func(o cdc.Column) bool { return o.Name == c.Name })
		switch {
		case i < 0 && (c.Default != nil || c.DefaultExpr):
			l.log.Warn("a column with a default was added: rows written before show it only when they change again, or after the table is copied again",
				"table", now.FullName(), "column", c.Name)
		case i >= 0 && (old.Columns[i].TypeOID != c.TypeOID || old.Columns[i].Mod != c.Mod):
			l.log.Warn("a column changed its type: rows written before keep the old form in the topic until they change again, or until the table is copied again",
				"table", now.FullName(), "column", c.Name)
		}
	}
}

// Emit implements format.Emitter for the change in hand: the record gets its
// partition and position.
func (l *life) Emit(r *cdc.Record) error {
	return l.put(l.capture.of(r.Key), r, l.next())
}

// of is the partition of a key.
func (c *capture) of(key []byte) *partition {
	return c.partitions[sink.Partition(key, int32(len(c.partitions)))]
}

// next is the position of the next record of the change in hand.
func (l *life) next() cdc.Position {
	if l.snapshot != 0 {
		l.running++
		return cdc.SnapshotPosition(l.snapshot, l.running)
	}
	l.record++
	return cdc.Position{Tx: l.change.Tx.Final, Change: l.change.Index, Record: l.record}
}

// put appends a record to a partition unless the partition holds it already.
func (l *life) put(p *partition, r *cdc.Record, at cdc.Position) error {
	if !p.caught {
		held, err := l.holds(p, at)
		if err != nil {
			return err
		}
		if held {
			l.tally.skipped++
			return nil
		}
	}
	err := l.w.Append(p.target, r, cdc.Stamp{Generation: l.progress.Generation, Position: at})
	if errors.Is(err, sink.ErrRecordTooLarge) {
		return l.oversize(p, r, at, err)
	}
	if err != nil {
		return err
	}
	l.tally.records++
	return nil
}

// holds says whether a partition already has what stands at a position, by its
// last record: positions increase strictly within a partition and leave nothing
// out between them.
func (l *life) holds(p *partition, at cdc.Position) (bool, error) {
	if !p.asked {
		ctx, cancel := context.WithTimeout(context.Background(), lastStampWithin)
		defer cancel()
		stamp, found, err := l.w.LastStamp(ctx, p.tp)
		if err != nil {
			var foreign *sink.ForeignRecordError
			if errors.As(err, &foreign) {
				return false, cdc.Terminal("foreign-record",
					"Find out who writes to the topic: it belongs to this pipeline alone. Then drop the pipeline's state (cdc drop "+l.cfg.Name+") and start it again: it copies the tables anew.",
					"%w", err)
			}
			return false, fmt.Errorf("last position of %s: %w", p.tp, err)
		}
		p.asked = true
		if found && stamp.Generation == l.progress.Generation {
			p.last = stamp.Position
		}
	}
	if at.Compare(p.last) <= 0 {
		return true, nil
	}
	p.caught = true
	return false, nil
}

// lastStampWithin bounds one look at the end of a partition. The loop that asks
// also answers Postgres, whose patience is wal_sender_timeout (60 s by default).
const lastStampWithin = 20 * time.Second
