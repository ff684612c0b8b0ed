package config

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// target is a Postgres URL taken apart, by the rules of libpq and pgx (a URL may
// name several hosts, which net/url refuses).
type target struct {
	hosts    string // host:port, comma between several, ports filled in
	database string // "" where the URL names none
}

const defaultPort = "5432"

var sslModes = []string{"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}

// parseURL reads a Postgres URL. No message repeats a part of it that can hold
// the password.
func parseURL(s string) (target, error) {
	rest, ok := strings.CutPrefix(s, "postgres://")
	if !ok {
		rest, ok = strings.CutPrefix(s, "postgresql://")
	}
	switch {
	case !ok:
		return target{}, errors.New("not a Postgres URL: write postgres://user:password@host:5432/database?sslmode=verify-full")
	case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return target{}, errors.New("the URL holds a control character: percent-encode it, a line end as %0A")
	}
	authority, path := rest, ""
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		authority, path = rest[:i], rest[i:]
	}
	// What stands before an '@' in the wrong place is a password, as a rule.
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		user := authority[:i]
		if strings.ContainsAny(user, "@#") {
			return target{}, errors.New("the user or password holds '@' or '#' as it is: percent-encode it, '@' as %40 and '#' as %23")
		}
		if _, err := url.PathUnescape(user); err != nil {
			return target{}, errors.New("the user or password holds '%' without two hexadecimal digits: write it as %25")
		}
		authority = authority[i+1:]
	} else if database, _, _ := strings.Cut(path, "?"); strings.Contains(database, "@") || strings.HasPrefix(path, "?") && strings.Contains(path, "@") {
		return target{}, errors.New("an '@' stands behind the first '/' or '?': percent-encode them in the password, '/' as %2F and '?' as %3F, or in the database's name, '@' as %40")
	}
	hosts, err := hostList(authority)
	if err != nil {
		return target{}, err
	}
	database, query, _ := strings.Cut(path, "?")
	name, err := url.PathUnescape(strings.TrimPrefix(database, "/"))
	if err != nil {
		return target{}, errors.New("the database's name holds '%' without two hexadecimal digits: write it as %25")
	}
	t := target{hosts: hosts, database: name}
	return t, t.options(query)
}

// hostList checks host[:port][,host[:port]…] and fills ports in.
func hostList(s string) (string, error) {
	var out []string
	for h := range strings.SplitSeq(s, ",") {
		host, port := h, ""
		// The colons of an IPv6 address stand inside its brackets.
		if i := strings.LastIndexByte(h, ':'); i > strings.LastIndexByte(h, ']') {
			host, port = h[:i], h[i+1:]
			if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
				return "", errors.New("the port is not a number from 1 to 65535; percent-encode '/', '?' and '@' if they belong to the password")
			}
		}
		if strings.HasPrefix(host, "[") != strings.HasSuffix(host, "]") || !strings.HasPrefix(host, "[") && strings.Contains(host, ":") {
			return "", errors.New("an IPv6 address goes in brackets, as in [::1]:5432")
		}
		if strings.Contains(host, " ") {
			return "", errors.New("the host holds a space: remove it")
		}
		if port == "" {
			port = defaultPort
		}
		out = append(out, strings.ToLower(host)+":"+port)
	}
	return strings.Join(out, ","), nil
}

// options checks those that would only fail at the first connection, or do harm.
func (t *target) options(query string) error {
	q, err := url.ParseQuery(query)
	if err != nil {
		return errors.New("the options behind '?' cannot be read: write name=value with & between them and percent-encode the values")
	}
	for _, name := range []string{"replication", "database"} {
		if q.Has(name) {
			return fmt.Errorf("option %q is set by cdc itself: remove it", name)
		}
	}
	if mode := q.Get("sslmode"); q.Has("sslmode") && !slices.Contains(sslModes, mode) {
		return fmt.Errorf("sslmode is not known: write one of %s", strings.Join(sslModes, ", "))
	}
	// Options override the parts before them, as in libpq.
	if q.Has("host") || q.Has("port") {
		t.hosts += "?" + q.Get("host") + ":" + q.Get("port")
	}
	if q.Has("dbname") {
		t.database = q.Get("dbname")
	}
	return nil
}

// Redacted is the URL without password, for logs and messages.
func (p Postgres) Redacted() string {
	scheme, rest, ok := strings.Cut(p.URL, "://")
	if !ok {
		if p.URL == "" {
			return ""
		}
		return hidden
	}
	// The last '@' of all: where the password holds one that is not encoded, the
	// whole of it must go.
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		user, _, has := strings.Cut(rest[:i], ":")
		if strings.ContainsAny(user, "@/?") {
			user, has = "", true
		}
		if has {
			user += ":" + hidden
		}
		rest = user + rest[i:]
	}
	base, query, has := strings.Cut(rest, "?")
	if !has {
		return scheme + "://" + base
	}
	pairs := strings.Split(query, "&")
	for i, pair := range pairs {
		if name, _, _ := strings.Cut(pair, "="); !publicOption(name) {
			pairs[i] = name + "=" + hidden
		}
	}
	return scheme + "://" + base + "?" + strings.Join(pairs, "&")
}

// publicOption says that a connection option never is a secret. The list is of
// those that help to find a fault; password and sslpassword are two of many that
// are not in it.
func publicOption(name string) bool {
	switch name {
	case "sslmode", "host", "port", "dbname", "user", "connect_timeout", "target_session_attrs", "application_name":
		return true
	}
	return false
}
