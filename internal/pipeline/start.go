package pipeline

import (
	"errors"
	"fmt"

	"cdc/internal/cdc"
)

// facts is everything the decision where to start depends on, gathered behind a
// take-over so that none of it can move.
type facts struct {
	name     string
	mode     SnapshotMode
	onGap    string
	slotName string
	system   cdc.System
	// progress is nil where the pipeline has none.
	progress *Progress
	// slot is nil where it does not exist.
	slot *cdc.Slot
	// rebuild: the topics were damaged by a known accident of the embedded broker.
	rebuild bool
	// switched is the end of the progress record's timeline, 0 where the server
	// is still on it.
	switched cdc.LSN
}

// action is what a life does first.
type action int

const (
	actSnapshot action = iota + 1 // copy the tables, then stream
	actCreate                     // make the slot, stream from there
	actStream                     // stream from the progress record
	actDone                       // nothing is left to do
)

// errRebuild is the gap of a broker whose log lost records.
var errRebuild = errors.New("the embedded broker lost records when a compaction was interrupted")

// start is a decision.
type start struct {
	action   action
	dropSlot bool  // the slot is ours and worthless: drop it first
	gap      error // why the tables are copied again, for the log
}

// decide is pure: it never starts where a change could have been missed. A gap
// is the stretch between the progress record and what the server can still
// send; it is reported with its range, never skipped (G6).
func decide(f facts) (start, error) {
	p := f.progress
	if f.rebuild {
		s := first(f)
		s.dropSlot, s.gap = f.slot != nil, errRebuild
		return s, nil
	}
	if p == nil {
		if f.slot != nil {
			return start{}, cdc.Terminal("slot-without-progress",
				fmt.Sprintf("If nothing else uses the slot, drop it and let the tables be copied again: cdc drop %s, then cdc run.", f.name),
				"replication slot %q exists, but the pipeline has no progress record: which changes were consumed from it is not known", f.slotName)
		}
		return first(f), nil
	}
	if p.Database != f.system.Database || p.Slot != f.slotName {
		return start{}, cdc.Terminal("other-source",
			fmt.Sprintf("Give the pipeline another name (its progress topic follows it), or drop its state: cdc drop %s.", f.name),
			"the progress record belongs to database %q and slot %q, the configuration names database %q and slot %q", p.Database, p.Slot, f.system.Database, f.slotName)
	}
	switch p.Phase {
	case PhaseSnapshot:
		s := first(f)
		s.dropSlot = f.slot != nil
		return s, nil
	case PhaseDone:
		if f.mode == SnapshotOnly {
			return start{action: actDone}, nil
		}
		if f.slot != nil {
			return start{}, cdc.Terminal("slot-without-progress",
				fmt.Sprintf("If nothing else uses the slot, drop it: cdc drop %s, then cdc run.", f.name),
				"replication slot %q exists, but the pipeline has only ever copied tables (snapshot: only)", f.slotName)
		}
		return first(f), nil
	}
	if err := slotUsable(f); err != nil {
		return start{}, err
	}
	if gap := findGap(f); gap != nil {
		if f.onGap != "resnapshot" {
			return start{}, gap
		}
		s := first(f)
		s.dropSlot, s.gap = f.slot != nil, gap
		return s, nil
	}
	return start{action: actStream}, nil
}

func first(f facts) start {
	if f.mode == SnapshotNever {
		return start{action: actCreate}
	}
	return start{action: actSnapshot}
}

// slotUsable refuses a slot that this service cannot read, gap or not.
func slotUsable(f facts) error {
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
	}
	return nil
}

// findGap names the first reason why the server cannot send everything behind
// the progress record.
func findGap(f facts) error {
	p, s := f.progress, f.slot
	mend := fmt.Sprintf("Copy the tables again; what was deleted meanwhile is tombstoned: set on_gap: resnapshot for pipeline %q, or cdc drop %s, then cdc run.", f.name, f.name)
	gap := func(reason, format string, args ...any) error {
		return cdc.Terminal(reason, mend, "gap: "+format, args...)
	}
	switch {
	case p.System != f.system.ID:
		return gap("system-changed", "the progress record is of server %s, this is server %s: positions mean nothing here; everything since %s may be missing", p.System, f.system.ID, p.End)
	case f.system.Timeline < p.Timeline:
		return gap("server-behind", "the server is on timeline %d, the progress record on %d: it was restored from an older state; its changes from %s on are not those of the topics", f.system.Timeline, p.Timeline, p.End)
	case f.switched != 0 && p.End > f.switched:
		return gap("server-forked", "the server left timeline %d at %s, the topics hold changes up to %s: the changes from %s to %s were never on this server", p.Timeline, f.switched, p.End, f.switched, p.End)
	case f.system.End < p.End:
		return gap("server-behind", "the server's log ends at %s, the progress record is at %s: it was restored from an older state; the changes from %s to %s are in the topics only", f.system.End, p.End, f.system.End, p.End)
	case s == nil:
		return gap("slot-missing", "replication slot %q is gone: the changes from %s to %s (the server's end now) cannot be read any more", f.slotName, p.End, f.system.End)
	case s.WALStatus == "lost" || s.Invalidation != "":
		why := s.Invalidation
		if why == "" {
			why = "wal_removed"
		}
		return gap("slot-lost", "replication slot %q was invalidated (%s): the changes from %s to %s (the server's end now) cannot be read any more", s.Name, why, p.End, f.system.End)
	case s.Confirmed > p.End:
		return gap("slot-advanced", "replication slot %q is confirmed up to %s, the progress record is at %s: somebody else consumed it or made it anew; the changes from %s to %s are missing", s.Name, s.Confirmed, p.End, p.End, s.Confirmed)
	}
	return nil
}
