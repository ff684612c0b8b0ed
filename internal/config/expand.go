package config

import (
	"net/url"
	"strings"
)

// expand replaces ${NAME} by the variable, ${NAME:-text} by text where it is
// unset or empty, and $${ by a literal ${. It happens after YAML was parsed, so
// no value can add keys to the file.
//
// In the user part of a URL (isURL) values are percent-encoded: a password holds
// '@', '/' or '#' sooner or later, and the variable holds the password itself, as
// PGPASSWORD does for libpq, not its form in a URL.
func (d *decoder) expand(s string, at place, path string, isURL bool) (string, bool) {
	if !strings.Contains(s, "${") {
		return s, true
	}
	userEnd := 0
	if isURL {
		userEnd = userPartEnd(s)
	}
	var b strings.Builder
	ok := true
	for i := 0; i < len(s); {
		switch {
		case strings.HasPrefix(s[i:], "$${"):
			b.WriteString("${")
			i += len("$${")
		case strings.HasPrefix(s[i:], "${"):
			body, _, closed := strings.Cut(s[i+len("${"):], "}")
			if !closed {
				d.add(at, path, "${ is not closed: write ${NAME} or ${NAME:-default}, and $${ for a literal ${")
				return "", false
			}
			value, good := d.variable(body, at, path)
			ok = ok && good
			if i < userEnd {
				value = encodeUser(value)
			}
			b.WriteString(value)
			i += len("${") + len(body) + len("}")
		default:
			b.WriteByte(s[i])
			i++
		}
	}
	return b.String(), ok
}

// variable is the value of NAME or NAME:-default.
func (d *decoder) variable(body string, at place, path string) (string, bool) {
	name, fallback, hasFallback := strings.Cut(body, ":-")
	if !isVariable(name) {
		d.add(at, path, "${%s} names no variable: write ${NAME} or ${NAME:-default}, and $${ for a literal ${", body)
		return "", false
	}
	value, set := d.env(name)
	switch {
	case hasFallback && value == "":
		return fallback, true
	case !set:
		d.add(at, path, "environment variable %s is not set: set it, or write ${%s:-default}", name, name)
		return "", false
	}
	return value, true
}

func isVariable(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c != '_' && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// userPartEnd is the offset of the '@' that ends the user part of a URL, 0
// without one. Variables are looked over: a default in one may contain anything.
func userPartEnd(s string) int {
	start := strings.Index(s, "://")
	if start < 0 {
		return 0
	}
	end := 0
	for i := start + len("://"); i < len(s); i++ {
		switch {
		case strings.HasPrefix(s[i:], "${"):
			n := strings.IndexByte(s[i:], '}')
			if n < 0 {
				return end
			}
			i += n
		case s[i] == '@':
			end = i
		case s[i] == '/' || s[i] == '?' || s[i] == '#':
			return end
		}
	}
	return end
}

// encodeUser writes s so that a URL parser gives it back from a user part:
// QueryEscape encodes all that is reserved, and %20 stands for '+'.
func encodeUser(s string) string {
	return strings.ReplaceAll(url.QueryEscape(s), "+", "%20")
}
