package compaction

import (
	"errors"

	"cdc/internal/cdc"
)

// CompareOptions bound a Comparison.
type CompareOptions struct {
	Memory  int64        // bytes; 0: DefaultCompareMemory
	Dir     string       // for what does not fit into Memory; "": the system's directory for temporary files
	Entries int64        // upper estimate of rows and records; decides the number of buckets
	Err     func() error // may be nil; asked now and then, an error ends the comparison: a context's Err
}

// DefaultCompareMemory is enough for some hundred thousand keys without a file.
const DefaultCompareMemory = 64 << 20

// Comparison compares a table with its topic.
type Comparison struct{}

// Kinds of difference.
const (
	DifferenceMissing   = "missing"
	DifferenceGhost     = "ghost"
	DifferenceDifferent = "different"
)

// Difference is one key that differs. Key and ID are valid until fn returns.
type Difference struct {
	Kind      string // missing, ghost, different
	Key       []byte // of the records
	ID        []byte // of the row; nil for a ghost
	Partition int32  // of the record that decides, -1 where there is none
	Offset    int64
}

var errUnfinished = errors.New("compaction: comparison is being built")

// NewComparison makes an empty comparison.
func NewComparison(o CompareOptions) (*Comparison, error) { return nil, errUnfinished }

// Writer makes a writer for one goroutine.
func (c *Comparison) Writer() *CompareWriter { return &CompareWriter{} }

// Differences flushes the writers, whose goroutines must be done, and calls fn
// for each difference, in no particular order.
func (c *Comparison) Differences(fn func(Difference) error) (cdc.Verification, error) {
	return cdc.Verification{}, errUnfinished
}

// Close removes what the comparison has on disk.
func (c *Comparison) Close() error { return nil }

// CompareWriter takes entries from one goroutine.
type CompareWriter struct{}

// Record takes a record of the topic.
func (w *CompareWriter) Record(key []byte, dig [16]byte, alive, older, behind bool, partition int32, offset int64) error {
	return errUnfinished
}

// Row takes a row of the table.
func (w *CompareWriter) Row(key, id []byte, dig [16]byte) error { return errUnfinished }

// Flush hands over what the writer holds.
func (w *CompareWriter) Flush() error { return errUnfinished }
