package intent

import (
	"net/url"
	"strings"
)

// defaultPort is where Postgres listens unless told otherwise.
const defaultPort = "5432"

// noName stands for a database whose name cannot be told from its user and
// password.
const noName = "?"

// DatabaseName is the database that holds the view, as host:port/name without
// user, password and options; "" for the store's own. It names the database in
// status, definitions and hashes. Such a name is its own name. For what is
// neither URL nor name it is "?": a password could stand anywhere in it.
func (v View) DatabaseName() string {
	scheme, rest, isURL := strings.Cut(v.Database, "://")
	switch {
	case v.Database == "":
		return ""
	case isURL && (scheme == "postgres" || scheme == "postgresql"):
		return urlName(rest)
	case isURL || strings.ContainsAny(v.Database, " =@") || !strings.Contains(v.Database, "/"):
		return noName
	}
	return v.Database
}

// urlName reads a URL, its scheme removed, as libpq and pgx do: it may name
// several hosts, and options override the parts before them.
func urlName(s string) string {
	base, query, _ := strings.Cut(s, "?")
	authority, path, _ := strings.Cut(base, "/")
	if strings.Contains(path, "@") || strings.Contains(query, "@") && !strings.Contains(authority, "@") {
		return noName // of a password that is not percent-encoded, as a rule
	}
	authority = authority[strings.LastIndexByte(authority, '@')+1:]
	name, err := url.PathUnescape(path)
	if err != nil {
		return noName
	}
	options, err := url.ParseQuery(query)
	if err != nil {
		return noName
	}
	hosts := strings.Split(authority, ",")
	for i, h := range hosts {
		if strings.LastIndexByte(h, ':') <= strings.LastIndexByte(h, ']') { // the colons of IPv6 stand in brackets
			h += ":" + defaultPort
		}
		hosts[i] = strings.ToLower(h)
	}
	where := strings.Join(hosts, ",")
	if options.Has("host") || options.Has("port") {
		where += "?" + options.Get("host") + ":" + options.Get("port")
	}
	if options.Has("dbname") {
		name = options.Get("dbname")
	}
	return where + "/" + name
}
