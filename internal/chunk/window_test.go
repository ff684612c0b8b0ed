package chunk

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"cdc/internal/cdc"
)

func parse(t testing.TB, text string) Snapshot {
	t.Helper()
	s, err := ParseSnapshot(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestStory plays short stories on one window that tracks three keys. Steps:
// open; KEY@XID an event; truncate@XID; spoil; arrive SNAPSHOT KEYS; ready LSN;
// take; drop. The answer to a step, if any, stands behind " = ".
func TestStory(t *testing.T) {
	for _, c := range []struct{ name, story string }{
		{"nothing happens", "open; arrive 10:10: a,b,c = true; ready 99 = false; ready 100 = true; take = a,b,c"},
		{"an empty chunk", "open; arrive 10:10: = true; ready 100 = true; take = "},
		{"tracked, visible", "open; a@9; arrive 10:10: a,b = true; ready 100 = true; take = a,b"},
		{"tracked, not visible", "open; a@10; arrive 10:10: a,b = true; ready 100 = true; take = b"},
		{"tracked twice", "open; a@9; a@10; arrive 10:10: a,b = true; ready 100 = true; take = b"},
		{"buffered, visible", "open; arrive 10:10: a,b = true; a@9; ready 100 = true; take = a,b"},
		{"buffered, not visible", "open; arrive 10:10: a,b = true; b@12 = b; b@12; ready 100 = true; take = a"},
		{"after ready", "open; arrive 10:10: a,b = true; ready 100 = true; a@12 = a; ready 0 = true; take = b"},
		{"a key twice", "open; arrive 10:10: a,b,a2 = true; ready 100 = true; take = b,a2"},
		{"written before, not visible", "a@10; open; arrive 10:10: a,b = false 1 10; open; arrive 11:11: a = true; ready 100 = true; take = a"},
		{"written before, another key", "z@10; open; a@9; arrive 10:10: a,b = false 1 10"},
		{"half of a transaction before", "a@10; open; b@10; arrive 10:10: a,b = false 1 10"},
		{"seen to be visible once", "a@10; open; arrive 11:11: = true; drop; open; arrive 11:11: = true"},
		{"written during an earlier chunk", "open; a@12; arrive 10:10: = true; b@14; ready 100 = true; take = ; open; arrive 15:15: = true; drop; open; arrive 15:15: = true"},
		{"written during an earlier chunk, not visible", "open; a@12; arrive 10:10: = true; b@14; drop; open; arrive 14:14: = false 1 14"},
		{"truncated before, not visible", "truncate@10; open; arrive 10:10: a = false 1 10"},
		{"truncated while read, visible", "open; truncate@9; arrive 10:10: a = true; ready 100 = true; take = a"},
		{"truncated while read", "open; truncate@10; arrive 10:10: a,b = true; a@11; ready 100 = true; take = "},
		{"truncated, visible", "open; arrive 10:10: a = true; truncate@9; ready 100 = true; take = a"},
		{"truncated", "open; arrive 10:10: a,b = true; truncate@10; a@11; ready 100 = true; take = "},
		{"truncated once only", "open; truncate@10; arrive 10:10: a = true; drop; open; arrive 11:11: a = true; ready 100 = true; take = a"},
		{"altered while read", "open; spoil; arrive 10:10: a = false 2; open; arrive 10:10: a = true"},
		{"altered after", "open; arrive 10:10: a = true; spoil; ready 100 = false"},
		{"altered before", "spoil; open; arrive 10:10: a = true"},
		{"as many keys as may be", "open; a@9; b@9; c@9; a@9; arrive 10:10: a = true; ready 100 = true; take = a"},
		{"too many keys", "open; a@9; b@9; c@9; d@9; e@9; arrive 10:10: a = false 3; open; arrive 10:10: a = true"},
		{"dropped before its rows arrive", "open; drop; arrive 10:10: a = false 0"},
		{"the epoch", "open; a@726; arrive 30064771798:30064771799: a,b = true; b@727 = b; ready 100 = true; take = a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := NewWindow[string](3)
			for step := range strings.SplitSeq(c.story, "; ") {
				call, want, _ := strings.Cut(step+" ", " = ")
				want = strings.TrimSpace(want)
				if got := tell(t, w, strings.TrimSpace(call)); got != want {
					t.Fatalf("%s: got %q, want %q", step, got, want)
				}
			}
		})
	}
}

func tell(t *testing.T, w *Window[string], call string) string {
	t.Helper()
	word := append(strings.Fields(call), "", "")
	if subject, at, ok := strings.Cut(call, "@"); ok {
		var xid uint32
		fmt.Sscan(at, &xid)
		if subject == "truncate" {
			w.Truncate(xid)
			return ""
		}
		row, first := w.Event([]byte(subject), xid)
		if first != (row != "") {
			t.Fatalf("%s: row %q, first %v", call, row, first)
		}
		return row
	}
	switch word[0] {
	case "open":
		w.Open()
	case "spoil":
		w.Spoil()
	case "drop":
		w.Drop()
	case "ready":
		var end cdc.LSN
		fmt.Sscan(word[1], (*uint64)(&end))
		return fmt.Sprint(w.Ready(end))
	case "take":
		var left []string
		for _, row := range w.Take() {
			left = append(left, row.Record)
		}
		return strings.Join(left, ",")
	case "arrive":
		var rows []Row[string]
		for name := range strings.SplitSeq(word[2], ",") {
			if name != "" {
				rows = append(rows, Row[string]{Key: []byte(name[:1]), Record: name})
			}
		}
		if w.Arrive(parse(t, word[1]), 100, rows) {
			return "true"
		}
		why, xid := w.Why()
		return strings.TrimSuffix(fmt.Sprint("false ", uint8(why), " ", xid), " 0")
	default:
		t.Fatalf("%q is no step", call)
	}
	return ""
}

// TestMisuse: a caller that breaks the order of life is stopped.
func TestMisuse(t *testing.T) {
	s := parse(t, "10:10:")
	for _, c := range []struct {
		name, want string
		call       func(w *Window[int])
	}{
		{"opened twice", "opened twice", func(w *Window[int]) { w.Open(); w.Open() }},
		{"arrived twice", "arrived twice", func(w *Window[int]) { w.Open(); w.Arrive(s, 8, nil); w.Arrive(s, 8, nil) }},
		{"no snapshot", "without its snapshot", func(w *Window[int]) { w.Open(); w.Arrive(Snapshot{}, 8, nil) }},
		{"no position", "without its snapshot and position", func(w *Window[int]) { w.Open(); w.Arrive(s, 0, nil) }},
		{"taken and not ready", "before the stream has passed", func(w *Window[int]) { w.Open(); w.Arrive(s, 8, nil); w.Take() }},
		{"taken and not opened", "before the stream has passed", func(w *Window[int]) { w.Take() }},
		{"taken twice", "before the stream has passed", func(w *Window[int]) { w.Open(); w.Arrive(s, 8, nil); w.Ready(8); w.Take(); w.Take() }},
		{"taken though spoiled", "before the stream has passed", func(w *Window[int]) { w.Open(); w.Arrive(s, 8, nil); w.Ready(8); w.Spoil(); w.Take() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			defer func() {
				if got := fmt.Sprint(recover()); !strings.Contains(got, c.want) {
					t.Errorf("got %q, want %q in it", got, c.want)
				}
			}()
			c.call(NewWindow[int](1))
		})
	}
}

// TestNoAllocation: events cost no memory while no chunk is being read.
func TestNoAllocation(t *testing.T) {
	w := NewWindow[int](1 << 10)
	var key [8]byte
	xid := uint32(0)
	event := func() {
		xid++
		binary.BigEndian.PutUint64(key[:], uint64(xid%100))
		w.Event(key[:], xid)
		w.Event(key[:], xid)
	}
	check := func(when string) {
		t.Helper()
		if got := testing.AllocsPerRun(2*maxNoted, event); got > 0 {
			t.Errorf("%s: %v allocations an event, want none", when, got)
		}
	}
	check("no chunk")
	w.Open()
	w.Arrive(parse(t, fmt.Sprintf("%d:%d:", xid+1, xid+1)), 8, make([]Row[int], 100))
	check("a chunk that waits")
}

func BenchmarkEvent(b *testing.B) {
	key := []byte(`{"id":123456789}`)
	run := func(name string, prepare func(w *Window[int]), xid func(i int) uint32) {
		b.Run(name, func(b *testing.B) {
			w := NewWindow[int](1 << 20)
			prepare(w)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i++
				w.Event(key, xid(i))
			}
		})
	}
	s := parse(b, "1000:1000:")
	rows := make([]Row[int], 10_000)
	for i := range rows {
		rows[i].Key = binary.BigEndian.AppendUint32(nil, uint32(i))
	}
	arrive := func(w *Window[int]) { w.Open(); w.Arrive(s, 8, rows) }
	run("no chunk", func(*Window[int]) {}, func(i int) uint32 { return uint32(i / 10) })
	run("tracked", (*Window[int]).Open, func(i int) uint32 { return uint32(i / 10) })
	run("visible", arrive, func(int) uint32 { return 999 })
	run("not visible", arrive, func(i int) uint32 { return 1000 + uint32(i/10) })
}
