package compaction

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"cdc/internal/cdc"
)

var tp = cdc.TopicPartition{Topic: "rows", Partition: 3}

// logReader reads a log in memory; it hands out one buffer for all keys, as a
// fetch does, and counts the readings.
type logReader struct {
	log      []record
	readings int
	fail     error
}

func (r *logReader) ReadAll(ctx context.Context, got cdc.TopicPartition, from, to int64, fn func([]byte, bool, int64) error) error {
	if got != tp {
		return fmt.Errorf("asked for %s", got)
	}
	r.readings++
	var buf []byte
	for _, rec := range r.log {
		if rec.offset < from || rec.offset >= to {
			continue
		}
		buf = append(buf[:0], rec.key...)
		if err := fn(buf, rec.value == nil, rec.offset); err != nil {
			return err
		}
	}
	return r.fail
}

func TestLiveKeys(t *testing.T) {
	testEnumeration(t, false)
}

func TestGhosts(t *testing.T) {
	testEnumeration(t, true)
}

// testEnumeration compares random logs and budgets from nothing to plenty with a map.
func testEnumeration(t *testing.T, ghosts bool) {
	eachLog(t, func(t *testing.T, rng *rand.Rand, log []record) {
		end := int64(1)
		if len(log) > 0 {
			end = log[len(log)-1].offset + 1
		}
		s := Stretch{TopicPartition: tp, From: rng.Int64N(end), To: rng.Int64N(end + 2)}
		horizon := s.To
		if ghosts {
			horizon = rng.Int64N(end + 2)
		}
		budget := rng.Int64N(8 * (keyCost + 3))
		want := make(map[string]int64)
		for _, r := range log {
			switch {
			case r.offset < s.From || r.offset >= s.To:
			case r.value == nil || r.offset >= horizon:
				delete(want, r.key)
			default:
				want[r.key] = r.offset
			}
		}
		reader := &logReader{log: log}
		got := make(map[string]int64)
		var order []string
		take := func(key []byte, offset int64) error {
			got[string(key)] = offset
			order = append(order, string(key))
			return nil
		}
		var err error
		if ghosts {
			err = Ghosts(t.Context(), reader, s, horizon, budget, take)
		} else {
			err = LiveKeys(t.Context(), reader, s, budget, take)
		}
		if err != nil || !maps.Equal(got, want) || len(order) != len(want) || !slices.IsSorted(order) {
			t.Errorf("log %v from %d to %d, horizon %d, budget %d:\n got %v (%v, order %v)\nwant %v", log, s.From, s.To, horizon, budget, got, err, order, want)
		}
	})
}

// Memory stays under the budget and the readings are as many as promised.
func TestLiveKeysAreBounded(t *testing.T) {
	const keys, keyLen = 20_000, 40
	var log []record
	for i := range keys {
		log = append(log, record{key: fmt.Sprintf("%0*d", keyLen, rand.IntN(1<<30)), value: []byte{}, offset: int64(i)})
	}
	total := int64(keys * (keyLen + keyCost))
	for _, share := range []int64{1, 2, 5, 20} {
		budget := total / share
		reader := &logReader{log: log}
		found := 0
		p := pass{keys: map[string]int64{}}
		for _, r := range log {
			p.apply([]byte(r.key), false, r.offset, budget)
			if p.size > budget {
				t.Fatalf("holds %d bytes, budget %d", p.size, budget)
			}
		}
		err := LiveKeys(t.Context(), reader, Stretch{tp, 0, keys}, budget, func([]byte, int64) error { found++; return nil })
		if err != nil || found < keys-10 { // two keys may be equal by chance
			t.Errorf("budget 1/%d: %d keys, %v", share, found, err)
		}
		if most := 2*int(share) + 1; reader.readings > most {
			t.Errorf("budget 1/%d of the keys: read %d times, want at most %d", share, reader.readings, most)
		}
	}
}

// Keys that share long beginnings, or are empty, or one within the other: none is lost.
func TestLiveKeysAlike(t *testing.T) {
	var log []record
	want := map[string]bool{}
	for i := range 200 {
		key := strings.Repeat("a", i)
		log = append(log, record{key: key, value: []byte("v"), offset: int64(i)})
		want[key] = true
	}
	err := LiveKeys(t.Context(), &logReader{log: log}, Stretch{tp, 0, 200}, 1, func(key []byte, _ int64) error {
		if !want[string(key)] {
			t.Errorf("key of %d bytes twice or unknown", len(key))
		}
		delete(want, string(key))
		return nil
	})
	if err != nil || len(want) > 0 {
		t.Errorf("%d keys lost, %v", len(want), err)
	}
}

func TestLiveKeysErrors(t *testing.T) {
	stop := errors.New("stop")
	log := []record{{"a", []byte("v"), 0}, {"b", []byte("v"), 1}}
	reader := &logReader{log: log, fail: stop}
	err := LiveKeys(t.Context(), reader, Stretch{tp, 0, 2}, 1<<20, func([]byte, int64) error {
		t.Error("a reading that failed gave a key")
		return nil
	})
	if !errors.Is(err, stop) || !strings.Contains(err.Error(), "rows/3 from 0 to 2") {
		t.Errorf("reading: got %v", err)
	}
	err = LiveKeys(t.Context(), &logReader{log: log}, Stretch{tp, 0, 2}, 1<<20, func([]byte, int64) error { return stop })
	if !errors.Is(err, stop) {
		t.Errorf("fn: got %v", err)
	}
	reader = &logReader{log: log}
	if err := LiveKeys(t.Context(), reader, Stretch{tp, 2, 2}, 0, nil); err != nil || reader.readings != 0 {
		t.Errorf("empty stretch: %v, read %d times", err, reader.readings)
	}
}

func BenchmarkLiveKeys(b *testing.B) {
	const keys = 1_000_000
	log := make([]record, keys)
	for i := range log {
		log[i] = record{key: fmt.Sprintf(`{"id":%d}`, rand.IntN(1<<30)), value: []byte{}, offset: int64(i)}
	}
	for _, budget := range []int64{32 << 20, 256 << 20} {
		b.Run(fmt.Sprintf("budget=%dMiB", budget>>20), func(b *testing.B) {
			for b.Loop() {
				reader := &logReader{log: log}
				if err := LiveKeys(b.Context(), reader, Stretch{tp, 0, keys}, budget, func([]byte, int64) error { return nil }); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(reader.readings), "readings")
			}
		})
	}
}
