package demo

import (
	"bytes"
	"context"
	"fmt"

	"cdc/internal/cdc"
	"cdc/internal/compaction"
	"cdc/internal/sink"
)

// contents is what a topic holds at one moment.
type contents struct {
	records int64 // tombstones included, transaction markers not
	folds   []*compaction.Fold
	ends    map[cdc.TopicPartition]int64 // one past the last record
}

// readTopic reads all of a topic. A topic that does not exist holds nothing.
func readTopic(ctx context.Context, client *sink.Client, topic string) (contents, error) {
	c := contents{ends: map[cdc.TopicPartition]int64{}}
	tps, err := partitions(ctx, client, topic)
	if err != nil || len(tps) == 0 {
		return c, err
	}
	starts, ends, err := client.Offsets(ctx, tps)
	if err != nil {
		return c, fmt.Errorf("read topic %s: %w", topic, err)
	}
	for _, tp := range tps {
		fold := compaction.NewFold()
		err := client.ReadAll(ctx, tp, starts[tp], ends[tp], func(m *sink.Message) error {
			fold.Apply(m.Key, m.Value, m.Offset)
			c.records++
			return nil
		})
		if err != nil {
			return c, fmt.Errorf("read %s: %w", tp, err)
		}
		c.folds = append(c.folds, fold)
		if fold.Next() > 0 {
			c.ends[tp] = fold.Next()
		}
	}
	return c, nil
}

// keys is the number of keys alive.
func (c contents) keys() (n int) {
	for _, f := range c.folds {
		n += f.Len()
	}
	return n
}

// entry is the latest record of a key that is alive.
type entry struct{ key, value []byte }

// each calls fn for every key alive.
func (c contents) each(fn func(entry)) {
	for _, f := range c.folds {
		f.All(func(key string, e compaction.Entry) bool {
			fn(entry{[]byte(key), e.Value})
			return true
		})
	}
}

// disturbed lists the keys whose latest record is not the same in after:
// compaction must leave it alone.
func (c contents) disturbed(after contents) (keys [][]byte) {
	for i, f := range c.folds {
		if i >= len(after.folds) {
			f.All(func(key string, _ compaction.Entry) bool {
				keys = append(keys, []byte(key))
				return true
			})
			continue
		}
		g := after.folds[i]
		f.All(func(key string, e compaction.Entry) bool {
			if h, ok := g.Get([]byte(key)); !ok || h.Offset != e.Offset || !bytes.Equal(h.Value, e.Value) {
				keys = append(keys, []byte(key))
			}
			return true
		})
		g.All(func(key string, _ compaction.Entry) bool {
			if _, ok := f.Get([]byte(key)); !ok {
				keys = append(keys, []byte(key))
			}
			return true
		})
	}
	return keys
}
