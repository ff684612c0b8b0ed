package eventpipe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/eventstore"
	"cdc/internal/history"
	"cdc/internal/intent"
	"cdc/internal/view"
)

// VerifyOptions says how much is told of differences, and how long is waited for what
// is behind.
type VerifyOptions struct {
	Samples int // differences shown of each subject; 0: DefaultSamples
	// Patience is how long is waited for the daemon to number and publish what was
	// committed before. 0: view.DefaultPatience. Where none runs nothing is waited for.
	Patience time.Duration
}

// DefaultSamples is how many differences of a subject are shown.
const DefaultSamples = 10

// idlePatience is what is waited where no daemon numbers events. It is not zero: one
// may be on its way back to its slot.
const idlePatience = time.Second

// Verify compares everything that a pipeline keeps with what it was made of: the log
// with the events, the topics with the log, the views with a replay. It needs no
// daemon and disturbs none, and appends go on meanwhile. The verdicts are in the order
// log, topics, views. What cannot be looked at is unchecked and says why; the error is
// of a store that cannot be reached, or of ctx.
func Verify(ctx context.Context, cfg Config, o VerifyOptions) ([]cdc.Verification, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	store, err := eventstore.Open(ctx, eventstore.Config{URL: cfg.Source.URL, MaxConns: verifyConnections, Logger: cfg.Logger})
	if err != nil {
		return nil, err
	}
	defer store.Close()
	runs, err := store.Numbering(ctx)
	if err != nil {
		return nil, err
	}
	v := &verifier{cfg: cfg, store: store, samples: cmp.Or(o.Samples, DefaultSamples), patience: cmp.Or(o.Patience, view.DefaultPatience)}
	if !runs {
		v.patience = min(v.patience, idlePatience)
	}
	for _, part := range []func(context.Context) error{v.log, v.topics, v.views} {
		err := part(ctx)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			return nil, err
		}
	}
	return v.found, nil
}

// verifyConnections are those of a Verify: one subject at a time, and what it asks
// beside its snapshot.
const verifyConnections = 4

// viewSubject is what the subject of a view begins with.
const viewSubject = "view "

// verifier is one run of Verify.
type verifier struct {
	cfg      Config
	store    *eventstore.Store
	samples  int
	patience time.Duration
	found    []cdc.Verification
}

func (v *verifier) add(f cdc.Verification) {
	f.Pipeline = v.cfg.Name
	v.found = append(v.found, f)
}

// cannot adds what could not be looked at.
func (v *verifier) cannot(subject string, began time.Time, err error) {
	f := cdc.Verification{Subject: subject, Verdict: cdc.VerdictUnchecked, Why: err.Error(), At: time.Now()}
	f.Took = f.At.Sub(began)
	var t *cdc.TerminalError
	if errors.As(err, &t) {
		f.Why, f.Mend = t.Err.Error(), t.Mend
	}
	v.add(f)
}

func (v *verifier) log(ctx context.Context) error {
	began := time.Now()
	f, err := v.store.Verify(ctx, eventstore.VerifyOptions{Samples: v.samples, Patience: v.patience})
	if err != nil {
		v.cannot("log", began, err)
		return nil
	}
	v.add(f)
	return nil
}

// topics are verified together: the log is gone over once for all of them.
func (v *verifier) topics(ctx context.Context) error {
	began := time.Now()
	cfg, err := Publication(ctx, v.store, v.cfg)
	if err != nil {
		return err
	}
	cfg.Logger, cfg.Hook = slog.New(slog.DiscardHandler), nil
	found, err := history.Verify(ctx, cfg, history.VerifyOptions{Samples: v.samples, Patience: v.patience})
	if err != nil { // which topics there are is not known
		v.cannot("topic "+cfg.Topic, began, err)
		return nil
	}
	for _, f := range found {
		v.add(f)
	}
	return nil
}

// views are those that can be read, and those that are configured and cannot.
func (v *verifier) views(ctx context.Context) error {
	list, err := view.List(ctx, v.store)
	if err != nil {
		return err
	}
	building, live := map[string]bool{}, map[string]bool{}
	for _, b := range list {
		if b.State != "live" {
			building[b.Name] = true
			continue
		}
		live[b.Name] = true
		v.view(ctx, b)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	for _, d := range v.cfg.Definitions.Views {
		if live[d.Name] {
			continue
		}
		err := errors.New("the store does not have it yet: cdc es init installs what is configured, and so does cdc run")
		if building[d.Name] {
			err = errors.New("it is being built for the first time: cdc views ls shows how far it is")
		}
		v.cannot(viewSubject+d.Name, time.Now(), err)
	}
	return nil
}

// view compares one with a replay.
func (v *verifier) view(ctx context.Context, b intent.ViewStatus) {
	began := time.Now()
	r, err := view.Verify(ctx, v.store, b.Name, view.VerifyOptions{
		Build: b.Build, Samples: v.samples, Databases: Databases(v.cfg.Definitions), Patience: v.patience,
	})
	if err == nil {
		v.add(ofView(r, b))
		return
	}
	var not *view.NotCheckedError
	if errors.As(err, &not) {
		err = not.Err // the subject says which view
	}
	v.cannot(viewSubject+b.Name, began, err)
}

// ofView is a report in the common form. A row that was changed is missing as it
// should be, and a ghost as it is.
func ofView(r view.VerifyReport, b intent.ViewStatus) cdc.Verification {
	f := cdc.Verification{
		Subject: viewSubject + r.View, Verdict: cdc.VerdictEqual, Position: r.Position, At: time.Now(), Took: r.Took,
		Rows: r.Rows + r.Missing.Count - r.Extra.Count, Records: r.Rows, Missing: r.Missing.Count, Ghosts: r.Extra.Count,
	}
	if b.Error != "" {
		f.Why = "it stands still: " + b.Error
	}
	if r.Equal() {
		return f
	}
	f.Verdict = cdc.VerdictDifferent
	f.Mend = fmt.Sprintf("cdc views build %[1]s, then cdc views switch %[1]s", r.View)
	for _, row := range r.Missing.Rows {
		f.Samples = append(f.Samples, cdc.Sample{Kind: "missing", Key: string(row), Partition: -1, Offset: -1})
	}
	for _, row := range r.Extra.Rows {
		f.Samples = append(f.Samples, cdc.Sample{Kind: "ghost", Key: string(row), Partition: -1, Offset: -1})
	}
	return f
}
