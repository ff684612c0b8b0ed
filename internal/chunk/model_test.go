package chunk

import (
	"strings"
	"testing"
)

const steps = 160

// play runs one schedule and gives the first thing that was wrong.
func play(seed uint64, o options, h habits) (violation string, s *sim) {
	s = newSim(seed, o, h)
	s.run(steps)
	return s.violation, s
}

// story plays a schedule again and tells it.
func story(seed uint64, o options, h habits) string {
	s := newSim(seed, o, h)
	s.tracing = true
	s.run(steps)
	return strings.Join(s.trace, "\n")
}

// TestFoldOfTopicEqualsTable: whatever is streamed, committed, read, restarted
// when, no key goes back, and at the end the topic holds the table.
func TestFoldOfTopicEqualsTable(t *testing.T) {
	t.Parallel()
	seeds := uint64(20_000)
	if testing.Short() {
		seeds = 2_000
	}
	seen := map[string]int{}
	for seed := range seeds {
		violation, s := play(seed, everything, habits{})
		if violation != "" {
			t.Fatalf("seed %d: %s\n%s", seed, violation, story(seed, everything, habits{}))
		}
		for what, n := range s.seen {
			seen[what] += n
		}
	}
	for _, what := range []string{
		"event before it is visible", "row before its event", "row dropped for a tracked event", "chunk taken",
		"truncated while it was read", "refused for a range of transactions",
		"spoiled after arrival", "restart", "restart within a chunk", "crash",
		"arrive: " + NotRefused.String(), "arrive: " + NotVisible.String(), "arrive: " + Spoiled.String(), "arrive: " + TooMany.String(),
	} {
		if seen[what] < int(seeds)/1000 {
			t.Errorf("%q came about %d times in %d schedules: too few to prove anything", what, seen[what], seeds)
		}
	}
	t.Log(seen)
}

// caught wants a violation within many schedules and prints the first.
func caught(t *testing.T, o options, h habits, seeds uint64) {
	t.Helper()
	for seed := range seeds {
		if violation, _ := play(seed, o, h); violation != "" {
			t.Logf("seed %d: %s\n%s", seed, violation, story(seed, o, h))
			return
		}
	}
	t.Errorf("nothing was wrong in %d schedules", seeds)
}

// never wants no violation.
func never(t *testing.T, o options, h habits, seeds uint64) {
	t.Helper()
	for seed := range seeds {
		if violation, _ := play(seed, o, h); violation != "" {
			t.Fatalf("seed %d: %s\n%s", seed, violation, story(seed, o, h))
		}
	}
}

// TestWatermarksLoseRows: watermarks in the log (DBLog) order a chunk among the
// events only where a commit is visible at once. Postgres streams it before.
func TestWatermarksLoseRows(t *testing.T) {
	t.Parallel()
	dblog := habits{window: newWatermarks}
	never(t, options{truncate: true}, dblog, 3_000)
	never(t, options{truncate: true, late: true}, habits{}, 3_000)
	caught(t, options{late: true}, dblog, 3_000)
	caught(t, options{late: true, lasting: true}, dblog, 3_000) // the topic is wrong for ever
}

// TestOpenedLate: a chunk opened when its rows are there is refused for each event
// meanwhile, and nothing worse.
func TestOpenedLate(t *testing.T) {
	t.Parallel()
	never(t, everything, habits{lateOpen: true}, 3_000)
}

// TestEachRuleIsNeeded: without any one of the rules some schedule goes wrong.
func TestEachRuleIsNeeded(t *testing.T) {
	t.Parallel()
	const seeds = 20_000
	never(t, everything, toldBy((*Snapshot).Visible), 2_000) // the crutch of one case alone breaks nothing
	for _, c := range []struct {
		name   string
		habits habits
	}{
		{"events are not tracked while the chunk is read", without(func(w *lame) { w.blindToTracked = true })},
		{"ids are compared as numbers of 64 and 32 bits", toldBy(rawVisible)},
		{"events before the chunk are not noted", without(func(w *lame) { w.blindBefore = true })},
		{"transactions beyond the limit are forgotten", without(func(w *lame) { w.forgetful = true })},
		{"keys beyond the limit are forgotten", without(func(w *lame) { w.boundless = true })},
		{"events after the rows arrived are not told", without(func(w *lame) { w.blindAfter = true })},
		{"every event takes its row out, visible or not", without(func(w *lame) { w.impatient = true })},
		{"the stream is not waited for", without(func(w *lame) { w.high = 1 })},
		{"truncations are not told", without(func(w *lame) { w.noTruncate = true })},
		{"changes of shape are not told", without(func(w *lame) { w.noSpoil = true })},
		{"a row is not written before its event", habits{noRowFirst: true}},
		{"transactions of an earlier life are not waited for", habits{noSettle: true}},
		{"the position is asked for before the snapshot", habits{earlyHigh: true}},
		{"a transaction half written counts as passed", habits{midway: true}},
		{"kept while the server is restarted", habits{keep: true}},
		{"another chunk's rows", habits{lateReader: true}},
		{"a key change is told of one key", habits{oneKey: true}},
		{"tracked events lack columns", habits{noUnchanged: true}},
	} {
		t.Run(c.name, func(t *testing.T) { caught(t, everything, c.habits, seeds) })
	}
}
