package api

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"cdc/internal/eventstore"
	"cdc/internal/intent"
	"cdc/internal/view"
)

// fault is an answer that is an error.
type fault struct {
	status int

	Code     string `json:"code"`
	Message  string `json:"message"`
	Stream   string `json:"stream,omitempty"`
	Path     string `json:"path,omitempty"`     // of the key in the body, or the name of the parameter
	Offset   *int64 `json:"offset,omitempty"`   // byte of the body
	Expected any    `json:"expected,omitempty"` // a version, or some or any
	Actual   *int64 `json:"actual,omitempty"`
}

func (f *fault) Error() string { return f.Message }

func malformed(path, format string, args ...any) *fault {
	return &fault{status: http.StatusBadRequest, Code: "malformed", Path: path, Message: fmt.Sprintf(format, args...)}
}

func busy(format string, args ...any) *fault {
	return &fault{status: http.StatusServiceUnavailable, Code: "busy", Message: fmt.Sprintf(format, args...) + ": try again"}
}

func notFound(format string, args ...any) *fault {
	return &fault{status: http.StatusNotFound, Code: "not-found", Message: fmt.Sprintf(format, args...)}
}

// errStopping ends what waits when the daemon stops.
var errStopping = &fault{status: http.StatusServiceUnavailable, Code: "unavailable", Message: "the daemon is stopping: try again"}

// faultOf finds the answer to an error.
func faultOf(err error) *fault {
	var (
		f        *fault
		conflict *intent.ConflictError
		closed   *intent.ClosedError
		invalid  *intent.InvalidError
		large    *http.MaxBytesError
		column   *view.UnknownColumnError
		open     *view.UndecidedError
	)
	switch {
	case errors.As(err, &f):
		return f
	case errors.As(err, &conflict):
		f = &fault{status: http.StatusConflict, Code: "conflict", Message: conflict.Text, Stream: conflict.Stream, Actual: &conflict.Actual, Expected: int64(conflict.Expected)}
		if conflict.Expected < 0 {
			f.Expected = conflict.Expected.String()
		}
		return f
	case errors.As(err, &closed):
		return &fault{status: http.StatusGone, Code: "closed", Message: closed.Error(), Stream: closed.Stream}
	case errors.As(err, &invalid):
		return &fault{status: http.StatusUnprocessableEntity, Code: "invalid", Message: invalid.Text, Path: invalid.Path}
	case errors.As(err, &large):
		return &fault{status: http.StatusRequestEntityTooLarge, Code: "too-large", Message: fmt.Sprintf("the body is larger than %d bytes: append in several calls", large.Limit)}
	case errors.As(err, &column):
		return &fault{status: http.StatusUnprocessableEntity, Code: "invalid", Message: err.Error(), Path: column.Column}
	case errors.As(err, &open):
		return &fault{status: http.StatusServiceUnavailable, Code: "unavailable", Message: err.Error()}
	case errors.Is(err, eventstore.ErrTooEarly):
		return &fault{status: http.StatusTooEarly, Code: "too-early", Message: err.Error()}
	case errors.Is(err, eventstore.ErrNotFound), errors.Is(err, view.ErrNoView):
		return &fault{status: http.StatusNotFound, Code: "not-found", Message: err.Error()}
	case errors.Is(err, eventstore.ErrTimeout):
		return &fault{status: http.StatusGatewayTimeout, Code: "timeout", Message: err.Error()}
	case unavailable(err):
		return &fault{status: http.StatusServiceUnavailable, Code: "unavailable", Message: err.Error()}
	}
	return &fault{status: http.StatusInternalServerError, Code: "internal", Message: err.Error()}
}

// passing are the classes and codes of errors that may be gone when the request
// comes again.
var passing = []string{
	"08",    // connection exceptions
	"25006", // read only: a standby was reached
	"28",    // the login is not accepted
	"3D",    // no such database
	"40",    // serialization failures and deadlocks
	"53",    // insufficient resources: too many connections, disk full
	"55P03", // lock_timeout
	"57",    // cancelled, shut down, starting up
}

// unavailable says that the store was not reached, did not answer or had no room.
// Where the server has said nothing it is the connection that failed.
func unavailable(err error) bool {
	state := sqlState(err)
	return state == "" || slices.ContainsFunc(passing, func(class string) bool { return strings.HasPrefix(state, class) })
}

// sqlState is the server's code for an error, "" where it has said nothing.
func sqlState(err error) string {
	var server interface{ SQLState() string }
	if !errors.As(err, &server) {
		return ""
	}
	return server.SQLState()
}

// fail answers a request with an error.
func (h *handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		return // the client is gone
	}
	f := faultOf(err)
	if f.status == http.StatusInternalServerError {
		h.Logger.Error("answer a request of the api", "path", r.URL.Path, "error", err)
	}
	if f.status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	h.answer(w, f.status, map[string]*fault{"error": f})
}
