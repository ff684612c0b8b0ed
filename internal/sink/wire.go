package sink

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// errMalformed is the root of every complaint about bytes from the wire.
var errMalformed = errors.New("malformed bytes from the broker")

// decoder reads big-endian fields and varints. The first failure sticks: every
// later read gives zero, and err says what went wrong. What it returns aliases b.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s", errMalformed, fmt.Sprintf(format, args...))
		d.b = nil
	}
}

// take returns the next n bytes, nil after a failure.
func (d *decoder) take(n int) []byte {
	if n < 0 || n > len(d.b) {
		d.fail("%d bytes wanted, %d left", n, len(d.b))
		return nil
	}
	p := d.b[:n:n]
	d.b = d.b[n:]
	return p
}

func (d *decoder) int8() int8 {
	if p := d.take(1); p != nil {
		return int8(p[0])
	}
	return 0
}

func (d *decoder) int16() int16 {
	if p := d.take(2); p != nil {
		return int16(binary.BigEndian.Uint16(p))
	}
	return 0
}

func (d *decoder) int32() int32 {
	if p := d.take(4); p != nil {
		return int32(binary.BigEndian.Uint32(p))
	}
	return 0
}

func (d *decoder) int64() int64 {
	if p := d.take(8); p != nil {
		return int64(binary.BigEndian.Uint64(p))
	}
	return 0
}

// string is a STRING or NULLABLE_STRING: null reads as nil.
func (d *decoder) string() []byte {
	n := d.int16()
	if n == -1 || d.err != nil {
		return nil
	}
	return d.take(int(n))
}

// bytes is a BYTES or NULLABLE_BYTES: null reads as nil.
func (d *decoder) bytes() []byte {
	n := d.int32()
	if n == -1 || d.err != nil {
		return nil
	}
	return d.take(int(n))
}

// array is the length of an ARRAY whose elements have at least min bytes: more
// than the bytes at hand can hold is a lie. Null reads as 0.
func (d *decoder) array(min int) int {
	n := int(d.int32())
	if n == -1 {
		return 0
	}
	if n < 0 || n > len(d.b)/min {
		d.fail("array of %d elements in %d bytes", n, len(d.b))
		return 0
	}
	return n
}

// varint is a zigzag varint of at most 64 bits.
func (d *decoder) varint() int64 {
	if len(d.b) > 0 && d.b[0] < 0x80 { // most lengths and deltas have one byte
		u := d.b[0]
		d.b = d.b[1:]
		return int64(u>>1) ^ -int64(u&1)
	}
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail("varint cut off or longer than 64 bits")
		return 0
	}
	d.b = d.b[n:]
	return v
}

// varbytes is a length as varint and as many bytes: -1 reads as nil.
func (d *decoder) varbytes() []byte {
	n := d.varint()
	if n == -1 || d.err != nil {
		return nil
	}
	if n < 0 || n > int64(len(d.b)) {
		d.fail("%d bytes wanted, %d left", n, len(d.b))
		return nil
	}
	return d.take(int(n))
}

// end complains about bytes that nobody read.
func (d *decoder) end() {
	if d.err == nil && len(d.b) != 0 {
		d.fail("%d bytes too many", len(d.b))
	}
}

func appendString(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

// varintLen is the number of bytes of the zigzag varint of i.
func varintLen(i int64) int {
	u := uint64(i<<1) ^ uint64(i>>63)
	n := 1
	for u >= 0x80 {
		u >>= 7
		n++
	}
	return n
}
