package demo

import (
	"slices"
	"testing"

	"cdc/internal/cdc"
	"cdc/internal/compaction"
)

// rec is a record of a fold; value "" is a tombstone.
type rec struct {
	offset     int64
	key, value string
}

// holding makes contents of one fold per partition.
func holding(partitions ...[]rec) contents {
	c := contents{ends: map[cdc.TopicPartition]int64{}}
	for _, records := range partitions {
		fold := compaction.NewFold()
		for _, r := range records {
			value := []byte(r.value)
			if r.value == "" {
				value = nil
			}
			fold.Apply([]byte(r.key), value, r.offset)
			c.records++
		}
		c.folds = append(c.folds, fold)
	}
	return c
}

func TestDisturbed(t *testing.T) {
	log := []rec{{0, "a", "1"}, {1, "b", "1"}, {2, "a", "2"}, {3, "c", "1"}, {4, "b", ""}}
	for _, tc := range []struct {
		name  string
		after contents
		want  []string
	}{
		{"compacted", holding([]rec{{2, "a", "2"}, {3, "c", "1"}, {4, "b", ""}}), nil},
		{"tombstone gone too", holding([]rec{{2, "a", "2"}, {3, "c", "1"}}), nil},
		{"key lost", holding([]rec{{2, "a", "2"}}), []string{"c"}},
		{"older value kept", holding([]rec{{0, "a", "1"}, {3, "c", "1"}}), []string{"a"}},
		{"same offset, other bytes", holding([]rec{{2, "a", "X"}, {3, "c", "1"}}), []string{"a"}},
		{"same value elsewhere", holding([]rec{{2, "a", "2"}, {5, "c", "1"}}), []string{"c"}},
		{"deleted key alive again", holding([]rec{{1, "b", "1"}, {2, "a", "2"}, {3, "c", "1"}}), []string{"b"}},
		{"partition lost", holding(), []string{"a", "c"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			for _, key := range holding(log).disturbed(tc.after) {
				got = append(got, string(key))
			}
			slices.Sort(got)
			if !slices.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestResult(t *testing.T) {
	one := holding([]rec{{0, "a", "1"}})
	two := holding([]rec{{0, "a", "1"}, {1, "a ", "1"}})
	many := &comparison{rows: 1}
	for _, key := range []string{"7", "6", "5", "4", "3", "2", "1"} {
		many.found = append(many.found, difference{ghost, key})
	}
	for _, tc := range []struct {
		name          string
		before, after contents
		c             *comparison
		fault         string
		samples       int
	}{
		{"equal", one, one, &comparison{rows: 1}, "", 0},
		{"one row under two spellings of its key", two, two, &comparison{rows: 1}, "2 keys for 1 rows", 0},
		{"disturbed alone", two, one, &comparison{rows: 1}, "1 disturbed", 1},
		{"more than are named", one, one, many, "7 ghosts", samples},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := result(tables[0], tc.before, tc.after, tc.c)
			if got := r.fault(); !r.Equal && got != tc.fault {
				t.Errorf("fault: got %q, want %q", got, tc.fault)
			}
			if r.Equal != (tc.fault == "") || len(r.Samples) != tc.samples {
				t.Errorf("got equal %v and samples %q, want %d", r.Equal, r.Samples, tc.samples)
			}
		})
	}
}
