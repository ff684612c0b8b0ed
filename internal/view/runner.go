package view

import (
	"context"
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

// Config of a Runner.
type Config struct {
	Store *eventstore.Store // the login is a member of es_owner and es_view
	// Head tells of new events at once; nil: the log is asked every second.
	Head *eventstore.Head
	// Databases has the URLs of other Postgres servers that hold views, by
	// intent.View.DatabaseName.
	Databases map[string]string
	Logger    *slog.Logger       // nil: slog.Default()
	Hook      func(point string) // called at the Hook… points; nil: not
}

const (
	// lookEvery is how often es.view and the log are asked for what nobody told us: a
	// build made by a command, events numbered by another process.
	lookEvery = time.Second
	// batchesAtOnce bounds the batches under way at the same time, each on a
	// connection: more views take turns. Two already keep a core busy.
	batchesAtOnce = 4
	// A view that stands still is tried again after firstRetry, then after twice as
	// long each time, up to lastRetry.
	firstRetry = time.Second
	lastRetry  = time.Minute
)

// Runner follows the log with every build of es.view that is not kept by the
// appends themselves.
type Runner struct {
	cfg   Config
	slots chan struct{} // one for each batch under way

	mu      sync.Mutex
	running map[int64]*follower // by build
}

// New makes a Runner; Run starts it.
func New(c Config) *Runner {
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Hook == nil {
		c.Hook = func(string) {}
	}
	return &Runner{cfg: c, slots: make(chan struct{}, batchesAtOnce), running: map[int64]*follower{}}
}

// Run follows until the context ends, and returns its cause. An error of one view
// is that view's (Status); while es.view cannot be read the views that run go on.
// Several Runners of one store share the work: each batch is applied once.
func (r *Runner) Run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	failing := false
	for {
		err := r.look(ctx, &all)
		if err != nil && ctx.Err() == nil && !failing {
			r.cfg.Logger.Warn("views are not looked for", "error", err)
		}
		failing = err != nil
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// look starts followers of new builds and ends those of builds that are gone.
func (r *Runner) look(ctx context.Context, all *sync.WaitGroup) error {
	rows, err := r.cfg.Store.Pool().Query(ctx, `select `+buildColumns+`, definition,
		state = 'building' and not exists (select from es.view o where o.name = v.name and o.state = 'live')
		from es.view v where state = 'building' or state = 'live' and mode = 'async'`)
	if err != nil {
		return fmt.Errorf("read es.view: %w", err)
	}
	found, err := pgx.CollectRows(rows, scanFollowed)
	if err != nil {
		return fmt.Errorf("read es.view: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for build, f := range r.running {
		if !slices.ContainsFunc(found, func(b followed) bool { return b.id == build && b.state == f.build.state && b.first == f.build.first }) {
			f.cancel(errMoved)
		}
		select {
		case <-f.done: // what is still to be followed is started again below
			delete(r.running, build)
		default:
		}
	}
	for _, b := range found {
		if r.running[b.id] == nil {
			r.startLocked(ctx, b, all)
		}
	}
	return nil
}

// followed is a build that follows the log.
type followed struct {
	buildRow
	definition []byte
	first      bool // nothing of its name is live: it becomes so when it has caught up
}

func scanFollowed(row pgx.CollectableRow) (followed, error) {
	var f followed
	b, err := scanBuild(also{row, []any{&f.definition, &f.first}})
	f.buildRow = b
	return f, err
}

// also scans further columns behind those that are asked for.
type also struct {
	row  pgx.Row
	more []any
}

func (a also) Scan(dest ...any) error { return a.row.Scan(append(dest, a.more...)...) }

func (r *Runner) startLocked(ctx context.Context, b followed, all *sync.WaitGroup) {
	f := &follower{runner: r, build: b, log: r.cfg.Logger.With("view", b.name, "build", b.id), done: make(chan struct{})}
	ctx, f.cancel = context.WithCancelCause(ctx)
	f.set(cdc.PartStatus{State: cdc.StateStarting, Position: b.pos})
	r.running[b.id] = f
	all.Go(func() {
		defer close(f.done)
		defer f.cancel(nil)
		f.run(ctx)
	})
}

// Status is how every build that follows the log stands, sorted by name.
func (r *Runner) Status() []cdc.PartStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]cdc.PartStatus, 0, len(r.running))
	for _, f := range r.running {
		all = append(all, f.get())
	}
	slices.SortFunc(all, func(a, b cdc.PartStatus) int { return strings.Compare(a.Name, b.Name) })
	return all
}
