package demo

import (
	"strings"
	"testing"

	"cdc/internal/cdc"
)

// A goal is reached when every pipeline and every part of it that matters is there.
func TestGoal(t *testing.T) {
	rows := cdc.Status{Name: "rows", Mode: "cdc", State: cdc.StateStreaming, Acked: 100}
	log := func(head, published int64, parts ...cdc.PartStatus) cdc.Status {
		return cdc.Status{Name: "intents", Mode: "events", State: cdc.StateStreaming, Acked: 1, Log: &cdc.LogStatus{Head: head, Published: published, Parts: parts}}
	}
	at := func(name string, position int64) cdc.PartStatus {
		return cdc.PartStatus{Name: name, Position: position}
	}
	view, reaction := at("view popularity", 7), at("reaction offer-freed-place", 7)
	failed := rows
	failed.State, failed.Acked, failed.Error, failed.Stalled = cdc.StateBackingOff, 99, "no broker", "for a minute"
	before, after := goal{end: 100, events: 7}, goal{end: 100, events: 7, added: true}
	for _, tc := range []struct {
		name string
		g    goal
		all  []cdc.Status
		want string
	}{
		{"reached", after, []cdc.Status{log(8, 7, at("recovery", 0), view, reaction), rows}, ""},
		{"reached before the addition", before, []cdc.Status{log(7, 7), rows}, ""},
		{"rows behind", before, []cdc.Status{log(7, 7), failed}, "pipeline rows is backing-off at 0/63: no broker: for a minute"},
		{"store not reached", before, []cdc.Status{{Name: "intents", Mode: "events", State: cdc.StateStarting, Acked: 200}, rows}, "pipeline intents is starting at"},
		{"not numbered", before, []cdc.Status{log(6, 6), rows}, "position 6 of 7 (numbering)"},
		{"not published", before, []cdc.Status{log(7, 6), rows}, "position 6 of 7 (publication)"},
		{"view behind", after, []cdc.Status{log(7, 7, at("view popularity", 3), reaction), rows}, "position 3 of 7 (view popularity)"},
		{"reaction behind", after, []cdc.Status{log(7, 7, view, at("reaction offer-freed-place", 6)), rows}, "position 6 of 7 (reaction offer-freed-place)"},
		{"reaction not taken up yet", after, []cdc.Status{log(7, 7, view), rows}, "reaction offer-freed-place, which does not run yet"},
		{"view not taken up yet", after, []cdc.Status{log(7, 7, reaction), rows}, "view popularity, which does not run yet"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.g.lagging(tc.all); !strings.Contains(got, tc.want) || (got == "") != (tc.want == "") {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestBroken(t *testing.T) {
	status := func(part cdc.PartStatus) []cdc.Status {
		return []cdc.Status{{Name: "rows", Mode: "cdc"}, {Name: "intents", Mode: "events", Log: &cdc.LogStatus{Parts: []cdc.PartStatus{{Name: "views"}, part}}}}
	}
	if err := broken(status(cdc.PartStatus{Name: "publication", State: cdc.StateBackingOff, Error: "no broker"})); err != nil {
		t.Errorf("an error that can pass: got %v, want nil", err)
	}
	err := broken(status(cdc.PartStatus{Name: "publication", State: cdc.StateFailed, Error: "lost", Reason: "topic-lost", Mend: "write it again"}))
	if err == nil || !cdc.IsTerminal(err) || !strings.Contains(err.Error(), "pipeline intents: publication: lost") {
		t.Errorf("an error that cannot: got %v", err)
	}
}
