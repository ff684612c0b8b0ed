package history

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"

	"cdc/internal/intent"
)

// why is an event's meta in the parts that its headers have.
type why struct {
	correlation, causation string // "" where meta has none, or something other than a string
	rest                   []byte // an object of the other members; empty where there are none
}

// splitMeta takes meta apart; the rest is appended to dst. Members keep their order
// and their bytes: a number has the digits that were stored. What is no JSON object
// is rest as a whole.
func splitMeta(meta, dst []byte) why {
	w := why{rest: dst}
	meta = bytes.TrimSpace(meta)
	s := scanner{b: meta}
	if !s.eat('{') {
		w.rest = append(dst, meta...)
		return w
	}
	for first := true; !s.eat('}'); first = false {
		if !first && !s.eat(',') {
			return why{rest: append(dst, meta...)}
		}
		from := s.space()
		key := s.value()
		ok := len(key) > 0 && key[0] == '"' && s.eat(':')
		s.space()
		value := s.value()
		if !ok || len(value) == 0 {
			return why{rest: append(dst, meta...)}
		}
		switch {
		case string(key) == `"`+intent.MetaCorrelation+`"` && text(value, &w.correlation):
		case string(key) == `"`+intent.MetaCausation+`"` && text(value, &w.causation):
		default:
			sep := ", "
			if len(w.rest) == len(dst) {
				sep = "{"
			}
			w.rest = append(append(w.rest, sep...), meta[from:s.at]...)
		}
	}
	if len(w.rest) > len(dst) {
		w.rest = append(w.rest, '}')
	}
	return w
}

// text reads a JSON string that is not empty.
func text(value []byte, into *string) bool {
	if value[0] != '"' || len(value) == 2 {
		return false
	}
	if inner := value[1 : len(value)-1]; bytes.IndexByte(inner, '\\') < 0 && utf8.Valid(inner) {
		*into = string(inner)
		return true
	}
	return json.Unmarshal(value, into) == nil
}

// scanner walks over JSON text without building anything from it.
type scanner struct {
	b  []byte
	at int
}

// space skips white space and returns where it is.
func (s *scanner) space() int {
	for s.at < len(s.b) && bytes.IndexByte([]byte(" \t\r\n"), s.b[s.at]) >= 0 {
		s.at++
	}
	return s.at
}

// eat passes by a character, behind white space.
func (s *scanner) eat(c byte) bool {
	if s.space(); s.at < len(s.b) && s.b[s.at] == c {
		s.at++
		return true
	}
	return false
}

// value passes by a value and returns its bytes; empty where there is none.
func (s *scanner) value() []byte {
	from, depth := s.at, 0
	for s.at < len(s.b) {
		switch c := s.b[s.at]; c {
		case '"':
			if !s.quoted() {
				return nil
			}
			if depth == 0 {
				return s.b[from:s.at]
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return s.b[from:s.at]
			}
			if depth--; depth == 0 {
				s.at++
				return s.b[from:s.at]
			}
		case ',', ':', ' ', '\t', '\r', '\n':
			if depth == 0 {
				return s.b[from:s.at]
			}
		}
		s.at++
	}
	return nil
}

// quoted passes by a string.
func (s *scanner) quoted() bool {
	for s.at++; s.at < len(s.b); s.at++ {
		switch s.b[s.at] {
		case '\\':
			s.at++
		case '"':
			s.at++
			return true
		}
	}
	return false
}
