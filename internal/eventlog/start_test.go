package eventlog

import (
	"errors"
	"strings"
	"testing"

	"cdc/internal/cdc"
	"cdc/internal/eventstore"
)

func TestDecide(t *testing.T) {
	t.Parallel()
	whole := func() facts {
		return facts{
			slotName: "s", system: cdc.System{ID: "1", Timeline: 2, End: 1000, Database: "d"},
			reader: &eventstore.Reader{Slot: "s", System: "1", Timeline: 2, LSN: 500},
			slot:   &cdc.Slot{Name: "s", Plugin: "pgoutput", Database: "d", Confirmed: 400, WALStatus: "reserved"},
		}
	}
	for _, c := range []struct {
		name   string
		change func(*facts)
		adopt  string // part of the reason
		drop   bool
		reason string // of a refusal
	}{
		{name: "everything is there", change: func(*facts) {}},
		{name: "the slot stands at the reader", change: func(f *facts) { f.slot.Confirmed = 500 }},
		{name: "a newer timeline that left behind the reader", change: func(f *facts) { f.reader.Timeline, f.switched = 1, 600 }},
		{name: "nothing yet", change: func(f *facts) { f.reader, f.slot = nil, nil }, adopt: "no event was ever"},
		{name: "no slot", change: func(f *facts) { f.slot = nil }, adopt: "gone"},
		{name: "another name", change: func(f *facts) { f.reader.Slot, f.slot = "old", nil }, adopt: `was "old"`},
		{name: "lost", change: func(f *facts) { f.slot.WALStatus = "lost" }, adopt: "lost", drop: true},
		{name: "invalidated", change: func(f *facts) { f.slot.Invalidation = "rows_removed" }, adopt: "lost", drop: true},
		{name: "moved", change: func(f *facts) { f.slot.Confirmed = 501 }, adopt: "somebody else", drop: true},
		{name: "another server", change: func(f *facts) { f.reader.System = "2" }, adopt: "server 2", drop: true},
		{name: "forked before the reader", change: func(f *facts) { f.reader.Timeline, f.switched = 1, 499 }, adopt: "left timeline 1", drop: true},
		{name: "a timeline of another history", change: func(f *facts) { f.forked = true }, adopt: "not in the history", drop: true},
		{name: "a server behind the reader", change: func(f *facts) { f.system.End = 499 }, adopt: "ends at", drop: true},
		{name: "publication changed", change: func(f *facts) { f.published = true }, adopt: "publication", drop: true},
		{name: "distrust", change: func(f *facts) { f.distrust = "because" }, adopt: "because", drop: true},
		{name: "plugin", change: func(f *facts) { f.slot.Plugin = "wal2json" }, reason: "slot-foreign"},
		{name: "database", change: func(f *facts) { f.slot.Database = "e" }, reason: "slot-foreign"},
		{name: "two-phase", change: func(f *facts) { f.slot.TwoPhase = true }, reason: "slot-two-phase"},
		{name: "a slot nobody numbered from", change: func(f *facts) { f.reader = nil }, reason: "slot-foreign"},
		{name: "a slot of the new name", change: func(f *facts) { f.reader.Slot = "old" }, reason: "slot-foreign"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := whole()
			c.change(&f)
			got, err := decide(f)
			te := new(cdc.TerminalError)
			if errors.As(err, &te); te.Reason != c.reason {
				t.Fatalf("got %v, want refusal %q", err, c.reason)
			}
			if (got.adopt != "") != (c.adopt != "") || !strings.Contains(got.adopt, c.adopt) || got.dropSlot != c.drop {
				t.Errorf("got %+v, want adopt %q, drop %t", got, c.adopt, c.drop)
			}
		})
	}
}

func TestEventID(t *testing.T) {
	row := func(s string) []cdc.Value { return []cdc.Value{{Kind: cdc.Text, Data: []byte(s)}} }
	const good = "018f4e2c-7b1a-7c3d-9e5f-0a1b2c3d4e5f"
	id, err := eventID(row(good), 0)
	if err != nil || id.String() != good {
		t.Errorf("got %s, %v; want %s", id, err, good)
	}
	for _, bad := range []string{"", good[1:], good + "0", strings.Replace(good, "-", "0", 1), strings.Replace(good, "8f", "xx", 1)} {
		if _, err := eventID(row(bad), 0); err == nil {
			t.Errorf("%q is taken for a UUID", bad)
		}
	}
	if _, err := eventID(row(good), 1); err == nil {
		t.Error("a column that is not there")
	}
	if _, err := eventID([]cdc.Value{{Kind: cdc.Unchanged}}, 0); err == nil {
		t.Error("a value that is not there")
	}
	same := row(good)
	if n := testing.AllocsPerRun(100, func() { id, err = eventID(same, 0) }); n != 0 {
		t.Errorf("%v allocations a row", n)
	}
}
