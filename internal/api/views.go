package api

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"cdc/internal/intent"
	"cdc/internal/view"
)

const (
	// viewWait is how long a request waits for a view unless it says so itself.
	viewWait = 10 * time.Second
	// rowsUnlessSaid bounds the rows of an answer unless the request says so.
	rowsUnlessSaid = 1000
	// columnPrefix marks a column that is called like a parameter.
	columnPrefix = "column."
)

// viewRows sends the rows of a view, once it has applied the event of the token.
func (h *handler) viewRows(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("view")
	q := newQuery(r, "", nil)
	token := q.id("token")
	timeout := q.duration("timeout", viewWait, waitMost)
	limit := q.number("limit", rowsUnlessSaid, 1, view.MaxRows)
	where := map[string]string{}
	for name := range q.values {
		column, marked := strings.CutPrefix(name, columnPrefix)
		if !marked && (name == "token" || name == "timeout" || name == "limit") {
			continue
		}
		if _, twice := where[column]; twice {
			q.wrong(name, "given twice, with and without %s", columnPrefix)
		}
		where[column] = q.values.Get(name)
	}
	if q.err != nil {
		return q.err
	}
	if !token.IsZero() {
		if _, err := h.waitFor(r, name, token, timeout); err != nil {
			return err
		}
	}
	select {
	case h.rows <- struct{}{}:
		defer func() { <-h.rows }()
	default:
		return busy("%d reads of views are answered already", rowsAtOnce)
	}
	out := h.output(w, ndjson)
	err := h.Rows.Rows(r.Context(), name, where, int(limit), func(row json.RawMessage) error {
		out.buf = append(appendRaw(out.buf, row), '\n')
		if out.full() {
			return out.send()
		}
		return nil
	})
	if strings.HasPrefix(sqlState(err), "22") { // a column has no such value
		err = &fault{status: http.StatusUnprocessableEntity, Code: "invalid", Message: err.Error()}
	}
	return out.finish(r, err)
}

// viewWait answers once a view has applied an event.
func (h *handler) viewWait(w http.ResponseWriter, r *http.Request) error {
	q := newQuery(r, "", []string{"token", "timeout"})
	token := q.id("token")
	timeout := q.duration("timeout", viewWait, waitMost)
	if q.err == nil && token.IsZero() {
		q.wrong("token", "missing: the token of an append, or the id of an event")
	}
	if q.err != nil {
		return q.err
	}
	pos, err := h.waitFor(r, r.PathValue("view"), token, timeout)
	if err != nil {
		return err
	}
	if pos > 0 { // an inline view may be ahead of the log
		w.Header().Set(positionHeader, strconv.FormatInt(pos, 10))
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(h.patience))
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// waitFor waits, and gives up when the daemon stops.
func (h *handler) waitFor(r *http.Request, name string, token intent.ID, timeout time.Duration) (int64, error) {
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	if h.Stopping != nil {
		gone := make(chan struct{})
		defer func() { <-gone }()
		go func() {
			defer close(gone)
			select {
			case <-h.Stopping:
				cancel(errStopping)
			case <-ctx.Done():
			}
		}()
		defer cancel(nil)
	}
	pos, err := h.Wait.Wait(ctx, name, token, timeout)
	if err != nil && context.Cause(ctx) == errStopping {
		err = errStopping
	}
	return pos, err
}
