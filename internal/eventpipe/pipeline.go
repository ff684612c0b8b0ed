package eventpipe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/eventlog"
	"cdc/internal/eventstore"
	"cdc/internal/history"
	"cdc/internal/intent"
	"cdc/internal/reaction"
	"cdc/internal/source"
	"cdc/internal/view"
)

// Config says what a pipeline keeps where.
type Config struct {
	Name        string
	Source      source.Config // slot and publication of the store; its tables are chosen by eventlog
	Definitions intent.Definitions
	Publication history.Config // Store, StoreID, Head, Categories and Logger are set here
	VerifyEvery time.Duration  // how often a running pipeline is verified; 0: never
	Logger      *slog.Logger
	// Hook, where set, is called at the points of every part. For crash tests.
	Hook func(point string)
}

// Pipeline keeps a store of events numbered, published, and followed by its views
// and reactions.
type Pipeline struct {
	cfg  Config
	log  *slog.Logger
	head *eventstore.Head

	mu     sync.Mutex
	status cdc.Status
	works  *works // nil until the store was reached and the definitions are installed
}

// works are what a prepared pipeline runs.
type works struct {
	store     *eventstore.Store // as the daemon's login
	app       *eventstore.Store // as es_writer: what HTTP may do
	numberer  *eventlog.Numberer
	publisher *history.Publisher
	views     *view.Runner
	reactions *reaction.Runner
	append    *view.Coordinator
	parts     []*part
}

// New makes a pipeline; Run does everything else.
func New(cfg Config) *Pipeline {
	p := &Pipeline{cfg: cfg, log: cfg.Logger.With("pipeline", cfg.Name), head: eventstore.NewHead()}
	p.status = cdc.Status{
		Name: cfg.Name, Mode: "events", State: cdc.StateStarting, Since: time.Now(),
		Slot: cfg.Source.Slot, Publication: cfg.Source.Publication, Tables: 1, SlotSafe: -1,
	}
	return p
}

// Run keeps the pipeline going until ctx ends (nil), or until it cannot begin, or
// every part of it has failed for good (a *cdc.TerminalError). It returns when
// everything it started is gone.
func (p *Pipeline) Run(ctx context.Context) error {
	defer p.verifying(ctx)()
	w, err := p.prepare(ctx)
	switch {
	case ctx.Err() != nil:
		p.enter(cdc.StateStopped, nil)
		return nil
	case err != nil:
		p.enter(cdc.StateFailed, err)
		return err
	}
	defer w.close()
	p.mu.Lock()
	p.works = w
	p.mu.Unlock()
	p.enter(cdc.StateStreaming, nil)

	errs := make([]error, len(w.parts))
	var running sync.WaitGroup
	for i, part := range w.parts {
		running.Go(func() { errs[i] = part.supervise(ctx) })
	}
	running.Wait()
	p.mu.Lock()
	p.works = nil
	p.mu.Unlock()
	if ctx.Err() != nil {
		p.enter(cdc.StateStopped, nil)
		return nil
	}
	err = errors.Join(errs...)
	p.enter(cdc.StateFailed, err)
	return err
}

// prepare reaches the store and installs the definitions. It tries again until
// ctx ends or an error that trying again cannot mend.
func (p *Pipeline) prepare(ctx context.Context) (*works, error) {
	var again backoff
	for {
		w, err := p.open(ctx)
		if err == nil || ctx.Err() != nil || cdc.IsTerminal(err) {
			return w, err
		}
		p.enter(cdc.StateBackingOff, err)
		again.pause(ctx, p.log, "pipeline starts again", err, func(at time.Time) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.status.RetryAt = at
			p.status.Restarts++
		})
	}
}

func (p *Pipeline) open(ctx context.Context) (_ *works, err error) {
	w := &works{}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	if w.store, err = eventstore.Open(ctx, eventstore.Config{URL: p.cfg.Source.URL, MaxConns: storeConnections, Logger: p.log}); err != nil {
		return nil, err
	}
	if w.app, err = eventstore.Open(ctx, eventstore.Config{URL: p.cfg.Source.URL, Role: eventstore.RoleWriter, Logger: p.log}); err != nil {
		return nil, err
	}
	if err := twoPhase(ctx, w.store, p.cfg.Definitions); err != nil {
		return nil, err
	}
	installed, err := Install(ctx, w.store, p.cfg.Definitions)
	if err != nil {
		return nil, err
	}
	for _, line := range installed {
		p.log.Info("definitions", "what", line)
	}
	pub, err := Publication(ctx, w.store, p.cfg)
	if err != nil {
		return nil, err
	}
	pub.Head, pub.Logger = p.head, p.log
	databases := Databases(p.cfg.Definitions)
	w.append, err = view.NewCoordinator(w.store, slices.Sorted(maps.Values(databases)), view.CoordinatorOptions{Logger: p.log})
	if err != nil {
		return nil, err
	}
	w.numberer = eventlog.New(eventlog.Config{Source: p.cfg.Source, Store: w.store, Head: p.head, Logger: p.log, Hook: p.cfg.Hook})
	w.publisher = history.New(pub)
	w.views = view.New(view.Config{Store: w.store, Head: p.head, Databases: databases, Logger: p.log, Hook: p.cfg.Hook})
	w.reactions = reaction.New(reaction.Config{Store: w.store, Head: p.head, Logger: p.log, Hook: p.reactionHook})
	publication := newPart("publication", p.log, w.publish)
	publication.recovers = true // cdc es republish mends it beside the daemon
	w.parts = []*part{
		newPart("numbering", p.log, w.numberer.Run),
		publication,
		newPart("views", p.log, w.views.Run),
		newPart("reactions", p.log, w.reactions.Run),
		newPart("recovery", p.log, w.append.Run),
	}
	return w, nil
}

func (p *Pipeline) reactionHook(step, _ string) {
	if p.cfg.Hook != nil {
		p.cfg.Hook(step)
	}
}

// storeConnections bounds the pool of the daemon's own work: one for each view
// and reaction that moves at a time, and some for what looks round.
const storeConnections = 16

// publish runs the publication once this instance numbers the events: one that
// waits for the slot of another must not take the topics over from it.
func (w *works) publish(ctx context.Context) error {
	tick := time.NewTicker(numberingPoll)
	defer tick.Stop()
	for {
		if s := w.numberer.Status().State; s == cdc.StateStreaming || s == cdc.StateSnapshot {
			break
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
	return w.publisher.Run(ctx)
}

// numberingPoll is how soon the publication follows the numbering at a start.
const numberingPoll = 50 * time.Millisecond

func (w *works) close() {
	if w.publisher != nil {
		w.publisher.Close()
	}
	if w.append != nil {
		w.append.Close()
	}
	if w.app != nil {
		w.app.Close()
	}
	if w.store != nil {
		w.store.Close()
	}
}

// enter changes the state that Status shows.
func (p *Pipeline) enter(s cdc.State, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.status.State != s {
		p.status.Since = time.Now()
	}
	p.status.State, p.status.Error, p.status.Reason, p.status.Mend = s, "", "", ""
	p.status.RetryAt = time.Time{}
	if err == nil {
		return
	}
	p.status.Error = err.Error()
	var t *cdc.TerminalError
	if errors.As(err, &t) {
		p.status.Error, p.status.Reason, p.status.Mend = t.Err.Error(), t.Reason, t.Mend
	}
}

// Install brings the definitions of a configuration into the store: types and
// folds, then views, then reactions, which may read views. It may be called at any
// time, beside a running daemon too, which takes up what is new. It tells what it
// did, a line each; what was there already it does not tell. Where anything is wrong
// nothing is changed, and every fault is told.
func Install(ctx context.Context, store *eventstore.Store, defs intent.Definitions) ([]string, error) {
	// What could not be looked at is no fault: a view in another database that is as
	// it was needs nothing of that database now.
	if faults, _ := faultsOf(ctx, store, defs); len(faults) > 0 {
		return nil, definition(&eventstore.DefinitionError{Faults: faults})
	}
	types, err := store.Install(ctx, defs)
	if err != nil {
		return nil, definition(err)
	}
	views, err := view.Install(ctx, store, defs)
	if err != nil {
		return nil, definition(err)
	}
	if err := reaction.Check(ctx, store, defs); err != nil {
		return nil, definition(err)
	}
	reactions, err := reaction.Install(ctx, store, defs)
	if err != nil {
		return nil, definition(err)
	}
	return lines(types, views, reactions), nil
}

func lines(types eventstore.InstallReport, views view.Report, reactions reaction.Report) []string {
	var list []string
	tell := func(what, did string, names []string) {
		for _, name := range names {
			list = append(list, fmt.Sprintf("%s%s: %s", what, name, did))
		}
	}
	tell("event type ", "declared", types.Types)
	tell("state of ", "folded by a new expression", types.Folds)
	tell("", "configured no more, removed", types.Removed)
	for _, v := range views {
		if v.Action != view.ActionNone {
			list = append(list, v.String())
		}
	}
	tell("reaction ", "new", reactions.New)
	tell("reaction ", "changed, goes on where it was", reactions.Changed)
	tell("reaction ", "configured no more, removed", reactions.Removed)
	return list
}

// definition makes faults of definitions what they are: for somebody to mend.
func definition(err error) error {
	var ofTypes *eventstore.DefinitionError
	var ofSQL view.FaultsError
	if errors.As(err, &ofTypes) {
		err = ofTypes
	}
	if ofTypes != nil || errors.As(err, &ofSQL) {
		return cdc.Terminal("definition", "Correct the definition in the configuration; cdc check tells whether it can be installed.", "%w", err)
	}
	return err
}

// Publication completes the configuration of a pipeline's publication with what
// the store says of itself.
func Publication(ctx context.Context, store *eventstore.Store, cfg Config) (history.Config, error) {
	id, err := store.ID(ctx)
	if err != nil {
		return history.Config{}, err
	}
	c := cfg.Publication
	c.Name, c.Store, c.StoreID, c.Logger, c.Hook = cfg.Name, store, id, cfg.Logger, cfg.Hook
	c.Database = store.Pool().Config().ConnConfig.Database
	c.Categories = categoriesOf(cfg.Definitions)
	return c, nil
}

// Databases are the URLs of the other databases that hold views, by the name under which
// the store knows them.
func Databases(defs intent.Definitions) map[string]string {
	urls := map[string]string{}
	for _, v := range defs.Views {
		if v.Database != "" {
			urls[v.DatabaseName()] = v.Database
		}
	}
	return urls
}

// categoriesOf are the categories that the declared streams have: their topics
// are made at the start.
func categoriesOf(defs intent.Definitions) []string {
	var list []string
	seen := map[string]bool{}
	for _, t := range defs.Events {
		if c := t.Stream.Category(); !seen[c] {
			seen[c] = true
			list = append(list, c)
		}
	}
	return list
}

// errNotReady is the answer of the API before the store was reached.
var errNotReady = fmt.Errorf("the pipeline is not ready: see /readyz")
