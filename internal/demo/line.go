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
	"cdc/internal/intent"
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
	meant   *meant        // of an intent; nil: a row
}

// meant is what an intent says beside its data: who did what to which stream, and why.
type meant struct {
	id, kind, version string
	actor             string
	cause             string // id of the event it followed from, "" for none
}

// newIntent is newChange for a record of an intent. Its latency counts from the
// append, shortly before the commit. What was appended before the run began is as a
// row of a snapshot: it has no transaction and no latency.
func newIntent(m *sink.Message, now, began time.Time) change {
	c := change{at: now, key: bytes.Clone(m.Key), value: bytes.Clone(m.Value), meant: &meant{}}
	var at time.Time // of the append
	for _, h := range m.Headers {
		switch v := string(h.Value); h.Key {
		case "id":
			c.meant.id = v
		case "type":
			c.meant.kind = v
		case "version":
			c.meant.version = v
		case "tx":
			c.tx = v
		case "time":
			if t, err := time.Parse(time.RFC3339Nano, v); err == nil {
				at = t
			}
		case intent.MetaCausation:
			c.meant.cause = v
		case "meta":
			var meta map[string]json.RawMessage
			if json.Unmarshal(h.Value, &meta) == nil {
				_ = json.Unmarshal(meta[intent.MetaActor], &c.meant.actor) // another shape names nobody
			}
		}
	}
	if at.Before(began) {
		c.tx = ""
	} else {
		c.latency = max(now.Sub(at), 0)
	}
	return c
}

// reacted says that the change is what a reaction means.
func (c change) reacted() bool {
	return c.meant != nil && strings.HasPrefix(c.meant.actor, actorReaction)
}

// who names the actor in short: the number of a student, the kind of a reaction.
func (m *meant) who() string {
	if strings.HasPrefix(m.actor, actorReaction) {
		return strings.TrimSuffix(actorReaction, ":")
	}
	return strings.Replace(m.actor, ":", " ", 1)
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

// signIntent is that of an intent.
const signIntent = "!"

// line is the change in one line of fixed columns, without its end.
func (c change) line(p palette) string {
	first, sign, key := c.table.name, p.op(c.op, c.sign()), summarise(c.key, nil, keyWidth)
	if c.meant != nil {
		first, sign, key = c.meant.who(), p.intent(signIntent), c.meant.kind
	}
	latency := "      "
	if c.latency > 0 {
		latency = fmt.Sprintf("%6s", brief(c.latency))
	}
	return strings.TrimRight(fmt.Sprintf("%s %s %s %s %s %s",
		p.dim(c.at.Format("15:04:05.000")),
		pad(clip(printable(first), tableWidth), tableWidth),
		sign,
		pad(clip(printable(key), keyWidth), keyWidth),
		pad(c.text(), valueWidth),
		p.dim(latency)), " ")
}

func (c change) sign() string {
	if sign, known := signs[c.op]; known {
		return sign
	}
	return "?"
}

// text is the value in short: the columns outside the key; of an intent where it
// stands, and its data without what the line says already.
func (c change) text() string {
	if c.meant != nil {
		skip := []string{category}
		if strings.HasPrefix(c.meant.actor, actorStudent) {
			skip = append(skip, "student")
		}
		return clip(printable(string(c.key))+"@"+printable(c.meant.version)+" "+summarise(c.value, skip, valueWidth), valueWidth)
	}
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

func (p palette) intent(s string) string { return p.paint("1;35", s) }

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
