package compaction

import (
	"bytes"
	"errors"
	"fmt"
	"unsafe"

	"cdc/internal/cdc"
)

// keyState is what a bucket says of one key.
type keyState struct {
	hash      uint64
	key, id   int // where they begin in the arena
	keyLen    int32
	idLen     int32
	record    [16]byte // digest of the record that decides
	row       [16]byte // digest of the first row
	offset    int64    // of the record that decides
	partition int32    // of all records
	flags     uint16
}

// The flags of a keyState.
const (
	keyRow       uint16 = 1 << iota
	keyRecord           // partition is known
	keySeen             // a record at or before L, offset is known
	keyAlive            // and it is a row
	keyOlder            //
	keyBehind           // a record behind L
	keyAnyRow           // one of several rows is equal to the record
	keyOtherRows        // there are several rows, with several digests
)

const keyStateSize = int64(unsafe.Sizeof(keyState{}))

// errFoldFull says that the keys of a bucket do not fit into memory.
var errFoldFull = errors.New("the keys do not fit into memory")

// compareFold is the table of the keys of one bucket. Its memory is used again for
// the next bucket, so that a bucket costs no allocation.
type compareFold struct {
	budget int64
	states []keyState
	index  []uint32 // open addressing: 1 + place in states, 0 is free; a power of two
	arena  []byte   // keys and ids
	shared bool     // a state has keyOtherRows
}

func newCompareFold(budget int64) *compareFold { return &compareFold{budget: budget} }

func (f *compareFold) memory() int64 {
	return int64(cap(f.states))*keyStateSize + int64(cap(f.index))*4 + int64(cap(f.arena))
}

// reset empties the fold. It keeps its memory, unless another mix of keys would
// have too little left.
func (f *compareFold) reset() {
	if f.memory() > f.budget/2 {
		f.release()
		return
	}
	f.states, f.arena, f.shared = f.states[:0], f.arena[:0], false
	clear(f.index)
}

func (f *compareFold) release() { *f = compareFold{budget: f.budget} }

// apply takes the next entry.
func (f *compareFold) apply(e *compareEntry) error {
	s, err := f.state(e)
	if err != nil {
		return err
	}
	if e.flags&entryRow != 0 {
		return f.row(s, e)
	}
	if s.flags&keyRecord != 0 && s.partition != e.partition {
		return fmt.Errorf("partitions %d and %d, there offset %d: %w", s.partition, e.partition, e.offset, ErrTwoPartitions)
	}
	s.partition = e.partition
	s.flags |= keyRecord
	switch {
	case e.flags&entryBehind != 0:
		s.flags |= keyBehind
	case s.flags&keySeen == 0 || e.offset > s.offset: // a reader that started over changes nothing
		s.flags = s.flags&^(keyAlive|keyOlder) | keySeen
		if e.flags&entryAlive != 0 {
			s.flags |= keyAlive
		}
		if e.flags&entryOlder != 0 {
			s.flags |= keyOlder
		}
		s.record, s.offset = e.dig, e.offset
	}
	return nil
}

func (f *compareFold) row(s *keyState, e *compareEntry) error {
	if s.flags&keyRow != 0 {
		if s.row != e.dig {
			s.flags |= keyOtherRows
			f.shared = true
		}
		return nil
	}
	if err := f.growArena(len(e.id)); err != nil {
		return err
	}
	s.id, s.idLen = len(f.arena), int32(len(e.id))
	f.arena = append(f.arena, e.id...)
	s.row = e.dig
	s.flags |= keyRow
	return nil
}

// again takes a row a second time, when all records are known.
func (f *compareFold) again(e *compareEntry) {
	if e.flags&entryRow == 0 {
		return
	}
	if i, ok := f.find(e); ok {
		if s := &f.states[f.index[i]-1]; s.record == e.dig {
			s.flags |= keyAnyRow
		}
	}
}

// find says at which place of the index a key is, or would be.
func (f *compareFold) find(e *compareEntry) (i uint64, ok bool) {
	if len(f.index) == 0 {
		return 0, false
	}
	mask := uint64(len(f.index) - 1)
	for i = e.hash & mask; f.index[i] != 0; i = (i + 1) & mask {
		s := &f.states[f.index[i]-1]
		if s.hash == e.hash && bytes.Equal(f.keyOf(s), e.key) {
			return i, true
		}
	}
	return i, false
}

func (f *compareFold) keyOf(s *keyState) []byte { return f.arena[s.key : s.key+int(s.keyLen)] }

// state finds the state of a key or makes it.
func (f *compareFold) state(e *compareEntry) (*keyState, error) {
	i, ok := f.find(e)
	if ok {
		return &f.states[f.index[i]-1], nil
	}
	if 4*(len(f.states)+1) > 3*len(f.index) {
		if err := f.growIndex(); err != nil {
			return nil, err
		}
		i, _ = f.find(e)
	}
	if err := f.growStates(); err != nil {
		return nil, err
	}
	if err := f.growArena(len(e.key)); err != nil {
		return nil, err
	}
	f.states = append(f.states, keyState{hash: e.hash, key: len(f.arena), keyLen: int32(len(e.key))})
	f.arena = append(f.arena, e.key...)
	f.index[i] = uint32(len(f.states))
	return &f.states[len(f.states)-1], nil
}

// room says whether so many bytes more may be allocated. Two keys always have room:
// of a single one no division makes less.
func (f *compareFold) room(n int64) error {
	if len(f.states) > 1 && f.memory()+n > f.budget {
		return errFoldFull
	}
	return nil
}

func (f *compareFold) growIndex() error {
	n := max(2*len(f.index), 64)
	if err := f.room(4 * int64(n)); err != nil {
		return err
	}
	f.index = make([]uint32, n)
	mask := uint64(n - 1)
	for place := range f.states {
		i := f.states[place].hash & mask
		for f.index[i] != 0 {
			i = (i + 1) & mask
		}
		f.index[i] = uint32(place + 1)
	}
	return nil
}

func (f *compareFold) growStates() error {
	if len(f.states) < cap(f.states) {
		return nil
	}
	n := max(2*cap(f.states), 16)
	if err := f.room(int64(n) * keyStateSize); err != nil {
		return err
	}
	f.states = append(make([]keyState, 0, n), f.states...)
	return nil
}

func (f *compareFold) growArena(need int) error {
	if cap(f.arena)-len(f.arena) >= need {
		return nil
	}
	n := max(2*cap(f.arena), len(f.arena)+need, 1024)
	if err := f.room(int64(n)); err != nil {
		return err
	}
	f.arena = append(make([]byte, 0, n), f.arena...)
	return nil
}

// judge says what there is to say of every key.
func (f *compareFold) judge(v *cdc.Verification, fn func(Difference) error) error {
	for i := range f.states {
		s := &f.states[i]
		kind := s.kind()
		switch {
		case kind == "":
			if s.flags&(keyRow|keyAlive|keyOlder) == keyRow|keyAlive|keyOlder {
				v.Older++
			}
			continue
		case s.flags&keyBehind != 0:
			v.Superseded++
			continue
		case kind == DifferenceMissing:
			v.Missing++
		case kind == DifferenceGhost:
			v.Ghosts++
		default:
			v.Different++
		}
		d := Difference{Kind: kind, Key: f.keyOf(s), Partition: -1, Offset: -1}
		if s.flags&keyRow != 0 {
			d.ID = f.arena[s.id : s.id+int(s.idLen)]
		}
		if s.flags&keySeen != 0 {
			d.Partition, d.Offset = s.partition, s.offset
		}
		if err := fn(d); err != nil {
			return err
		}
	}
	return nil
}

// kind is the difference, were there no record behind L; "" is none.
func (s *keyState) kind() string {
	switch s.flags & (keyRow | keyAlive) {
	case keyRow:
		return DifferenceMissing
	case keyAlive:
		return DifferenceGhost
	case keyRow | keyAlive:
		if s.row != s.record && s.flags&keyAnyRow == 0 {
			return DifferenceDifferent
		}
	}
	return ""
}
