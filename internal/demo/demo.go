package demo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"cdc/internal/config"
	"cdc/internal/pgserver"
	"cdc/internal/sink"
)

// ErrDifferent says that a topic is not its table or not its events, or a view not
// what its events give.
var ErrDifferent = errors.New("what was compared differs")

// StartError is a run that did not come up: something around the process is
// missing or not ready.
type StartError struct{ Err error }

func (e *StartError) Error() string { return "start demo: " + e.Err.Error() }

// Unwrap gives the reason.
func (e *StartError) Unwrap() error { return e.Err }

const (
	// catchUpLimit bounds the wait for the pipelines to acknowledge the last
	// transaction, a restart of theirs and its backoff included.
	catchUpLimit = 2 * time.Minute
	// judgeLimit bounds reading, compacting and comparing everything.
	judgeLimit = 10 * time.Minute
	// deathNotice is how long after a failed statement it may take to hear that
	// PostgreSQL itself has ended.
	deathNotice = time.Second
	// stopLimit bounds PostgreSQL's shutdown, its checkpoint included.
	stopLimit = 30 * time.Second
)

// run holds what a run has started.
type run struct {
	opts   Options
	screen *screen
	folder *folder
	server *pgserver.Server
	uni    *university
	daemon Daemon
	client *sink.Client
	log    *slog.Logger
	places places // of the configuration, as the file has it

	streaming time.Time // since when every pipeline streams

	closers []func() error // run in reverse order
}

// Run is a whole run. It blocks until the workload has ended, by its limits or
// because ctx ended, and everything was compared and stopped. The result is nil
// where it did not come to a comparison; a difference is ErrDifferent beside the
// result.
func Run(ctx context.Context, o Options) (res *Result, err error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	r := &run{opts: o.withDefaults(), screen: newScreen(o.Out, palette(o.Color), o.Lines)}
	defer func() { err = errors.Join(err, r.close(), r.screen.failure()) }()
	if err := r.start(ctx); err != nil {
		return nil, &StartError{err}
	}
	if res, err = r.play(ctx); err != nil {
		return nil, err
	}
	r.screen.summary(res, r.streaming)
	if !res.Equal {
		return res, ErrDifferent
	}
	return res, nil
}

// close undoes what start did, the last first.
func (r *run) close() error {
	var errs []error
	for i := len(r.closers) - 1; i >= 0; i-- {
		errs = append(errs, r.closers[i]())
	}
	r.closers = nil
	return errors.Join(errs...)
}

func (r *run) onClose(f func() error) { r.closers = append(r.closers, f) }

// start brings everything up but the flow of changes.
func (r *run) start(ctx context.Context) (err error) {
	if r.folder, err = openFolder(r.opts.Dir, r.opts.Fresh); err != nil {
		return err
	}
	r.onClose(r.folder.close)
	r.screen.say("%s", r.screen.paint.dim("starting PostgreSQL and the broker in "+r.folder.shown()+" …"))
	if err := r.startPostgres(ctx); err != nil {
		return err
	}
	if r.uni, err = openUniversity(ctx, r.server.URL("postgres"), r.server.URL(database)); err != nil {
		return err
	}
	r.onClose(func() error { return r.uni.close(context.WithoutCancel(ctx)) })
	cfg, err := r.configuration(ctx)
	if err != nil {
		return err
	}
	if err := r.uni.found(ctx, definitions(cfg), r.opts.Seed); err != nil {
		return err
	}
	if err := r.startDaemon(ctx, cfg); err != nil {
		return err
	}
	r.screen.lens.config = filepath.Join(r.folder.shown(), configName)
	r.screen.header(header{
		version: r.server.Version(), port: r.server.Port(),
		broker: cfg.Kafka.Embedded.Listen, admin: cfg.Admin.Listen,
		dir: r.folder.shown(), continued: r.folder.continued, adds: r.adds(), ends: r.opts.ends(),
	})
	return nil
}

func (r *run) startPostgres(ctx context.Context) error {
	log, err := os.Create(r.folder.path("postgres.log"))
	if err != nil {
		return fmt.Errorf("write PostgreSQL's log: %w", err)
	}
	r.onClose(log.Close)
	r.server, err = pgserver.Start(ctx, pgserver.Options{
		Dir: r.folder.postgres(), Programs: r.opts.Programs, Version: r.folder.version(),
		Log: log, Notice: r.screen,
	})
	if err != nil {
		return err
	}
	r.onClose(func() error {
		ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), stopLimit, fmt.Errorf("it took more than %v", stopLimit))
		defer cancel()
		return r.server.Stop(ctx, "fast")
	})
	return nil
}

func (r *run) configuration(ctx context.Context) (*config.Config, error) {
	broker, err := address(r.opts.Broker, DefaultBroker)
	if err != nil {
		return nil, err
	}
	admin, err := address(r.opts.Admin, DefaultAdmin)
	if err != nil {
		return nil, err
	}
	r.places = places{Postgres: r.server.URL(database), Dir: brokerDir, Broker: broker, Admin: admin}
	if r.places.Added, err = r.uni.extended(ctx); err != nil {
		return nil, err
	}
	return configure(r.folder.dir, r.places)
}

func (r *run) startDaemon(ctx context.Context, cfg *config.Config) error {
	log, err := os.Create(r.folder.path("cdc.log"))
	if err != nil {
		return fmt.Errorf("write the log: %w", err)
	}
	r.onClose(log.Close)
	r.log = slog.New(slog.NewTextHandler(log, nil))
	r.daemon, err = r.opts.Start(ctx, cfg, r.log)
	if err != nil {
		return err
	}
	r.onClose(r.daemon.Close)
	r.client, err = sink.Dial(ctx, sink.Config{Brokers: []string{cfg.Kafka.Embedded.Listen}, ClientID: "cdc-demo"})
	if err != nil {
		return err
	}
	r.onClose(r.client.Close)
	return nil
}

// play lets the changes flow until the workload has ended, and judges what has
// come of them. Everything it started has ended when it returns.
func (r *run) play(ctx context.Context) (*Result, error) {
	follower, err := newFollower(ctx, r.client, r.screen.change)
	if err != nil {
		return nil, err
	}
	// The end of ctx ends the workload alone; hard ends the rest, where something
	// went wrong.
	hard, abort := context.WithCancelCause(context.WithoutCancel(ctx))
	var started sync.WaitGroup
	defer started.Wait()
	defer abort(nil)
	flow, stopFlow := context.WithCancel(hard)
	defer stopFlow()
	following, stopFollowing := context.WithCancel(hard)
	defer stopFollowing()

	flowed := make(chan struct{})
	started.Go(func() {
		defer close(flowed)
		if err := r.daemon.Run(flow); err != nil || flow.Err() == nil {
			abort(fmt.Errorf("the pipelines ended: %w", orWhy(err)))
		}
	})
	started.Go(func() {
		if err := follower.run(following); err != nil {
			abort(fmt.Errorf("read the topics: %w", err))
		}
	})
	postgres := r.server.Done()
	started.Go(func() {
		select {
		case <-postgres:
			abort(fmt.Errorf("PostgreSQL ended by itself: see %s", r.folder.path("postgres.log")))
		case <-hard.Done():
		}
	})

	res := &Result{Dir: r.folder.dir}
	if err := r.work(ctx, hard, res); err != nil {
		return nil, err
	}
	r.opts.Hook(HookIdle)
	if err := r.catchUp(hard, res); err != nil {
		return nil, err
	}
	r.log.Info("pipelines have caught up", "lsn", res.End)
	if err := r.replay(hard, res); err != nil {
		return nil, err
	}
	stopFlow()
	<-flowed
	r.log.Info("pipelines have stopped")
	if err := context.Cause(hard); err != nil {
		return nil, err
	}
	r.opts.Hook(HookStopped)
	return res, r.conclude(hard, follower, stopFollowing, res)
}

// orWhy gives a reason to an end that came without one.
func orWhy(err error) error {
	if err == nil {
		return errors.New("none is left, and none has failed")
	}
	return err
}

// work runs the workload to its end, and adds to the running system on the way.
func (r *run) work(ctx, hard context.Context, res *Result) error {
	if r.opts.For > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.opts.For)
		defer cancel()
	}
	ctx, ended := context.WithCancel(ctx)
	defer ended()
	half := make(chan struct{})
	w := &workload{url: r.uni.url, seed: r.opts.Seed, rate: r.opts.Rate, limit: r.opts.Transactions, half: func() { close(half) }}
	group, inner := errgroup.WithContext(hard)
	group.Go(func() error {
		defer ended()
		return w.run(ctx, inner)
	})
	group.Go(func() error { return r.add(ctx, inner, half) })
	err := group.Wait()
	res.Transactions, res.Undone, res.Lost = w.committed.Load(), w.undone.Load(), w.lost.Load()
	res.Added = r.places.Added
	if err == nil {
		return context.Cause(hard)
	}
	// A cause that ended the workload explains more than its error, but the end of
	// a process is noticed later than that of its connections.
	select {
	case <-hard.Done():
		return context.Cause(hard)
	case <-time.After(deathNotice):
		return err
	}
}

// catchUp waits until the pipelines have brought everything that was committed to
// where it belongs, and what the reaction made of it too.
func (r *run) catchUp(hard context.Context, res *Result) (err error) {
	ctx, cancel := context.WithTimeoutCause(hard, catchUpLimit, fmt.Errorf("not after %v", catchUpLimit))
	defer cancel()
	r.screen.say("%s", r.screen.paint.dim(fmt.Sprintf("the workload has ended after %d transactions; when the last is in its topic, all are compacted and compared …", res.Transactions)))
	for {
		// In this order: of what is appended between the two the end tells too.
		goal := goal{added: r.places.Added}
		if goal.events, err = r.uni.events(ctx); err != nil {
			return err
		}
		if goal.end, err = r.uni.end(ctx); err != nil {
			return err
		}
		r.log.Info("waiting for the pipelines", "transactions", res.Transactions, "events", goal.events, "lsn", goal.end)
		if err := r.reach(ctx, goal); err != nil {
			return err
		}
		// What has reacted to the last event may have appended more.
		events, err := r.uni.events(ctx)
		if err != nil {
			return err
		}
		if events == goal.events {
			res.End = goal.end
			break
		}
	}
	for _, s := range r.daemon.Status() {
		if s.Since.After(r.streaming) {
			r.streaming = s.Since
		}
	}
	return nil
}

// reach waits until the pipelines have reached a goal.
func (r *run) reach(ctx context.Context, g goal) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		all := r.daemon.Status()
		behind := g.lagging(all)
		if behind == "" {
			return nil
		}
		if err := broken(all); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for the pipelines to reach %s: %w\n%s", g.end, context.Cause(ctx), behind)
		}
	}
}

// replay compares the views with all events, which takes pipelines that run.
func (r *run) replay(hard context.Context, res *Result) (err error) {
	ctx, cancel := context.WithTimeoutCause(hard, judgeLimit, fmt.Errorf("not after %v", judgeLimit))
	defer cancel()
	if res.Views, err = judgeViews(ctx, r.uni); err != nil {
		return err
	}
	r.log.Info("views were replayed and compared")
	return nil
}

// conclude reads what the topics hold, lets the screen show all of it, and judges.
func (r *run) conclude(hard context.Context, f *follower, stopFollowing func(), res *Result) (err error) {
	ctx, cancel := context.WithTimeoutCause(hard, judgeLimit, fmt.Errorf("not after %v", judgeLimit))
	defer cancel()
	states := make(map[string]contents, len(tables))
	for _, t := range tables {
		c, err := readTopic(ctx, r.client, t.topic())
		if err != nil {
			return err
		}
		states[t.name] = c
		if err := f.reach(ctx, c.ends); err != nil {
			return err
		}
	}
	intents := make(map[string]intentContents, len(intentTopics))
	for topic := range intentTopics {
		c, err := readIntents(ctx, r.client, topic)
		if err != nil {
			return err
		}
		intents[topic] = c
		if err := f.reach(ctx, c.ends); err != nil {
			return err
		}
	}
	stopFollowing()
	r.screen.hush()
	r.log.Info("everything was read back")
	if err := r.daemon.Compact(ctx); err != nil {
		return err
	}
	if res.Tables, err = judgeTables(ctx, r.client, r.uni, states); err != nil {
		return err
	}
	if res.Intents, err = judgeIntentTopics(ctx, r.client, r.uni, intents); err != nil {
		return err
	}
	if res.Offers, err = r.uni.offers(ctx); err != nil {
		return err
	}
	r.log.Info("topics were compacted and compared")
	res.Equal = res.judgement()
	return nil
}

// shown is the folder as a person would write it: relative, where it lies below
// the working directory.
func (f *folder) shown() string {
	wd, err := os.Getwd()
	if err != nil {
		return f.dir
	}
	rel, err := filepath.Rel(wd, f.dir)
	if err != nil || !filepath.IsLocal(rel) {
		return f.dir
	}
	return rel
}
