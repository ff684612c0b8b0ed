package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"
)

const (
	// pieceBytes is about how much is read before it is sent: few statements for many
	// events, and little memory for each request.
	pieceBytes = 256 << 10
	// writeBytes is what a client has answerTimeout for: 2 KB/s are enough.
	writeBytes = 64 << 10
)

// output is an answer that is sent in pieces: lines are appended to buf.
type output struct {
	h    *handler
	w    http.ResponseWriter
	rc   *http.ResponseController
	kind string // content type
	buf  []byte
	sent bool // the status has been sent: an error can no longer be the answer
}

func (h *handler) output(w http.ResponseWriter, contentType string) *output {
	return &output{h: h, w: w, rc: http.NewResponseController(w), kind: contentType}
}

// full says that it is time to send.
func (o *output) full() bool { return len(o.buf) >= pieceBytes }

// send sends what is in buf, and the status before it. It blocks until the client
// has taken it, or has taken too long. Its error is errGone.
func (o *output) send() error {
	if !o.sent {
		head(o.w, o.kind)
		o.sent = true
		o.w.WriteHeader(http.StatusOK)
	}
	for rest := o.buf; len(rest) > 0; {
		n := min(len(rest), writeBytes)
		// The server's own limit is for a whole answer; this one is for a piece.
		_ = o.rc.SetWriteDeadline(time.Now().Add(o.h.patience)) // errors are seen by Write
		if _, err := o.w.Write(rest[:n]); err != nil {
			return errGone
		}
		rest = rest[n:]
	}
	o.buf = o.buf[:0]
	if cap(o.buf) > 2*pieceBytes { // one large event made it so
		o.buf = nil
	}
	_ = o.rc.SetWriteDeadline(time.Now().Add(o.h.patience))
	if o.rc.Flush() != nil {
		return errGone
	}
	return nil
}

// errGone says that the client is gone, or reads too slowly: nobody is left to tell.
var errGone = errors.New("the client does not read")

// finish ends the answer: with err as the answer itself while nothing was sent, else
// as a last line, behind which the connection breaks off.
func (o *output) finish(r *http.Request, err error) error {
	switch {
	case err == nil:
		if o.send() != nil {
			panic(http.ErrAbortHandler)
		}
		return nil
	case errors.Is(err, errGone) || r.Context().Err() != nil:
		panic(http.ErrAbortHandler)
	case !o.sent:
		return err
	}
	f := faultOf(err)
	if f.status == http.StatusInternalServerError {
		o.h.Logger.Error("break off an answer of the api", "path", r.URL.Path, "error", err)
	}
	if o.kind == ndjson {
		if line, err := json.Marshal(map[string]*fault{"error": f}); err == nil {
			o.buf = append(append(o.buf, line...), '\n')
		}
	}
	_ = o.send() // it breaks off in any case
	panic(http.ErrAbortHandler)
}

const ndjson = "application/x-ndjson"

// pace is how many events to ask for next, so that an answer is about as large as a
// piece, whatever the size of the events.
type pace struct{ n int }

const (
	firstPace = 64
	mostPace  = 5000
)

func newPace() pace { return pace{firstPace} }

// seen learns from a piece of so many events and bytes.
func (p *pace) seen(events, bytes int) {
	if events > 0 {
		p.n = min(max(pieceBytes*events/max(bytes, 1), 1), 4*p.n, mostPace)
	}
}
