package compaction

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"cdc/internal/cdc"
)

// written is a record of the model's log.
type written struct {
	key    string
	dig    int // 0: a tombstone
	older  bool
	offset int64
}

// world is a topic that is written, read and cleaned at once, and everything that
// a comparison was given.
type world struct {
	r     *rand.Rand
	keys  int
	logs  [][]written // by partition, cleaned
	ends  []int64
	limit []int64            // of L, by partition
	late  map[string]bool    // keys written behind L
	fed   map[string][]fed   // by key, in order
	table map[string][]int   // digests of the rows
	at    map[string]written // fold up to L of everything ever written
	c     *Comparison
	by    []*CompareWriter // of the partitions
	rows  *CompareWriter
}

func newWorld(t *testing.T, seed uint64, keys int, o CompareOptions) *world {
	w := &world{
		r: rand.New(rand.NewPCG(seed, 1)), keys: keys, late: map[string]bool{}, fed: map[string][]fed{},
		table: map[string][]int{}, at: map[string]written{}, c: newTestComparison(t, o),
	}
	partitions := 1 + w.r.IntN(4)
	w.logs, w.ends = make([][]written, partitions), make([]int64, partitions)
	for range partitions {
		w.by = append(w.by, w.c.Writer())
	}
	w.rows = w.c.Writer()
	return w
}

// partitionOf is the partition a key lives in.
func (w *world) partitionOf(key int) int { return key % len(w.logs) }

func (w *world) write() {
	key := w.r.IntN(w.keys)
	p := w.partitionOf(key)
	rec := written{key: fmt.Sprintf("key-%d", key), offset: w.ends[p], older: w.r.IntN(5) == 0}
	if w.r.IntN(4) > 0 {
		rec.dig = 1 + w.r.IntN(1000)
	}
	w.ends[p]++
	w.logs[p] = append(w.logs[p], rec)
	if w.limit == nil {
		w.at[rec.key] = rec
	} else {
		w.late[rec.key] = true
	}
}

// clean removes every record before bound that has a newer one before bound.
func (w *world) clean(p int, bound int64) {
	newest := map[string]int64{}
	for _, rec := range w.logs[p] {
		if rec.offset < bound {
			newest[rec.key] = rec.offset
		}
	}
	w.logs[p] = slices.DeleteFunc(w.logs[p], func(rec written) bool { return rec.offset < bound && rec.offset != newest[rec.key] })
}

// read gives the comparison the records of a partition from an offset to another,
// while the topic is written and cleaned; what is written at or behind safe is too
// young to be cleaned with.
func (w *world) read(t *testing.T, p int, from, to int64, safe func(p int) int64) {
	for {
		for range w.r.IntN(3) {
			w.write()
		}
		if w.r.IntN(4) == 0 {
			any := w.r.IntN(len(w.logs))
			w.clean(any, w.r.Int64N(safe(any)+1))
		}
		i, _ := slices.BinarySearchFunc(w.logs[p], from, func(rec written, offset int64) int { return int(rec.offset - offset) })
		if i == len(w.logs[p]) || w.logs[p][i].offset >= to {
			return
		}
		rec := w.logs[p][i]
		w.feed(t, w.by[p], fed{key: rec.key, dig: rec.dig, older: rec.older && rec.dig != 0, behind: rec.offset >= w.limit[p], partition: int32(p), offset: rec.offset})
		from = rec.offset + 1
		if w.r.IntN(50) == 0 { // a reader that starts over a little earlier
			from = max(0, from-int64(w.r.IntN(5)))
		}
	}
}

func (w *world) feed(t *testing.T, to *CompareWriter, e fed) {
	feed(t, to, e)
	w.fed[e.key] = append(w.fed[e.key], e)
}

// run writes, takes L and the table, spoils some of it and reads everything. It
// returns the keys whose row was spoilt.
func (w *world) run(t *testing.T, faults int) map[string]bool {
	for range w.keys * (1 + w.r.IntN(3)) {
		w.write()
	}
	w.limit = slices.Clone(w.ends)
	for _, key := range slices.Sorted(maps.Keys(w.at)) {
		if rec := w.at[key]; rec.dig != 0 {
			w.table[key] = []int{rec.dig}
		}
	}
	spoilt := map[string]bool{}
	for range faults {
		key := fmt.Sprintf("key-%d", w.r.IntN(w.keys))
		if spoilt[key] {
			continue
		}
		spoilt[key] = true
		switch rows := w.table[key]; {
		case len(rows) == 0:
			w.table[key] = []int{2000}
		case w.r.IntN(2) == 0:
			w.table[key] = []int{2001}
		default:
			delete(w.table, key)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(w.table)) {
		for _, dig := range w.table[key] {
			w.feed(t, w.rows, fed{row: true, key: key, dig: dig})
		}
	}
	all := func(p int) int64 { return w.ends[p] }
	for p := range w.logs {
		w.read(t, p, 0, w.limit[p], all)
		end := w.ends[p] // measured only when L was passed
		w.read(t, p, w.limit[p], end, func(q int) int64 {
			if q == p {
				return end
			}
			return w.ends[q]
		})
	}
	return spoilt
}

// oracle is what the entries say, with maps of everything.
func (w *world) oracle() (want result) {
	want.v.Verdict = cdc.VerdictEqual
	for key, entries := range w.fed {
		var last *fed
		rows, behind := []int(nil), false
		for i := range entries {
			switch e := &entries[i]; {
			case e.row:
				rows = append(rows, e.dig)
				want.v.Rows++
				continue
			case e.behind:
				behind = true
			case last == nil || e.offset > last.offset:
				last = e
			}
			want.v.Records++
		}
		alive := last != nil && last.dig != 0
		kind, count, place := "", (*int64)(nil), "-1/-1"
		if last != nil {
			place = fmt.Sprintf("%d/%d", last.partition, last.offset)
		}
		id := "id of " + key
		switch {
		case rows == nil && !alive:
			continue
		case rows == nil:
			kind, count, id = "ghost", &want.v.Ghosts, "no row"
		case !alive:
			kind, count = "missing", &want.v.Missing
		case !slices.Contains(rows, last.dig):
			kind, count = "different", &want.v.Different
		case last.older:
			want.v.Older++
			continue
		default:
			continue
		}
		if behind {
			want.v.Superseded++
			continue
		}
		*count++
		want.v.Verdict = cdc.VerdictDifferent
		want.lines = append(want.lines, fmt.Sprintf("%s %s (%s) %s", kind, key, id, place))
	}
	slices.Sort(want.lines)
	return want
}

// A comparison says of what it was given what maps of everything say; and what it
// reports is exactly what was spoilt, among the keys that nothing was written to
// behind L, however the topic was cleaned while it was read.
func TestCompareProperty(t *testing.T) {
	sizes := []struct {
		name    string
		memory  int64
		keys    int
		entries int64
		files   func(n int) bool
	}{
		{"in memory", DefaultCompareMemory, 300, 1000, func(n int) bool { return n == 0 }},
		{"tiny, as estimated", minCompareMemory, 600, 1 << 20, func(n int) bool { return n >= 32 }},
		{"tiny, far more than estimated", minCompareMemory, 800, 0, func(n int) bool { return n > 16 }},
		{"spilled, without a division", 64 << 10, 900, 10000, func(n int) bool { return n >= 32 }},
	}
	for _, size := range sizes {
		t.Run(size.name, func(t *testing.T) {
			t.Parallel()
			superseded, reported := int64(0), 0
			for round := range 3 {
				seed := uint64(round)
				w := newWorld(t, seed, size.keys, CompareOptions{Memory: size.memory, Entries: size.entries})
				spoilt := w.run(t, 1+size.keys/10)
				want := w.oracle()
				got := compare(t, w.c)
				if countsOf(got.v) != countsOf(want.v) || !slices.Equal(got.lines, want.lines) {
					t.Fatalf("seed %d: got  %s\nwant %s\ngot  %q\nwant %q", seed, countsOf(got.v), countsOf(want.v), got.lines, want.lines)
				}
				if !size.files(w.c.spill.files) {
					t.Fatalf("seed %d: got %d files", seed, w.c.spill.files)
				}
				w.checkTruth(t, seed, spoilt, got)
				superseded, reported = superseded+got.v.Superseded, reported+len(got.lines)
			}
			if superseded == 0 || reported == 0 {
				t.Errorf("got %d superseded and %d reported keys, the model shows nothing", superseded, reported)
			}
		})
	}
}

func (w *world) checkTruth(t *testing.T, seed uint64, spoilt map[string]bool, got result) {
	t.Helper()
	reported := map[string]bool{}
	for _, line := range got.lines {
		key := strings.Fields(line)[1]
		reported[key] = true
		if !spoilt[key] {
			t.Errorf("seed %d: false alarm: %s", seed, line)
		}
	}
	for key := range spoilt {
		if !w.late[key] && !reported[key] {
			t.Errorf("seed %d: %s was spoilt and is not reported", seed, key)
		}
	}
}
