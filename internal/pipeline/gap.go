package pipeline

import (
	"errors"
	"fmt"
	"strings"

	"cdc/internal/cdc"
	"cdc/internal/compaction"
	"cdc/internal/source"
)

// gap is a stretch of changes that the server cannot send any more, that this
// server never had, or that a topic has lost. It is always loud: a pipeline
// either stops with it, or logs it and copies tables again (on_gap: resnapshot).
type gap struct {
	reason   string
	from, to cdc.LSN // of the changes; 0: not known
	cure     cure
	mend     string // in place of the usual
	err      error
}

// cure is what on_gap: resnapshot does about a gap.
type cure int

const (
	// cureNone: what is there may be the wrong server, or somebody else's: a copy
	// would overwrite the topics with it, so only a person orders one.
	cureNone cure = iota
	// cureAll: every table is copied again, and the slot made anew.
	cureAll
	// cureTopics: the tables of some topics are copied again; the next start finds out which.
	cureTopics
)

func (g *gap) Error() string { return "gap: " + g.err.Error() }
func (g *gap) Unwrap() error { return g.err }

// terminal is the gap as a pipeline that stops reports it.
func (g *gap) terminal(name string, mode SnapshotMode) error {
	again := fmt.Sprintf("cdc drop %s, then cdc run", name)
	mend := fmt.Sprintf("Copy the tables again; what was deleted meanwhile is tombstoned: set on_gap: resnapshot for pipeline %q, or %s.", name, again)
	switch {
	case g.mend != "":
		mend = g.mend
	case mode == SnapshotNever:
		mend = fmt.Sprintf("Copy the tables: set snapshot: {mode: initial} for pipeline %q, then %s. Or, without the changes in the gap: %s alone.", name, again, again)
	case g.cure == cureTopics:
		mend = fmt.Sprintf("Make the topics anew and copy their tables: set on_gap: resnapshot for pipeline %q; or copy all of its tables: %s.", name, again)
	}
	return &cdc.TerminalError{Reason: g.reason, Err: g, Mend: mend}
}

// healed: a pipeline with this configuration copies tables instead of stopping.
func (g *gap) healed(onGap string, mode SnapshotMode) bool {
	return onGap == "resnapshot" && mode != SnapshotNever && g.cure != cureNone
}

// unreadableTries is how many lives in a row end by an internal error of the server
// at the same place before its WAL counts as damaged: what passes, like a race with
// another backend, passes before.
const unreadableTries = 4

// asGap recognises the gaps that show only while a life runs, and gives them the
// range that the life knows of. Other errors stay as they are.
func (l *life) asGap(err error) error {
	if !errors.Is(err, source.ErrInternal) || l.advanced {
		l.p.unreadable = 0
	} else if l.p.unreadable++; l.p.unreadable >= unreadableTries {
		err = cdc.Terminal("wal-unreadable", "", "%w, %d times in a row", err, l.p.unreadable)
	}
	var known *gap
	var te *cdc.TerminalError
	if !errors.As(err, &te) {
		return err
	}
	te.Mend = strings.ReplaceAll(te.Mend, "PIPELINE", l.cfg.Name) // where who wrote it could not know the name
	if errors.As(err, &known) || l.progress.Phase != PhaseStream {
		return err
	}
	// Up to what is confirmed a progress record is acknowledged.
	g := &gap{reason: te.Reason, from: l.confirmed, cure: cureAll, err: te.Err}
	switch te.Reason {
	case "publication-missing", "slot-missing", "slot-lost", "wal-missing", "wal-unreadable":
		g.err = fmt.Errorf("%w: the changes from %s on cannot be read any more", te.Err, g.from)
	case "publication-options":
		g.from = l.lookedTo()
		g.err = fmt.Errorf("%w: what it left out since it was changed is missing", te.Err)
		if g.from != 0 {
			g.err = fmt.Errorf("%w, from %s on: up to there it was whole", g.err, g.from)
		}
	case compaction.Reason:
		var r *compaction.Refusal
		if !errors.As(err, &r) || len(r.Gone()) == 0 {
			return err
		}
		g = l.lostTopics(r)
	default:
		return err
	}
	return g.terminal(l.cfg.Name, l.cfg.Snapshot)
}

// lostTopics is the gap of topics that were deleted, or deleted and made again,
// while the pipeline ran.
func (l *life) lostTopics(r *compaction.Refusal) *gap {
	g := &gap{reason: reasonTopicRemade, cure: cureTopics, err: r}
	for _, f := range r.Faults {
		if f.Missing() {
			g.reason = "topic-missing"
		}
		switch f.Topic {
		case l.cfg.Progress:
			return &gap{
				reason: "progress-missing", from: l.confirmed,
				mend: fmt.Sprintf("Copy the tables again; what was deleted meanwhile is tombstoned: cdc drop %s, then cdc run.", l.cfg.Name),
				err:  fmt.Errorf("%w: how far the topics go is not known any more; it was %s at least", r, l.confirmed),
			}
		case l.deadLetter(), l.cfg.Messages:
			g.cure, g.mend = cureNone, "What the topic held is lost for good. To go on with an empty one: cdc run."
		}
	}
	return g
}

// reasonTopicRemade is the reason of a topic that is another one than was filled.
const reasonTopicRemade = "topic-recreated"

// lookedTo is what was received when the publication was last found whole.
func (l *life) lookedTo() cdc.LSN {
	l.view.mu.Lock()
	defer l.view.mu.Unlock()
	return l.view.whole
}
