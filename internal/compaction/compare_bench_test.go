package compaction

import (
	"encoding/binary"
	"runtime"
	"testing"
)

// BenchmarkCompare compares a table with its topic, an entry an operation: half of
// them rows, half of them records, keys of 16 bytes.
func BenchmarkCompare(b *testing.B) {
	for _, size := range []struct {
		name   string
		memory int64
	}{{"in memory", 4 << 30}, {"spilled", 8 << 20}, {"divided", 512 << 10}} {
		b.Run(size.name, func(b *testing.B) {
			c := newTestComparison(b, CompareOptions{Memory: size.memory, Entries: int64(b.N)})
			w := c.Writer()
			key, id := []byte(`{"id":00000000}!`), make([]byte, 8)
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				binary.BigEndian.PutUint64(key[6:], uint64(i/2))
				var err error
				if i%2 == 0 {
					err = w.Record(key, digest(i), true, false, false, 1, int64(i))
				} else {
					err = w.Row(key, id, digest(i-1))
				}
				if err != nil {
					b.Fatal(err)
				}
			}
			v, err := c.Differences(func(Difference) error { return nil })
			b.StopTimer()
			if err != nil || v.Different+v.Ghosts+v.Missing > 1 {
				b.Fatalf("got %s, error %v", countsOf(v), err)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
			b.ReportMetric(float64(c.spill.files), "files")
		})
	}
}

// An entry costs no allocation, only the memory that fills up does.
func TestCompareEntriesDoNotAllocate(t *testing.T) {
	c := newTestComparison(t, CompareOptions{Memory: 1 << 20, Entries: 1 << 20})
	w := c.Writer()
	key := []byte(`{"id":00000000}!`)
	const n = 100_000
	pass := func() {
		for i := range n {
			binary.BigEndian.PutUint64(key[6:], uint64(i))
			if err := w.Record(key, digest(i), true, false, false, 1, int64(i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	pass()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	pass()
	runtime.ReadMemStats(&after)
	if got := after.Mallocs - before.Mallocs; got > n/100 {
		t.Errorf("got %d allocations for %d entries", got, n)
	}
}
