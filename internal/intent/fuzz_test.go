package intent

import (
	"strings"
	"testing"
)

// FuzzParseSQL: no text panics; the parts put together are the text; and what is
// taken can stand between brackets in other SQL.
func FuzzParseSQL(f *testing.F) {
	for _, s := range []string{
		"insert into t values (:a, :b::int) on conflict do nothing;", `E'\':a' || :b`, "E'a'\n--x\n'\\':a'", "$x$ $$:a$y$ $x$ || :b",
		"a[1:n] || a[:m : :n] -- :c", "/* /* :a */ */ :b", `"a:b""c" = :e`, "data @? '$.a ? (@ > :x)'", ";;", ")", "$1", "a$b$c", ":a:b::c",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSQL(text)
		if err != nil {
			return
		}
		same := s.With(func(n string) string { return ":" + n })
		if whole := strings.TrimSpace(text); !strings.HasPrefix(whole+"\n", same) {
			t.Errorf("%q became %q", whole, same)
		}
		again, err := ParseSQL(same)
		if err != nil || strings.Join(again.Names(), " ") != strings.Join(s.Names(), " ") {
			t.Errorf("%q has names %q, read again %q, %v", text, s.Names(), again.Names(), err)
		}
		inside := "(" + s.With(func(string) string { return "(x)" }) + ")"
		if _, err := ParseSQL(inside); err != nil {
			t.Errorf("%q in brackets: %v", text, err)
		}
		s.appends()
	})
}

// FuzzParseID: what is taken is written back, in small letters.
func FuzzParseID(f *testing.F) {
	for _, s := range []string{"017f22e2-79b0-7cc3-98c4-dc0c0c07398f", "017F22E2-79B0-7CC3-98C4-DC0C0C07398F", "", "017f22e279b07cc398c4dc0c0c07398f", "{17f22e2-79b0-7cc3-98c4-dc0c0c07398f}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseID(s)
		if err != nil {
			if !id.IsZero() {
				t.Errorf("ParseID(%q) gives both an id and %v", s, err)
			}
			return
		}
		if got, want := id.String(), strings.ToLower(s); got != want {
			t.Errorf("%q is written %q", s, got)
		}
	})
}

// FuzzTemplate: no template panics, and one that is taken names streams of one
// category, by fields that are there.
func FuzzTemplate(f *testing.F) {
	for _, s := range []string{"course/{course}", "course", "{course}", "a/{b", "a/b}", "}{", "a/{course}{n}/x", "a/{}", "a/{{course}}"} {
		f.Add(s)
	}
	fields := []Field{{Name: "course", Type: TypeString}, {Name: "n", Type: TypeInt}}
	f.Fuzz(func(t *testing.T, text string) {
		template := Template(text)
		sql := template.SQL("data")
		if template.Check(fields) != nil {
			return
		}
		if !CategoryOK(template.Category()) {
			t.Errorf("%q was taken", text)
		}
		if _, err := ParseSQL(sql); err != nil {
			t.Errorf("the SQL of %q is %s: %v", text, sql, err)
		}
		stream := text
		for _, name := range template.Fields() {
			stream = strings.ReplaceAll(stream, "{"+name+"}", "x/y")
		}
		if strings.ContainsAny(stream, "{}") || Category(stream) != template.Category() {
			t.Errorf("%q names stream %q of category %q", text, stream, template.Category())
		}
	})
}
