package intent

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Statement is SQL text with placeholders (:name), split at them. Strings, quoted
// identifiers, comments, dollar quotes, casts (::) and slices of arrays ([1:n])
// are left alone.
//
// A ':' directly behind a name, a number, a string or a closing bracket is never a
// placeholder's: [1:n] is a slice up to the column n, and json_object('a':b) has
// the member b. With a space before it ([1: :n]) it is one.
type Statement struct {
	parts  []part
	tokens []token // what tells types that are appended; see appends
}

// part is a stretch of plain text and the placeholder behind it.
type part struct {
	text string
	name string // "" behind the last
}

// ParseSQL splits one statement or expression at its placeholders. It refuses
// what could not stand between parentheses in other SQL: several statements, a
// string, comment or bracket that does not end, no SQL at all. A semicolon at the
// end is dropped. Whether it is SQL, the server says.
func ParseSQL(text string) (Statement, error) {
	if strings.ContainsRune(text, 0) || !utf8.ValidString(text) {
		return Statement{}, errors.New("is not text: it holds a zero byte, or bytes that are not UTF-8")
	}
	p := parser{text: strings.TrimSpace(text)}
	for p.at < len(p.text) {
		if err := p.next(); err != nil {
			return Statement{}, err
		}
	}
	switch {
	case len(p.open) > 0:
		return Statement{}, fmt.Errorf("ends before a %c is closed", p.open[len(p.open)-1])
	case len(p.tokens) == 0:
		return Statement{}, errors.New("is empty")
	}
	end := p.text[p.from:]
	if p.comment {
		end += "\n" // or it would swallow what follows
	}
	return Statement{append(p.parts, part{text: end}), p.tokens}, nil
}

// parser walks through the text once.
type parser struct {
	text    string
	at      int // of what comes next
	from    int // where the part begins that comes next
	parts   []part
	tokens  []token
	open    []byte // brackets that are open
	comment bool   // the last thing read was a comment up to the end of a line
}

// token is a word, string or mark of the SQL, without spaces and comments.
type token struct {
	kind kind
	text string // of a string without E, dollar quotes and escapes: its value
	end  int    // offset behind it
}

// kind of a token.
type kind byte

const (
	mark        kind = iota // one character
	word                    // a name, keyword or number
	literal                 // a string
	quotedName              // "name"
	placeholder             // :name
)

// next reads one token, or space, or a comment.
func (p *parser) next() error {
	rest := p.text[p.at:]
	p.comment = false
	switch c := rest[0]; {
	case isSpace(c):
		p.at++
	case strings.HasPrefix(rest, "--"):
		n := strings.IndexAny(rest, "\r\n")
		p.comment = n < 0
		if n < 0 {
			n = len(rest)
		}
		p.at += n
	case strings.HasPrefix(rest, "/*"):
		n, err := comment(rest)
		p.at += n
		return err
	case c == '\'':
		return p.take(literal, rest, quoted)
	case (c == 'e' || c == 'E') && len(rest) > 1 && rest[1] == '\'':
		return p.take(literal, rest, escaped)
	case c == '"':
		return p.take(quotedName, rest, quoted)
	case c == '$':
		return p.dollar(rest)
	case isWordByte(c):
		p.token(word, wordEnd(rest, c < '0' || c > '9'))
	case strings.HasPrefix(rest, "::"):
		p.token(mark, 2)
	case c == ':' && len(rest) > 1 && isWordStart(rest[1]) && !p.operand():
		n := 1 + wordEnd(rest[1:], false)
		p.parts = append(p.parts, part{p.text[p.from:p.at], rest[1:n]})
		p.token(placeholder, n)
		p.from = p.at
	case c == ';':
		return p.semicolon(rest)
	default:
		return p.bracket(c)
	}
	return nil
}

// token takes n bytes.
func (p *parser) token(k kind, n int) {
	p.tokens = append(p.tokens, token{k, p.text[p.at : p.at+n], p.at + n})
	p.at += n
}

func (p *parser) take(k kind, rest string, length func(string) (int, error)) error {
	n, err := length(rest)
	if err == nil {
		p.token(k, n)
	}
	return err
}

// operand says that the ':' that comes next stands directly behind what has a
// value, where SQL allows no placeholder.
func (p *parser) operand() bool {
	if len(p.tokens) == 0 {
		return false
	}
	last := p.tokens[len(p.tokens)-1]
	return last.end == p.at && (last.kind != mark || last.text == ")" || last.text == "]")
}

// dollar takes a dollar quote.
func (p *parser) dollar(rest string) error {
	switch n, err := dollar(rest); {
	case err != nil:
		return err
	case n > 0:
		p.token(literal, n)
	case len(rest) > 1 && rest[1] >= '0' && rest[1] <= '9':
		return errors.New("holds a $ with a number: values of the event are written :name")
	default:
		p.token(mark, 1)
	}
	return nil
}

// semicolon ends the statement: only space, comments and more of its kind may
// follow.
func (p *parser) semicolon(rest string) error {
	tail := parser{text: strings.TrimLeft(rest, "; \t\r\n\f\v")}
	for tail.at < len(tail.text) {
		if tail.text[tail.at] == ';' {
			tail.at++
		} else if err := tail.next(); err != nil {
			return err
		}
	}
	if len(tail.tokens) > 0 {
		return errors.New("holds more than one statement: write one")
	}
	p.text = p.text[:p.at]
	return nil
}

// bracket takes one character. Brackets must match, or the text could end those
// it is put in.
func (p *parser) bracket(c byte) error {
	switch c {
	case '(', '[':
		p.open = append(p.open, c)
	case ')', ']':
		opening := byte('(')
		if c == ']' {
			opening = '['
		}
		if n := len(p.open); n == 0 || p.open[n-1] != opening {
			return fmt.Errorf("holds a %c without a %c before it", c, opening)
		}
		p.open = p.open[:len(p.open)-1]
	}
	p.token(mark, 1)
	return nil
}

// quoted is the length of a string or quoted identifier, in which the quote is
// doubled.
func quoted(s string) (int, error) {
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == s[0] && i+1 < len(s) && s[i+1] == s[0]:
			i++
		case s[i] == s[0]:
			return i + 1, nil
		}
	}
	return 0, fmt.Errorf("ends inside %c…%c", s[0], s[0])
}

// escaped is the length of an E'…' string. Where it goes on in another line it
// still has escapes (PostgreSQL: String Constants; scan.l, state xe).
func escaped(s string) (int, error) {
	for i := 2; i < len(s); i++ {
		switch {
		case s[i] == '\\', s[i] == '\'' && i+1 < len(s) && s[i+1] == '\'':
			i++
		case s[i] == '\'':
			more := continued(s[i+1:])
			if more == 0 {
				return i + 1, nil
			}
			i += more
		}
	}
	return 0, errors.New("ends inside E'…'")
}

// continued is the length of what stands between two parts of one string, the
// second part's quote included: space and comments with a line end among them
// (scan.l, quotecontinue).
func continued(s string) int {
	line := false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\n' || s[i] == '\r':
			line = true
		case isSpace(s[i]):
		case strings.HasPrefix(s[i:], "--"):
			n := strings.IndexAny(s[i:], "\r\n")
			if n < 0 {
				return 0
			}
			line = true
			i += n
		case line && s[i] == '\'':
			return i + 1
		default:
			return 0
		}
	}
	return 0
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
	n := 1 + wordEnd(s[1:], false)
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

// wordEnd is the length of the word at the beginning of s. A name goes on over a
// '$', which begins no dollar quote there.
func wordEnd(s string, name bool) int {
	n := 0
	for n < len(s) && (isWordByte(s[n]) || name && s[n] == '$') {
		n++
	}
	return n
}

func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

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

// With is the statement's text with every placeholder replaced by what fn gives:
// an expression that stands for one operand, in parentheses where it needs them.
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

// appends are the types of event that a reaction's query names as such: 'x' as
// type, 'x'::text as type. A query may make others up that only its run shows.
func (s Statement) appends() []string {
	var types []string
	for i, t := range s.tokens {
		if t.kind != literal || t.text[0] != '\'' {
			continue
		}
		rest := s.tokens[i+1:]
		if len(rest) > 1 && rest[0].text == "::" && rest[1].kind == word {
			rest = rest[2:]
		}
		if len(rest) > 0 && rest[0].kind == word && strings.EqualFold(rest[0].text, "as") {
			rest = rest[1:]
		}
		if len(rest) == 0 || !(rest[0].kind == word && strings.EqualFold(rest[0].text, "type") || rest[0].text == `"type"`) {
			continue
		}
		if name := strings.ReplaceAll(t.text[1:len(t.text)-1], "''", "'"); !slices.Contains(types, name) {
			types = append(types, name)
		}
	}
	return types
}
