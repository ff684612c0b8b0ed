package api

import (
	"strconv"
	"time"
	"unicode/utf8"

	"cdc/internal/intent"
)

// appendEvent writes an event as encoding/json would, in one line: Data and Meta are
// JSON as the store gives it, and are copied as they are.
func appendEvent(b []byte, e *intent.Event) []byte {
	b = append(b, `{"id":"`...)
	b = append(b, e.ID.String()...)
	b = append(b, `","stream":`...)
	b = appendString(b, e.Stream)
	b = append(b, `,"version":`...)
	b = strconv.AppendInt(b, e.Version, 10)
	b = append(b, `,"type":`...)
	b = appendString(b, e.Type)
	b = append(b, `,"schema":`...)
	b = strconv.AppendInt(b, int64(e.Schema), 10)
	b = append(b, `,"data":`...)
	b = appendRaw(b, e.Data)
	b = append(b, `,"meta":`...)
	b = appendRaw(b, e.Meta)
	for i, s := range e.Subjects {
		if i == 0 {
			b = append(b, `,"subjects":[`...)
		} else {
			b = append(b, ',')
		}
		b = appendString(b, s)
		if i == len(e.Subjects)-1 {
			b = append(b, ']')
		}
	}
	b = append(b, `,"at":"`...)
	b = e.At.AppendFormat(b, time.RFC3339Nano)
	b = append(b, '"')
	if e.Position != 0 {
		b = append(b, `,"position":`...)
		b = strconv.AppendInt(b, e.Position, 10)
	}
	if e.Tx != 0 {
		b = append(b, `,"tx":`...)
		b = strconv.AppendUint(b, uint64(e.Tx), 10)
	}
	if e.LSN != 0 {
		b = append(b, `,"lsn":"`...)
		b = append(b, e.LSN.String()...)
		b = append(b, '"')
	}
	return append(b, '}')
}

// appendRaw writes JSON from the store in one line: a line break can only stand
// between its tokens, where a space says the same.
func appendRaw(b, raw []byte) []byte {
	if len(raw) == 0 {
		return append(b, "null"...)
	}
	from := len(b)
	b = append(b, raw...)
	for i, c := range b[from:] {
		if c == '\n' || c == '\r' {
			b[from+i] = ' '
		}
	}
	return b
}

const hexDigits = "0123456789abcdef"

// appendString writes a JSON string. What is no UTF-8 becomes U+FFFD.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < 0x20 || c == 0x7f:
			b = append(b, `\u00`...)
			b = append(b, hexDigits[c>>4], hexDigits[c&15])
		case c < utf8.RuneSelf:
			b = append(b, c)
		default:
			r, n := utf8.DecodeRuneInString(s[i:])
			b = utf8.AppendRune(b, r)
			i += n - 1
		}
		i++
	}
	return append(b, '"')
}
