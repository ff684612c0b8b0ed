package compaction

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// record is one record of a test's log. A nil value is a tombstone.
type record struct {
	key    string
	value  []byte
	offset int64
}

// randomLog writes n records over some keys, a third of them tombstones, with
// holes between the offsets as control records leave them.
func randomLog(rng *rand.Rand, n, keys int) []record {
	log := make([]record, 0, n)
	offset := int64(rng.IntN(3))
	for i := range n {
		r := record{key: fmt.Sprintf("k%0*d", 1+rng.IntN(2), rng.IntN(keys)), offset: offset}
		if rng.IntN(3) > 0 {
			r.value = fmt.Append([]byte{}, i)[:rng.IntN(3)] // often empty: that is no tombstone
		}
		log = append(log, r)
		offset += 1 + int64(rng.IntN(2))
	}
	return log
}

// oracle says what a log means in the dumbest way: for each key look at every
// record, and believe the last.
func oracle(log []record) map[string]string {
	state := make(map[string]string)
	for _, r := range log {
		var last record
		for _, other := range log {
			if other.key == r.key {
				last = other
			}
		}
		if last.value != nil {
			state[r.key] = string(last.value)
		}
	}
	return state
}

func foldOf(log []record) *Fold {
	f := NewFold()
	for _, r := range log {
		f.Apply([]byte(r.key), r.value, r.offset)
	}
	return f
}

func stateOf(f *Fold) map[string]string {
	state := make(map[string]string)
	f.All(func(key string, e Entry) bool { state[key] = string(e.Value); return true })
	return state
}

// compacted does what Kafka's cleaner may do: below a point of its choice it
// removes superseded records, and tombstones that are old enough.
func compacted(rng *rand.Rand, log []record) []record {
	if len(log) == 0 {
		return nil
	}
	clean, tombstones := rng.IntN(len(log)+1), rng.IntN(len(log)+1)
	latest := make(map[string]int64)
	for _, r := range log[:clean] {
		latest[r.key] = r.offset
	}
	var kept []record
	for i, r := range log {
		if i < clean && (latest[r.key] > r.offset || r.value == nil && i < tombstones) {
			continue
		}
		kept = append(kept, r)
	}
	return kept
}

const lawRounds = 500

// fold = the last record of each key. Case 86: the tombstone of an old key and
// the upsert of the new one are two keys of one log, in that order.
func TestCase086FoldIsTheLatestRecord(t *testing.T) {
	eachLog(t, func(t *testing.T, _ *rand.Rand, log []record) {
		f := foldOf(log)
		wantState(t, log, stateOf(f), oracle(log))
		if f.Len() != len(oracle(log)) {
			t.Errorf("Len %d, want %d", f.Len(), len(oracle(log)))
		}
	})
	f := foldOf([]record{{"old", []byte("row"), 0}, {"old", nil, 1}, {"new", []byte("row"), 2}})
	wantState(t, nil, stateOf(f), map[string]string{"new": "row"})
	f = foldOf([]record{{"a", []byte("1"), 0}, {"a", nil, 1}, {"a", []byte("2"), 2}})
	wantState(t, nil, stateOf(f), map[string]string{"a": "2"})
}

func TestLawCompactionChangesNothing(t *testing.T) {
	eachLog(t, func(t *testing.T, rng *rand.Rand, log []record) {
		wantState(t, log, stateOf(foldOf(compacted(rng, log))), oracle(log))
		wantState(t, log, stateOf(foldOf(compacted(rng, compacted(rng, log)))), oracle(log))
	})
}

func TestLawReplayedSuffixChangesNothing(t *testing.T) {
	eachLog(t, func(t *testing.T, rng *rand.Rand, log []record) {
		if len(log) == 0 {
			return
		}
		twice := slices.Clone(log)
		next := log[len(log)-1].offset + 1
		for _, r := range log[rng.IntN(len(log)):] {
			r.offset = next
			next++
			twice = append(twice, r)
		}
		wantState(t, log, stateOf(foldOf(twice)), oracle(log))
	})
}

// A reader that starts over in the middle applies what it had: nothing changes.
func TestLawReadingAgainChangesNothing(t *testing.T) {
	eachLog(t, func(t *testing.T, rng *rand.Rand, log []record) {
		f := NewFold()
		for i := 0; i < len(log); i++ {
			next := f.Next()
			if applied := f.Apply([]byte(log[i].key), log[i].value, log[i].offset); applied != (log[i].offset >= next) {
				t.Fatalf("offset %d applied %t, next was %d", log[i].offset, applied, next)
			}
			if rng.IntN(20) == 0 {
				i = rng.IntN(i + 1)
			}
		}
		wantState(t, log, stateOf(f), oracle(log))
	})
}

// Records of different keys may change places.
func TestLawOrderOfKeysIsIrrelevant(t *testing.T) {
	eachLog(t, func(t *testing.T, rng *rand.Rand, log []record) {
		shuffled := slices.Clone(log)
		for range len(log) * 4 {
			if i := rng.IntN(max(len(log)-1, 1)); i+1 < len(log) && shuffled[i].key != shuffled[i+1].key {
				shuffled[i], shuffled[i+1] = shuffled[i+1], shuffled[i]
			}
		}
		for i := range shuffled {
			shuffled[i].offset = int64(i)
		}
		wantState(t, log, stateOf(foldOf(shuffled)), oracle(log))
	})
}

func TestFoldKeepsItsOwnBytes(t *testing.T) {
	f := NewFold()
	key, value := []byte("k"), []byte("v")
	f.Apply(key, value, 5)
	key[0], value[0] = 'x', 'x'
	if e, ok := f.Get([]byte("k")); !ok || string(e.Value) != "v" || e.Offset != 5 {
		t.Errorf("got %q at %d, %t", e.Value, e.Offset, ok)
	}
	if f.Apply([]byte("k"), []byte{}, 6); stateOf(f)["k"] != "" || f.Len() != 1 {
		t.Errorf("an empty value is a value, got %v", stateOf(f))
	}
}

func eachLog(t *testing.T, fn func(*testing.T, *rand.Rand, []record)) {
	t.Helper()
	for seed := range uint64(lawRounds) {
		rng := rand.New(rand.NewPCG(seed, 86))
		log := randomLog(rng, rng.IntN(60), 1+rng.IntN(12))
		fn(t, rng, log)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func wantState(t *testing.T, log []record, got, want map[string]string) {
	t.Helper()
	if !maps.Equal(got, want) {
		t.Errorf("log %v:\n got %v\nwant %v", log, got, want)
	}
}
