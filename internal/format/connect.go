package format

import (
	"strconv"
	"unicode/utf8"

	"cdc/internal/cdc"
)

// connectCodec is how Kafka Connect's SimpleHeaderConverter writes a key column
// inside the headers of a key change: strings with only quotes and backslashes
// escaped, decimals as BigDecimal.toString, everything else as in the key.
func connectCodec(col *cdc.Column, enc codec) codec {
	r := resolve(typeOf(col), col.Mod)
	switch r.OID {
	case oidNumeric:
		if r.mod >= 4 {
			return connectDecimal(numericScale(r.mod))
		}
	case oidMoney:
		return appendConnectMoney
	case oidFloat4: // not in quotes, whatever the number
		return func(dst, s []byte) ([]byte, error) { return appendJava(dst, s, 32, false) }
	case oidFloat8:
		return func(dst, s []byte) ([]byte, error) { return appendJava(dst, s, 64, false) }
	case oidChar, oidName, oidText, oidBpchar, oidVarchar, oidJSON, oidJSONB, oidXML:
		return appendConnectString
	}
	if r.Kind == cdc.KindEnum || r.extension("citext") || r.extension("ltree") {
		return appendConnectString
	}
	return enc
}

func appendConnectString(dst, s []byte) ([]byte, error) {
	if !utf8.Valid(s) {
		return dst, ErrInvalidUTF8
	}
	dst = append(dst, '"')
	for _, c := range s {
		if c == '"' || c == '\\' {
			dst = append(dst, '\\')
		}
		dst = append(dst, c)
	}
	return append(dst, '"'), nil
}

// connectDecimal writes BigDecimal.toString: plain, or scientific where the scale
// is negative or the exponent is below -6.
func connectDecimal(scale int) codec {
	var scratch []byte
	return func(dst, s []byte) ([]byte, error) {
		d, err := parseDecimal(s)
		if err != nil {
			return dst, err
		}
		scratch = append(append(scratch[:0], d.whole...), d.fraction...)
		unscaled := scratch
		for n := len(d.fraction); n > scale && len(unscaled) > 1; n-- {
			unscaled = unscaled[:len(unscaled)-1]
		}
		for len(unscaled) > 1 && unscaled[0] == '0' {
			unscaled = unscaled[1:]
		}
		if d.negative {
			dst = append(dst, '-')
		}
		exponent := len(unscaled) - 1 - scale
		if scale >= 0 && exponent >= -6 {
			return appendPlain(dst, unscaled, scale), nil
		}
		dst = append(dst, unscaled[0])
		if len(unscaled) > 1 {
			dst = append(dst, '.')
			dst = append(dst, unscaled[1:]...)
		}
		if exponent == 0 {
			return dst, nil
		}
		dst = append(dst, 'E')
		if exponent > 0 {
			dst = append(dst, '+')
		}
		return strconv.AppendInt(dst, int64(exponent), 10), nil
	}
}

// appendPlain appends unscaled·10^-scale without an exponent.
func appendPlain(dst, unscaled []byte, scale int) []byte {
	whole := len(unscaled) - scale
	if whole <= 0 {
		dst = append(dst, '0')
	} else {
		dst = append(dst, unscaled[:whole]...)
	}
	if scale == 0 {
		return dst
	}
	dst = append(dst, '.')
	for i := whole; i < 0; i++ {
		dst = append(dst, '0')
	}
	return append(dst, unscaled[max(whole, 0):]...)
}

func appendConnectMoney(dst, s []byte) ([]byte, error) {
	var plain [maxMoney]byte
	d, err := parseMoney(plain[:0], s)
	if err != nil {
		return dst, err
	}
	if d.negative {
		dst = append(dst, '-')
	}
	dst = append(dst, d.whole...)
	dst = append(dst, '.')
	return append(dst, d.fraction...), nil
}
