package source

import (
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
)

func TestMatchTable(t *testing.T) {
	for _, c := range []struct {
		pattern, schema, name string
		want                  bool
	}{
		{"public.t", "public", "t", true},
		{"public.*", "public", "anything", true},
		{"public.*", "publicity", "t", false},
		{"*.*", "s", "t", true},
		{"p?blic.t*", "public", "tt", true},
		{"public.t?", "public", "t", false},
		{"public.a.b", "public", "a.b", true},
		{"public.a.b", "public.a", "b", true},
		{"public.*", "public", "", true},
		{"we ird.T\"a.b,c\"", "we ird", "T\"a.b,c\"", true},
		{"public.ü?", "public", "ü😀", true},
		{"public", "public", "t", false},
		{"PUBLIC.T", "public", "t", false},
	} {
		if got := matchTable(c.pattern, c.schema, c.name); got != c.want {
			t.Errorf("matchTable(%q, %q, %q): got %t, want %t", c.pattern, c.schema, c.name, got, c.want)
		}
	}
}

// A regular expression is the oracle.
func TestMatchPartAgainstRegexp(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	pick := func(letters string, n int) string {
		var b strings.Builder
		for range rng.IntN(n) {
			b.WriteByte(letters[rng.IntN(len(letters))])
		}
		return b.String()
	}
	for range 20_000 {
		pattern, name := pick("ab*?", 8), pick("ab", 10)
		expr := strings.NewReplacer("*", ".*", "?", ".").Replace(pattern)
		want := regexp.MustCompile("^" + expr + "$").MatchString(name)
		if got := matchPart(pattern, name); got != want {
			t.Fatalf("seed %d: matchPart(%q, %q): got %t, want %t", seed, pattern, name, got, want)
		}
	}
}

// Case 176: a hostile pattern costs no more than its length times the name's.
func TestCase176PatternIsBounded(t *testing.T) {
	pattern, name := strings.Repeat("*a", 500)+"b", strings.Repeat("a", 5000)
	if matchPart(pattern, name) {
		t.Fatal("got a match, want none")
	}
}
