package config

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxIdentifier is Postgres' limit on a name (NAMEDATALEN − 1), in bytes.
const maxIdentifier = 63

// Pattern is a set of tables: schema.table, where * stands for any text and ?
// for one character. Names are taken as written, upper and lower case differ. A
// name in double quotes may hold dots and spaces; a quote in it is doubled. A
// name that itself holds * or ? cannot be written: ? stands for either.
type Pattern struct {
	schema, table glob
	text          string
}

// glob is a sequence of runes, anyRun and anyOne among them.
type glob []rune

// The wildcards stand outside of Unicode, so that no character is taken for one.
const (
	anyRun rune = -1
	anyOne rune = -2
)

// ParsePattern reads a pattern.
func ParsePattern(s string) (Pattern, error) {
	schema, rest, err := parseName(s)
	if err != nil {
		return Pattern{}, fmt.Errorf("table pattern %q: %w", s, err)
	}
	if !strings.HasPrefix(rest, ".") {
		return Pattern{}, fmt.Errorf("table pattern %q: write schema.table, as in public.%s", s, s)
	}
	table, rest, err := parseName(rest[1:])
	if err != nil {
		return Pattern{}, fmt.Errorf("table pattern %q: %w", s, err)
	}
	if rest != "" {
		return Pattern{}, fmt.Errorf("table pattern %q: %q is too much behind schema.table; put a name that holds a dot in double quotes", s, rest)
	}
	return Pattern{schema: schema, table: table, text: s}, nil
}

// ParseTable reads schema.table without wildcards.
func ParseTable(s string) (schema, table string, err error) {
	p, err := ParsePattern(s)
	if err != nil {
		return "", "", err
	}
	schema, table, ok := p.Literal()
	if !ok {
		return "", "", fmt.Errorf("table %q: wildcards are not taken here, name one table", s)
	}
	return schema, table, nil
}

// parseName reads a name up to a dot or the end.
func parseName(s string) (g glob, rest string, err error) {
	if strings.HasPrefix(s, `"`) {
		return parseQuoted(s)
	}
	end := strings.IndexByte(s, '.')
	if end < 0 {
		end = len(s)
	}
	for _, r := range s[:end] {
		switch r {
		case '*':
			if len(g) == 0 || g[len(g)-1] != anyRun {
				g = append(g, anyRun)
			}
		case '?':
			g = append(g, anyOne)
		case '"', ' ', '\t', '\n', '\r':
			return nil, "", fmt.Errorf("a name that holds %q goes in double quotes", r)
		default:
			g = append(g, r)
		}
	}
	return g, s[end:], g.check()
}

func parseQuoted(s string) (g glob, rest string, err error) {
	for rest = s[1:]; ; {
		text, after, closed := strings.Cut(rest, `"`)
		if !closed {
			return nil, "", fmt.Errorf("a double quote is not closed")
		}
		if strings.ContainsAny(text, "*?") {
			return nil, "", fmt.Errorf("* and ? are not taken in double quotes: write the pattern without them, ? stands for either")
		}
		g = append(g, []rune(text)...)
		if !strings.HasPrefix(after, `"`) {
			return g, after, g.check()
		}
		g, rest = append(g, '"'), after[1:]
	}
}

// check refuses what no table can be named.
func (g glob) check() error {
	bytes := 0
	for _, r := range g {
		if r == 0 {
			return fmt.Errorf("a name cannot hold a zero byte")
		}
		if r != anyRun {
			bytes += max(1, utf8.RuneLen(r))
		}
	}
	if len(g) == 0 {
		return fmt.Errorf("a name is missing: write schema.table")
	}
	if bytes > maxIdentifier {
		return fmt.Errorf("a name is longer than Postgres' %d bytes", maxIdentifier)
	}
	return nil
}

func (p Pattern) String() string { return p.text }

// Plain is the pattern without quotes: we ird.a.b for "we ird"."a.b".
func (p Pattern) Plain() string { return p.schema.plain() + "." + p.table.plain() }

func (g glob) plain() string {
	var b strings.Builder
	for _, r := range g {
		switch r {
		case anyRun:
			b.WriteByte('*')
		case anyOne:
			b.WriteByte('?')
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// coversAll says that every table of q is one of p; false may be wrong where q
// has wildcards.
func (p Pattern) coversAll(q Pattern) bool {
	return p.schema.covers(q.schema) && p.table.covers(q.table)
}

// Match says that the pattern covers the table.
func (p Pattern) Match(schema, table string) bool {
	return p.schema.covers([]rune(schema)) && p.table.covers([]rune(table))
}

// Literal is the only table the pattern covers, where it has no wildcard.
func (p Pattern) Literal() (schema, table string, ok bool) {
	if p.schema.wild() || p.table.wild() {
		return "", "", false
	}
	return string(p.schema), string(p.table), true
}

func (g glob) wild() bool {
	for _, r := range g {
		if r < 0 {
			return true
		}
	}
	return false
}

// covers says that all s stands for lies in g. For a text s this is matching; for
// a glob the answer false may be wrong (ab* against a* and b), never the answer
// true. Time is at most the product of the lengths: only the last star is ever
// taken up again.
func (g glob) covers(s glob) bool {
	i, j, star, mark := 0, 0, -1, 0
	for j < len(s) {
		switch {
		case i < len(g) && g[i] == anyRun:
			star, mark = i, j
			i++
		case i < len(g) && (g[i] == s[j] || g[i] == anyOne && s[j] != anyRun):
			i, j = i+1, j+1
		case star >= 0:
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	for i < len(g) && g[i] == anyRun {
		i++
	}
	return i == len(g)
}

// meets says that some text lies in both globs. A wildcard does not stand for a
// rune of except.
func (g glob) meets(h glob, except rune) bool {
	// now[j]: the texts of g read so far and of h[:j] have one in common.
	fits := func(a, b rune) bool {
		switch {
		case a < 0 && b < 0:
			return true
		case a < 0:
			return b != except
		case b < 0:
			return a != except
		}
		return a == b
	}
	last := make([]bool, len(h)+1)
	last[0] = true
	for j, r := range h {
		last[j+1] = last[j] && r == anyRun
	}
	for _, a := range g {
		now := make([]bool, len(h)+1)
		now[0] = last[0] && a == anyRun
		for j, b := range h {
			switch {
			case a == anyRun && b == anyRun:
				now[j+1] = last[j+1] || now[j]
			case a == anyRun:
				now[j+1] = last[j+1] || now[j] && fits(a, b)
			case b == anyRun:
				now[j+1] = now[j] || last[j+1] && fits(a, b)
			default:
				now[j+1] = last[j] && fits(a, b)
			}
		}
		last = now
	}
	return last[len(h)]
}
