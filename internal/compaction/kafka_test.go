package compaction_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"cdc/internal/cdc"
	"cdc/internal/compaction"
)

var rows = cdc.TopicPartition{Topic: "rows", Partition: 0}

// table is what the topic stands for, kept beside it in the dumbest way.
type table struct {
	*cluster
	rng   *rand.Rand
	state map[string]string
	n     int
}

func newTable(t *testing.T, seed uint64) *table {
	c := newCluster(t)
	c.must(compaction.Apply(t.Context(), c, c.look()))
	return &table{cluster: c, rng: rand.New(rand.NewPCG(seed, 90)), state: map[string]string{}}
}

// change writes one batch of changes to some of the keys: upserts, and deletes as tombstones.
func (tb *table) change(keys int) {
	tb.t.Helper()
	var batch []*kgo.Record
	for range 1 + tb.rng.IntN(20) {
		tb.n++
		r := &kgo.Record{Key: fmt.Appendf(nil, `{"id":%d}`, tb.rng.IntN(keys))}
		if tb.rng.IntN(4) > 0 {
			r.Value = fmt.Appendf(nil, `{"version":%d}`, tb.n)
			tb.state[string(r.Key)] = string(r.Value)
		} else {
			delete(tb.state, string(r.Key))
		}
		batch = append(batch, r)
	}
	tb.produce(rows.Topic, batch...)
}

// fold reads the partition up to an offset.
func (tb *table) fold(ctx context.Context, to int64) (state map[string]string, records int, err error) {
	f := compaction.NewFold()
	err = tb.read(ctx, rows, 0, to, func(r *kgo.Record) error {
		records++
		f.Apply(r.Key, r.Value, r.Offset)
		return nil
	})
	state = make(map[string]string)
	f.All(func(key string, e compaction.Entry) bool { state[key] = string(e.Value); return true })
	return state, records, err
}

// fold(compact(topic)) = fold(topic) = the table, with a broker that compacts.
func TestFoldOfACompactedTopic(t *testing.T) {
	const seed = 1
	tb := newTable(t, seed)
	for range 5 {
		for range 40 {
			tb.change(25)
		}
		end := tb.end(rows)
		before, written, err := tb.fold(within(t), end)
		tb.must(err)
		tb.must(tb.broker.Compact(within(t)))
		after, left, err := tb.fold(within(t), end)
		tb.must(err)
		if left >= written {
			t.Errorf("seed %d: %d records before the compaction, %d after", seed, written, left)
		}
		for name, got := range map[string]map[string]string{"before": before, "after": after} {
			if !maps.Equal(got, tb.state) {
				t.Fatalf("seed %d: fold %s compaction\n got %v\nwant %v", seed, name, got, tb.state)
			}
		}
	}
}

// Compaction strikes while readers rebuild their state: each arrives at the table.
func TestCase090CompactionDuringReplay(t *testing.T) {
	const seed = 2
	tb := newTable(t, seed)
	for range 150 {
		tb.change(40)
	}
	end := tb.end(rows)
	for round := range 4 {
		f := compaction.NewFold()
		read := 0
		at := 1 + tb.rng.IntN(60)
		// The reader holds what it has fetched while the log changes behind and before it.
		err := tb.read(within(t), rows, 0, end, func(r *kgo.Record) error {
			if read++; read == at {
				tb.must(tb.broker.Compact(within(t)))
			}
			f.Apply(r.Key, r.Value, r.Offset)
			return nil
		})
		tb.must(err)
		got := map[string]string{}
		f.All(func(key string, e compaction.Entry) bool { got[key] = string(e.Value); return true })
		if !maps.Equal(got, tb.state) {
			t.Fatalf("seed %d round %d, compacted at record %d:\n got %v\nwant %v", seed, round, at, got, tb.state)
		}
		for range 30 {
			tb.change(40)
		}
		end = tb.end(rows)
	}
}

// compacting forces a compaction before every reading but the first.
type compacting struct {
	*table
	readings int
}

func (c *compacting) ReadAll(ctx context.Context, tp cdc.TopicPartition, from, to int64, fn func([]byte, bool, int64) error) error {
	if c.readings++; c.readings > 1 {
		c.must(c.broker.Compact(ctx))
	}
	return c.table.ReadAll(ctx, tp, from, to, fn)
}

// The live keys of a partition are its table's, whatever compaction does between
// the passes, and tombstones for all of them empty it: TRUNCATE.
func TestLiveKeysOfACompactedTopic(t *testing.T) {
	const seed = 3
	tb := newTable(t, seed)
	for range 100 {
		tb.change(60)
	}
	end := tb.end(rows)
	r := &compacting{table: tb}
	var tombstones []*kgo.Record
	err := compaction.LiveKeys(within(t), r, compaction.Stretch{TopicPartition: rows, To: end}, 1000, func(key []byte, _ int64) error {
		if _, alive := tb.state[string(key)]; !alive {
			t.Errorf("seed %d: key %s is not alive, or came twice", seed, key)
		}
		delete(tb.state, string(key))
		tombstones = append(tombstones, &kgo.Record{Key: key})
		return nil
	})
	tb.must(err)
	if len(tb.state) > 0 || r.readings < 2 {
		t.Fatalf("seed %d: %d keys missed in %d readings: %v", seed, len(tb.state), r.readings, tb.state)
	}
	tb.produce(rows.Topic, tombstones...)
	if left, _, err := tb.fold(within(t), tb.end(rows)); err != nil || len(left) > 0 {
		t.Errorf("seed %d: after the tombstones %d keys are alive: %v, %v", seed, len(left), left, err)
	}
}

// A second snapshot writes every row again; what it did not write is a ghost.
func TestGhostsAfterASecondSnapshot(t *testing.T) {
	const seed = 4
	tb := newTable(t, seed)
	for range 60 {
		tb.change(50)
	}
	horizon := tb.end(rows)
	want := map[string]bool{}
	for key := range maps.Clone(tb.state) {
		if tb.rng.IntN(3) == 0 {
			want[key] = true // gone from the table before the second attempt
			continue
		}
		tb.produce(rows.Topic, &kgo.Record{Key: []byte(key), Value: []byte(tb.state[key])})
	}
	tb.must(tb.broker.Compact(within(t)))
	s := compaction.Stretch{TopicPartition: rows, To: tb.end(rows)}
	err := compaction.Ghosts(within(t), &compacting{table: tb}, s, horizon, 500, func(key []byte, offset int64) error {
		if !want[string(key)] || offset >= horizon {
			t.Errorf("seed %d: %s at %d is no ghost, or came twice", seed, key, offset)
		}
		delete(want, string(key))
		return nil
	})
	if err != nil || len(want) > 0 {
		t.Errorf("seed %d: ghosts missed: %v, %v", seed, want, err)
	}
}
