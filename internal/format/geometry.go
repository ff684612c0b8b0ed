package format

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"math"
	"strconv"
)

// appendPoint writes a point as Debezium's Point: coordinates, little-endian
// well-known binary, no reference system.
func appendPoint(dst, s []byte) ([]byte, error) {
	comma := 1
	for comma < len(s) && s[comma] != ',' {
		comma++
	}
	if comma+1 >= len(s) || s[0] != '(' || s[len(s)-1] != ')' {
		return dst, ErrMalformed
	}
	x, err := parseFloat(s[1:comma])
	if err != nil {
		return dst, err
	}
	y, err := parseFloat(s[comma+1 : len(s)-1])
	if err != nil {
		return dst, err
	}
	var wkb [21]byte
	wkb[0], wkb[1] = 1, 1 // little-endian, point
	binary.LittleEndian.PutUint64(wkb[5:], math.Float64bits(x))
	binary.LittleEndian.PutUint64(wkb[13:], math.Float64bits(y))
	dst = append(dst, `{"x":`...)
	dst = appendJavaNumber(dst, x, 64)
	dst = append(dst, `,"y":`...)
	dst = appendJavaNumber(dst, y, 64)
	dst = append(dst, `,"wkb":"`...)
	dst = base64.StdEncoding.AppendEncode(dst, wkb[:])
	return append(dst, `","srid":null}`...), nil
}

// parseFloat reads what float8out writes.
func parseFloat(s []byte) (float64, error) {
	if !isNumber(s) && !isSpecial(s) {
		return 0, ErrMalformed
	}
	v, err := strconv.ParseFloat(borrow(s), 64)
	if err != nil {
		return 0, ErrOutOfRange
	}
	return v, nil
}

// appendGeometry writes PostGIS' geometry and geography, whose text is
// hexadecimal EWKB, as Debezium's Geometry.
func appendGeometry(dst, s []byte) ([]byte, error) {
	const header = 2 * (1 + 4 + 4) // byte order, type, reference system
	var raw [header / 2]byte
	n, err := hex.Decode(raw[:], s[:min(len(s), header)])
	if err != nil || n < 5 || raw[0] > 1 {
		return dst, ErrMalformed
	}
	order := binary.ByteOrder(binary.LittleEndian)
	if raw[0] == 0 {
		order = binary.BigEndian
	}
	const hasSRID = 0x20000000
	dst = append(dst, `{"wkb":`...)
	if dst, err = appendHexAsBase64(dst, s); err != nil {
		return dst, err
	}
	dst = append(dst, `,"srid":`...)
	if order.Uint32(raw[1:])&hasSRID == 0 {
		return append(dst, "null}"...), nil
	}
	if n < header/2 {
		return dst, ErrMalformed
	}
	dst = strconv.AppendInt(dst, int64(int32(order.Uint32(raw[5:]))), 10)
	return append(dst, '}'), nil
}

// vectorCodec writes pgvector's vector and halfvec, [1,2.5], as an array.
func vectorCodec(elem codec) codec {
	return func(dst, s []byte) (_ []byte, err error) {
		if len(s) < 2 || s[0] != '[' || s[len(s)-1] != ']' {
			return dst, ErrMalformed
		}
		dst = append(dst, '[')
		for s = s[1:]; len(s) > 1; s = s[1:] {
			n := until(s[:len(s)-1], ',')
			if dst, err = elem(dst, s[:n]); err != nil {
				return dst, err
			}
			if s = s[n:]; s[0] == ',' {
				dst = append(dst, ',')
				if len(s) == 2 {
					return dst, ErrMalformed
				}
			}
		}
		return append(dst, ']'), nil
	}
}

// appendSparseVector writes pgvector's sparsevec, {1:1.5,3:2}/5, as Debezium's
// SparseDoubleVector: a map whose keys are no strings becomes a list of pairs.
func appendSparseVector(dst, s []byte) (_ []byte, err error) {
	end := until(s, '}')
	if len(s) == 0 || s[0] != '{' || end+1 >= len(s) || s[end+1] != '/' {
		return dst, ErrMalformed
	}
	dst = append(dst, `{"dimensions":`...)
	if dst, err = appendInteger(dst, s[end+2:]); err != nil {
		return dst, err
	}
	dst = append(dst, `,"vector":[`...)
	for s = s[1:end]; len(s) > 0; {
		n, colon := until(s, ','), until(s, ':')
		if colon >= n {
			return dst, ErrMalformed
		}
		dst = append(dst, '[')
		if dst, err = appendInteger(dst, s[:colon]); err != nil {
			return dst, err
		}
		dst = append(dst, ',')
		if dst, err = appendJavaDouble(dst, s[colon+1:n]); err != nil {
			return dst, err
		}
		dst = append(dst, ']')
		if n == len(s) {
			break
		}
		if s = s[n+1:]; len(s) == 0 {
			return dst, ErrMalformed
		}
		dst = append(dst, ',')
	}
	return append(dst, "]}"...), nil
}

// until is the index of the first c in s, or the length of s.
func until(s []byte, c byte) int {
	n := 0
	for n < len(s) && s[n] != c {
		n++
	}
	return n
}
