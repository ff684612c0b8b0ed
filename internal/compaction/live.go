package compaction

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"cdc/internal/cdc"
)

// KeyReader reads a partition's keys again and again.
type KeyReader interface {
	// ReadAll calls fn for every record with an offset in [from, to), in offset
	// order, and returns when the last of them has been seen. Offsets that
	// compaction removed are left out; so are control records. key is valid
	// until fn returns. An error of fn ends the reading and is returned. It
	// blocks; it is called for one stretch at a time.
	ReadAll(ctx context.Context, tp cdc.TopicPartition, from, to int64, fn func(key []byte, tombstone bool, offset int64) error) error
}

// Stretch is a part of a partition, [From, To).
type Stretch struct {
	cdc.TopicPartition
	From, To int64
}

// keyCost is what a held key costs beside its bytes: its slot in the map (string
// header and offset, at the map's average load) and the allocation's rounding.
const keyCost = 96

// LiveKeys calls fn for every key that is alive at the end of the stretch, in
// key order, with the offset of its latest record. It holds keys of about budget
// bytes at a time (one key at least) and reads the stretch again for the rest:
// at most about 2 × (bytes of the live keys ÷ budget) + 1 times.
//
// The stretch must not change under it, which compaction does not do: it never
// removes the latest record of a key while an earlier one stays.
func LiveKeys(ctx context.Context, r KeyReader, s Stretch, budget int64, fn func(key []byte, offset int64) error) error {
	return enumerate(ctx, r, s, s.To, budget, fn)
}

// Ghosts calls fn for every key alive before the offset horizon that has no
// record at or behind it, in key order: after a table was snapshotted again from
// horizon on, the rows that had gone in between. Memory and readings are those
// of LiveKeys.
func Ghosts(ctx context.Context, r KeyReader, s Stretch, horizon, budget int64, fn func(key []byte, offset int64) error) error {
	return enumerate(ctx, r, s, min(horizon, s.To), budget, fn)
}

// enumerate finds the keys alive before horizon and untouched from there on.
//
// It works through the keys in their byte order: a pass holds the live keys in
// [low, high), and when they outgrow the budget it lets go of the greater half
// and lowers high. What it let go of is the next pass's. Key ranges, unlike
// ranges of hashes, can always be split down to one key.
func enumerate(ctx context.Context, r KeyReader, s Stretch, horizon, budget int64, fn func(key []byte, offset int64) error) error {
	if s.From >= horizon {
		return nil
	}
	p := pass{keys: make(map[string]int64)}
	for {
		if err := p.read(ctx, r, s, horizon, budget); err != nil {
			return fmt.Errorf("read keys of %s from %d to %d: %w", s.TopicPartition, s.From, s.To, err)
		}
		for _, key := range slices.Sorted(maps.Keys(p.keys)) {
			if err := fn([]byte(key), p.keys[key]); err != nil {
				return err
			}
		}
		if !p.bounded {
			return nil
		}
		p.next()
	}
}

// pass is one reading of the stretch. Invariant: keys holds exactly the keys in
// [low, high) that are alive after the records applied so far, and size is their
// cost. high may only sink while the pass runs.
type pass struct {
	keys      map[string]int64 // → offset of the latest record
	size      int64
	low, high string
	bounded   bool // high is set
}

// read applies the stretch: what lies before horizon, and then, if a key was
// alive there, the rest. A topic that was empty when its table was copied, but
// for markers, is not read at all.
func (p *pass) read(ctx context.Context, r KeyReader, s Stretch, horizon, budget int64) error {
	err := r.ReadAll(ctx, s.TopicPartition, s.From, horizon, func(key []byte, tombstone bool, offset int64) error {
		p.apply(key, tombstone, offset, budget)
		return nil
	})
	if err != nil || len(p.keys) == 0 || horizon == s.To {
		return err
	}
	return r.ReadAll(ctx, s.TopicPartition, horizon, s.To, func(key []byte, _ bool, offset int64) error {
		p.apply(key, true, offset, budget)
		return nil
	})
}

func (p *pass) apply(key []byte, gone bool, offset, budget int64) {
	if string(key) < p.low || p.bounded && string(key) >= p.high {
		return
	}
	_, held := p.keys[string(key)]
	if gone {
		if held {
			delete(p.keys, string(key))
			p.size -= keyCost + int64(len(key))
		}
		return
	}
	p.keys[string(key)] = offset
	if held {
		return
	}
	p.size += keyCost + int64(len(key))
	if p.size > budget && len(p.keys) > 1 {
		p.shed(budget)
	}
}

// shed lets go of the greatest keys until half the budget is free, so that it
// happens rarely; the least key always stays, so every pass gets on.
func (p *pass) shed(budget int64) {
	sorted := slices.Sorted(maps.Keys(p.keys))
	keep := len(sorted)
	for keep > 1 && p.size > budget/2 {
		keep--
		p.size -= keyCost + int64(len(sorted[keep]))
		delete(p.keys, sorted[keep])
	}
	p.high, p.bounded = sorted[keep], true
}

func (p *pass) next() {
	clear(p.keys)
	*p = pass{keys: p.keys, low: p.high}
}
