package view

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/eventstore"
)

// follower keeps one build.
type follower struct {
	runner *Runner
	build  followed
	log    *slog.Logger
	cancel context.CancelCauseFunc
	done   chan struct{}

	mu     sync.Mutex
	status cdc.PartStatus
}

func (f *follower) set(s cdc.PartStatus) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s.Name = "view " + f.build.name
	if f.build.state == stateBuilding && !f.build.first {
		s.Name += fmt.Sprintf(" (build %d)", f.build.id)
	}
	s.Restarts = max(s.Restarts, f.status.Restarts)
	f.status = s
}

func (f *follower) get() cdc.PartStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.status
}

// source is where a build's table is, and how it is moved on.
type source interface {
	// position is where the build stands; errMoved where it does not follow the log
	// any more.
	position(ctx context.Context) (int64, error)
	// step applies the next batch behind a position and up to another, and commits. It
	// returns the position reached; where there was nothing to apply, or another
	// moved the build, that is the position it was given.
	step(ctx context.Context, pos, to int64) (int64, error)
	close()
}

func (f *follower) open() (source, error) {
	c, err := decode(f.build.definition)
	if err != nil {
		return nil, err
	}
	cfg := &f.runner.cfg
	if f.build.database == "" {
		return newLocal(cfg.Store, c, f.build.buildRow, cfg.Hook), nil
	}
	return newRemote(cfg.Store, c, f.build.buildRow, cfg.Databases[f.build.database], cfg.Hook), nil
}

// run follows until the build does not follow the log any more, or the context
// ends. After an error it begins anew, later each time.
func (f *follower) run(ctx context.Context) {
	pause := firstRetry
	for ctx.Err() == nil {
		moved, err := f.follow(ctx)
		if ctx.Err() != nil || errors.Is(err, errMoved) || f.retired(ctx) {
			return
		}
		if moved {
			pause = firstRetry
		}
		f.backOff(ctx, err, pause)
		pause = min(2*pause, lastRetry)
	}
}

// retired says that another build has taken the place of this one: its schema is
// gone, and what failed with it is no fault.
func (f *follower) retired(ctx context.Context) bool {
	var gone bool
	err := f.runner.cfg.Store.Pool().QueryRow(ctx, "select not exists (select from es.view where build = $1 and state <> 'retired')", f.build.id).Scan(&gone)
	return err == nil && gone
}

// backOff shows the error and waits.
func (f *follower) backOff(ctx context.Context, err error, pause time.Duration) {
	s := f.get()
	if s.Error != err.Error() {
		f.log.Warn("view stands still", "error", err)
	}
	s.State, s.Error, s.RetryAt = cdc.StateBackingOff, err.Error(), time.Now().Add(pause)
	s.Reason, s.Mend = "", ""
	s.Restarts++
	var failed *FailedError
	if errors.As(err, &failed) {
		s.Reason = "statement-failed"
		s.Mend = fmt.Sprintf("Mend the statement for %s in the configuration, then: cdc views build %s", failed.Type, f.build.name)
	}
	var terminal *cdc.TerminalError
	if errors.As(err, &terminal) {
		s.Reason, s.Mend = terminal.Reason, terminal.Mend
	}
	f.set(s)
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// follow applies batch after batch until an error, and says whether it came forward.
func (f *follower) follow(ctx context.Context) (moved bool, err error) {
	src, err := f.open()
	if err != nil {
		return false, err
	}
	defer src.close()
	pos, err := src.position(ctx)
	if err != nil {
		return false, err
	}
	idle := 0 // steps in a row that found nothing
	for began := pos; ; {
		next, err := f.batch(ctx, src, pos, maxPosition)
		var failed *FailedError
		if errors.As(err, &failed) {
			return f.stop(ctx, src, pos, failed) || pos > began, err
		}
		if err != nil {
			return pos > began, err
		}
		if next == pos { // nothing there, or not ours to apply
			if next, err = src.position(ctx); err != nil {
				return pos > began, err
			}
		}
		full := next >= pos+batchPositions
		if next > pos {
			idle = 0
		} else {
			idle++
		}
		pos = next
		if f.build.first && !full {
			err := f.goLive(ctx, pos)
			if errors.As(err, &failed) { // at an event that came meanwhile
				return f.stop(ctx, src, pos, failed) || pos > began, err
			}
			return pos > began, err
		}
		if full {
			f.progress(cdc.StateReplaying, pos)
			continue
		}
		f.progress(cdc.StateStreaming, pos)
		if idle == 0 && f.runner.cfg.Head == nil {
			continue // nobody tells: more may have come meanwhile
		}
		if err := f.wait(ctx, pos, idle > 1); err != nil {
			return pos > began, err
		}
	}
}

// maxPosition is beyond every position, with room for a batch behind it.
const maxPosition = 1 << 62

func (f *follower) batch(ctx context.Context, src source, pos, to int64) (int64, error) {
	select {
	case f.runner.slots <- struct{}{}:
	case <-ctx.Done():
		return pos, context.Cause(ctx)
	}
	defer func() { <-f.runner.slots }()
	return src.step(ctx, pos, to)
}

// stop applies what stands before the event at which a statement failed, and
// writes down why the view stands there. It says whether it came forward.
func (f *follower) stop(ctx context.Context, src source, pos int64, failed *FailedError) bool {
	if last := failed.Position - 1; last > pos {
		next, err := f.batch(ctx, src, pos, last)
		if err != nil || next != last {
			return next > pos // the next try sees
		}
		f.progress(cdc.StateReplaying, last)
	}
	text, err := json.Marshal(storedError{failed.Event.String(), failed.Type, failed.Statement, failed.Message, failed.Position})
	if err == nil {
		// Only where it still stands before that event.
		_, err = f.runner.cfg.Store.Pool().Exec(ctx, `update es.view set error = $3 where build = $1 and pos = $2`, f.build.id, failed.Position-1, string(text))
	}
	if err != nil && ctx.Err() == nil {
		f.log.Warn("the error of a view is not written down", "error", err)
	}
	return failed.Position-1 > pos
}

// storedError is es.view.error.
type storedError struct {
	Event     string `json:"event"`
	Type      string `json:"type"`
	Statement string `json:"statement"`
	Message   string `json:"message"`
	Position  int64  `json:"position"`
}

func (f *follower) progress(state cdc.State, pos int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.status.Error != "" {
		f.log.Info("view goes on", "position", pos)
	}
	f.status = cdc.PartStatus{Name: f.status.Name, State: state, Position: pos, Restarts: f.status.Restarts}
}

// wait returns when there may be events behind pos. Where steps found nothing though
// the head is beyond, only time helps.
func (f *follower) wait(ctx context.Context, pos int64, inVain bool) error {
	var told <-chan struct{}
	if f.runner.cfg.Head != nil && !(inVain && f.runner.cfg.Head.Pos() > pos) {
		told = f.runner.cfg.Head.After(pos)
	}
	t := time.NewTimer(lookEvery)
	defer t.Stop()
	select {
	case <-told:
	case <-t.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// numbered waits until every event of the store has a position: one that was
// appended before the view came must be in it when it is first read. Switch does so
// itself for inline views.
func (f *follower) numbered(ctx context.Context) error {
	pool := f.runner.cfg.Store.Pool()
	var missing bool
	err := pool.QueryRow(ctx, "select exists (select from es.event e where not exists (select from es.log l where l.event = e.id))").Scan(&missing)
	if err != nil || !missing {
		return err
	}
	return eventstore.Barrier(ctx, pool)
}

// goLive puts the first build of a view where users read it, and ends this
// follower: the next look sees what the view has become.
func (f *follower) goLive(ctx context.Context, pos int64) error {
	s := f.get()
	s.Position = pos
	f.set(s)
	if err := f.numbered(ctx); err != nil {
		return err
	}
	err := Switch(ctx, f.runner.cfg.Store, f.build.name, SwitchOptions{
		Databases: f.runner.cfg.Databases, Logger: f.log,
		Attempts: 1, // the next is ours: meanwhile the status shows what is in the way
	})
	if err != nil {
		return err
	}
	f.log.Info("view is live")
	return errMoved
}
