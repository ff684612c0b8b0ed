package format

import (
	"math"
	"strconv"
)

const (
	microsPerSecond = 1_000_000
	microsPerDay    = 86_400 * microsPerSecond
	microsPerMilli  = 1000
	// Debezium counts a month as a twelfth of 365.25 days; that is a whole number of microseconds.
	microsPerMonth = 2_629_800 * microsPerSecond
)

// infinity is the sign of a date or timestamp that has no place in the calendar.
type infinity int8

// date is a day of the proleptic Gregorian calendar; year 0 is 1 BC.
type date struct{ year, month, day int }

// timestamp is a date and the microsecond of its day, in UTC.
type timestamp struct {
	date
	micros   int64
	infinite infinity
}

// scanner reads Postgres' date and time text; the first failure sticks.
type scanner struct {
	s      []byte
	failed bool
}

// number reads between min and max decimal digits.
func (p *scanner) number(min, max int) int {
	n, v := 0, 0
	for n < len(p.s) && n < max && p.s[n]-'0' <= 9 {
		v = v*10 + int(p.s[n]-'0')
		n++
	}
	if n < min {
		p.failed = true
	}
	p.s = p.s[n:]
	return v
}

// byte takes c if it comes next.
func (p *scanner) take(c byte) bool {
	if len(p.s) == 0 || p.s[0] != c {
		return false
	}
	p.s = p.s[1:]
	return true
}

func (p *scanner) want(c byte) {
	if !p.take(c) {
		p.failed = true
	}
}

// date reads YYYY-MM-DD; years have four to seven digits.
func (p *scanner) date() (d date) {
	d.year = p.number(4, 7)
	p.want('-')
	d.month = p.number(2, 2)
	p.want('-')
	d.day = p.number(2, 2)
	if d.month < 1 || d.month > 12 || d.day < 1 || d.day > 31 {
		p.failed = true
	}
	return d
}

// time reads HH:MM:SS[.ffffff] as microseconds of the day, 24:00:00 included.
func (p *scanner) time() int64 {
	h := p.number(2, 2)
	p.want(':')
	m := p.number(2, 2)
	p.want(':')
	s := p.number(2, 2)
	micros := int64(h*3600+m*60+s)*microsPerSecond + p.fraction()
	if m > 59 || s > 60 || micros > microsPerDay {
		p.failed = true
	}
	return micros
}

// fraction reads an optional .f to .ffffff as microseconds.
func (p *scanner) fraction() int64 {
	if !p.take('.') {
		return 0
	}
	before := len(p.s)
	v := int64(p.number(1, 6))
	for i := before - len(p.s); i < 6; i++ {
		v *= 10
	}
	return v
}

// zone reads ±HH[:MM[:SS]] as seconds east of Greenwich.
func (p *scanner) zone() int64 {
	negative := p.take('-')
	if !negative {
		p.want('+')
	}
	v := int64(p.number(2, 2)) * 3600
	if p.take(':') {
		v += int64(p.number(2, 2)) * 60
		if p.take(':') {
			v += int64(p.number(2, 2))
		}
	}
	if negative {
		return -v
	}
	return v
}

// era reads an optional " BC", which turns year n into 1-n.
func (p *scanner) era(d *date) {
	if len(p.s) == 3 && string(p.s) == " BC" {
		p.s = nil
		if d.year == 0 {
			p.failed = true
		}
		d.year = 1 - d.year
	}
}

// finish says whether everything was read, and rightly.
func (p *scanner) finish() error {
	if p.failed || len(p.s) > 0 {
		return ErrMalformed
	}
	return nil
}

func parseInfinity(s []byte) infinity {
	switch string(s) {
	case "infinity":
		return 1
	case "-infinity":
		return -1
	}
	return 0
}

func parseDate(s []byte) (t timestamp, err error) {
	if t.infinite = parseInfinity(s); t.infinite != 0 {
		return t, nil
	}
	p := scanner{s: s}
	t.date = p.date()
	p.era(&t.date)
	return t, p.finish()
}

// parseTimestamp reads a timestamp, or a timestamptz where zoned is set. Zones
// other than +00 come only from a session whose time zone is not pinned; they
// are applied all the same.
func parseTimestamp(s []byte, zoned bool) (t timestamp, err error) {
	if t.infinite = parseInfinity(s); t.infinite != 0 {
		return t, nil
	}
	p := scanner{s: s}
	t.date = p.date()
	p.want(' ')
	t.micros = p.time()
	var east int64
	if zoned {
		east = p.zone()
	}
	p.era(&t.date)
	if err := p.finish(); err != nil {
		return t, err
	}
	if t.micros -= east * microsPerSecond; east != 0 || t.micros == microsPerDay {
		days := t.days() + floorDiv(t.micros, microsPerDay)
		t.micros -= floorDiv(t.micros, microsPerDay) * microsPerDay
		t.date = civil(days)
	}
	return t, nil
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// days counts the days since 1970-01-01 (H. Hinnant, "chrono-Compatible
// Low-Level Date Algorithms": days_from_civil and civil_from_days).
func (d date) days() int64 {
	y, m := int64(d.year), int64(d.month)
	if m <= 2 {
		y--
		m += 12
	}
	era := floorDiv(y, 400)
	yearOfEra := y - era*400
	dayOfYear := (153*(m-3)+2)/5 + int64(d.day) - 1
	dayOfEra := yearOfEra*365 + yearOfEra/4 - yearOfEra/100 + dayOfYear
	return era*146097 + dayOfEra - 719468
}

func civil(days int64) date {
	z := days + 719468
	era := floorDiv(z, 146097)
	dayOfEra := z - era*146097
	yearOfEra := (dayOfEra - dayOfEra/1460 + dayOfEra/36524 - dayOfEra/146096) / 365
	dayOfYear := dayOfEra - (365*yearOfEra + yearOfEra/4 - yearOfEra/100)
	mp := (5*dayOfYear + 2) / 153
	d := date{year: int(yearOfEra + era*400), month: int(mp + 3), day: int(dayOfYear - (153*mp+2)/5 + 1)}
	if mp >= 10 {
		d.month -= 12
		d.year++
	}
	return d
}

// epoch is the number of units since 1970-01-01 00:00:00 UTC, a unit being so
// many microseconds. It fails for the last 29 years that Postgres knows, up to
// 294276: in microseconds they are beyond 64 bits.
func (t timestamp) epoch(unit int64) (int64, error) {
	days, rest := t.days(), t.micros/unit
	if perDay := microsPerDay / unit; days <= (math.MaxInt64-rest)/perDay {
		return days*perDay + rest, nil
	}
	return 0, ErrOutOfRange
}

// appendISODate appends YYYY-MM-DD, a year outside 0000-9999 in ISO 8601's
// expanded form with a sign.
func appendISODate(dst []byte, d date) []byte {
	y := d.year
	switch {
	case y < 0:
		dst, y = append(dst, '-'), -y
	case y > 9999:
		dst = append(dst, '+')
	}
	dst = appendPadded(dst, y, 4)
	dst = append(dst, '-')
	dst = appendTwo(dst, d.month)
	dst = append(dst, '-')
	return appendTwo(dst, d.day)
}

// appendTwo appends 0 <= v < 100 with two digits.
func appendTwo(dst []byte, v int) []byte {
	return append(dst, byte('0'+v/10), byte('0'+v%10))
}

// appendPadded appends v >= 0 with at least width digits, width being at most 7.
func appendPadded(dst []byte, v, width int) []byte {
	for pad, n := 10, 1; n < width; pad, n = pad*10, n+1 {
		if v < pad {
			dst = append(dst, "000000"[:width-n]...)
			break
		}
	}
	return strconv.AppendInt(dst, int64(v), 10)
}

// shortFraction asks for as many digits of a fraction as it has.
const shortFraction = -1

// appendClock appends HH:MM:SS and a fraction of digits places, or of as many
// as there are.
func appendClock(dst []byte, micros int64, digits int) []byte {
	seconds := int(micros / microsPerSecond)
	dst = appendTwo(dst, seconds/3600)
	dst = append(dst, ':')
	dst = appendTwo(dst, seconds/60%60)
	dst = append(dst, ':')
	dst = appendTwo(dst, seconds%60)
	rest := int(micros % microsPerSecond)
	if digits == 0 || digits == shortFraction && rest == 0 {
		return dst
	}
	dst = append(dst, '.')
	start := len(dst)
	dst = appendPadded(dst, rest, 6)
	if digits > 0 {
		return dst[:start+digits]
	}
	for dst[len(dst)-1] == '0' {
		dst = dst[:len(dst)-1]
	}
	return dst
}

func appendInfinity(dst []byte, i infinity) []byte {
	if i < 0 {
		return append(dst, `"-infinity"`...)
	}
	return append(dst, `"infinity"`...)
}

// zonedTimestamp writes a timestamptz in ISO 8601, in UTC.
func zonedTimestamp(digits int) codec {
	return func(dst, s []byte) ([]byte, error) {
		t, err := parseTimestamp(s, true)
		if err != nil {
			return dst, err
		}
		if t.infinite != 0 {
			return appendInfinity(dst, t.infinite), nil
		}
		dst = append(dst, '"')
		dst = appendISODate(dst, t.date)
		dst = append(dst, 'T')
		dst = appendClock(dst, t.micros, digits)
		return append(dst, `Z"`...), nil
	}
}

// zonedTime writes a timetz in UTC with as many digits as there are. 24:00:00 at
// UTC stays: it is another value than 00:00:00.
func zonedTime(dst, s []byte) ([]byte, error) {
	p := scanner{s: s}
	micros := p.time()
	east := p.zone()
	if err := p.finish(); err != nil {
		return dst, err
	}
	if east != 0 || micros != microsPerDay {
		micros -= east * microsPerSecond
		micros -= floorDiv(micros, microsPerDay) * microsPerDay
	}
	dst = append(dst, '"')
	dst = appendClock(dst, micros, shortFraction)
	return append(dst, `Z"`...), nil
}
