package eventlog

import (
	"fmt"

	"cdc/internal/cdc"
	"cdc/internal/eventstore"
)

// facts is everything the decision where to start depends on.
type facts struct {
	slotName string
	system   cdc.System
	reader   *eventstore.Reader // nil: nothing was ever numbered
	slot     *cdc.Slot          // nil: it does not exist
	// switched is the end of the reader's timeline, 0 where the server is still on
	// it; forked: that timeline is none of this server's.
	switched cdc.LSN
	forked   bool
	// published: the publication was changed just now, or distrust says why the log
	// may lack events.
	published bool
	distrust  string
}

// start is a decision.
type start struct {
	adopt    string // why events must be looked for beside the stream; "" streams on
	dropSlot bool   // the slot is ours and worthless
}

// decide is pure. It streams only where the slot can send every commit behind
// es.reader; anything else is mended by adopting, because the store has all events.
func decide(f facts) (start, error) {
	if err := usable(f); err != nil {
		return start{}, err
	}
	why := gap(f)
	return start{adopt: why, dropSlot: why != "" && f.slot != nil}, nil
}

// usable refuses a slot that is not this store's.
func usable(f facts) error {
	s := f.slot
	if s == nil {
		return nil
	}
	mend := fmt.Sprintf("Use another slot name (slot: {name: …}), or drop the slot if nothing uses it: SELECT pg_drop_replication_slot('%s');", s.Name)
	switch {
	case s.Plugin != "pgoutput":
		return cdc.Terminal("slot-foreign", mend, "replication slot %q uses plugin %q, want pgoutput", s.Name, s.Plugin)
	case s.Database != f.system.Database:
		return cdc.Terminal("slot-foreign", mend, "replication slot %q belongs to database %q, want %q", s.Name, s.Database, f.system.Database)
	case s.TwoPhase:
		return cdc.Terminal("slot-two-phase", mend, "replication slot %q was made with two_phase: it sends prepared transactions before they are committed", s.Name)
	case f.reader == nil, f.reader.Slot != s.Name:
		return cdc.Terminal("slot-foreign", mend, "replication slot %q exists, and this store has never been numbered from it: what it belongs to is not known", s.Name)
	}
	return nil
}

// neverNumbered is the reason at the first start.
const neverNumbered = "no event was ever numbered"

// gap names the first reason why the slot cannot send everything behind es.reader,
// "" where it can.
func gap(f facts) string {
	r, s := f.reader, f.slot
	switch {
	case r == nil:
		return neverNumbered
	case r.Slot != f.slotName:
		return fmt.Sprintf("the slot was %q before", r.Slot)
	case r.System != f.system.ID:
		return fmt.Sprintf("the log was written on server %s, this is server %s", r.System, f.system.ID)
	case f.forked:
		return fmt.Sprintf("timeline %d is not in the history of this server", r.Timeline)
	case f.switched != 0 && r.LSN > f.switched:
		return fmt.Sprintf("the server left timeline %d at %s, the log is at %s", r.Timeline, f.switched, r.LSN)
	case f.system.End < r.LSN:
		return fmt.Sprintf("the server's WAL ends at %s, the log is at %s", f.system.End, r.LSN)
	case s == nil:
		return "the slot is gone"
	case s.WALStatus == "lost" || s.Invalidation != "":
		return "the slot is lost: the WAL it needs was removed"
	case s.Confirmed > r.LSN:
		return fmt.Sprintf("the slot stands at %s, the log is at %s: somebody else consumed it or made it anew", s.Confirmed, r.LSN)
	case f.published:
		return "the publication was changed: what it left out until now was not streamed"
	}
	return f.distrust
}
