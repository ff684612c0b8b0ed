package compaction

// Fold is the state that a stretch of one partition stands for: the latest
// record of each key, a tombstone removing it. It is what compaction preserves:
//
//	fold(compact(log)) = fold(log)
//	fold(log ++ replay(suffix of log)) = fold(log)
//
// It is not safe for concurrent use. The zero value is not usable: NewFold.
type Fold struct {
	entries map[string]Entry
	// next is one past the highest offset applied. Offsets below it are
	// records that were read before: a reader that starts over changes nothing.
	next int64
}

// Entry is the latest record of a key.
type Entry struct {
	Value  []byte // never nil
	Offset int64
}

// NewFold makes an empty fold.
func NewFold() *Fold { return &Fold{entries: make(map[string]Entry)} }

// Apply takes the next record of the partition; a nil value is a tombstone. It
// copies what it keeps. It says false for an offset that was applied before.
func (f *Fold) Apply(key, value []byte, offset int64) bool {
	if offset < f.next {
		return false
	}
	f.next = offset + 1
	if value == nil {
		delete(f.entries, string(key))
		return true
	}
	f.entries[string(key)] = Entry{Value: append([]byte{}, value...), Offset: offset}
	return true
}

// Get returns the latest record of a key, if it is alive.
func (f *Fold) Get(key []byte) (Entry, bool) {
	e, ok := f.entries[string(key)]
	return e, ok
}

// Len is the number of keys alive.
func (f *Fold) Len() int { return len(f.entries) }

// Next is one past the highest offset applied.
func (f *Fold) Next() int64 { return f.next }

// All calls fn for every key alive, in no particular order, until it says false.
func (f *Fold) All(fn func(key string, e Entry) bool) {
	for k, e := range f.entries {
		if !fn(k, e) {
			return
		}
	}
}
