package demo

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// The promises of limiter: a transaction is shown whole or not at all, so many
// lines a second, nothing uncounted.
func TestLimiter(t *testing.T) {
	const perSecond, seconds, perTx = 5, 20, 3
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 0))
		l := &limiter{perSecond: perSecond}
		now := time.Unix(1_000_000, 0)
		shown, told, total := 0, 0, 0
		whole := map[string]bool{}
		for tx := 0; now.Before(time.Unix(1_000_000+seconds, 0)); tx++ {
			now = now.Add(time.Duration(rng.IntN(20)) * time.Millisecond)
			// Two transactions whose lines come in turn.
			for i := range 2 * perTx {
				name := fmt.Sprint(2*tx + i%2)
				show := l.admit(now, name)
				if before, ok := whole[name]; ok && before != show {
					t.Fatalf("seed %d: transaction %s: got a line shown=%v after one shown=%v", seed, name, show, before)
				}
				whole[name] = show
				total++
				if show {
					shown++
				}
				if n, tell := l.count(now); tell {
					told += n
				}
			}
		}
		// A second's worth is there at the beginning, and the last transactions may overdraw.
		if most := perSecond*(seconds+1) + 2*perTx; shown > most || shown < perSecond*seconds/2 {
			t.Errorf("seed %d: %d lines shown in %d s, want about %d, at most %d", seed, shown, seconds, perSecond*seconds, most)
		}
		if got := shown + told + l.skipped; got != total {
			t.Errorf("seed %d: %d shown, %d told as skipped, %d still to tell: %d, want %d", seed, shown, told, l.skipped, got, total)
		}
	}
}

func TestLimiterLetsAllThrough(t *testing.T) {
	l := &limiter{}
	for i := range 1000 {
		if !l.admit(time.Unix(5, 0), fmt.Sprint(i)) {
			t.Fatalf("line %d was skipped without a limit", i)
		}
	}
}
