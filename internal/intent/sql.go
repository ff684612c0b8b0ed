package intent

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Statement is SQL text with placeholders (:name), split at them. Strings, quoted
// identifiers, comments, dollar quotes, casts (::) and slices of arrays ([1:2])
// are left alone.
type Statement struct {
	parts []part
}

// part is a stretch of plain text and the placeholder behind it.
type part struct {
	text string
	name string // "" behind the last
}

// ParseSQL splits one statement or expression at its placeholders, and refuses
// what holds several statements or ends inside a string or comment. A semicolon
// at the end is dropped. Whether it is SQL, the server says.
func ParseSQL(text string) (Statement, error) {
	text = strings.TrimSpace(text)
	var s Statement
	from := 0
	for i := 0; i < len(text); {
		n, err := skip(text[i:])
		if err != nil {
			return Statement{}, err
		}
		if n > 0 {
			i += n
			continue
		}
		switch c := text[i]; {
		case c == ';' && strings.TrimSpace(text[i+1:]) == "":
			text = strings.TrimRight(text[:i], " \t\r\n")
			i = len(text)
		case c == ';':
			return Statement{}, errors.New("holds more than one statement: write one")
		case isWordByte(c): // a word, whole: the ':' behind it is not a placeholder of what follows
			for i < len(text) && isWordByte(text[i]) {
				i++
			}
		case c == ':' && i+1 < len(text) && isWordStart(text[i+1]):
			end := i + 1
			for end < len(text) && isWordByte(text[end]) {
				end++
			}
			s.parts = append(s.parts, part{text[from:i], text[i+1 : end]})
			from, i = end, end
		default:
			i++
		}
	}
	if text == "" {
		return Statement{}, errors.New("is empty")
	}
	s.parts = append(s.parts, part{text: text[from:]})
	return s, nil
}

// skip is the length of what begins s and holds no placeholder: a string, quoted
// identifier, comment, dollar quote, cast or number with a slice behind it; 0
// where none begins.
func skip(s string) (int, error) {
	switch {
	case s[0] == '\'':
		return quoted(s, '\'', false)
	case (s[0] == 'e' || s[0] == 'E') && len(s) > 1 && s[1] == '\'':
		n, err := quoted(s[1:], '\'', true)
		return n + 1, err
	case s[0] == '"':
		return quoted(s, '"', false)
	case strings.HasPrefix(s, "--"):
		if n := strings.IndexByte(s, '\n'); n >= 0 {
			return n + 1, nil
		}
		return len(s), nil
	case strings.HasPrefix(s, "/*"):
		return comment(s)
	case s[0] == '$':
		return dollar(s)
	case strings.HasPrefix(s, "::"):
		return 2, nil
	}
	return 0, nil
}

func quoted(s string, quote byte, escapes bool) (int, error) {
	for i := 1; i < len(s); i++ {
		switch {
		case escapes && s[i] == '\\':
			i++
		case s[i] == quote && i+1 < len(s) && s[i+1] == quote:
			i++
		case s[i] == quote:
			return i + 1, nil
		}
	}
	return 0, fmt.Errorf("ends inside %c…%c", quote, quote)
}

// comment is the length of a comment; they nest in SQL.
func comment(s string) (int, error) {
	depth := 0
	for i := 0; i+1 < len(s); i++ {
		switch s[i : i+2] {
		case "/*":
			depth++
			i++
		case "*/":
			depth--
			i++
		}
		if depth == 0 {
			return i + 1, nil
		}
	}
	return 0, errors.New("ends inside a comment")
}

// dollar is the length of a dollar-quoted string; 0 where the dollar begins none.
func dollar(s string) (int, error) {
	n := 1
	for n < len(s) && s[n] != '$' && isWordByte(s[n]) {
		n++
	}
	if n >= len(s) || s[n] != '$' || n > 1 && !isWordStart(s[1]) {
		return 0, nil
	}
	tag := s[:n+1]
	end := strings.Index(s[len(tag):], tag)
	if end < 0 {
		return 0, fmt.Errorf("ends inside %s…%s", tag, tag)
	}
	return 2*len(tag) + end, nil
}

func isWordStart(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c >= 0x80
}

func isWordByte(c byte) bool { return isWordStart(c) || c >= '0' && c <= '9' }

// Names are the placeholders of the statement, each once, in the order of their
// first use.
func (s Statement) Names() []string {
	var names []string
	for _, p := range s.parts {
		if p.name != "" && !slices.Contains(names, p.name) {
			names = append(names, p.name)
		}
	}
	return names
}

// With is the statement's text with every placeholder replaced by what fn gives.
func (s Statement) With(fn func(name string) string) string {
	var b strings.Builder
	for _, p := range s.parts {
		b.WriteString(p.text)
		if p.name != "" {
			b.WriteString(fn(p.name))
		}
	}
	return b.String()
}
