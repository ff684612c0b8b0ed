package compaction

import (
	"errors"
	"fmt"
	"hash/maphash"
	"os"
	"sync"

	"cdc/internal/cdc"
)

// Limits of a comparison's memory.
const (
	// DefaultCompareMemory holds some hundred thousand keys without a file.
	DefaultCompareMemory = 64 << 20
	// minCompareMemory is the least that can be divided among buckets whose pages
	// hold an entry or more; less than that is taken as this.
	minCompareMemory = 16 << 10
)

// CompareOptions bound a Comparison.
type CompareOptions struct {
	Memory  int64        // bytes, without the writers' 64 KiB each; 0: DefaultCompareMemory
	Dir     string       // for what does not fit into Memory; "": the system's directory for temporary files
	Entries int64        // upper estimate of rows and records; decides the number of buckets
	Err     func() error // may be nil; asked now and then, an error of it ends the comparison: a context's Err
}

// What is the matter with a comparison that cannot be made. None of it is a
// difference.
var (
	// ErrTwoPartitions: which of two records of a key is the newer one cannot be
	// said across partitions.
	ErrTwoPartitions = errors.New("a key has records in two partitions: the number of partitions was changed, or something else writes to the topic; write the topic again")
	errCompareOver   = errors.New("the comparison is over: make a new one")
)

// Comparison compares a table as of an LSN L with the fold of its topic up to L,
// either of which may be far larger than memory. The last record of a key at or
// before L decides what the topic says about it: a row with a digest, or that
// there is none.
//
//	table     topic at L   no record behind L   a record behind L
//	row       equal        equal                equal
//	row       different    different            superseded
//	row       none, dead   missing              superseded
//	no row    alive        ghost                superseded
//	no row    none, dead   equal                equal
//
// Why a record behind L forbids a verdict: the cleaner keeps the newest record of
// a key in what it cleans, whichever that is. While no record of the key stands
// behind L, the newest one is the one that decides at L, and it stays until it is
// read. Once there is one behind L, the one that decides may be removed before we
// come to it, and what we then hold is nothing, or an older record that we read
// before the same cleaning removed it. Both look like a difference and say nothing
// about L; nor does L matter for that key any more, its next row is in the topic.
//
// Three things are the reader's part. It must read on behind L, up to the end that
// the partition has when it gets there: a record that made the cleaner remove
// another lies in front of that end. It must read this last stretch within
// min.compaction.lag.ms, inside which nothing newer removes anything from it. And
// it must read the whole within delete.retention.ms: a tombstone that goes before
// it is read leaves a ghost of the row that was read before.
//
// Entries go to buckets by a hash of their key. While all of them fit into Memory
// no file is made; beyond it the buckets go on in files in Dir, which have no name
// any more. In the end one bucket after the other is folded, by key, and one whose
// keys do not fit into half of Memory is divided again.
type Comparison struct {
	spill spill
	hash  func(key []byte) uint64

	mu      sync.Mutex
	top     *buckets // the fields below are guarded by mu
	writers []*CompareWriter
	rows    int64
	records int64
	err     error // sticks: after a fault no result is right
}

// NewComparison makes an empty comparison.
func NewComparison(o CompareOptions) (*Comparison, error) {
	if o.Dir == "" {
		o.Dir = os.TempDir()
	}
	if o.Memory <= 0 {
		o.Memory = DefaultCompareMemory
	}
	o.Memory = max(o.Memory, minCompareMemory)
	if o.Err == nil {
		o.Err = func() error { return nil }
	}
	// Hours later, when memory is full, is no time to learn that there is no place.
	if info, err := os.Stat(o.Dir); err != nil {
		return nil, fmt.Errorf("compare: directory for temporary files: %w", err)
	} else if !info.IsDir() {
		return nil, fmt.Errorf("compare: directory for temporary files: %s is no directory", o.Dir)
	}
	seed := maphash.MakeSeed()
	c := &Comparison{
		spill: spill{dir: o.Dir, half: o.Memory / 2, interrupted: o.Err, create: createSpillFile},
		hash:  func(key []byte) uint64 { return maphash.Bytes(seed, key) },
	}
	c.top = newBuckets(&c.spill, 0, topBits(o.Entries, c.spill.half))
	return c, nil
}

// Kinds of difference.
const (
	DifferenceMissing   = "missing"   // a row without a record
	DifferenceGhost     = "ghost"     // a record without a row
	DifferenceDifferent = "different" // both, with other values
)

// Difference is one key that differs. Key and ID are valid until fn returns.
type Difference struct {
	Kind      string
	Key       []byte // of the records
	ID        []byte // of the row, as it was given; nil of a ghost
	Partition int32  // of the record that decides, which of a missing row is a tombstone; -1: there is none
	Offset    int64
}

// Writer makes a writer, to be used by one goroutine.
func (c *Comparison) Writer() *CompareWriter {
	w := &CompareWriter{c: c, limit: int(min(writerBuffer, c.spill.half/8))}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writers = append(c.writers, w)
	return w
}

// Differences flushes the writers, whose goroutines must be done, and calls fn for
// each difference, in no particular order; an error of fn ends it, and fn must not
// use the comparison. The verification has a verdict and its counts. It may be
// called once.
func (c *Comparison) Differences(fn func(Difference) error) (cdc.Verification, error) {
	c.mu.Lock()
	writers := c.writers
	c.mu.Unlock()
	for _, w := range writers {
		if err := w.Flush(); err != nil {
			return cdc.Verification{}, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return cdc.Verification{}, c.err
	}
	c.err = errCompareOver
	v := cdc.Verification{Verdict: cdc.VerdictEqual, Rows: c.rows, Records: c.records}
	f := &folding{spill: &c.spill, fold: newCompareFold(c.spill.half), v: &v, fn: fn}
	for i := range c.top.all {
		if err := f.bucket(c.top, i, 0); err != nil {
			return cdc.Verification{}, fmt.Errorf("compare: %w", err)
		}
	}
	if v.Differences() > 0 {
		v.Verdict = cdc.VerdictDifferent
	}
	return v, nil
}

// Close gives the memory and the files back. It may be called more than once, and
// not while a writer is in use.
func (c *Comparison) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writers = nil
	if c.err == nil {
		c.err = errCompareOver
	}
	return c.top.close()
}
