package reaction

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"cdc/internal/cdc"
	"cdc/internal/eventstore"
	"cdc/internal/intent"
)

const (
	// batchEvents is how many events are read at a time: a transaction for each is
	// what takes the time.
	batchEvents = 100
	// viewPatience is how long one wait for a view is, before the status says so.
	viewPatience = 5 * time.Second
	// writeBytes bounds what of an error is kept in es.reaction.
	writeBytes = 4000
)

// worker runs one reaction as it was installed.
type worker struct {
	*Runner
	installed
	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{}

	read   int64     // every event up to it was read; pos, of installed, is what es.reaction says
	stored time.Time // when pos was written last

	mu     sync.Mutex
	status cdc.PartStatus
}

func newWorker(ctx context.Context, r *Runner, in installed) *worker {
	w := &worker{Runner: r, installed: in, read: in.pos, done: make(chan struct{})}
	w.ctx, w.cancel = context.WithCancel(ctx)
	w.status = cdc.PartStatus{Name: "reaction " + in.Name, State: cdc.StateStarting, Position: in.pos}
	return w
}

func (w *worker) ended() bool {
	select {
	case <-w.done:
		return true
	default:
		return false
	}
}

// errSuperseded says that es.reaction has another definition of the reaction, or none.
var errSuperseded = errors.New("the reaction was installed anew, or removed")

// run follows the log until ctx ends or the definition is another one.
func (w *worker) run() {
	pause := backoffMin
	for {
		from := w.read
		err := w.follow()
		switch {
		case w.ctx.Err() != nil || errors.Is(err, errSuperseded):
			w.enter(cdc.StateStopped, nil)
			return
		case w.read > from:
			pause = backoffMin // it has got further: this is another fault
		}
		wait := pause/2 + rand.N(pause/2+1)
		pause = min(2*pause, backoffMax)
		w.Logger.Warn("reaction stands still", "reaction", w.Name, "position", w.read, "error", err, "in", wait.Round(time.Millisecond))
		w.failed(err, time.Now().Add(wait))
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-w.ctx.Done():
		}
		timer.Stop()
		// Another runner may have moved the position meanwhile.
		if err := w.reload(); errors.Is(err, errSuperseded) {
			w.enter(cdc.StateStopped, nil)
			return
		}
	}
}

// follow reacts to one event after the other. It returns an error, always.
func (w *worker) follow() error {
	for {
		var batch []*intent.Event
		last, err := w.Store.Log(w.ctx, w.read, batchEvents, w.When, func(e *intent.Event) error {
			batch = append(batch, e)
			return nil
		})
		if err != nil {
			return err
		}
		for _, e := range batch {
			for w.read < e.Position { // else another runner is further
				err := w.handle(e)
				if errors.Is(err, errMoved) {
					err = w.reload()
				}
				if err != nil {
					return err
				}
			}
		}
		if len(batch) < batchEvents {
			w.moved(max(last, w.read))
		}
		if err := w.record(); err != nil {
			return err
		}
		w.enter(cdc.StateStreaming, nil)
		if len(batch) > 0 {
			continue
		}
		if err := w.more(); err != nil {
			return err
		}
	}
}

// more returns when there may be something behind what was read.
func (w *worker) more() error {
	timer := time.NewTimer(lookEvery)
	defer timer.Stop()
	select {
	case <-w.Head.After(w.read):
	case <-timer.C:
	case <-w.ctx.Done():
		return w.ctx.Err()
	}
	return nil
}

// record writes down how far it has read where it has reacted to nothing: once a
// second, so that a reaction that seldom has something to do costs little.
func (w *worker) record() error {
	if w.read == w.pos || time.Since(w.stored) < lookEvery {
		return nil
	}
	tag, err := w.Store.Pool().Exec(w.ctx, "update es.reaction set pos = $4 where name = $1 and hash = $2 and pos = $3", w.Name, w.hash, w.pos, w.read)
	if err != nil {
		return fmt.Errorf("write the position of reaction %s: %w", w.Name, err)
	}
	w.stored = time.Now()
	if tag.RowsAffected() == 0 {
		return w.reload()
	}
	w.pos = w.read
	return nil
}

// reload takes the position from es.reaction: another runner has moved it.
func (w *worker) reload() error {
	var pos int64
	err := w.Store.Pool().QueryRow(w.ctx, "select pos from es.reaction where name = $1 and hash = $2", w.Name, w.hash).Scan(&pos)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return errSuperseded
	case err != nil:
		return fmt.Errorf("read the position of reaction %s: %w", w.Name, err)
	}
	w.pos = pos
	w.moved(max(pos, w.read)) // what was read without finding anything need not be read again
	return nil
}

func (w *worker) moved(pos int64) {
	w.read = pos
	w.mu.Lock()
	defer w.mu.Unlock()
	w.status.Position = pos
}

func (w *worker) enter(s cdc.State, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.status.State, w.status.Error, w.status.RetryAt = s, "", time.Time{}
	if err != nil {
		w.status.Error = err.Error()
	}
}

func (w *worker) state() cdc.PartStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status
}

// failed notes an error, in the store too where it is the reaction's own.
func (w *worker) failed(err error, retry time.Time) {
	w.enter(cdc.StateBackingOff, err)
	w.mu.Lock()
	w.status.RetryAt = retry
	w.status.Restarts++
	w.mu.Unlock()
	var own *Error
	if !errors.As(err, &own) {
		return
	}
	text, err := json.Marshal(own)
	if err == nil {
		_, err = w.Store.Pool().Exec(w.ctx, "update es.reaction set error = $3 where name = $1 and hash = $2 and pos = $4", w.Name, w.hash, text, w.pos)
	}
	if err != nil && w.ctx.Err() == nil {
		w.Logger.Warn("write the error of a reaction", "reaction", w.Name, "error", err)
	}
}

// Error is why a reaction stands still: what es.reaction.error holds.
type Error struct {
	Reaction string    `json:"-"`
	Event    intent.ID `json:"event"`
	Type     string    `json:"type"`
	Position int64     `json:"position"`
	Query    string    `json:"query"`
	Message  string    `json:"message"`
	SQLState string    `json:"sqlstate,omitempty"`

	err error
}

func (e *Error) Error() string {
	return fmt.Sprintf("reaction %s at event %s (%s, position %d): %s", e.Reaction, e.Event, e.Type, e.Position, e.Message)
}

func (e *Error) Unwrap() error { return e.err }

// own makes an Error of what is the reaction's or the event's fault; what is the
// connection's or the server's passes by itself and stays as it is.
func (w *worker) own(e *intent.Event, err error) error {
	var server *pgconn.PgError
	var conflict *intent.ConflictError
	var closed *intent.ClosedError
	var invalid *intent.InvalidError
	var refused *refusedError
	state := ""
	switch {
	case errors.As(err, &refused), errors.As(err, &conflict), errors.As(err, &closed), errors.As(err, &invalid):
	case errors.As(err, &server) && !passing(server.Code):
		state = server.Code
	default:
		return err
	}
	message := err.Error()
	if server != nil {
		message = server.Message // without the detail: it may hold values of rows
		if server.Hint != "" {
			message += "; " + server.Hint
		}
	}
	if len(message) > writeBytes {
		message = strings.ToValidUTF8(message[:writeBytes], "") + "…"
	}
	return &Error{Reaction: w.Name, Event: e.ID, Type: e.Type, Position: e.Position, Query: w.Append, Message: message, SQLState: state, err: err}
}

// passing says that a SQLSTATE is about the connection, the server or other
// transactions.
func passing(code string) bool {
	for _, class := range []string{
		"08",  // connection exceptions
		"40",  // serialization failures and deadlocks
		"53",  // insufficient resources
		"57P", // shut down, starting up
		"58",  // of the system: disks
	} {
		if strings.HasPrefix(code, class) {
			return true
		}
	}
	return false
}

// waitView returns when a view has applied an event.
func (w *worker) waitView(event intent.ID) error {
	for {
		_, err := w.Store.Wait(w.ctx, w.After, event, viewPatience)
		switch {
		case err == nil:
			w.enter(cdc.StateStreaming, nil)
			return nil
		case errors.Is(err, eventstore.ErrTimeout):
			w.enter(cdc.StateWaiting, fmt.Errorf("view %s has not applied event %s yet", w.After, event))
		case errors.Is(err, eventstore.ErrNotFound):
			w.enter(cdc.StateWaiting, fmt.Errorf("there is no view %s yet", w.After))
			if err := w.more(); err != nil {
				return err
			}
		default:
			return err
		}
	}
}
