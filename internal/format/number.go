package format

import (
	"math"
	"strconv"
	"unsafe"
)

// borrow reads b as a string without a copy; it must not outlive the call.
func borrow(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// isNumber says that s is a JSON number, so that it can be embedded as it stands.
func isNumber(s []byte) bool {
	i := 0
	if i < len(s) && s[i] == '-' {
		i++
	}
	n := digits(s[i:])
	if n == 0 || n > 1 && s[i] == '0' {
		return false
	}
	i += n
	if i < len(s) && s[i] == '.' {
		n = digits(s[i+1:])
		if n == 0 {
			return false
		}
		i += 1 + n
	}
	if i < len(s) && (s[i] == 'e' || s[i] == 'E') {
		i++
		if i < len(s) && (s[i] == '+' || s[i] == '-') {
			i++
		}
		n = digits(s[i:])
		if n == 0 {
			return false
		}
		i += n
	}
	return i == len(s)
}

// digits counts the decimal digits that s begins with.
func digits(s []byte) int {
	n := 0
	for n < len(s) && s[n]-'0' <= 9 {
		n++
	}
	return n
}

// isSpecial says that s is one of the values of float and numeric that are no number.
func isSpecial(s []byte) bool {
	switch string(s) {
	case "NaN", "Infinity", "-Infinity":
		return true
	}
	return false
}

// appendInteger embeds an integer.
func appendInteger(dst, s []byte) ([]byte, error) {
	n := s
	if len(n) > 0 && n[0] == '-' {
		n = n[1:]
	}
	if len(n) == 0 || digits(n) != len(n) || len(n) > 1 && n[0] == '0' {
		return dst, ErrMalformed
	}
	return append(dst, s...), nil
}

// appendNumber embeds a number digit for digit; what is no number becomes a string.
func appendNumber(dst, s []byte) ([]byte, error) {
	if isNumber(s) {
		return append(dst, s...), nil
	}
	if !isSpecial(s) {
		return dst, ErrMalformed
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"'), nil
}

// appendJavaFloat writes a float4 as Float.toString does, appendJavaDouble a
// float8 as Double.toString does (JDK 19 and later); NaN and infinities are strings.
func appendJavaFloat(dst, s []byte) ([]byte, error)  { return appendJava(dst, s, 32, true) }
func appendJavaDouble(dst, s []byte) ([]byte, error) { return appendJava(dst, s, 64, true) }

func appendJava(dst, s []byte, bits int, quote bool) ([]byte, error) {
	if isSpecial(s) {
		if !quote {
			return append(dst, s...), nil
		}
		return appendNumber(dst, s)
	}
	if !isNumber(s) {
		return dst, ErrMalformed
	}
	v, err := strconv.ParseFloat(borrow(s), bits)
	if err != nil {
		return dst, ErrOutOfRange
	}
	return appendJavaNumber(dst, v, bits), nil
}

// appendJavaNumber follows the specification of Double.toString: the decimal
// closest to v among the shortest that round to it, two digits counting as short
// as one; plain for 1e-3 <= |v| < 1e7, else computerized scientific notation.
func appendJavaNumber(dst []byte, v float64, bits int) []byte {
	switch {
	case math.IsNaN(v):
		return append(dst, `"NaN"`...)
	case math.IsInf(v, 1):
		return append(dst, `"Infinity"`...)
	case math.IsInf(v, -1):
		return append(dst, `"-Infinity"`...)
	}
	if math.Signbit(v) {
		dst, v = append(dst, '-'), -v
	}
	if v == 0 {
		return append(dst, "0.0"...)
	}
	var buf [32]byte
	sci := shortest(buf[:0], v, bits)
	mantissa, exp := splitScientific(sci)
	if v < 1e-3 || v >= 1e7 {
		dst = append(dst, mantissa[0], '.')
		dst = appendFraction(dst, mantissa[1:])
		dst = append(dst, 'E')
		return strconv.AppendInt(dst, int64(exp), 10)
	}
	if exp < 0 {
		dst = append(dst, "0."...)
		for i := -1; i > exp; i-- {
			dst = append(dst, '0')
		}
		return append(dst, mantissa...)
	}
	whole := exp + 1
	for i := 0; i < whole; i++ {
		if i < len(mantissa) {
			dst = append(dst, mantissa[i])
		} else {
			dst = append(dst, '0')
		}
	}
	dst = append(dst, '.')
	return appendFraction(dst, mantissa[min(whole, len(mantissa)):])
}

func appendFraction(dst, digits []byte) []byte {
	if len(digits) == 0 {
		return append(dst, '0')
	}
	return append(dst, digits...)
}

// shortest appends v > 0 as d.ddde±x with the digits that Java chooses.
func shortest(dst []byte, v float64, bits int) []byte {
	dst = strconv.AppendFloat(dst, v, 'e', -1, bits)
	if dst[1] == '.' {
		return dst
	}
	// One digit is enough, but Java takes the closest of two: 4.9E-324, not 5.0E-324.
	var buf [32]byte
	two := strconv.AppendFloat(buf[:0], v, 'e', 1, bits)
	if back, err := strconv.ParseFloat(borrow(two), bits); err == nil && back == v {
		return append(dst[:0], two...)
	}
	return dst
}

// splitScientific takes d.ddde±x apart, in place, and drops trailing zeros.
func splitScientific(s []byte) (mantissa []byte, exp int) {
	e := len(s) - 1
	for s[e] != 'e' {
		e--
	}
	for _, c := range s[e+2:] {
		exp = exp*10 + int(c-'0')
	}
	if s[e+1] == '-' {
		exp = -exp
	}
	mantissa = s[:1]
	if e > 1 {
		mantissa = append(mantissa, s[2:e]...)
	}
	for len(mantissa) > 1 && mantissa[len(mantissa)-1] == '0' {
		mantissa = mantissa[:len(mantissa)-1]
	}
	return mantissa, exp
}
