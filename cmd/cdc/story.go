package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"cdc/internal/eventstore"
	"cdc/internal/intent"
)

// story writes events for people: what happened, when, who did it, and why: the
// events it followed from.
type story struct {
	store interface {
		Event(ctx context.Context, id intent.ID) (*intent.Event, error)
	}
}

// maxChain bounds the causes of causes that are followed.
const maxChain = 8

// why is the part of an event's meta that tells of causes.
type why struct {
	Actor       string `json:"actor"`
	Correlation string `json:"correlation"`
	Causation   string `json:"causation"`
}

func whyOf(e *intent.Event) why {
	var y why
	_ = json.Unmarshal(e.Meta, &y) // meta of another shape has no causes to tell
	return y
}

func (s *story) write(ctx context.Context, w io.Writer, e *intent.Event) error {
	place := ""
	if e.Position > 0 {
		place = fmt.Sprintf("  (position %d, transaction %d)", e.Position, e.Tx)
	}
	fmt.Fprintf(w, "%s  %s @%d  %s%s\n", stamp(e.At), e.Stream, e.Version, e.Type, place)
	fmt.Fprintf(w, "    what  %s\n", compact(e.Data))
	y := whyOf(e)
	if y.Actor != "" {
		fmt.Fprintf(w, "    who   %s\n", y.Actor)
	}
	chain, err := s.chain(ctx, y.Causation)
	if err != nil {
		return err
	}
	if len(chain) > 0 {
		fmt.Fprintf(w, "    why   %s\n", strings.Join(chain, ", which followed from "))
	}
	if y.Correlation != "" {
		fmt.Fprintf(w, "    part of %s\n", y.Correlation)
	}
	_, err = fmt.Fprintf(w, "    id    %s\n", e.ID)
	return err
}

// chain names the event with an id, the one it followed from, and so on. What is
// no event's id is named as it is: a command, a request.
func (s *story) chain(ctx context.Context, cause string) ([]string, error) {
	var chain []string
	for range maxChain {
		if cause == "" {
			break
		}
		id, err := intent.ParseID(cause)
		if err != nil {
			return append(chain, cause), nil
		}
		e, err := s.store.Event(ctx, id)
		if errors.Is(err, eventstore.ErrNotFound) {
			return append(chain, cause), nil
		}
		if err != nil {
			return nil, err
		}
		chain = append(chain, fmt.Sprintf("%s (%s @%d)", e.Type, e.Stream, e.Version))
		cause = whyOf(e).Causation
	}
	return chain, nil
}

// compact is JSON on one line; what is no JSON stays as it is.
func compact(b json.RawMessage) string {
	var out bytes.Buffer
	if json.Compact(&out, b) != nil {
		return string(b)
	}
	return out.String()
}

// pretty is JSON on several lines.
func pretty(b json.RawMessage) string {
	var out bytes.Buffer
	if json.Indent(&out, b, "", "  ") != nil {
		return string(b)
	}
	return out.String()
}
