package compaction

import (
	"errors"
	"fmt"

	"cdc/internal/cdc"
)

// maxSplits bounds how often a bucket is divided again. Each time takes two bits or
// more of the hash: what is together after that has one hash.
const maxSplits = 8

// folding is one pass over all buckets.
type folding struct {
	spill *spill
	fold  *compareFold
	v     *cdc.Verification
	fn    func(Difference) error
}

// bucket folds a bucket, judges its keys and drops it. Only the top level may
// still have pages in memory: beside them there is either the fold or the pages of
// one division, each in the other half of Memory.
func (f *folding) bucket(b *buckets, i, splits int) error {
	f.fold.reset()
	err := b.each(i, func(e *compareEntry, _ []byte) error { return f.fold.apply(e) })
	if errors.Is(err, errFoldFull) {
		f.fold.release()
		return f.split(b, i, splits)
	}
	if err != nil {
		return err
	}
	if f.fold.shared {
		if err := b.each(i, func(e *compareEntry, _ []byte) error { f.fold.again(e); return nil }); err != nil {
			return err
		}
	}
	if err := f.fold.judge(f.v, f.fn); err != nil {
		return err
	}
	return b.drop(i)
}

// split divides a bucket by further bits of the hash and folds the parts.
func (f *folding) split(b *buckets, i, splits int) (err error) {
	used := b.used + b.bits
	n := min(splitBits(b.all[i].size, f.spill.half), 64-used)
	if splits == maxSplits || n <= 0 {
		return fmt.Errorf("divide a bucket of %d bytes for the %d. time: %w of %d bytes: give the comparison more",
			b.all[i].size, splits+1, errFoldFull, f.spill.half)
	}
	parts := newBuckets(f.spill, used, n)
	defer func() { err = errors.Join(err, parts.close()) }()
	if err := b.each(i, func(e *compareEntry, raw []byte) error { return parts.add(raw, e.hash) }); err != nil {
		return err
	}
	if err := b.drop(i); err != nil {
		return err
	}
	if err := parts.flush(); err != nil {
		return err
	}
	parts.free, parts.memory = nil, 0
	for p := range parts.all {
		if err := f.bucket(parts, p, splits+1); err != nil {
			return err
		}
	}
	return nil
}
