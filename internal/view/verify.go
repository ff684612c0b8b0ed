package view

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"cdc/internal/eventstore"
	"cdc/internal/intent"
)

// VerifyOptions says what of a view is verified, and how much is told about it.
type VerifyOptions struct {
	Build     int64             // 0: the live one
	Samples   int               // rows shown of each kind of difference; 0: DefaultSamples
	Databases map[string]string // URLs of other Postgres servers that hold views, by intent.View.DatabaseName
	// Patience is how long is waited for the numbers of committed events. A daemon
	// gives them in milliseconds; behind a large transaction it takes longer. 0:
	// DefaultPatience.
	Patience time.Duration
	Progress func(VerifyProgress) // called now and then by the goroutine that verifies; nil: not told
}

// DefaultPatience is that of VerifyOptions.
const DefaultPatience = 30 * time.Second

// DefaultSamples is how many rows of each kind of difference a report shows.
const DefaultSamples = 10

// VerifyProgress is how far a replay has come.
type VerifyProgress struct {
	Position int64   // replayed up to
	Head     int64   // to be replayed
	Rate     float64 // positions per second since the start
}

// VerifyReport is the outcome of a check that was carried out: what could not be
// checked is an error instead.
type VerifyReport struct {
	View     string          `json:"view"`
	Build    int64           `json:"build"`
	Mode     intent.ViewMode `json:"mode"`
	Position int64           `json:"position"` // of the last event replayed
	Events   int64           `json:"events"`   // replayed: those of the view's types
	Rows     int64           `json:"rows"`     // of the view's table
	Missing  Difference      `json:"missing"`  // a replay gives them, the table lacks them
	Extra    Difference      `json:"extra"`    // the table holds them, no replay gives them
	Took     time.Duration   `json:"took_ns"`
}

// Difference is rows that only one side has. A row that was changed is in both:
// as it should be in Missing, as it is in Extra.
type Difference struct {
	Count int64             `json:"count"`
	Rows  []json.RawMessage `json:"rows,omitempty"` // the first of them
}

// Equal says that the table is what a replay of the log gives.
func (r VerifyReport) Equal() bool { return r.Missing.Count == 0 && r.Extra.Count == 0 }

// NotCheckedError says that a view could not be compared with the log. It says
// nothing about the view.
type NotCheckedError struct {
	View string
	Err  error
}

func (e *NotCheckedError) Error() string {
	return fmt.Sprintf("view %s could not be checked: %s", e.View, e.Err)
}

func (e *NotCheckedError) Unwrap() error { return e.Err }

// Verify replays the log into a scratch table and compares it with the view's
// table, row by row in both directions.
//
// All happens in one REPEATABLE READ transaction that is rolled back: neither
// writers nor readers wait for it, and a crash leaves nothing behind. Which events
// the table must hold depends on who writes it.
//
//   - async, and any build that is not live: those up to its position, which is
//     written in the transaction that writes the table, so the snapshot has both.
//   - inline: those the snapshot sees, for each was committed together with its
//     rows. The last of them may not be numbered in the snapshot yet: another
//     connection waits for their numbers, which takes a running daemon.
//   - in another Postgres, async: the snapshot is taken there, with the position
//     there, and the events are sent there.
//   - in another Postgres, inline: both databases are looked at while no append is
//     on its way between them, which keeps appends of such types waiting for as
//     long as two snapshots take.
//
// Its memory does not grow with the log. While it runs, the transaction keeps
// vacuum from removing dead rows, as any long query does.
func Verify(ctx context.Context, store *eventstore.Store, name string, o VerifyOptions) (VerifyReport, error) {
	if o.Samples <= 0 {
		o.Samples = DefaultSamples
	}
	if o.Patience <= 0 {
		o.Patience = DefaultPatience
	}
	b, err := findBuild(ctx, store.Pool(), name, o.Build)
	if err != nil {
		return VerifyReport{}, err
	}
	if b.state == stateRetired {
		return VerifyReport{}, fmt.Errorf("verify view %s: build %d is retired: it has no table any more", name, b.id)
	}
	v := &verification{store: store, build: b, options: o, began: time.Now()}
	var report VerifyReport
	switch {
	case b.database != "" && b.followsLog():
		report, err = v.elsewhere(ctx)
	case b.database != "":
		report, err = v.inlineElsewhere(ctx)
	case b.followsLog():
		report, err = v.async(ctx)
	default:
		report, err = v.inline(ctx)
	}
	if err != nil {
		var told *NotCheckedError
		if errors.As(err, &told) || ctx.Err() != nil {
			return VerifyReport{}, err
		}
		return VerifyReport{}, &NotCheckedError{View: name, Err: err}
	}
	report.View, report.Build, report.Mode = name, b.id, b.mode
	report.Took = time.Since(v.began)
	return report, nil
}

// verification is one run of Verify.
type verification struct {
	store   *eventstore.Store
	build   buildRow
	options VerifyOptions
	began   time.Time
}

// progress tells how far the replay is.
func (v *verification) progress(pos, head int64) {
	if v.options.Progress == nil {
		return
	}
	p := VerifyProgress{Position: pos, Head: head}
	if s := time.Since(v.began).Seconds(); s > 0 {
		p.Rate = float64(pos) / s
	}
	v.options.Progress(p)
}
