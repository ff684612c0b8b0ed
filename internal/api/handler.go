package api

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"time"

	"golang.org/x/sync/semaphore"

	"cdc/internal/eventstore"
	"cdc/internal/intent"
)

// Appender appends events, all or none, durably when it returns. It may be called
// concurrently. Its errors are those of package intent where the append is refused.
type Appender interface {
	Append(ctx context.Context, batches []intent.Batch) (intent.Receipt, error)
}

// Events reads what is stored. All methods may be called concurrently; the event
// given to fn is valid until fn returns, and an error of fn ends the call with an
// error.
type Events interface {
	// Read gives the versions from…to of a stream in order; to 0: to its end.
	Read(ctx context.Context, stream string, from, to int64, fn func(*intent.Event) error) error
	// Log gives at most limit events of these types (nil: of all) after a position,
	// in order, and says up to which position it has looked.
	Log(ctx context.Context, after int64, limit int, types []string, fn func(*intent.Event) error) (last int64, err error)
	// Head is the position of the newest event of the log, 0 where it is empty.
	Head(ctx context.Context) (int64, error)
}

// States folds streams. Concurrent calls are allowed.
type States interface {
	// State is eventstore.ErrNotFound where there is no such stream, or no fold for it.
	State(ctx context.Context, stream string, at eventstore.At) (eventstore.State, error)
}

// Waiter waits for views. Concurrent calls are allowed.
type Waiter interface {
	// Wait blocks until the view has applied the event, and says which position it
	// has seen. eventstore.ErrTimeout: not in time; eventstore.ErrNotFound: no such
	// view or event.
	Wait(ctx context.Context, view string, token intent.ID, timeout time.Duration) (int64, error)
}

// Rows reads live views. Concurrent calls are allowed.
type Rows interface {
	// Rows gives at most limit rows, as JSON objects in the order of the primary key,
	// whose columns have these values in their text form. view.ErrNoView: none is live;
	// *view.UnknownColumnError: no such column. The row is valid until fn returns, and
	// an error of fn ends the call with it.
	Rows(ctx context.Context, view string, where map[string]string, limit int, fn func(row json.RawMessage) error) error
}

// The limits.
const (
	// DefaultMaxBody bounds an append: some thousand events, or sixteen of the
	// largest.
	DefaultMaxBody = 16 << 20
	// bodiesAtOnce bounds the memory of appends being read, in bodies of the largest
	// size: small ones are many more.
	bodiesAtOnce = 4
	// roomTimeout is how long an append waits for that room.
	roomTimeout = 10 * time.Second
	// bodyTimeout is how long a client may take to send its body.
	bodyTimeout = 30 * time.Second
	// appendTimeout bounds an append, and with it how long it waits for the lock of
	// a stream.
	appendTimeout = 30 * time.Second
	// answerTimeout is how long a client may take to read a short answer, or the next
	// piece of a long one.
	answerTimeout = 30 * time.Second
	// longAtOnce bounds the requests that read, follow or wait: each holds a
	// connection of the server, which has more, for probes and appends.
	longAtOnce = 128
	// rowsAtOnce bounds the reads of views, which hold a connection to Postgres while
	// the client reads.
	rowsAtOnce = 8
)

// Config is what a handler needs.
type Config struct {
	Append Appender
	Events Events
	States States
	Wait   Waiter
	Rows   Rows
	// Head wakes those who follow the log. Nil, or set by another process: they look
	// once a second.
	Head *eventstore.Head
	// Stopping, closed, ends the requests that wait or follow, so that the daemon
	// does not wait for them.
	Stopping <-chan struct{}
	MaxBody  int64 // bytes; 0: DefaultMaxBody
	Logger   *slog.Logger
}

type handler struct {
	Config
	bodies *semaphore.Weighted // bytes of bodies being read and appended
	long   chan struct{}       // a place for each long request
	rows   chan struct{}       // a place for each read of a view

	patience, beat, look time.Duration // answerTimeout, heartbeat and lookEvery
}

// Paths are the patterns of http.ServeMux under which Handler is to be mounted.
var Paths = []string{"/v1/append", "/v1/streams/", "/v1/log", "/v1/views/"}

// Handler serves the API. It panics with http.ErrAbortHandler to break off an
// answer, which net/http expects.
func Handler(cfg Config) http.Handler { return newHandler(cfg).routes() }

func newHandler(cfg Config) *handler {
	if cfg.MaxBody <= 0 {
		cfg.MaxBody = DefaultMaxBody
	}
	if cfg.Head == nil {
		cfg.Head = eventstore.NewHead()
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &handler{
		Config: cfg,
		bodies: semaphore.NewWeighted(bodiesAtOnce * cfg.MaxBody),
		long:   make(chan struct{}, longAtOnce),
		rows:   make(chan struct{}, rowsAtOnce),

		patience: answerTimeout, beat: heartbeat, look: lookEvery,
	}
}

func (h *handler) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/v1/append", h.route(http.MethodPost, h.append))
	mux.Handle("/v1/streams/", h.route(http.MethodGet, h.bounded(h.stream)))
	mux.Handle("/v1/log", h.route(http.MethodGet, h.bounded(h.log)))
	mux.Handle("/v1/views/{view}", h.route(http.MethodGet, h.bounded(h.viewRows)))
	mux.Handle("/v1/views/{view}/wait", h.route(http.MethodGet, h.bounded(h.viewWait)))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		h.fail(w, r, &fault{status: http.StatusNotFound, Code: "not-found", Message: "no such path"})
	})
	// A page of another site, open in a browser on this machine, must not append.
	guard := http.NewCrossOriginProtection()
	guard.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.fail(w, r, &fault{status: http.StatusForbidden, Code: "cross-origin", Message: "a page of another origin asks: refused"})
	}))
	return guard.Handler(mux)
}

// route answers one method, and turns the error of fn into the answer.
func (h *handler) route(method string, fn func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != method {
			w.Header().Set("Allow", method)
			h.fail(w, r, &fault{status: http.StatusMethodNotAllowed, Code: "method", Message: "only " + method + " is answered here"})
			return
		}
		if err := fn(w, r); err != nil {
			h.fail(w, r, err)
		}
	})
}

// bounded lets only so many requests read, follow or wait at a time.
func (h *handler) bounded(fn func(http.ResponseWriter, *http.Request) error) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		select {
		case h.long <- struct{}{}:
			defer func() { <-h.long }()
			return fn(w, r)
		default:
			return busy("%d requests read, follow or wait already", longAtOnce)
		}
	}
}

// answer sends a short answer. A client that went away is no concern of the daemon.
func (h *handler) answer(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		h.Logger.Error("write an answer of the api", "error", err)
		status, body = http.StatusInternalServerError, []byte(`{"error":{"code":"internal","message":"the answer cannot be written as JSON"}}`)
	}
	// Errors are the connection's, and seen by Write.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(h.patience))
	head(w, "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // nobody is left to tell
}

func head(w http.ResponseWriter, contentType string) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
}
