package config

import (
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestPatternMatch(t *testing.T) {
	for _, tc := range []struct {
		pattern, schema, table string
		want                   bool
	}{
		{"public.*", "public", "students", true},
		{"public.*", "public", "", true},
		{"public.*", "publi", "c", false},
		{"public.*", "public2", "x", false},
		{"*.*", "a", "b.c", true},
		{"p*.s?udents", "public", "students", true},
		{"p*.s?udents", "public", "sudents", false},
		{"public.a*b*c", "public", "aXbYbZc", true},
		{"public.a*b*c", "public", "aXbYbZ", false},
		{"public.Orders", "public", "orders", false},
		{`"we ird"."a.b"`, "we ird", "a.b", true},
		{`"a""b".c`, `a"b`, "c", true},
		{`public."a.b"`, "public", "a.b", true},
		{"schön.tä?le", "schön", "täble", true},
		{"a.???", "a", "äöü", true},
		{"a.(b|c)+", "a", "(b|c)+", true},
	} {
		p, err := ParsePattern(tc.pattern)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		if got := p.Match(tc.schema, tc.table); got != tc.want {
			t.Errorf("%q matches %q.%q: %v, want %v", tc.pattern, tc.schema, tc.table, got, tc.want)
		}
		if p.String() != tc.pattern {
			t.Errorf("String %q, want %q", p, tc.pattern)
		}
	}
}

func TestPatternRefused(t *testing.T) {
	for _, s := range []string{
		"", ".", "a", "a.", ".b", "a.b.c", `"a.b`, `"a"b.c`, `a."b"c`, `""."b"`, "a b.c", "a.b ", "a.\x00", `a."*"`,
		strings.Repeat("x", 64) + ".t", "s." + strings.Repeat("ü", 32),
	} {
		if p, err := ParsePattern(s); err == nil {
			t.Errorf("%q was taken as %q", s, p.Plain())
		}
	}
}

func TestPatternPlainAndLiteral(t *testing.T) {
	for _, tc := range []struct {
		in, plain string
		literal   bool
	}{
		{"public.a", "public.a", true},
		{`"we ird"."a.b"`, "we ird.a.b", true},
		{"public.**a?", "public.*a?", false},
	} {
		p, err := ParsePattern(tc.in)
		if err != nil {
			t.Fatal(err)
		}
		_, _, literal := p.Literal()
		if p.Plain() != tc.plain || literal != tc.literal {
			t.Errorf("%q: plain %q, literal %v; want %q, %v", tc.in, p.Plain(), literal, tc.plain, tc.literal)
		}
	}
	if schema, table, err := ParseTable(`"we ird"."a.b"`); err != nil || schema != "we ird" || table != "a.b" {
		t.Errorf("ParseTable: %q %q %v", schema, table, err)
	}
	if _, _, err := ParseTable("a.*"); err == nil {
		t.Error("ParseTable took a wildcard")
	}
}

// Against a dumb oracle: every text up to some length over a small alphabet,
// matched by regexp.
func TestGlobsAgainstRegexp(t *testing.T) {
	var texts []string
	for last := []string{""}; len(last) > 0 && len(last[0]) <= 6; {
		texts = append(texts, last...)
		var next []string
		for _, s := range last {
			for _, c := range []string{"a", "b", "."} {
				next = append(next, s+c)
			}
		}
		last = next
	}
	seed := uint64(time.Now().UnixNano())
	rnd := rand.New(rand.NewPCG(seed, 1))
	random := func() (glob, *regexp.Regexp) {
		g, expr := glob{}, "^"
		for range 1 + rnd.IntN(3) {
			switch rnd.IntN(5) {
			case 0:
				g, expr = append(g, anyRun), expr+".*"
			case 1:
				g, expr = append(g, anyOne), expr+"."
			case 2:
				g, expr = append(g, 'b'), expr+"b"
			case 3:
				g, expr = append(g, '.'), expr+`\.`
			default:
				g, expr = append(g, 'a'), expr+"a"
			}
		}
		return g, regexp.MustCompile(expr + "$")
	}
	for range 400 {
		g, reg := random()
		h, reh := random()
		// For meets a wildcard does not stand for a dot.
		noDot := func(r *regexp.Regexp) *regexp.Regexp {
			return regexp.MustCompile(strings.ReplaceAll(strings.ReplaceAll(r.String(), `\.`, "\x00"), ".", "[^.]"))
		}
		nog := regexp.MustCompile(strings.ReplaceAll(noDot(reg).String(), "\x00", `\.`))
		noh := regexp.MustCompile(strings.ReplaceAll(noDot(reh).String(), "\x00", `\.`))
		common, all := false, true
		for _, s := range texts {
			if got, want := g.covers([]rune(s)), reg.MatchString(s); got != want {
				t.Fatalf("seed %d: %q covers %q: %v, want %v", seed, g.plain(), s, got, want)
			}
			common = common || nog.MatchString(s) && noh.MatchString(s)
			all = all && (!reh.MatchString(s) || reg.MatchString(s))
		}
		if got := g.meets(h, '.'); got != common {
			t.Fatalf("seed %d: %q meets %q: %v, want %v", seed, g.plain(), h.plain(), got, common)
		}
		if g.covers(h) && !all {
			t.Fatalf("seed %d: %q is said to cover %q and does not", seed, g.plain(), h.plain())
		}
	}
}

// A pattern that sends a backtracking matcher away for ever (case 176) is
// answered in time proportional to both lengths.
func TestCase176NoBacktracking(t *testing.T) {
	p, err := ParsePattern("public." + strings.Repeat("*a", 31))
	if err != nil {
		t.Fatal(err)
	}
	if p.Match("public", strings.Repeat("a", 60)+"b") {
		t.Error("matches a text that ends otherwise")
	}
	g := glob{}
	for range 2000 {
		g = append(g, anyRun, 'a')
	}
	if g.meets(append(g, 'b'), '.') || g.covers([]rune(strings.Repeat("a", 4000)+"b")) {
		t.Error("a long glob meets one that ends otherwise")
	}
}
