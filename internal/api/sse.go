package api

import (
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"

	"cdc/internal/intent"
)

const eventStream = "text/event-stream"

// comeBack is when a client comes back after its connection ended, in milliseconds.
const comeBack = "1000"

// follow sends the log as server-sent events (HTML Living Standard, 9.2) until the
// client goes, the daemon stops or followMost is over.
func (h *handler) follow(r *http.Request, out *output, lq logQuery) error {
	ctx, p := r.Context(), newPace()
	end := time.Now().Add(followMost)
	pos, told := lq.after, lq.after // told: the id the client has
	out.buf = append(out.buf, "retry: "+comeBack+"\n\n"...)
	if err := out.send(); err != nil {
		return err
	}
	beat := time.Now().Add(h.beat)
	for time.Now().Before(end) {
		n, last, err := h.piece(ctx, out, &p, pos, math.MaxInt64, lq, appendMessage)
		if err != nil {
			return err
		}
		pos = last
		if n > 0 {
			told = pos
			if err := out.send(); err != nil {
				return err
			}
			beat = time.Now().Add(h.beat)
			continue
		}
		if !time.Now().Before(beat) {
			out.buf = append(out.buf, ':')
			if pos > told {
				// An id without data is no event: the client keeps it and goes on behind
				// what is not of its types.
				out.buf = append(append(out.buf, "\nid: "...), strconv.FormatInt(pos, 10)...)
				told = pos
			}
			out.buf = append(out.buf, "\n\n"...)
			if err := out.send(); err != nil {
				return err
			}
			beat = time.Now().Add(h.beat)
		}
		if err := h.more(ctx, pos, beat); errors.Is(err, errStopping) {
			return nil // it comes back, and goes on where it is
		} else if err != nil {
			return err
		}
	}
	return nil
}

// appendMessage writes an event as a message. A type has no control characters: the
// store refuses them.
func appendMessage(b []byte, e *intent.Event) []byte {
	b = append(b, "id: "...)
	b = strconv.AppendInt(b, e.Position, 10)
	b = append(b, "\nevent: "...)
	b = append(b, e.Type...)
	b = append(b, "\ndata: "...)
	return append(appendEvent(b, e), "\n\n"...)
}
