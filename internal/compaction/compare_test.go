package compaction

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"cdc/internal/cdc"
)

// digest makes a digest of a small number; 0 is the digest of a dead record.
func digest(n int) (d [16]byte) {
	d[0], d[7], d[15] = byte(n), byte(n>>8), byte(n>>16)
	return d
}

// fed is one entry for a comparison.
type fed struct {
	row           bool
	key           string
	dig           int // of a record: 0 is dead
	older, behind bool
	partition     int32
	offset        int64
}

func feed(t testing.TB, w *CompareWriter, entries ...fed) {
	t.Helper()
	for _, e := range entries {
		var err error
		if e.row {
			err = w.Row([]byte(e.key), []byte("id of "+e.key), digest(e.dig))
		} else {
			err = w.Record([]byte(e.key), digest(e.dig), e.dig != 0, e.older, e.behind, e.partition, e.offset)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// result is a verification's counts, and the differences as lines in order.
type result struct {
	v     cdc.Verification
	lines []string
}

func compare(t testing.TB, c *Comparison) (r result) {
	t.Helper()
	v, err := c.Differences(func(d Difference) error {
		id := "no row"
		if d.ID != nil {
			id = string(d.ID)
		}
		r.lines = append(r.lines, fmt.Sprintf("%s %s (%s) %d/%d", d.Kind, d.Key, id, d.Partition, d.Offset))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(r.lines)
	r.v = v
	return r
}

func newTestComparison(t testing.TB, o CompareOptions) *Comparison {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	c, err := NewComparison(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestCompareVerdictOfKey(t *testing.T) {
	row := func(dig int) fed { return fed{row: true, key: "k", dig: dig} }
	at := func(dig int, offset int64) fed { return fed{key: "k", dig: dig, partition: 3, offset: offset} }
	old := func(dig int, offset int64) fed {
		return fed{key: "k", dig: dig, older: true, partition: 3, offset: offset}
	}
	behind := func(dig int, offset int64) fed {
		return fed{key: "k", dig: dig, behind: true, partition: 3, offset: offset}
	}
	tests := []struct {
		name    string
		entries []fed
		want    string // the difference
		counts  cdc.Verification
	}{
		{"equal", []fed{row(1), at(1, 5)}, "", cdc.Verification{Rows: 1, Records: 1}},
		{"the record before the row", []fed{at(1, 5), row(1)}, "", cdc.Verification{Rows: 1, Records: 1}},
		{"the last record decides", []fed{at(2, 4), row(1), at(1, 5)}, "", cdc.Verification{Rows: 1, Records: 2}},
		{"equal and older", []fed{row(1), old(1, 5)}, "", cdc.Verification{Rows: 1, Records: 1, Older: 1}},
		{"only an earlier one was older", []fed{row(1), old(1, 5), at(1, 6)}, "", cdc.Verification{Rows: 1, Records: 2}},
		{"equal, with a record behind", []fed{row(1), at(1, 5), behind(2, 6)}, "", cdc.Verification{Rows: 1, Records: 2}},
		{"no record", []fed{row(1)}, "missing k (id of k) -1/-1", cdc.Verification{Rows: 1, Missing: 1}},
		{"a tombstone", []fed{row(1), at(1, 5), at(0, 6)}, "missing k (id of k) 3/6", cdc.Verification{Rows: 1, Records: 2, Missing: 1}},
		{"no record but one behind", []fed{row(1), behind(2, 6)}, "", cdc.Verification{Rows: 1, Records: 1, Superseded: 1}},
		{"a tombstone, with a record behind", []fed{row(1), at(0, 5), behind(2, 6)}, "", cdc.Verification{Rows: 1, Records: 2, Superseded: 1}},
		{"a record without a row", []fed{at(1, 5)}, "ghost k (no row) 3/5", cdc.Verification{Records: 1, Ghosts: 1}},
		{"a record without a row, one behind", []fed{at(1, 5), behind(0, 6)}, "", cdc.Verification{Records: 2, Superseded: 1}},
		{"only behind", []fed{behind(1, 6), behind(0, 7)}, "", cdc.Verification{Records: 2}},
		{"born and dead", []fed{at(1, 5), at(0, 6)}, "", cdc.Verification{Records: 2}},
		{"dead and behind", []fed{at(0, 5), behind(1, 6)}, "", cdc.Verification{Records: 2}},
		{"alive again", []fed{at(0, 5), at(1, 6), row(1)}, "", cdc.Verification{Rows: 1, Records: 2}},
		{"different", []fed{row(1), at(1, 4), old(2, 5)}, "different k (id of k) 3/5", cdc.Verification{Rows: 1, Records: 2, Different: 1}},
		{"different, with a record behind", []fed{row(1), at(2, 5), behind(1, 6)}, "", cdc.Verification{Rows: 1, Records: 2, Superseded: 1}},
		{"read a second time", []fed{row(1), at(2, 4), at(1, 5), at(2, 4)}, "", cdc.Verification{Rows: 1, Records: 3}},
		{"rows that share the key, one of them in the topic", []fed{row(1), row(2), at(2, 5)}, "", cdc.Verification{Rows: 2, Records: 1}},
		{"rows that share the key, none of them in the topic", []fed{row(1), row(2), at(3, 5)}, "different k (id of k) 3/5",
			cdc.Verification{Rows: 2, Records: 1, Different: 1}},
		{"rows that share the key, no record", []fed{row(1), row(0)}, "missing k (id of k) -1/-1", cdc.Verification{Rows: 2, Missing: 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newTestComparison(t, CompareOptions{})
			feed(t, c.Writer(), tt.entries...)
			got := compare(t, c)
			tt.counts.Verdict = cdc.VerdictEqual
			if tt.want != "" {
				tt.counts.Verdict = cdc.VerdictDifferent
			}
			if line := strings.Join(got.lines, "; "); line != tt.want {
				t.Errorf("got difference %q, want %q", line, tt.want)
			}
			if got, want := countsOf(got.v), countsOf(tt.counts); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

func countsOf(v cdc.Verification) string {
	return fmt.Sprintf("%s: rows %d records %d missing %d ghosts %d different %d superseded %d older %d",
		v.Verdict, v.Rows, v.Records, v.Missing, v.Ghosts, v.Different, v.Superseded, v.Older)
}

func TestCompareRefusesTwoPartitions(t *testing.T) {
	c := newTestComparison(t, CompareOptions{})
	feed(t, c.Writer(), fed{key: "k", dig: 1, partition: 1, offset: 9}, fed{key: "k", dig: 1, behind: true, partition: 2, offset: 4})
	if _, err := c.Differences(func(Difference) error { return nil }); !errors.Is(err, ErrTwoPartitions) {
		t.Errorf("got error %v, want ErrTwoPartitions", err)
	}
}

// Keys of one hash cannot be divided. Few of them fit, many are an error.
func TestCompareOneHash(t *testing.T) {
	for _, tt := range []struct {
		keys int
		ok   bool
	}{{20, true}, {1000, false}} {
		c := newTestComparison(t, CompareOptions{Memory: minCompareMemory, Entries: 1 << 30})
		c.hash = func([]byte) uint64 { return 0xfedcba9876543210 }
		w := c.Writer()
		for i := range tt.keys {
			feed(t, w, fed{row: true, key: fmt.Sprintf("key %d", i), dig: i}, fed{key: fmt.Sprintf("key %d", i), dig: i + 1, offset: int64(i)})
		}
		v, err := c.Differences(func(Difference) error { return nil })
		if (err == nil) != tt.ok || tt.ok && v.Different != int64(tt.keys) {
			t.Errorf("%d keys: got %s, error %v", tt.keys, countsOf(v), err)
		}
		if !tt.ok && (!errors.Is(err, errFoldFull) || !strings.Contains(err.Error(), "more")) {
			t.Errorf("%d keys: got error %v, want one that asks for memory", tt.keys, err)
		}
	}
}

// One key with far more records than memory is one state, and needs no division.
func TestCompareHotKey(t *testing.T) {
	c := newTestComparison(t, CompareOptions{Memory: minCompareMemory})
	w := c.Writer()
	const n = 20_000
	for i := range n {
		feed(t, w, fed{key: "hot", dig: i + 1, offset: int64(i)})
	}
	feed(t, w, fed{row: true, key: "hot", dig: n})
	if got := compare(t, c); got.v.Verdict != cdc.VerdictEqual || got.v.Records != n || c.spill.files != 1 {
		t.Errorf("got %s with %d files, %v", countsOf(got.v), c.spill.files, got.lines)
	}
}

// An entry larger than everything else together.
func TestCompareLargeKeys(t *testing.T) {
	c := newTestComparison(t, CompareOptions{Memory: minCompareMemory})
	w := c.Writer()
	large := strings.Repeat("x", 3*minCompareMemory)
	for i := range 10 {
		key := fmt.Sprintf("%d %s", i, large)
		feed(t, w, fed{row: true, key: key, dig: 7}, fed{key: "small" + key[:1], dig: 8, offset: 1}, fed{key: key, dig: 7 + i%2, offset: int64(i)})
	}
	if got := compare(t, c); got.v.Different != 5 || got.v.Ghosts != 10 {
		t.Errorf("got %s, want 5 different and 10 ghosts", countsOf(got.v))
	}
}

// Writers of several goroutines, as the race detector sees them.
func TestCompareConcurrentWriters(t *testing.T) {
	const partitions, keys, versions = 4, 500, 3
	c := newTestComparison(t, CompareOptions{Memory: 64 << 10, Entries: partitions * keys * (versions + 1)})
	errs := make([]error, partitions+1)
	var done sync.WaitGroup
	for p := range int32(partitions) {
		done.Go(func() {
			w := c.Writer()
			for i := range versions * keys {
				if err := w.Record(fmt.Appendf(nil, "%d of %d", i%keys, p), digest(1+i/keys), true, false, false, p, int64(i)); err != nil {
					errs[p] = err
					return
				}
			}
			errs[p] = w.Flush()
		})
	}
	done.Go(func() {
		w := c.Writer()
		for i := range partitions * keys {
			key := fmt.Appendf(nil, "%d of %d", i/partitions, i%partitions)
			if err := w.Row(key, nil, digest(versions)); err != nil {
				errs[partitions] = err
				return
			}
		}
	})
	done.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	got := compare(t, c)
	if got.v.Verdict != cdc.VerdictEqual || got.v.Rows != partitions*keys || got.v.Records != partitions*keys*versions || c.spill.files == 0 {
		t.Errorf("got %s with %d files, %v", countsOf(got.v), c.spill.files, got.lines)
	}
}

func TestCompareEntry(t *testing.T) {
	entries := []compareEntry{
		{flags: entryRow, hash: 1 << 63, key: []byte("k"), id: []byte{}, dig: digest(1)},
		{flags: entryRow, key: []byte{}, id: []byte("id"), dig: digest(2)},
		{flags: entryAlive | entryOlder, hash: 9, key: bytes.Repeat([]byte("k"), 300), dig: digest(3), partition: 1<<31 - 1, offset: 1<<63 - 1},
		{flags: entryBehind, key: []byte("b"), partition: -1, offset: -1},
		{key: []byte("dead"), partition: 7, offset: 8},
	}
	for _, want := range entries {
		raw := want.append(nil)
		var got compareEntry
		n, err := got.parse(append(slices.Clone(raw), "more"...))
		if err != nil || n != len(raw) || !bytes.Equal(got.key, want.key) || !bytes.Equal(got.id, want.id) || got.hash != want.hash ||
			got.flags != want.flags || got.dig != want.dig || got.partition != want.partition || got.offset != want.offset {
			t.Errorf("got %+v, %d bytes, error %v, want %+v, %d bytes", got, n, err, want, len(raw))
		}
		for cut := range raw {
			if _, err := got.parse(raw[:cut]); err == nil {
				t.Errorf("%+v: its first %d bytes were read as an entry", want, cut)
			}
		}
	}
}
