package demo

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"cdc/internal/cdc"
	"cdc/internal/format"
	"cdc/internal/sink"
)

// change is a record as a reader of the topic got it.
type change struct {
	at      time.Time // when it was read
	table   table
	key     []byte
	value   []byte // nil: a tombstone
	op      cdc.Op
	tx      string        // of its source transaction, "" for a row of the snapshot
	latency time.Duration // from commit to reader, 0 for a row of the snapshot; the commit was at - latency
}

// newChange copies what it keeps of m. Headers it does not know are left aside:
// a record that somebody else wrote into the topic is shown too.
func newChange(t table, m *sink.Message, now time.Time) change {
	c := change{at: now, table: t, key: bytes.Clone(m.Key), value: bytes.Clone(m.Value)}
	for _, h := range m.Headers {
		switch h.Key {
		case format.HeaderOp:
			if len(h.Value) == 1 {
				c.op = cdc.Op(h.Value[0])
			}
		case format.HeaderTx:
			c.tx = string(h.Value)
		case format.HeaderTs:
			if commit, err := time.Parse(time.RFC3339Nano, string(h.Value)); err == nil {
				c.latency = max(now.Sub(commit), 0)
			}
		}
	}
	if c.op == cdc.OpRead {
		c.tx, c.latency = "", 0
	}
	return c
}

// The widths of a line: 100 columns in all.
const (
	tableWidth = 12
	keyWidth   = 21
	valueWidth = 43
	fieldWidth = 24 // of one column's value

	largeValue = 1024 // bytes from which on a value is shown by its size
)

// signs of the operations, one column wide.
var signs = map[cdc.Op]string{
	cdc.OpInsert: "+", cdc.OpUpdate: "~", cdc.OpDelete: "-", cdc.OpRead: "=", cdc.OpTruncate: "x",
}

// line is the change in one line of fixed columns, without its end.
func (c change) line(p palette) string {
	sign, known := signs[c.op]
	if !known {
		sign = "?"
	}
	latency := "      "
	if c.latency > 0 {
		latency = fmt.Sprintf("%6s", brief(c.latency))
	}
	return strings.TrimRight(fmt.Sprintf("%s %s %s %s %s %s",
		p.dim(c.at.Format("15:04:05.000")),
		pad(c.table.name, tableWidth),
		p.op(c.op, sign),
		pad(summarise(c.key, nil, keyWidth), keyWidth),
		pad(c.text(), valueWidth),
		p.dim(latency)), " ")
}

// text is the value in short: the columns outside the key.
func (c change) text() string {
	if c.value == nil {
		return ""
	}
	return summarise(c.value, c.table.key, valueWidth)
}

// summarise writes the fields of a JSON object in short, those in skip left out;
// of a key, where nothing is skipped, the values alone. What is no object is
// shown as it is.
func summarise(text []byte, skip []string, width int) string {
	fields, err := objectFields(text)
	if err != nil {
		return clip(printable(string(text)), width)
	}
	var parts []string
	for _, f := range fields {
		switch {
		case skip == nil:
			parts = append(parts, short(f.value))
		case !contains(skip, f.name):
			parts = append(parts, printable(f.name)+"="+short(f.value))
		}
	}
	return clip(strings.Join(parts, " "), width)
}

func contains(list []string, s string) bool {
	for _, e := range list {
		if e == s {
			return true
		}
	}
	return false
}

type field struct {
	name  string
	value json.RawMessage
}

// objectFields are the fields of a JSON object in their order.
func objectFields(text []byte) ([]field, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	var fields []field
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, err
		}
		var f field
		f.name, _ = name.(string) // the grammar allows nothing else here
		if err := d.Decode(&f.value); err != nil {
			return nil, err
		}
		fields = append(fields, f)
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one JSON object")
	}
	return fields, nil
}

// short writes one JSON value: a string without its quotes, a large one by its size.
func short(value json.RawMessage) string {
	s := string(value)
	if s[0] == '"' {
		_ = json.Unmarshal(value, &s) // it was decoded once before
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t.Format(time.RFC3339) // without the fraction
	}
	if len(s) > largeValue {
		return fmt.Sprintf("<%.1f kB>", float64(len(s))/1000)
	}
	return clip(printable(s), fieldWidth)
}

// printable keeps what moves the cursor, or is not text, off the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case r == utf8.RuneError || !unicode.IsPrint(r):
			return '·'
		}
		return r
	}, s)
}

// clip cuts s to a width in columns, its last character then an ellipsis.
func clip(s string, width int) string {
	if columns(s) <= width {
		return s
	}
	used := 0
	for i, r := range s {
		if used += wide(r); used > width-1 {
			return s[:i] + "…"
		}
	}
	return s
}

func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-columns(s)))
}

// columns is how many columns of a terminal s takes.
func columns(s string) (n int) {
	for _, r := range s {
		n += wide(r)
	}
	return n
}

// wide is the width of a character: two columns for the East Asian scripts (and
// their punctuation and full-width forms), none for marks that combine.
func wide(r rune) int {
	switch {
	case unicode.Is(unicode.Mn, r):
		return 0
	case r >= 0x3000 && r <= 0x303F, r >= 0xFF00 && r <= 0xFF60,
		unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul):
		return 2
	}
	return 1
}

// brief writes a duration in at most six columns.
func brief(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1fms", float64(d)/float64(time.Millisecond))
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < 100*time.Minute:
		return fmt.Sprintf("%.0fm", d.Minutes())
	}
	return ">1h"
}

// palette colours a terminal; the zero value does not.
type palette bool

func (p palette) paint(code, s string) string {
	if !p {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (p palette) dim(s string) string  { return p.paint("2", s) }
func (p palette) bold(s string) string { return p.paint("1", s) }
func (p palette) good(s string) string { return p.paint("32", s) }
func (p palette) bad(s string) string  { return p.paint("31", s) }

func (p palette) op(op cdc.Op, s string) string {
	switch op {
	case cdc.OpInsert:
		return p.paint("32", s)
	case cdc.OpUpdate:
		return p.paint("33", s)
	case cdc.OpDelete, cdc.OpTruncate:
		return p.paint("31", s)
	}
	return p.paint("36", s)
}
