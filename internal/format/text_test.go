package format

import (
	"math/rand/v2"
	"testing"
)

// plainPrefix never passes over a byte that must be looked at, and stops at most
// seven bytes before one.
func TestPlainPrefixAgainstByteByByte(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for n := range 200_000 {
		s := make([]byte, rng.IntN(40))
		for i := range s {
			s[i] = byte(' ' + rng.IntN(95))
		}
		if len(s) > 0 && n%4 > 0 { // one or two bytes of any kind among plain ones
			s[rng.IntN(len(s))] = byte(rng.IntN(256))
			s[rng.IntN(len(s))] = byte(n)
		}
		want := 0
		for want < len(s) && plain[s[want]] {
			want++
		}
		if got := plainPrefix(s); got > want || want-got >= 8 {
			t.Fatalf("plainPrefix(%q): got %d, the first byte to look at is %d", s, got, want)
		}
	}
}
