package api

import (
	"context"
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"cdc/internal/intent"
)

const (
	// waitMost bounds how long a request waits for the first event.
	waitMost = time.Minute
	// followMost bounds how long one request follows the log: browsers come back by
	// themselves, and what lies between forgets connections that never end.
	followMost = time.Hour
	// heartbeat keeps a quiet connection known to what lies between, and notices a
	// client that is gone.
	heartbeat = 15 * time.Second
	// lookEvery is how often the log is looked at where another process numbers it.
	lookEvery = time.Second
	// positionHeader says up to which position an answer has read, where fewer lines
	// than the limit came.
	positionHeader = "Cdc-Position"
)

// logQuery is what is asked of the log.
type logQuery struct {
	after  int64
	types  []string
	limit  int64
	wait   time.Duration
	follow bool
}

// log sends events in commit order.
func (h *handler) log(w http.ResponseWriter, r *http.Request) error {
	lq, err := h.logQuery(r)
	if err != nil {
		return err
	}
	if lq.follow {
		out := h.output(w, eventStream)
		return out.finish(r, h.follow(r, out, lq))
	}
	out := h.output(w, ndjson)
	return out.finish(r, h.readLog(r, out, lq))
}

func (h *handler) logQuery(r *http.Request) (logQuery, error) {
	follow := accepts(r, eventStream)
	known := []string{"after", "type", "limit", "wait"}
	if follow {
		known = []string{"after", "type"}
	}
	q := newQuery(r, "type", known)
	lq := logQuery{
		follow: follow,
		types:  q.list("type"),
		limit:  q.number("limit", math.MaxInt64, 1, math.MaxInt64),
		wait:   q.duration("wait", 0, waitMost),
	}
	if text, _ := q.text("after"); text == "end" {
		var err error
		if lq.after, err = h.Events.Head(r.Context()); err != nil && q.err == nil {
			return lq, err
		}
	} else {
		lq.after = q.number("after", 0, 0, math.MaxInt64)
	}
	if last := r.Header.Get("Last-Event-ID"); follow && last != "" {
		n, err := strconv.ParseInt(last, 10, 64)
		if err != nil || n < 0 {
			q.wrong("Last-Event-ID", "the header must hold a position, not %q", last)
		}
		lq.after = n
	}
	return lq, q.err
}

// accepts says that a request asks for a content type by its name.
func accepts(r *http.Request, contentType string) bool {
	for _, accept := range r.Header.Values("Accept") {
		for item := range strings.SplitSeq(accept, ",") {
			name, _, _ := strings.Cut(item, ";")
			if strings.EqualFold(strings.TrimSpace(name), contentType) {
				return true
			}
		}
	}
	return false
}

// readLog sends what is in the log now, or, where there is nothing yet, what is
// there before the wait is over.
func (h *handler) readLog(r *http.Request, out *output, lq logQuery) error {
	ctx, p := r.Context(), newPace()
	until := time.Now().Add(lq.wait)
	pos := lq.after
	for {
		// Whatever is read from here on reaches the head, which is asked first.
		head, err := h.Events.Head(ctx)
		if err != nil {
			return err
		}
		n, last, err := h.piece(ctx, out, &p, pos, head, lq, appendLine)
		if err != nil {
			return err
		}
		pos = last
		if n == 0 && pos >= head && time.Until(until) > 0 {
			if err := h.more(ctx, pos, until); err != nil {
				return err
			}
			continue
		}
		out.w.Header().Set(positionHeader, strconv.FormatInt(max(head, lq.after), 10))
		for sent := int64(n); ; sent += int64(n) {
			if err := out.send(); err != nil {
				return err
			}
			if pos >= head || sent >= lq.limit {
				return nil
			}
			rest := lq
			rest.limit -= sent
			if n, pos, err = h.piece(ctx, out, &p, pos, head, rest, appendLine); err != nil {
				return err
			}
		}
	}
}

func appendLine(b []byte, e *intent.Event) []byte { return append(appendEvent(b, e), '\n') }

// piece reads events after pos, up to head and the limit, until the output is full,
// and says how many and up to which position it has read.
func (h *handler) piece(ctx context.Context, out *output, p *pace, pos, head int64, lq logQuery, write func([]byte, *intent.Event) []byte) (n int, last int64, err error) {
	before, read := len(out.buf), pos
	ask := int(min(int64(p.n), lq.limit))
	last, err = h.Events.Log(ctx, pos, ask, lq.types, func(e *intent.Event) error {
		if e.Position > head {
			return errFull
		}
		out.buf = write(out.buf, e)
		read = e.Position
		n++
		if out.full() {
			return errFull
		}
		return nil
	})
	switch {
	case errors.Is(err, errFull):
		// The log may have gone on beyond head: up to there all is read where the
		// output has room left.
		if last = read; !out.full() {
			last = head
		}
		err = nil
	case err != nil:
		return 0, pos, err
	}
	p.seen(n, len(out.buf)-before)
	return n, last, nil
}

// more returns when there may be something behind pos, or at until. Its error says
// that the client is gone or the daemon stops.
func (h *handler) more(ctx context.Context, pos int64, until time.Time) error {
	timer := time.NewTimer(min(h.look, time.Until(until)))
	defer timer.Stop()
	select {
	case <-h.Head.After(pos):
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	case <-h.Stopping:
		return errStopping
	}
	return nil
}
