package config

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// FuzzCase176Parse: whatever the file and the environment, there is no panic;
// the result is a valid configuration or an *Error with places in the file, and
// no message holds what the environment gave.
func FuzzCase176Parse(f *testing.F) {
	example, err := os.ReadFile(exampleFile)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(example), "s3cret")
	f.Add(minimal, "")
	f.Add(strings.Replace(minimal, "u:pw@db", "${XX}:${XX}@${X}", 1), "a@b/c:d?e#f")
	f.Add(minimal+"    key: {a.b: &x [a, b], c.d: *x, '\"e f\".\"g.h\"': [${X}]}\n", "k")
	f.Add(minimal+"  two: {tables: ['*.*', '*a*b?'], exclude: [${XX}], topic: \"{schema}.{table}\"}\n", "a.b")
	f.Add(minimal+"    slot: {name: '${AA}'}\n    topic: ${AA}.{table}\n    dead_letter: ${AA}\n  b: {tables: ['${AA}'], topic: x, slot: {name: '${AA}'}, dead_letter: '${AA}'}\n", "a.")
	f.Add("a: &a [*a]\n<<: *a\n? [x]\n: y\n---\n", "")
	f.Add("postgres: {url: 'host=db user=''ü ber'' password=x'}\nkafka: {embedded: {dir: \"\\0\"}}\n", "")
	f.Add(string(alternatives.ReplaceAll(example, []byte("$1$2"))), "s3cret")
	f.Add(withEvents(enrolled, "views: {v: {mode: async, database: 'postgres://u:${X}@${XX}/d', table: 'a int, b ${XX}', indexes: ['${X}'], when: {enrolled: 'delete ${XX} :n'}}}",
		"reactions: {r: {when: ${XX}, append: \"select '${XX}' as type\", from: ${XX}}}"), "a")
	f.Add(withEvents("events: {x: {stream: 'a/${XX}', data: {a: '${XX}', b: int}, schema: 2, upcast: {1: '${XX}', ${XX}: a}}}", "state: {a: {initial: '${XX}', when: {x: ':${XX}'}}}", "topic: '{category}.${XX}'"), "{a}")
	f.Add(minimal+"    events: {}\n    views: {v: {mode: ${XX}}}\n  b: {mode: events, tables: [a], topic: '${XX}', events: {x: {stream: '${XX}'}}}\n  c: {mode: '${XX}'}\n", "events")
	f.Fuzz(func(t *testing.T, text, value string) {
		const secret = "geheim_5f3a"
		c, err := Parse("c.yaml", []byte(text), func(name string) (string, bool) {
			if len(name)%2 == 0 {
				return value + secret, true
			}
			return value, value != ""
		})
		if err == nil {
			if err := c.Validate(); err != nil {
				t.Errorf("Parse took what Validate refuses: %v", err)
			}
			if len(c.PipelineNames()) == 0 {
				t.Error("a configuration without pipelines was taken")
			}
			return
		}
		var e *Error
		if !errors.As(err, &e) || len(e.Faults) == 0 || len(e.Faults) > maxFaults {
			t.Fatalf("error %T with faults %v", err, e)
		}
		lines := strings.Count(text, "\n") + strings.Count(text, "\r") + strings.Count(text, "\u2028") + strings.Count(text, "\u2029") + strings.Count(text, "\u0085") + 1
		for _, fault := range e.Faults {
			if fault.Line < 0 || fault.Line > lines+1 || fault.Message == "" {
				t.Errorf("fault %+v of a text with %d lines", fault, lines)
			}
		}
		if strings.Contains(err.Error(), secret) && !strings.Contains(text, secret) {
			t.Errorf("a message shows what the environment gave: %v", err)
		}
	})
}

func FuzzPattern(f *testing.F) {
	for _, s := range []string{"public.*", `"we ird"."a.b"`, `"a""b".c?`, "*.*", "a", ".", `"`, "ä.ö"} {
		f.Add(s, "public", "a.b")
	}
	f.Fuzz(func(t *testing.T, s, schema, table string) {
		p, err := ParsePattern(s)
		if err != nil {
			return
		}
		p.Match(schema, table)
		if a, b, ok := p.Literal(); ok && !p.Match(a, b) {
			t.Errorf("%q does not match its own table %q.%q", s, a, b)
		}
		if !p.coversAll(p) {
			t.Errorf("%q does not cover itself", s)
		}
	})
}

func FuzzURL(f *testing.F) {
	for _, s := range []string{"postgres://u:p@h:5432/d?sslmode=disable", "postgres://u:p@a,b:1/d", "postgresql://[::1]/", "postgres://u:p/w@h/d?password=x", "host=a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		_, err := parseURL(s)
		shown := (Postgres{URL: s}).Redacted()
		// What stands between the first ':' of the user part and its '@' is hidden.
		_, rest, ok := strings.Cut(s, "://")
		if !ok || err != nil {
			return
		}
		authority, _, _ := strings.Cut(rest, "/")
		user, _, has := strings.Cut(authority, "@")
		_, password, hasPassword := strings.Cut(user, ":")
		if has && hasPassword && len(password) > 3 && strings.Contains(shown, ":"+password+"@") && password != hidden {
			t.Errorf("Redacted(%q) = %q shows the password", s, shown)
		}
	})
}
