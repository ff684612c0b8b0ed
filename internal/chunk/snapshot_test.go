package chunk

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestVisible(t *testing.T) {
	const epoch = 1 << 32
	for _, c := range []struct {
		name, snapshot string
		xid            uint32
		want           bool
	}{
		{"before all", "994:994:", 993, true},
		{"not visible though committed", "994:994:", 994, false},
		{"the last that is over", "10:20:10,14", 19, true},
		{"in progress", "10:20:10,14", 14, false},
		{"the oldest in progress", "10:20:10,14", 10, false},
		{"between those in progress", "10:20:10,14", 12, true},
		{"begun later", "10:20:10,14", 21, false},
		{"seventh epoch", "30064771798:30064771798:", 726, false},
		{"seventh epoch, over", "30064771798:30064771798:", 725, true},
		{"seventh epoch, in progress", "30064771798:30064771800:30064771798", 726, false},
		{"last id before the wrap", fmt.Sprint(epoch+3, ":", epoch+5, ":"), 1<<32 - 1, true},
		{"in progress across the wrap", fmt.Sprint(epoch-1, ":", epoch+5, ":", epoch-1), 1<<32 - 1, false},
		{"first id after the wrap", fmt.Sprint(epoch-5, ":", epoch-1, ":"), 3, false},
		{"below the sign", fmt.Sprint(1<<31+5, ":", 1<<31+9, ":"), 1<<31 - 1, true},
		{"above the sign", fmt.Sprint(1<<31-9, ":", 1<<31-5, ":"), 1<<31 + 2, false},
		{"of no epoch", "5:10:5", 1<<32 - 1, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := ParseSnapshot(c.snapshot)
			if err != nil {
				t.Fatal(err)
			}
			if got := s.Visible(c.xid); got != c.want {
				t.Errorf("snapshot %s: visible(%d) = %v, want %v", c.snapshot, c.xid, got, c.want)
			}
			if got := s.String(); got != c.snapshot {
				t.Errorf("written %s, want %s", got, c.snapshot)
			}
		})
	}
	if none := (&Snapshot{}); none.Visible(1) || none.Visible(1<<31+1) {
		t.Error("something is visible in no snapshot")
	}
}

func TestParseSnapshotRefuses(t *testing.T) {
	for _, text := range []string{
		"", "10", "10:20", ":", "::", "10:20:10:14", "x:20:", "10:x:", "10:20:x", "10:20:10,", "10:20:,10", "10:20:10,,14",
		"0:20:", "20:10:", "10:20:9", "10:20:20", "10:20:14,10", "10:20:14,14", "-1:20:", "+10:20:", "1_0:20:", " 10:20:", "10:20: 14",
		"10:20:\n", "9223372036854775807:9223372036854775808:", "10:18446744073709551616:", "10:2147483658:",
	} {
		if s, err := ParseSnapshot(text); err == nil {
			t.Errorf("%q is read as %s, want an error", text, &s)
		} else if !strings.Contains(err.Error(), "pg_current_snapshot") {
			t.Errorf("%q: error %q does not say what is wanted", text, err)
		}
	}
	if s, err := ParseSnapshot("10:2147483657:"); err != nil || s.XMin() != 10 {
		t.Errorf("the widest snapshot: %s, %v", &s, err)
	}
}

// FuzzParseSnapshot: no text panics; what is read is written back as Postgres
// would; and visibility by 32 bits is that by 64 bits, of ids near enough.
func FuzzParseSnapshot(f *testing.F) {
	for _, text := range []string{"994:994:", "10:20:10,14", "30064771798:30064771800:30064771798", "4294967295:4294967301:4294967295,4294967299", "1:1:", "10:20:20"} {
		f.Add(text, uint32(5))
	}
	f.Fuzz(func(t *testing.T, text string, back uint32) {
		s, err := ParseSnapshot(text)
		if err != nil {
			return
		}
		again, err := ParseSnapshot(s.String())
		if err != nil || again.xmin != s.xmin || again.xmax != s.xmax || !slices.Equal(again.xip, s.xip) {
			t.Fatalf("%q: read %s, written and read again %s, %v", text, &s, &again, err)
		}
		ids := []int64{int64(s.xmax) - int64(back>>1) - 1, int64(s.xmax) + int64(back>>1), int64(s.xmin), int64(s.xmin) - 1}
		for _, id := range s.xip {
			ids = append(ids, int64(id))
		}
		for _, id := range ids {
			want := id < int64(s.xmax) && !slices.Contains(s.xip, uint64(id))
			if got := s.Visible(uint32(id)); got != want {
				t.Errorf("snapshot %s: visible(%d) = %v, want %v", &s, id, got, want)
			}
		}
	})
}

// TestNotesForgetNothingPending: whatever is noted in however little room, notes
// are pending while one of the transactions has not been seen to be visible, and
// not for long after that.
func TestNotesForgetNothingPending(t *testing.T) {
	for seed := range uint64(2_000) {
		rng := rand.New(rand.NewPCG(seed, 1))
		n, from := notes{limit: 1 + rng.IntN(5)}, notes{limit: 1 + rng.IntN(5)}
		next := uint64(rng.IntN(3))<<32 + 1<<32 - uint64(rng.IntN(40)) - 1
		s := Snapshot{xmin: next, xmax: next}
		unseen := map[uint64]bool{}
		for range 60 {
			switch rng.IntN(5) {
			case 0, 1:
				next++
				unseen[next] = true
				n.note(uint32(next))
			case 2: // an older one that is in progress in the last snapshot
				if len(s.xip) > 0 {
					id := s.xip[rng.IntN(len(s.xip))]
					unseen[id] = true
					from.note(uint32(id))
				}
			case 3:
				n.move(&from)
			case 4: // a later snapshot: those in progress are over, or still are
				running := map[uint64]bool{}
				for id := range unseen {
					running[id] = rng.IntN(2) == 0
				}
				for _, id := range s.xip {
					running[id] = running[id] || !unseen[id] && rng.IntN(2) == 0
				}
				running[next+1] = true
				next += 3
				later := Snapshot{xmax: next - uint64(rng.IntN(3))}
				for id, is := range running {
					if is && id < later.xmax && id >= s.xmin {
						later.xip = append(later.xip, id)
					}
				}
				slices.Sort(later.xip)
				if later.xmin = later.xmax; len(later.xip) > 0 {
					later.xmin = later.xip[0]
				}
				s = later
				for id := range unseen {
					if s.Visible(uint32(id)) {
						delete(unseen, id)
					}
				}
				n.prune(&s)
				from.prune(&s)
			}
			_, inN := n.pending()
			_, inFrom := from.pending()
			if len(unseen) > 0 && !inN && !inFrom {
				t.Fatalf("seed %d: %v not seen to be visible, and nothing is pending", seed, unseen)
			}
			if len(n.xids) > n.limit {
				t.Fatalf("seed %d: %d noted, limit %d", seed, len(n.xids), n.limit)
			}
		}
		n.move(&from)
		s = Snapshot{xmin: next + 1, xmax: next + 1}
		if n.prune(&s); true {
			if xid, pending := n.pending(); pending {
				t.Fatalf("seed %d: all are over, and %d is pending in %s", seed, xid, &s)
			}
		}
	}
}
