package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"cdc/internal/intent"
	"cdc/internal/view"
)

// append appends what the body says. The bytes of all bodies in memory are bounded:
// one that finds no room waits for it.
func (h *handler) append(w http.ResponseWriter, r *http.Request) error {
	if r.ContentLength > h.MaxBody {
		return &http.MaxBytesError{Limit: h.MaxBody}
	}
	room := r.ContentLength
	if room < 0 { // it does not say
		room = h.MaxBody
	}
	if err := h.takeRoom(r.Context(), room); err != nil {
		return err
	}
	defer h.bodies.Release(room)
	// The body's time begins now that it is read.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, h.MaxBody))
	if err != nil {
		if large := (*http.MaxBytesError)(nil); errors.As(err, &large) {
			return err
		}
		return malformed("", "the body ends before its end: %s", err)
	}
	batches, err := decodeAppend(body)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), appendTimeout)
	defer cancel()
	receipt, err := h.Append.Append(ctx, batches)
	if behind := (*view.BehindError)(nil); errors.As(err, &behind) {
		// They are stored, and a wait for the view knows that it is behind.
		h.answer(w, http.StatusOK, appended{receipt, behind.Error()})
		return nil
	}
	if err != nil {
		if ctx.Err() != nil && r.Context().Err() == nil {
			return &fault{status: http.StatusServiceUnavailable, Code: "unavailable",
				Message: "not answered by the store in " + appendTimeout.String() + "; whether it happened is not known: append the same ids again"}
		}
		return err
	}
	h.answer(w, http.StatusOK, appended{Receipt: receipt})
	return nil
}

// takeRoom waits for room for a body. A client that goes meanwhile is not seen: its
// connection is watched from the end of its body on.
func (h *handler) takeRoom(ctx context.Context, room int64) error {
	ctx, cancel := context.WithTimeout(ctx, roomTimeout)
	defer cancel()
	if h.bodies.Acquire(ctx, room) != nil {
		return busy("%d MiB of appends are being read and appended already", bodiesAtOnce*h.MaxBody>>20)
	}
	return nil
}

// appended is the answer to an append.
type appended struct {
	intent.Receipt
	Behind string `json:"behind,omitempty"` // a view in another Postgres does not show it yet
}
