package compaction

import "fmt"

const (
	// writerBuffer is what a writer collects before it takes the lock: some hundred
	// entries, so that the lock costs an entry nothing.
	writerBuffer = 64 << 10
	// maxComparePart bounds a key and an id, so that a frame with both has a length
	// of 32 bits. Kafka's keys are far below it.
	maxComparePart = 1 << 30
)

// CompareWriter takes entries for a Comparison. It is used by one goroutine, and
// all records of a partition go through one writer. It copies what it is given.
type CompareWriter struct {
	c       *Comparison
	limit   int
	buf     []byte      // entries, one behind the other
	marks   []entryMark // of each of them
	rows    int64
	records int64
}

type entryMark struct {
	hash uint64
	end  int // in buf
}

// Record takes a record of the topic, in the order of offsets within a partition.
// dig, alive and older are what format.Digester says of its value; behind says that
// it stands behind L, where only its key counts. An error is the comparison's end.
func (w *CompareWriter) Record(key []byte, dig [16]byte, alive, older, behind bool, partition int32, offset int64) error {
	e := compareEntry{hash: w.c.hash(key), key: key, dig: dig, partition: partition, offset: offset}
	switch {
	case behind:
		e.flags = entryBehind
	case alive && older:
		e.flags = entryAlive | entryOlder
	case alive:
		e.flags = entryAlive
	}
	w.records++
	return w.add(&e)
}

// Row takes a row of the table: the key of its records, an id by which the caller
// knows it, and format.Digester's digest of it. Rows that share a key, where the
// key is not unique, are one row of the topic, which may hold any of them.
func (w *CompareWriter) Row(key, id []byte, dig [16]byte) error {
	w.rows++
	return w.add(&compareEntry{flags: entryRow, hash: w.c.hash(key), key: key, id: id, dig: dig})
}

func (w *CompareWriter) add(e *compareEntry) error {
	if len(e.key) > maxComparePart || len(e.id) > maxComparePart {
		return fmt.Errorf("compare: a key of %d bytes with an id of %d bytes is too long", len(e.key), len(e.id))
	}
	w.buf = e.append(w.buf)
	w.marks = append(w.marks, entryMark{e.hash, len(w.buf)})
	if len(w.buf) < w.limit {
		return nil
	}
	return w.Flush()
}

// Flush hands over what the writer holds. Differences does it too.
func (w *CompareWriter) Flush() error {
	c := w.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	begin := 0
	for _, m := range w.marks {
		if err := c.top.add(w.buf[begin:m.end], m.hash); err != nil {
			c.err = fmt.Errorf("compare: %w", err)
			return c.err
		}
		begin = m.end
	}
	c.rows += w.rows
	c.records += w.records
	w.marks, w.rows, w.records = w.marks[:0], 0, 0
	if cap(w.buf) > 2*w.limit { // by an entry out of proportion
		w.buf = nil
	}
	w.buf = w.buf[:0]
	return nil
}
