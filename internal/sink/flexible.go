package sink

import "encoding/binary"

// Fields of the flexible versions of Kafka's messages (KIP-482): lengths are
// unsigned varints, one more than they say, and every structure ends with tagged
// fields.

// uvarint is an unsigned varint of at most 32 bits.
func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || v > 1<<32-1 {
		d.fail("unsigned varint cut off or longer than 32 bits")
		return 0
	}
	d.b = d.b[n:]
	return v
}

// compactString is a COMPACT_STRING or COMPACT_NULLABLE_STRING: null reads as nil.
func (d *decoder) compactString() []byte {
	n := d.uvarint()
	if n == 0 {
		return nil
	}
	return d.take(int(n - 1))
}

// compactArray is the length of a COMPACT_ARRAY whose elements have at least min
// bytes: more than the bytes at hand can hold is a lie. Null reads as 0.
func (d *decoder) compactArray(min int) int {
	n := d.uvarint()
	if n == 0 {
		return 0
	}
	if n-1 > uint64(len(d.b)/min) {
		d.fail("array of %d elements in %d bytes", n-1, len(d.b))
		return 0
	}
	return int(n - 1)
}

// skipInts passes over a COMPACT_ARRAY of INT32.
func (d *decoder) skipInts() { d.take(4 * d.compactArray(4)) }

// skipTags passes over tagged fields, none of which we know.
func (d *decoder) skipTags() {
	for n := d.uvarint(); n > 0 && d.err == nil; n-- {
		d.uvarint() // tag
		d.take(int(d.uvarint()))
	}
}

func appendCompactString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s))+1)
	return append(b, s...)
}
