package compaction

import (
	"errors"
	"math/bits"
)

const (
	// minTopBits leaves a bucket of what is in memory a sixteenth of it, so that its
	// fold, several times as large as its entries, fits beside them.
	minTopBits = 4
	// maxTopBits bounds the files that are open at once to 256, and to 64 more for
	// each level on which a bucket is divided again.
	maxTopBits   = 8
	maxSplitBits = 6
	// foldBytes is what an entry of the estimate takes in a fold: two of them are a
	// key, whose state, with its share of the index and of what is grown in advance,
	// takes about 300 bytes.
	foldBytes = 150

	minPage = 256
	maxPage = 64 << 10
)

// topBits says into how many buckets, as a power of two, so many entries go.
func topBits(entries, memory int64) int {
	n := maxTopBits
	if entries < memory<<maxTopBits/foldBytes {
		n = bits.Len64(uint64(max(entries, 0) * foldBytes / memory))
	}
	return max(minTopBits, min(n, pageBits(memory)))
}

// splitBits is the same for a bucket whose keys do not fit, by the size of its
// entries: how many keys they have is not known.
func splitBits(size, memory int64) int {
	return min(max(2, bits.Len64(uint64(4*size/memory))), maxSplitBits, pageBits(memory))
}

// pageBits leaves each bucket a page and more.
func pageBits(memory int64) int { return bits.Len64(uint64(memory/minPage)) - 1 }

// buckets hold entries by the bits of their hash behind those that the level above
// has used. Their pages take half of the comparison's memory; when that is used up
// all of them go to the files. It is not safe for concurrent use.
type buckets struct {
	spill  *spill
	used   int // bits of the hash
	bits   int
	page   int
	memory int64    // bytes of all pages there are
	free   [][]byte // of pages that are in no bucket
	all    []bucket
}

// bucket is a file, if there is one, and behind it the pages.
type bucket struct {
	file  *spillFile
	pages [][]byte // the front of each is left for a frame's header
	size  int64    // bytes of all entries
}

func newBuckets(s *spill, used, n int) *buckets {
	return &buckets{
		spill: s, used: used, bits: n, all: make([]bucket, 1<<n),
		page: int(min(max(s.half>>n/4, minPage), maxPage)),
	}
}

// add takes one entry. Entries of a bucket stay in their order.
func (b *buckets) add(entry []byte, hash uint64) error {
	k := &b.all[hash<<b.used>>(64-b.bits)]
	last := len(k.pages) - 1
	if last < 0 || cap(k.pages[last])-len(k.pages[last]) < len(entry) {
		p, err := b.newPage(len(entry))
		if err != nil {
			return err
		}
		k.pages = append(k.pages, p) // which newPage may have emptied
		last = len(k.pages) - 1
	}
	k.pages[last] = append(k.pages[last], entry...)
	k.size += int64(len(entry))
	return nil
}

// newPage is a page with room for n bytes, for which all buckets may have to go to
// their files. An entry larger than a page has one of its own.
func (b *buckets) newPage(n int) ([]byte, error) {
	size := max(b.page, frameHeader+n)
	if size == b.page && len(b.free) > 0 {
		p := b.free[len(b.free)-1]
		b.free = b.free[:len(b.free)-1]
		return p, nil
	}
	if b.memory > 0 && b.memory+int64(size) > b.spill.half {
		if err := b.flush(); err != nil {
			return nil, err
		}
		if size == b.page && len(b.free) > 0 {
			return b.newPage(n)
		}
		b.memory -= int64(b.page * len(b.free))
		b.free = nil
	}
	b.memory += int64(size)
	return make([]byte, frameHeader, size), nil
}

// flush moves all pages to the files.
func (b *buckets) flush() error {
	for i := range b.all {
		k := &b.all[i]
		if len(k.pages) == 0 {
			continue
		}
		if err := b.spill.interrupted(); err != nil {
			return err
		}
		if k.file == nil {
			file, err := b.spill.open()
			if err != nil {
				return err
			}
			k.file = file
		}
		for _, p := range k.pages {
			if err := k.file.write(p); err != nil {
				return err
			}
		}
		b.release(k)
	}
	return nil
}

// release takes the pages of a bucket back.
func (b *buckets) release(k *bucket) {
	for i, p := range k.pages {
		if cap(p) == b.page {
			b.free = append(b.free, p[:frameHeader])
		} else {
			b.memory -= int64(cap(p))
		}
		k.pages[i] = nil
	}
	k.pages = k.pages[:0]
}

// each calls fn for the entries of a bucket in their order; raw is e's bytes, both
// are valid until fn returns.
func (b *buckets) each(i int, fn func(e *compareEntry, raw []byte) error) error {
	k := &b.all[i]
	var e compareEntry
	page := func(p []byte) error {
		if err := b.spill.interrupted(); err != nil {
			return err
		}
		for len(p) > 0 {
			n, err := e.parse(p)
			if err != nil {
				return err
			}
			if err := fn(&e, p[:n]); err != nil {
				return err
			}
			p = p[n:]
		}
		return nil
	}
	if k.file != nil {
		if err := k.file.each(page); err != nil {
			return err
		}
	}
	for _, p := range k.pages {
		if err := page(p[frameHeader:]); err != nil {
			return err
		}
	}
	return nil
}

// drop forgets a bucket and gives its disk space back.
func (b *buckets) drop(i int) error {
	k := &b.all[i]
	b.release(k)
	file := k.file
	*k = bucket{}
	if file == nil {
		return nil
	}
	return file.close()
}

// close drops all buckets.
func (b *buckets) close() error {
	var all []error
	for i := range b.all {
		all = append(all, b.drop(i))
	}
	b.free, b.memory = nil, 0
	return errors.Join(all...)
}
