package sink

import "time"

// set is what is closed, sent and acknowledged together: at most one batch of
// each partition.
type set struct {
	id      uint64
	batches []*batch
	bytes   int64 // of the batches, before compression
	mark    Mark  // the newest that lies in it or before it
	marked  bool
	born    time.Time // first Append; only kept with a linger
	sent    time.Time // first sending
	left    int       // batches not acknowledged, once sent
}

// pool keeps the memory of acknowledged sets for the next ones. It is guarded by
// Writer.mu.
type pool struct {
	batches []*batch
	sets    []*set
	bytes   int // capacity of batches
	limit   int // of bytes: what is in flight at most, twice
}

// maxSpareSets bounds the sets that are kept; they are small.
const maxSpareSets = 2 * maxInFlight

func (p *pool) batch() *batch {
	n := len(p.batches)
	if n == 0 {
		return &batch{}
	}
	b := p.batches[n-1]
	p.batches[n-1] = nil
	p.batches = p.batches[:n-1]
	p.bytes -= cap(b.buf) + cap(b.packed)
	return b
}

func (p *pool) set() *set {
	n := len(p.sets)
	if n == 0 {
		return &set{}
	}
	s := p.sets[n-1]
	p.sets = p.sets[:n-1]
	return s
}

// put takes the memory of a set that nobody needs any more.
func (p *pool) put(s *set) {
	for i, b := range s.batches {
		s.batches[i] = nil
		if size := cap(b.buf) + cap(b.packed); p.bytes+size <= p.limit {
			p.bytes += size
			b.target, b.wire = nil, nil
			p.batches = append(p.batches, b)
		}
	}
	if len(p.sets) < maxSpareSets {
		*s = set{batches: s.batches[:0]}
		p.sets = append(p.sets, s)
	}
}
