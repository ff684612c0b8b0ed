package api

import (
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"net/url"
	"strings"

	"cdc/internal/eventstore"
	"cdc/internal/intent"
)

// stream answers for everything below /v1/streams/.
func (h *handler) stream(w http.ResponseWriter, r *http.Request) error {
	name, state, err := streamOf(r.URL)
	switch {
	case err != nil:
		return err
	case state:
		return h.state(w, r, name)
	}
	return h.streamEvents(w, r, name)
}

// streamOf is the name in a path, and whether its state is asked for. That is told
// from the path as it was written: an escaped slash belongs to the name.
func streamOf(u *url.URL) (name string, state bool, err error) {
	escaped := strings.TrimPrefix(u.EscapedPath(), "/v1/streams/")
	escaped, state = strings.CutSuffix(escaped, "/state")
	name, err = url.PathUnescape(escaped)
	if err != nil || name == "" {
		return "", false, malformed("stream", "no stream: write /v1/streams/course/ddia, and /state behind it for its state")
	}
	return name, state, nil
}

// errFull ends a read whose piece is full.
var errFull = errors.New("the piece is full")

// streamEvents sends the versions from…to.
func (h *handler) streamEvents(w http.ResponseWriter, r *http.Request, stream string) error {
	q := newQuery(r, "", []string{"from", "to"})
	next := q.number("from", 1, 1, math.MaxInt64)
	to := q.number("to", math.MaxInt64, 1, math.MaxInt64)
	if q.err != nil {
		return q.err
	}
	out := h.output(w, ndjson)
	return out.finish(r, h.copyStream(r, out, stream, next, to))
}

func (h *handler) copyStream(r *http.Request, out *output, stream string, next, to int64) error {
	ctx, p := r.Context(), newPace()
	for next <= to {
		n, end := 0, to
		if to-next >= int64(p.n) {
			end = next + int64(p.n) - 1
		}
		err := h.Events.Read(ctx, stream, next, end, func(e *intent.Event) error {
			out.buf = append(appendEvent(out.buf, e), '\n')
			next = e.Version + 1
			n++
			if out.full() {
				return errFull
			}
			return nil
		})
		switch {
		case err != nil && !errors.Is(err, errFull):
			return err
		case n == 0 && !out.sent:
			return h.exists(r, stream)
		case err == nil && next <= end: // that was all
			return nil
		}
		p.seen(n, len(out.buf))
		if err := out.send(); err != nil {
			return err
		}
	}
	return nil
}

// exists tells a stream without events in a range from one that does not exist.
func (h *handler) exists(r *http.Request, stream string) error {
	found := false
	err := h.Events.Read(r.Context(), stream, 1, 1, func(*intent.Event) error {
		found = true
		return nil
	})
	if err == nil && !found {
		return notFound("stream %q has no events", stream)
	}
	return err
}

// stateAnswer is the state of a stream after the event of a version.
type stateAnswer struct {
	Stream  string          `json:"stream"`
	Version int64           `json:"version"`
	State   json.RawMessage `json:"state"`
}

func (h *handler) state(w http.ResponseWriter, r *http.Request, stream string) error {
	q := newQuery(r, "", []string{"version", "at"})
	at := eventstore.At{Version: q.number("version", 0, 1, math.MaxInt64), Time: q.time("at")}
	if at.Version != 0 && !at.Time.IsZero() {
		q.wrong("at", "version is given too: choose one")
	}
	if q.err != nil {
		return q.err
	}
	s, err := h.States.State(r.Context(), stream, at)
	if err != nil {
		return err
	}
	h.answer(w, http.StatusOK, stateAnswer{Stream: stream, Version: s.Version, State: s.State})
	return nil
}
