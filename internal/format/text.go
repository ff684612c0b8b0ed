package format

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"unicode/utf8"
)

const hexUpper = "0123456789ABCDEF"

// plain marks the ASCII bytes that stand for themselves inside a JSON string.
var plain = func() (t [256]bool) {
	for c := 0x20; c < utf8.RuneSelf; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// appendString appends s as a JSON string. Escaped are the quote, the backslash
// and control characters, as Jackson does it: neither <>& nor U+2028. Characters
// beyond the basic plane become surrogate escapes where surrogates is set, which
// is what Jackson's byte writer makes of them.
func appendString(dst, s []byte, surrogates bool) ([]byte, error) {
	dst = append(dst, '"')
	dst, err := appendEscaped(dst, s, surrogates)
	return append(dst, '"'), err
}

func appendEscaped(dst, s []byte, surrogates bool) ([]byte, error) {
	start := 0
	for i := plainPrefix(s); i < len(s); {
		c := s[i]
		if plain[c] {
			i++
			continue
		}
		if c < utf8.RuneSelf {
			dst = append(dst, s[start:i]...)
			dst = appendEscape(dst, c)
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRune(s[i:])
		if r == utf8.RuneError && size == 1 {
			return dst, ErrInvalidUTF8
		}
		if surrogates && size == 4 {
			dst = append(dst, s[start:i]...)
			dst = appendSurrogates(dst, r)
			start = i + size
		}
		i += size
	}
	return append(dst, s[start:]...), nil
}

// plainPrefix is a number of bytes at the front of s that are all plain, found
// eight at a time. In each term the lowest byte that is not plain sets its own
// high bit: below it nothing borrows.
func plainPrefix(s []byte) int {
	const ones = 0x0101010101010101
	i := 0
	for ; len(s)-i >= 8; i += 8 {
		x := binary.LittleEndian.Uint64(s[i:])
		if (x|(x-0x20*ones)|((x^'"'*ones)-ones)|((x^'\\'*ones)-ones))&(0x80*ones) != 0 {
			break
		}
	}
	return i
}

func appendEscape(dst []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\b':
		return append(dst, '\\', 'b')
	case '\t':
		return append(dst, '\\', 't')
	case '\n':
		return append(dst, '\\', 'n')
	case '\f':
		return append(dst, '\\', 'f')
	case '\r':
		return append(dst, '\\', 'r')
	}
	return append(dst, '\\', 'u', '0', '0', hexUpper[c>>4], hexUpper[c&15])
}

func appendSurrogates(dst []byte, r rune) []byte {
	r -= 0x10000
	for _, u := range [2]rune{0xD800 + r>>10, 0xDC00 + r&0x3FF} {
		dst = append(dst, '\\', 'u', hexUpper[u>>12], hexUpper[u>>8&15], hexUpper[u>>4&15], hexUpper[u&15])
	}
	return dst
}

// text is the codec of everything that is written as a string.
func (f *Format) text() codec {
	if f.debezium {
		return func(dst, s []byte) ([]byte, error) { return appendString(dst, s, true) }
	}
	return func(dst, s []byte) ([]byte, error) { return appendString(dst, s, false) }
}

// appendBool turns t and f into true and false.
func appendBool(dst, s []byte) ([]byte, error) {
	if len(s) != 1 {
		return dst, ErrMalformed
	}
	switch s[0] {
	case 't':
		return append(dst, "true"...), nil
	case 'f':
		return append(dst, "false"...), nil
	}
	return dst, ErrMalformed
}

// appendDocument embeds json and jsonb as they are: Postgres has checked the
// grammar, the encoding of a SQL_ASCII database nobody has.
func appendDocument(dst, s []byte) ([]byte, error) {
	if len(s) == 0 {
		return dst, ErrMalformed
	}
	if !utf8.Valid(s) {
		return dst, ErrInvalidUTF8
	}
	return append(dst, s...), nil
}

// appendBytea turns bytea's hexadecimal form into a base64 string.
func appendBytea(dst, s []byte) ([]byte, error) {
	if !bytes.HasPrefix(s, []byte(`\x`)) {
		return dst, ErrMalformed
	}
	return appendHexAsBase64(dst, s[2:])
}

// appendHexAsBase64 works in chunks of three bytes, so that it needs no buffer
// for the whole value.
func appendHexAsBase64(dst, s []byte) ([]byte, error) {
	if len(s)%2 != 0 {
		return dst, ErrMalformed
	}
	const chunk = 3 * 256
	var raw [chunk]byte
	dst = append(dst, '"')
	for len(s) > 0 {
		n := min(len(s), 2*chunk)
		if _, err := hex.Decode(raw[:], s[:n]); err != nil {
			return dst, ErrMalformed
		}
		dst = base64.StdEncoding.AppendEncode(dst, raw[:n/2])
		s = s[n:]
	}
	return append(dst, '"'), nil
}

// appendBits turns a bit string into base64 of its little-endian bytes up to the
// highest set bit, as Debezium's Bits (java.util.BitSet) are written.
func appendBits(dst, s []byte) ([]byte, error) {
	for len(s) > 0 && s[0] == '0' {
		s = s[1:]
	}
	const chunk = 3 * 256
	var raw [chunk]byte
	dst = append(dst, '"')
	for len(s) > 0 {
		n := 0
		for ; n < chunk && len(s) > 0; n++ {
			low := max(len(s)-8, 0)
			b := byte(0)
			for _, c := range s[low:] {
				if c != '0' && c != '1' {
					return dst, ErrMalformed
				}
				b = b<<1 | c&1
			}
			raw[n] = b
			s = s[:low]
		}
		dst = base64.StdEncoding.AppendEncode(dst, raw[:n])
	}
	return append(dst, '"'), nil
}

// appendBit writes a bit(1) as a boolean.
func appendBit(dst, s []byte) ([]byte, error) {
	switch string(s) {
	case "0":
		return append(dst, "false"...), nil
	case "1":
		return append(dst, "true"...), nil
	case "": // varbit(1) may be empty, which is no bit at all
		return append(dst, "null"...), nil
	}
	return dst, ErrMalformed
}
