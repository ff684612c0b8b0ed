package eventpipe

import (
	"fmt"
	"strings"

	"cdc/internal/cdc"
)

// Status may be called at any time, by anybody.
func (p *Pipeline) Status() cdc.Status {
	p.mu.Lock()
	s, w := p.status, p.works
	p.mu.Unlock()
	if w == nil {
		return s
	}
	n, pub := w.numberer.Status(), w.publisher.Status()
	s.Received, s.Acked, s.Confirmed, s.ServerEnd = n.Received, n.Numbered, n.Confirmed, n.ServerEnd
	s.LagBytes = n.LagBytes
	if n.Slot != nil {
		s.SlotBytes, s.SlotSafe, s.SlotStatus = n.Slot.Retained, n.Slot.Safe, n.Slot.WALStatus
	}
	s.Transactions, s.Changes = n.Transactions, n.Events
	s.Records, s.Bytes, s.Skipped, s.TakeOvers = pub.Records, pub.Bytes, pub.Skipped, pub.TakeOvers
	s.LagSeconds, s.BufferedBytes, s.AckLatency, s.Acks = pub.LagSeconds, pub.BufferedBytes, pub.AckLatency, pub.Acks
	s.Log = &cdc.LogStatus{Head: n.Head, Published: pub.Position, Alarms: n.Alarms, Parts: p.parts(w)}
	for _, part := range s.Log.Parts {
		s.Restarts += part.Restarts
	}
	s.Stalled, s.Mend = unready(s.Log, n.Waiting, pub.Stalled)
	s.Ready = s.State == cdc.StateStreaming && s.Stalled == ""
	return s
}

// parts are the supervised parts, views and reactions one by one.
func (p *Pipeline) parts(w *works) []cdc.PartStatus {
	var list []cdc.PartStatus
	for _, part := range w.parts {
		s := part.state()
		switch s.Name {
		case "numbering":
			n := w.numberer.Status()
			s.Position = n.Head
			s.State = within(s.State, n.State)
		case "publication":
			pub := w.publisher.Status()
			if s.State == cdc.StateFailed && (pub.State == cdc.StateReplaying || pub.State == cdc.StateStreaming) { // it was mended
				s = cdc.PartStatus{Name: s.Name, State: cdc.StateStreaming, Restarts: s.Restarts}
			}
			s.Position = pub.Position
			s.State = within(s.State, pub.State)
		}
		list = append(list, s)
	}
	list = append(list, w.views.Status()...)
	return append(list, w.reactions.Status()...)
}

// within is the state of what a part runs, while it runs.
func within(part, run cdc.State) cdc.State {
	if part == cdc.StateStreaming && run != "" {
		return run
	}
	return part
}

// unready says why a pipeline is not ready, "" where it is, and what mends it.
func unready(l *cdc.LogStatus, waiting, stalled string) (reason, mend string) {
	var reasons []string
	if l.Alarms > 0 {
		reasons = append(reasons, fmt.Sprintf("%d changes of stored events were seen in the WAL", l.Alarms))
		mend = "cdc es alarms shows them; cdc es alarms --acknowledge ends this state"
	}
	for _, part := range l.Parts {
		if part.Error == "" {
			if !serves(part) && waiting == "" && stalled == "" {
				reasons = append(reasons, part.Name+" is "+string(part.State))
			}
			continue
		}
		reasons = append(reasons, part.Name+": "+part.Error)
		if mend == "" {
			mend = part.Mend
		}
	}
	if waiting != "" {
		reasons = append(reasons, "numbering waits: "+waiting)
	}
	if stalled != "" {
		reasons = append(reasons, "publication: "+stalled)
	}
	return strings.Join(reasons, "; "), mend
}

// serves says that a part does what the pipeline is for: what is appended now is
// numbered, or published, soon. A view or reaction that is beginning may take
// its time.
func serves(p cdc.PartStatus) bool {
	if p.Name != "numbering" && p.Name != "publication" {
		return true
	}
	return p.State == cdc.StateStreaming || p.State == cdc.StateReplaying
}
