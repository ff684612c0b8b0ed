package reaction

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"cdc/internal/cdc"
	"cdc/internal/eventstore"
)

const (
	// lookEvery is how often es.reaction is looked at for reactions that are new,
	// changed or gone, and the log for events that another process has numbered.
	lookEvery = time.Second
	// A reaction that failed tries again after a pause that doubles up to the
	// maximum: what is wrong is mended by people, or by the server coming back.
	backoffMin = time.Second
	backoffMax = time.Minute
)

// Config is what a runner needs.
type Config struct {
	Store *eventstore.Store
	// Head wakes the reactions; the runner sets it too. Nil: they are woken once a
	// second.
	Head   *eventstore.Head
	Logger *slog.Logger
	// Hook, where set, is called before every step that a crash could fall on; for
	// tests.
	Hook func(step, reaction string)
}

// Runner runs the installed reactions.
type Runner struct {
	Config

	mu      sync.Mutex
	running map[string]*worker
}

// New makes a runner; Run starts it.
func New(cfg Config) *Runner {
	if cfg.Head == nil {
		cfg.Head = eventstore.NewHead()
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Hook == nil {
		cfg.Hook = func(string, string) {}
	}
	return &Runner{Config: cfg, running: map[string]*worker{}}
}

// Run runs the reactions until ctx ends, and returns nil when the last has stopped.
// Several runners of a store share the work and do none of it twice. It may be called
// once.
func (r *Runner) Run(ctx context.Context) error {
	var group sync.WaitGroup
	defer group.Wait()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	failed := false
	for {
		err := r.look(ctx, &group)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !failed:
			r.Logger.Warn("look for reactions", "error", err)
		}
		failed = err != nil
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// look starts the workers of reactions that are new or changed, and ends those of
// reactions that are changed or gone.
func (r *Runner) look(ctx context.Context, group *sync.WaitGroup) error {
	installed, err := r.installed(ctx)
	if err != nil {
		return err
	}
	if pos, err := r.Store.Head(ctx); err == nil {
		r.Head.Set(pos)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, w := range r.running {
		next, ok := installed[name]
		if ok && bytes.Equal(next.hash, w.hash) && !w.ended() {
			delete(installed, name) // it runs as it is
			continue
		}
		w.cancel()
		select {
		case <-w.done: // its successor is started below
		default: // on the next look
			delete(installed, name)
			continue
		}
		delete(r.running, name)
		if !ok {
			r.Logger.Info("reaction is gone", "reaction", name)
		}
	}
	for name, in := range installed {
		w := newWorker(ctx, r, in)
		r.running[name] = w
		r.Logger.Info("reaction runs", "reaction", name, "position", in.pos)
		group.Go(func() {
			defer close(w.done)
			defer w.cancel()
			w.run()
		})
	}
	return nil
}

// installed is a row of es.reaction.
type installed struct {
	stored
	hash []byte
	pos  int64
}

func (r *Runner) installed(ctx context.Context) (map[string]installed, error) {
	rows, err := r.Store.Pool().Query(ctx, "select hash, definition, pos from es.reaction")
	if err != nil {
		return nil, fmt.Errorf("read the installed reactions: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (in installed, err error) {
		var definition []byte
		if err := row.Scan(&in.hash, &definition, &in.pos); err != nil {
			return in, err
		}
		return in, json.Unmarshal(definition, &in.stored)
	})
	if err != nil {
		return nil, fmt.Errorf("read the installed reactions: %w", err)
	}
	named := map[string]installed{}
	for _, in := range all {
		named[in.Name] = in
	}
	return named, nil
}

// Status says how the reactions stand, sorted by name.
func (r *Runner) Status() []cdc.PartStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]cdc.PartStatus, 0, len(r.running))
	for _, w := range r.running {
		all = append(all, w.state())
	}
	slices.SortFunc(all, func(a, b cdc.PartStatus) int { return strings.Compare(a.Name, b.Name) })
	return all
}
