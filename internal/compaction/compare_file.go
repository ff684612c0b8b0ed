package compaction

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
)

// frameHeader is the length of a frame's payload and its CRC-32C, four bytes each,
// little endian.
const frameHeader = 8

// spillRead is how much of a file is read at a time.
const spillRead = 64 << 10

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errSpillDamaged = errors.New("it does not hold what was written: check the disk and compare again")

// spill is the disk that a comparison goes to.
type spill struct {
	dir         string
	half        int64 // of Memory: one for the buckets, one for a fold
	interrupted func() error
	create      func(dir string) (*os.File, error)
	files       int // made so far
}

// spillFile is a bucket's file: frames, written from the front to the end.
type spillFile struct {
	dir    string
	file   *os.File
	frames int64
	size   int64
}

// createSpillFile makes a file without a name: the system removes it when we close
// it, or end in whatever way.
func createSpillFile(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "cdc-compare-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (s *spill) open() (*spillFile, error) {
	f, err := s.create(s.dir)
	if err != nil {
		return nil, fmt.Errorf("make a temporary file in %s: %w", s.dir, err)
	}
	s.files++
	return &spillFile{dir: s.dir, file: f}, nil
}

// write appends a frame; page begins with the room for its header.
func (f *spillFile) write(page []byte) error {
	payload := page[frameHeader:]
	binary.LittleEndian.PutUint32(page, uint32(len(payload)))
	binary.LittleEndian.PutUint32(page[4:], crc32.Checksum(payload, castagnoli))
	if _, err := f.file.Write(page); err != nil {
		return fmt.Errorf("write a temporary file in %s: %w (make room there, name another directory or give the comparison more memory)", f.dir, err)
	}
	f.frames++
	f.size += int64(len(page))
	return nil
}

// each calls fn for the payload of each frame, which is valid until fn returns.
func (f *spillFile) each(fn func(payload []byte) error) error {
	r := bufio.NewReaderSize(io.NewSectionReader(f.file, 0, f.size), spillRead)
	var header [frameHeader]byte
	var payload []byte
	left := f.size
	for range f.frames {
		if _, err := io.ReadFull(r, header[:]); err != nil {
			return f.unreadable(left, err)
		}
		left -= frameHeader
		n := int64(binary.LittleEndian.Uint32(header[:]))
		if n > left {
			return f.unreadable(left, errSpillDamaged)
		}
		if int64(cap(payload)) < n {
			payload = make([]byte, n)
		}
		payload = payload[:n]
		if _, err := io.ReadFull(r, payload); err != nil {
			return f.unreadable(left, err)
		}
		if crc32.Checksum(payload, castagnoli) != binary.LittleEndian.Uint32(header[4:]) {
			return f.unreadable(left, errSpillDamaged)
		}
		left -= n
		if err := fn(payload); err != nil {
			return err
		}
	}
	if left != 0 {
		return f.unreadable(left, errSpillDamaged)
	}
	return nil
}

// unreadable says where a file cannot be read. One that is shorter than what was
// written is damaged too.
func (f *spillFile) unreadable(left int64, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errSpillDamaged
	}
	return fmt.Errorf("read a temporary file in %s at byte %d of %d: %w", f.dir, f.size-left, f.size, err)
}

func (f *spillFile) close() error {
	if err := f.file.Close(); err != nil {
		return fmt.Errorf("remove a temporary file in %s: %w", f.dir, err)
	}
	return nil
}
