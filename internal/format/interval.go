package format

import (
	"math"
	"math/bits"
)

// interval is what Postgres stores of one.
type interval struct {
	months, days int64
	micros       int64
}

// maxIntervalDigits bounds a number in the text of an interval: hours have up to
// ten digits (2^63 microseconds), years and days fewer.
const maxIntervalDigits = 10

// parseInterval reads intervalstyle postgres: 1 year 2 mons -3 days +04:05:06.78.
// The infinite intervals of PostgreSQL 17 have all three parts at their end, as
// they have in its storage.
func parseInterval(s []byte) (v interval, err error) {
	switch parseInfinity(s) {
	case 1:
		return interval{math.MaxInt32, math.MaxInt32, math.MaxInt64}, nil
	case -1:
		return interval{math.MinInt32, math.MinInt32, math.MinInt64}, nil
	}
	p := scanner{s: s}
	for first := true; ; first = false {
		if !first && !p.take(' ') {
			break
		}
		negative := p.take('-')
		if !negative {
			p.take('+')
		}
		n := int64(p.number(1, maxIntervalDigits))
		if p.take(':') {
			p.intervalTime(&v, n, negative)
			break
		}
		if negative {
			n = -n
		}
		p.want(' ')
		p.unit(&v, n)
		if p.failed {
			break
		}
	}
	return v, p.finish()
}

// intervalTime reads MM:SS[.ffffff] behind the hours.
func (p *scanner) intervalTime(v *interval, hours int64, negative bool) {
	m := int64(p.number(2, 2))
	p.want(':')
	sec := int64(p.number(2, 2))
	if m > 59 || sec > 59 || hours > math.MaxInt64/(3600*microsPerSecond) {
		p.failed = true
		return
	}
	// The smallest interval is one microsecond below what the negative of a
	// positive number reaches, so the sum is built downwards.
	rest := (m*60+sec)*microsPerSecond + p.fraction()
	total := -hours*3600*microsPerSecond - rest
	if total > 0 || !negative && total == math.MinInt64 {
		p.failed = true
		return
	}
	if !negative {
		total = -total
	}
	v.micros = total
}

// unit reads the name of a unit and adds n of them.
func (p *scanner) unit(v *interval, n int64) {
	end := 0
	for end < len(p.s) && p.s[end] >= 'a' && p.s[end] <= 'z' {
		end++
	}
	switch string(p.s[:end]) {
	case "year", "years":
		v.months += n * 12
	case "mon", "mons":
		v.months += n
	case "day", "days":
		v.days += n
	default:
		p.failed = true
	}
	if v.months != int64(int32(v.months)) || v.days != int64(int32(v.days)) {
		p.failed = true
	}
	p.s = p.s[end:]
}

// total is the interval in microseconds, a month being a twelfth of 365.25 days;
// beyond 64 bits it saturates, as Debezium's conversion does.
func (v interval) total() int64 {
	sum := int128{}
	sum.addProduct(v.months, microsPerMonth)
	sum.addProduct(v.days, microsPerDay)
	sum.addProduct(v.micros, 1)
	return sum.saturated()
}

// int128 is just large enough for the sum of an interval's three parts.
type int128 struct {
	hi int64
	lo uint64
}

// addProduct adds a·b for b > 0.
func (s *int128) addProduct(a int64, b uint64) {
	hi, lo := bits.Mul64(uint64(a), b)
	if a < 0 {
		hi -= b
	}
	var carry uint64
	s.lo, carry = bits.Add64(s.lo, lo, 0)
	s.hi += int64(hi) + int64(carry)
}

func (s int128) saturated() int64 {
	switch {
	case s.hi == int64(s.lo)>>63:
		return int64(s.lo)
	case s.hi < 0:
		return math.MinInt64
	}
	return math.MaxInt64
}
