package intent

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestParseSQL(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		names      string // with spaces between
		want       string // the text with <name> for :name
	}{
		{"none", "select 1", "", "select 1"},
		{"several, each named once", "insert into t values (:a, :b, :a)", "a b", "insert into t values (<a>, <b>, <a>)"},
		{"alone", ":a", "a", "<a>"},
		{"at the ends", ":a + 1 = :b", "a b", "<a> + 1 = <b>"},
		{"side by side", ":a:b", "a", "<a>:b"},
		{"names", ":_x1 :Größe :A", "_x1 Größe A", "<_x1> <Größe> <A>"},
		{"a name ends at a dash", ":first-name", "first", "<first>-name"},
		{"no name", ": a :1 :", "", ": a :1 :"},
		{"behind an operator", "a->>:b||:c=:d", "b c d", "a->><b>||<c>=<d>"},
		{"assigned", "f(a:=:b, c=>:d)", "b d", "f(a:=<b>, c=><d>)"},

		{"string", "':a' || :b", "b", "':a' || <b>"},
		{"string with a quote", "'it''s :a' || :b", "b", "'it''s :a' || <b>"},
		{"string with a backslash", `'\' || :a || '`, "a", ""},
		{"string without escapes", `'\' || :a`, "a", `'\' || <a>`},
		{"escapes", `E'\':a' || :b`, "b", `E'\':a' || <b>`},
		{"escapes, small", `e'\\' || :b`, "b", `e'\\' || <b>`},
		{"escapes and quotes", `E'a''\':a' || :b`, "b", `E'a''\':a' || <b>`},
		{"escapes go on in the next line", "E'a'\n  '\\':a' || :b", "b", "E'a'\n  '\\':a' || <b>"},
		{"escapes go on behind a comment", "E'a'\n--x\n'\\':a' || :b", "b", "E'a'\n--x\n'\\':a' || <b>"},
		{"escapes go on behind a comment in their line", "E'a'--x\n'\\':a' || :b", "b", "E'a'--x\n'\\':a' || <b>"},
		{"escapes end in their line", `E'a' '\' || :b`, "b", `E'a' '\' || <b>`},
		{"a name that ends in e", `name'\' || :b`, "b", `name'\' || <b>`},
		{"unicode escapes", `U&'\0041:a' || :b`, "b", `U&'\0041:a' || <b>`},
		{"bits", "B'01' || :b", "b", "B'01' || <b>"},
		{"identifier", `"a:b""c:d" = :e`, "e", `"a:b""c:d" = <e>`},
		{"line comment", "1 -- :a\n+ :b", "b", "1 -- :a\n+ <b>"},
		{"line comment ended by a carriage return", "1 -- :a\r+ :b", "b", "1 -- :a\r+ <b>"},
		{"line comment at the end", "1 -- :a", "", "1 -- :a\n"},
		{"comment", "1 /* :a */ + :b", "b", "1 /* :a */ + <b>"},
		{"nested comments", "1 /* /* :a */ :a */ + :b", "b", "1 /* /* :a */ :a */ + <b>"},
		{"comment of stars", "1 /***/ + :b /*/**/*/", "b", "1 /***/ + <b> /*/**/*/"},
		{"dollar quote", "$$:a$$ || :b", "b", "$$:a$$ || <b>"},
		{"dollar quote with a tag", "$x$ $$:a$y$ $x$ || :b", "b", "$x$ $$:a$y$ $x$ || <b>"},
		{"dollar in a name", "a$b$c + :b", "b", "a$b$c + <b>"},
		{"dollar behind a placeholder", ":a$x$", "a", ""},

		{"cast", "x::int + :a", "a", "x::int + <a>"},
		{"cast of a placeholder", ":a::text::int", "a", "<a>::text::int"},
		{"cast of a column", "a::b", "", "a::b"},
		{"cast of a string", "'1'::int", "", "'1'::int"},
		{"cast with a space", "x :: int, x ::int", "", "x :: int, x ::int"},
		{"slice of numbers", "a[1:2]", "", "a[1:2]"},
		{"slice up to a column", "a[1:n]", "", "a[1:n]"},
		{"slice of columns", "a[m:n]", "", "a[m:n]"},
		{"slice behind brackets", "a[(m):n] || a[b[1]:n]", "", "a[(m):n] || a[b[1]:n]"},
		{"open slices", "a[:2] || a[2:] || a[:]", "", "a[:2] || a[2:] || a[:]"},
		{"slice up to a placeholder", "a[1: :n] || a[:m : :n]", "n m", "a[1: <n>] || a[<m> : <n>]"},
		{"slice from a placeholder", "a[:m:2]", "m", "a[<m>:2]"},
		{"member of a JSON object", "json_object('a':b, 'c': :d)", "d", "json_object('a':b, 'c': <d>)"},
		{"jsonpath operators", "data @? '$.a ? (@ > :x)' and data @@ :p", "p", "data @? '$.a ? (@ > :x)' and data @@ <p>"},
		{"question marks", "data ? 'a' and data ?| :b", "b", "data ? 'a' and data ?| <b>"},

		{"semicolon", "select :a;", "a", "select <a>"},
		{"semicolons and comments behind", "select :a ; ;; -- done; :b\n /* ; */", "a", "select <a> "},
		{"semicolon in a string", "select ';' || :a", "a", "select ';' || <a>"},
		{"space around", "\n\t select :a \r\n", "a", "select <a>"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, err := ParseSQL(tc.text)
			if tc.want == "" {
				if err == nil {
					t.Errorf("ParseSQL(%q) was taken: names %q", tc.text, s.Names())
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(s.Names(), " "); got != tc.names {
				t.Errorf("names of %q: got %q, want %q", tc.text, got, tc.names)
			}
			if got := s.With(func(n string) string { return "<" + n + ">" }); got != tc.want {
				t.Errorf("text of %q\n got %q\nwant %q", tc.text, got, tc.want)
			}
		})
	}
}

func TestParseSQLRefuses(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"nothing", "", "is empty"},
		{"space", " \n", "is empty"},
		{"a comment", "-- nothing", "is empty"},
		{"a semicolon", ";", "is empty"},
		{"two statements", "select 1; select 2", "holds more than one statement: write one"},
		{"a statement behind a comment", "select 1; /* x */ select 2", "holds more than one statement: write one"},
		{"string", "select 'a", "ends inside '…'"},
		{"string ended by a doubled quote", "select 'a''", "ends inside '…'"},
		{"escapes", `select E'a\'`, "ends inside E'…'"},
		{"escapes that go on", "select E'a'\n'b", "ends inside E'…'"},
		{"identifier", `select "a`, `ends inside "…"`},
		{"comment", "select /* a", "ends inside a comment"},
		{"nested comment", "select /* /* a */", "ends inside a comment"},
		{"dollar quote", "select $x$ a $$", "ends inside $x$…$x$"},
		{"bracket not closed", "f(a[1)", "holds a ) without a ( before it"},
		{"bracket that closes another", "f(a])", "holds a ] without a [ before it"},
		{"bracket too many", "a) or (b", "holds a ) without a ( before it"},
		{"bracket too few", "f((a)", "ends before a ( is closed"},
		{"semicolon inside brackets", "f(a;)", "holds a ) without a ( before it"},
		{"parameter", "select $1", "holds a $ with a number: values of the event are written :name"},
		{"zero byte", "select 1\x00", "is not text: it holds a zero byte, or bytes that are not UTF-8"},
		{"not UTF-8", "select '\xff'", "is not text: it holds a zero byte, or bytes that are not UTF-8"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if s, err := ParseSQL(tc.text); err == nil || err.Error() != tc.want {
				t.Errorf("ParseSQL(%q) = %v, %v, want %q", tc.text, s, err, tc.want)
			}
		})
	}
}

// Pieces whose placeholders are known, in any order.
func TestParseSQLOfRandomPieces(t *testing.T) {
	// No string has a backslash but those with escapes: behind one of these and a
	// comment it would go on with escapes.
	decoys := []string{
		"':x'", "'a'':x'", `E'\':x'`, `e'\\:x'`, `"a:x"`, `"a"":x"`, "-- :x '\n", "-- :x \"\r", "/* :x ' */", "/* /* ' */ :x */", "$$:x '$$", "$t$ :x $$ $t$",
		"::x", "a::x", "a[1:x]", "a[m:x]", "(a):x", "'a':x", `"a":x`, ":=", "@?", "->>", "1.5e3", "a$x$", "U&'\\:x'", ",", "+", "$", "#>>", "é",
	}
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	for range 5000 {
		var text, want strings.Builder
		text.WriteString("select ")
		want.WriteString("select ")
		var names []string
		for range 1 + r.IntN(12) {
			if r.IntN(3) == 0 {
				name := string(rune('a' + r.IntN(5)))
				text.WriteString(":" + name)
				want.WriteString("<" + name + ">")
				if !slices.Contains(names, name) {
					names = append(names, name)
				}
			} else {
				d := decoys[r.IntN(len(decoys))]
				text.WriteString(d)
				want.WriteString(d)
			}
			text.WriteByte(' ')
			want.WriteByte(' ')
		}
		s, err := ParseSQL(text.String())
		if err != nil {
			t.Fatalf("seed %d: ParseSQL(%q): %v", seed, text.String(), err)
		}
		if got := s.Names(); !slices.Equal(got, names) {
			t.Fatalf("seed %d: names of %q: got %q, want %q", seed, text.String(), got, names)
		}
		if got := s.With(func(n string) string { return "<" + n + ">" }); strings.TrimSpace(got) != strings.TrimSpace(want.String()) {
			t.Fatalf("seed %d: text of %q\n got %q\nwant %q", seed, text.String(), got, want.String())
		}
	}
}

func TestAppends(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"select 'offered' as type, 1 as data", "offered"},
		{"select 'offered' type", "offered"},
		{"select 'offered'::text AS TYPE", "offered"},
		{`select 'it''s' as "type"`, "it's"},
		{"select 'a' as type union all select 'b' as type union all select 'a' as type", "a b"},
		{"select 'a' -- as x\n as /* y */ type", "a"},
		{"select case when :x then 'a' else 'b' end as type", ""},
		{"select type, 'a' as data from t where t.type = 'b'", ""},
		{"select $$a$$ as type, E'a' as type, \"a\" as type", ""},
		{"select 'a'", ""},
		{"select 'a' as", ""},
		{"select 'a'::", ""},
	} {
		s, err := ParseSQL(tc.text)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(s.appends(), " "); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.text, got, tc.want)
		}
	}
}
