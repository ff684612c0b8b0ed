package demo

import (
	"fmt"
	"strings"

	"cdc/internal/cdc"
	"cdc/internal/config"
)

// goal is what was committed at a moment.
type goal struct {
	end    cdc.LSN // of PostgreSQL's log
	events int64   // of the store: the position of the last, for none is left out
	added  bool    // the view and the reaction are there and must reach it too
}

// lagging describes the first pipeline that has not reached the goal, "" for none.
func (g goal) lagging(all []cdc.Status) string {
	for _, s := range all {
		at := s.Acked.String()
		switch {
		case s.Mode != string(config.ModeEvents):
			if s.Acked >= g.end {
				continue
			}
		case s.Log != nil:
			part := g.laggard(s.Log)
			if part == "" {
				continue
			}
			at = part
		}
		text := fmt.Sprintf("pipeline %s is %s at %s", s.Name, s.State, at)
		if s.Error != "" {
			text += ": " + s.Error
		}
		if s.Stalled != "" {
			text += ": " + s.Stalled
		}
		return text
	}
	return ""
}

// laggard is the first part of a pipeline of events that has not reached the goal.
func (g goal) laggard(l *cdc.LogStatus) string {
	missing := map[string]bool{}
	if g.added {
		missing["view "+addedView], missing["reaction "+addedReaction] = true, true
	}
	behind := ""
	reached := func(name string, position int64) {
		if position < g.events && behind == "" {
			behind = fmt.Sprintf("position %d of %d (%s)", position, g.events, name)
		}
		delete(missing, name)
	}
	reached("numbering", l.Head)
	reached("publication", l.Published)
	for _, part := range l.Parts {
		if strings.HasPrefix(part.Name, "view ") || strings.HasPrefix(part.Name, "reaction ") {
			reached(part.Name, part.Position)
		}
	}
	for name := range missing {
		return name + ", which does not run yet"
	}
	return behind
}

// broken is the error of a part that has failed for good while the rest of its
// pipeline goes on: waiting for it would not help.
func broken(all []cdc.Status) error {
	for _, s := range all {
		if s.Log == nil {
			continue
		}
		for _, part := range s.Log.Parts {
			if part.State == cdc.StateFailed {
				return cdc.Terminal(part.Reason, part.Mend, "pipeline %s: %s: %s", s.Name, part.Name, part.Error)
			}
		}
	}
	return nil
}
