package pgoutput

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"
)

// ErrShort is wrapped by errors about a message that ends too early.
var ErrShort = errors.New("message ends too early")

// maxName is the longest name in bytes: NAMEDATALEN-1 in the server's encoding,
// each of which may become four bytes of UTF-8.
const maxName = 63 * 4

// reader reads a message front to back. After the first failure every read
// returns zero values, so a decoder reads a whole structure and asks finish
// once; it must ask failed before it acts on a count.
type reader struct {
	b   []byte
	at  int
	err error
}

func (r *reader) failed() bool { return r.err != nil }

func (r *reader) remaining() int { return len(r.b) - r.at }

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
}

// need says whether n more bytes are there. The error is built elsewhere to
// keep need within the inliner's budget.
func (r *reader) need(n int) bool {
	if r.err != nil {
		return false
	}
	if len(r.b)-r.at < n {
		r.short(n)
		return false
	}
	return true
}

func (r *reader) short(n int) {
	r.fail("%w: %d bytes wanted at offset %d, %d there", ErrShort, n, r.at, r.remaining())
}

func (r *reader) byte() byte {
	if !r.need(1) {
		return 0
	}
	b := r.b[r.at]
	r.at++
	return b
}

func (r *reader) uint16() uint16 {
	if !r.need(2) {
		return 0
	}
	n := binary.BigEndian.Uint16(r.b[r.at:])
	r.at += 2
	return n
}

func (r *reader) uint32() uint32 {
	if !r.need(4) {
		return 0
	}
	n := binary.BigEndian.Uint32(r.b[r.at:])
	r.at += 4
	return n
}

func (r *reader) uint64() uint64 {
	if !r.need(8) {
		return 0
	}
	n := binary.BigEndian.Uint64(r.b[r.at:])
	r.at += 8
	return n
}

// bytes reads a length and that many bytes, which alias the message.
func (r *reader) bytes() []byte {
	n := int32(r.uint32())
	if n < 0 {
		r.fail("negative length %d at offset %d", n, r.at-4)
	}
	if !r.need(int(n)) {
		return nil
	}
	b := r.b[r.at : r.at+int(n) : r.at+int(n)]
	r.at += int(n)
	return b
}

// string reads a NUL-terminated string without its terminator.
func (r *reader) string() []byte {
	if r.err != nil {
		return nil
	}
	n := bytes.IndexByte(r.b[r.at:], 0)
	if n < 0 {
		r.fail("%w: string at offset %d has no terminator", ErrShort, r.at)
		return nil
	}
	b := r.b[r.at : r.at+n : r.at+n]
	r.at += n + 1
	return b
}

// name reads an identifier.
func (r *reader) name() []byte {
	at := r.at
	b := r.string()
	switch {
	case len(b) > maxName:
		r.fail("name at offset %d has %d bytes, more than %d", at, len(b), maxName)
		return nil
	case !utf8.Valid(b):
		r.fail("name at offset %d is not UTF-8", at)
		return nil
	}
	return b
}

// finish returns the first failure, or an error where bytes are left.
func (r *reader) finish() error {
	if r.err == nil && r.at != len(r.b) {
		return fmt.Errorf("%d bytes too many at offset %d", r.remaining(), r.at)
	}
	return r.err
}
