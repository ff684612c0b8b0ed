package format

import (
	"encoding/base64"
	"math/big"
	"math/bits"
	"strconv"
)

// decimal is the text of a numeric taken apart; the digits alias the text.
type decimal struct {
	negative bool
	whole    []byte
	fraction []byte
}

func parseDecimal(s []byte) (d decimal, err error) {
	if isSpecial(s) {
		return d, ErrNotSayable
	}
	if len(s) > 0 && s[0] == '-' {
		d.negative, s = true, s[1:]
	}
	n := digits(s)
	d.whole, s = s[:n], s[n:]
	if len(s) > 0 && s[0] == '.' {
		d.fraction = s[1:]
		if len(d.fraction) == 0 || digits(d.fraction) != len(d.fraction) {
			return d, ErrMalformed
		}
		s = nil
	}
	if n == 0 || len(s) > 0 {
		return d, ErrMalformed
	}
	return d, nil
}

// decimalCodec writes numeric(p,s) as Connect's Decimal: base64 of the unscaled
// number in minimal big-endian two's complement.
func decimalCodec(scale int) codec {
	return func(dst, s []byte) ([]byte, error) {
		d, err := parseDecimal(s)
		if err != nil {
			return dst, err
		}
		return appendUnscaled(dst, d, scale)
	}
}

// appendVariableScale writes a numeric without a scale as Debezium's
// VariableScaleDecimal: trailing zeros of the fraction are dropped.
func appendVariableScale(dst, s []byte) ([]byte, error) {
	d, err := parseDecimal(s)
	if err != nil {
		return dst, err
	}
	for len(d.fraction) > 0 && d.fraction[len(d.fraction)-1] == '0' {
		d.fraction = d.fraction[:len(d.fraction)-1]
	}
	dst = append(dst, `{"scale":`...)
	dst = strconv.AppendInt(dst, int64(len(d.fraction)), 10)
	dst = append(dst, `,"value":`...)
	if dst, err = appendUnscaled(dst, d, len(d.fraction)); err != nil {
		return dst, err
	}
	return append(dst, '}'), nil
}

// appendUnscaled appends d·10^scale, which must be a whole number.
func appendUnscaled(dst []byte, d decimal, scale int) ([]byte, error) {
	for len(d.fraction) > max(scale, 0) {
		if d.fraction[len(d.fraction)-1] != '0' {
			return dst, ErrOutOfRange
		}
		d.fraction = d.fraction[:len(d.fraction)-1]
	}
	for ; scale < 0 && len(d.whole) > 0; scale++ {
		if d.whole[len(d.whole)-1] != '0' {
			return dst, ErrOutOfRange
		}
		d.whole = d.whole[:len(d.whole)-1]
	}
	zeros := max(scale, 0) - len(d.fraction)
	if len(d.whole)+len(d.fraction)+zeros <= maxDigits128 {
		return append128(dst, d, zeros), nil
	}
	return appendBig(dst, d, zeros)
}

// maxDigits128 is the number of decimal digits that always fit into 127 bits.
const maxDigits128 = 38

func append128(dst []byte, d decimal, zeros int) []byte {
	var hi, lo uint64
	add := func(digit byte) {
		h, l := bits.Mul64(lo, 10)
		var carry uint64
		lo, carry = bits.Add64(l, uint64(digit), 0)
		hi = hi*10 + h + carry
	}
	for _, c := range d.whole {
		add(c - '0')
	}
	for _, c := range d.fraction {
		add(c - '0')
	}
	for range zeros {
		add(0)
	}
	if d.negative {
		var borrow uint64
		lo, borrow = bits.Sub64(0, lo, 0)
		hi, _ = bits.Sub64(0, hi, borrow)
	}
	var raw [16]byte
	for i := range 8 {
		raw[i], raw[8+i] = byte(hi>>(56-8*i)), byte(lo>>(56-8*i))
	}
	return appendMinimal(dst, raw[:])
}

// appendBig is the slow path of numbers beyond 38 digits: it allocates.
func appendBig(dst []byte, d decimal, zeros int) ([]byte, error) {
	text := make([]byte, 0, len(d.whole)+len(d.fraction)+zeros)
	text = append(append(text, d.whole...), d.fraction...)
	for range zeros {
		text = append(text, '0')
	}
	n, ok := new(big.Int).SetString(borrow(text), 10)
	if !ok {
		return dst, ErrMalformed
	}
	// One byte more than the magnitude needs leaves room for the sign.
	size := n.BitLen()/8 + 2
	if d.negative {
		n.Sub(new(big.Int).Lsh(big.NewInt(1), uint(8*size)), n)
		if n.BitLen() > 8*size { // zero
			n.SetInt64(0)
		}
	}
	return appendMinimal(dst, n.FillBytes(make([]byte, size))), nil
}

// appendMinimal appends two's complement bytes without redundant leading ones, as base64.
func appendMinimal(dst, raw []byte) []byte {
	for len(raw) > 1 && (raw[0] == 0 && raw[1] < 0x80 || raw[0] == 0xff && raw[1] >= 0x80) {
		raw = raw[1:]
	}
	dst = append(dst, '"')
	dst = base64.StdEncoding.AppendEncode(dst, raw)
	return append(dst, '"')
}

// appendMoney writes money as a Decimal of scale 2.
func appendMoney(dst, s []byte) ([]byte, error) {
	var plain [maxMoney]byte
	d, err := parseMoney(plain[:0], s)
	if err != nil {
		return dst, err
	}
	return appendUnscaled(dst, d, moneyScale)
}

// parseMoney reads money's text under lc_monetary C, -$1,234.11, without its
// commas into buf.
func parseMoney(buf, s []byte) (decimal, error) {
	if len(s) > maxMoney {
		return decimal{}, ErrMalformed
	}
	if len(s) > 0 && s[0] == '-' {
		buf, s = append(buf, '-'), s[1:]
	}
	if len(s) == 0 || s[0] != '$' {
		return decimal{}, ErrMalformed
	}
	for _, c := range s[1:] {
		if c != ',' {
			buf = append(buf, c)
		}
	}
	d, err := parseDecimal(buf)
	if err != nil || len(d.fraction) != moneyScale {
		return decimal{}, ErrMalformed
	}
	return d, nil
}

// maxMoney bounds the text of money, a 64-bit number of cents: -$92,233,720,368,547,758.08.
const maxMoney = 32

const moneyScale = 2 // of lc_monetary C; Debezium's money.fraction.digits

// numericScale is the scale of a numeric's type modifier (numeric.c,
// numeric_typmod_scale: eleven bits, signed since PostgreSQL 15).
func numericScale(mod int32) int { return int(((mod-4)&0x7ff)^1024) - 1024 }
