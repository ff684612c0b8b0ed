package pipeline

import (
	"errors"
	"strings"
	"testing"

	"cdc/internal/cdc"
)

func streamingFacts() facts {
	return facts{
		name: "rows", mode: SnapshotInitial, onGap: "stop", slotName: "rows",
		system: cdc.System{ID: "7", Timeline: 1, End: 500, Database: "uni"},
		progress: &Progress{
			Format: progressFormat, System: "7", Timeline: 1, Database: "uni", Slot: "rows",
			Generation: 9, Phase: PhaseStream, Tx: 90, End: 100,
		},
		slot: &cdc.Slot{Name: "rows", Plugin: "pgoutput", Database: "uni", Confirmed: 100, WALStatus: "reserved"},
	}
}

func TestDecide(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*facts)
		action action
		drop   bool
		reason string // of the terminal error
		says   string // part of its message
	}{
		{name: "streams from the progress record", change: func(*facts) {}, action: actStream},
		{name: "slot behind the progress record is right", change: func(f *facts) { f.slot.Confirmed = 40 }, action: actStream},
		{name: "nothing yet: snapshot", change: func(f *facts) { f.progress, f.slot = nil, nil }, action: actSnapshot},
		{name: "nothing yet, snapshot never: slot", change: func(f *facts) { f.progress, f.slot, f.mode = nil, nil, SnapshotNever }, action: actCreate},
		{name: "slot without progress", change: func(f *facts) { f.progress = nil }, reason: "slot-without-progress"},
		{name: "snapshot died: again, its slot is worthless", change: func(f *facts) { f.progress.Phase = PhaseSnapshot }, action: actSnapshot, drop: true},
		{name: "snapshot died without a slot", change: func(f *facts) { f.progress.Phase, f.slot = PhaseSnapshot, nil }, action: actSnapshot},
		{name: "only: done", change: func(f *facts) { f.progress.Phase, f.mode, f.slot = PhaseDone, SnapshotOnly, nil }, action: actDone},
		{name: "only, then initial", change: func(f *facts) { f.progress.Phase, f.slot = PhaseDone, nil }, action: actSnapshot},
		{name: "only, then initial, foreign slot", change: func(f *facts) { f.progress.Phase = PhaseDone }, reason: "slot-without-progress"},
		{name: "another database", change: func(f *facts) { f.system.Database = "other" }, reason: "other-source"},
		{name: "another slot", change: func(f *facts) { f.slotName = "other" }, reason: "other-source"},
		{name: "another plugin", change: func(f *facts) { f.slot.Plugin = "wal2json" }, reason: "slot-foreign"},
		{name: "slot of another database", change: func(f *facts) { f.slot.Database = "other" }, reason: "slot-foreign"},
		{name: "two-phase slot", change: func(f *facts) { f.slot.TwoPhase = true }, reason: "slot-two-phase"},
		{name: "another server", change: func(f *facts) { f.system.ID = "8" }, reason: "system-changed"},
		{name: "older timeline", change: func(f *facts) { f.progress.Timeline = 2 }, reason: "server-behind"},
		{name: "Case008StartFuture", change: func(f *facts) { f.system.End = 99 }, reason: "server-behind", says: "0/63 to 0/64"},
		{name: "promoted behind the progress", change: func(f *facts) { f.system.Timeline, f.switched = 2, 90 }, reason: "server-forked", says: "0/5A to 0/64"},
		{name: "promoted ahead of the progress", change: func(f *facts) { f.system.Timeline, f.switched = 2, 120 }, action: actStream},
		{name: "slot gone", change: func(f *facts) { f.slot = nil }, reason: "slot-missing", says: "0/64 to 0/1F4"},
		{name: "slot lost", change: func(f *facts) { f.slot.WALStatus = "lost" }, reason: "slot-lost", says: "wal_removed"},
		{name: "slot invalidated", change: func(f *facts) { f.slot.Invalidation = "idle_timeout" }, reason: "slot-lost", says: "idle_timeout"},
		{name: "Case007StartOlderForward", change: func(f *facts) { f.slot.Confirmed = 101 }, reason: "slot-advanced", says: "0/64 to 0/65"},
		{name: "gap, copied again", change: func(f *facts) { f.slot.Confirmed, f.onGap = 101, "resnapshot" }, action: actSnapshot, drop: true},
		{name: "slot restarts where it did", change: func(f *facts) { f.progress.Restart, f.slot.Restart = 80, 80 }, action: actStream},
		{name: "slot restarts before where it did", change: func(f *facts) { f.progress.Restart, f.slot.Restart, f.slot.Confirmed = 80, 70, 75 }, reason: "server-behind", says: "0/4B to 0/64"},
		{name: "slot of a promoted standby restarts earlier", change: func(f *facts) {
			f.progress.Restart, f.slot.Restart, f.system.Timeline, f.switched = 80, 70, 2, 120
		}, action: actStream},
		{name: "timeline of another branch", change: func(f *facts) {
			f.system.Timeline, f.strayed = 3, cdc.Terminal("timeline", "", "timeline 1 is not in the history")
		}, reason: "server-forked", says: "not in the history"},
		{name: "publication gone", change: func(f *facts) { f.publication = cdc.Terminal("publication-missing", "", "it does not exist") }, reason: "publication-missing", says: "0/64 to 0/1F4"},
		{name: "publication gone, copied again", change: func(f *facts) {
			f.publication, f.onGap = cdc.Terminal("publication-missing", "", "it does not exist"), "resnapshot"
		}, action: actSnapshot, drop: true},
		{name: "the life before ended with a gap", change: func(f *facts) {
			f.broken, f.onGap = &gap{reason: "wal-missing", cure: cureAll, err: errors.New("gone")}, "resnapshot"
		}, action: actSnapshot, drop: true},
		{name: "another server is never copied over the topics by itself", change: func(f *facts) { f.system.ID, f.onGap = "8", "resnapshot" }, reason: "system-changed"},
		{name: "snapshot never copies nothing", change: func(f *facts) { f.slot.Confirmed, f.onGap, f.mode = 101, "resnapshot", SnapshotNever }, reason: "slot-advanced"},
		{name: "slot gone, copied again", change: func(f *facts) { f.slot, f.onGap = nil, "resnapshot" }, action: actSnapshot},
		{name: "the broker lost records", change: func(f *facts) { f.rebuild, f.progress = true, nil }, action: actSnapshot, drop: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := streamingFacts()
			tt.change(&f)
			got, err := decide(f)
			if tt.reason != "" {
				var te *cdc.TerminalError
				if !errors.As(err, &te) {
					t.Fatalf("got %+v, %v, want a terminal error %q", got, err, tt.reason)
				}
				if te.Reason != tt.reason || te.Mend == "" || !strings.Contains(te.Err.Error(), tt.says) {
					t.Fatalf("got reason %q, mend %q, error %q; want reason %q, error with %q", te.Reason, te.Mend, te.Err, tt.reason, tt.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.action != tt.action || got.dropSlot != tt.drop {
				t.Fatalf("got %+v, want action %d, drop %v", got, tt.action, tt.drop)
			}
		})
	}
}
