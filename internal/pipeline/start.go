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
	// strayed: the progress record's timeline is none of the server's ancestors.
	strayed error
	// publication: what is wrong with the publication, nil for nothing.
	publication error
	// broken is the gap with which the life before ended, to be mended by a copy.
	broken *gap
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
	dropSlot bool // the slot is ours and worthless: drop it first
	gap      *gap // why the tables are copied again, for the log
}

// decide is pure: it never starts where a change could have been missed. A gap
// is the stretch between the progress record and what the server can still
// send; it is reported with its range, never skipped (G6).
func decide(f facts) (start, error) {
	p := f.progress
	if f.rebuild {
		s := first(f)
		s.dropSlot, s.gap = f.slot != nil, &gap{reason: "broker-damaged", cure: cureAll, err: errRebuild}
		return s, nil
	}
	if p == nil {
		if f.slot != nil {
			return start{}, cdc.Terminal("slot-without-progress",
				fmt.Sprintf("If nothing else uses the slot, drop it and let the tables be copied again: cdc drop %s, then cdc run.", f.name),
				"replication slot %q exists, but the pipeline has no progress record: which changes were consumed from it is not known; it still holds those from %s on", f.slotName, f.slot.Confirmed)
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
	if g := findGap(f); g != nil {
		if !g.healed(f.onGap, f.mode) {
			return start{}, g.terminal(f.name, f.mode)
		}
		s := first(f)
		s.dropSlot, s.gap = f.slot != nil, g
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
func findGap(f facts) *gap {
	p, s := f.progress, f.slot
	found := func(reason string, from, to cdc.LSN, format string, args ...any) *gap {
		return &gap{reason: reason, from: from, to: to, cure: cureAll, err: fmt.Errorf(format, args...)}
	}
	switch {
	case p.System != f.system.ID:
		g := found("system-changed", p.End, 0, "the progress record is of server %s, this is server %s: positions mean nothing here; everything since %s may be missing", p.System, f.system.ID, p.End)
		g.cure = cureNone // a wrong connection string looks the same
		g.mend = fmt.Sprintf("If this is the right server, make the topics what its tables are now: cdc drop %s, then cdc run. If it is not, mend source.url.", f.name)
		return g
	case f.system.Timeline < p.Timeline:
		return found("server-behind", p.End, 0, "the server is on timeline %d, the progress record on %d: it was restored from an older state; its changes from %s on are not those of the topics", f.system.Timeline, p.Timeline, p.End)
	case f.strayed != nil:
		return found("server-forked", p.End, 0, "%w; its changes up to %s are not those of the topics", f.strayed, p.End)
	case f.switched != 0 && p.End > f.switched:
		return found("server-forked", f.switched, p.End, "the server left timeline %d at %s, the topics hold changes up to %s: the changes from %s to %s were never on this server", p.Timeline, f.switched, p.End, f.switched, p.End)
	case f.system.End < p.End:
		return found("server-behind", f.system.End, p.End, "the server's log ends at %s, the progress record is at %s: it was restored from an older state; the changes from %s to %s are in the topics only", f.system.End, p.End, f.system.End, p.End)
	case s == nil:
		return found("slot-missing", p.End, f.system.End, "replication slot %q is gone: the changes from %s to %s (the server's end now) cannot be read any more", f.slotName, p.End, f.system.End)
	case s.WALStatus == "lost" || s.Invalidation != "":
		why := s.Invalidation
		if why == "" {
			why = "wal_removed"
		}
		return found("slot-lost", p.End, f.system.End, "replication slot %q was invalidated (%s): the changes from %s to %s (the server's end now) cannot be read any more", s.Name, why, p.End, f.system.End)
	case f.system.Timeline == p.Timeline && s.Restart < p.Restart:
		return found("server-behind", s.Confirmed, p.End, "replication slot %q has gone back: its restart_lsn is %s and was %s already, which no restart does: the server was put back to an older state and has written since; the changes from %s to %s in the topics are not those of this server", s.Name, s.Restart, p.Restart, s.Confirmed, p.End)
	case s.Confirmed > p.End:
		return found("slot-advanced", p.End, s.Confirmed, "replication slot %q is confirmed up to %s, the progress record is at %s: somebody else consumed it, made it anew, or the progress topic lost its end; the changes from %s to %s are missing", s.Name, s.Confirmed, p.End, p.End, s.Confirmed)
	case f.publication != nil:
		var te *cdc.TerminalError
		errors.As(f.publication, &te)
		return found(te.Reason, p.End, f.system.End, "%w: of the changes from %s to %s (the server's end now) some were not published, or cannot be read", te.Err, p.End, f.system.End)
	}
	return f.broken
}
