package pipeline

import (
	"errors"
	"fmt"

	"cdc/internal/cdc"
	"cdc/internal/sink"
)

// firstPlaced is the number of the first record that stands behind a change
// without being of it. A change has a handful of records of its own.
const firstPlaced = 1 << 16

// place is where in the stream the life is: behind the change handled last, or,
// between two transactions, behind everything up to an LSN (Change 0). Records
// that belong to no change (rows of chunks, repairs) carry it, with running record
// numbers, so positions increase in every partition whatever comes between.
type place struct {
	tx     cdc.LSN
	change uint32
	record uint32 // of the newest record placed here
}

// reach moves the place forward.
func (pl *place) reach(tx cdc.LSN, change uint32) {
	if pl.tx != tx || pl.change != change {
		*pl = place{tx: tx, change: change, record: firstPlaced}
	}
}

// putPlaced appends a record that is no change's. It must not be called before
// the stream has passed everything that earlier lives wrote: their records, placed
// ones excepted, would be taken for later ones.
func (l *life) putPlaced(p *partition, r *cdc.Record) error {
	if !p.caught {
		if err := l.passLast(p); err != nil {
			return err
		}
	}
	l.at.record++
	at := cdc.Position{Tx: l.at.tx, Change: l.at.change, Record: l.at.record}
	err := l.w.Append(p.target, r, cdc.Stamp{Generation: l.progress.Generation, Position: at})
	if errors.Is(err, sink.ErrRecordTooLarge) {
		return l.oversize(p, r, at, err)
	}
	if err != nil {
		return err
	}
	l.tally.records++
	return nil
}

// passLast moves the place behind the last record of a partition. Only one that
// was placed at the same point of the stream, by an earlier life, can be in front.
func (l *life) passLast(p *partition) error {
	here := cdc.Position{Tx: l.at.tx, Change: l.at.change, Record: l.at.record + 1}
	held, err := l.holds(p, here)
	if err != nil || !held {
		return err
	}
	if p.last.Tx != here.Tx || p.last.Change != here.Change {
		return fmt.Errorf("write between changes into %s: its last record is at %s, the stream at %s", p.tp, p.last, here)
	}
	l.at.record = p.last.Record
	p.caught = true
	return nil
}
