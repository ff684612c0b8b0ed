package eventpipe

import (
	"context"
	"encoding/json"
	"time"

	"cdc/internal/eventstore"
	"cdc/internal/intent"
)

// API is the store as HTTP serves it: with the rights of an application, and not
// before the pipeline has reached it. All methods may be called concurrently.
type API struct{ p *Pipeline }

// API of the pipeline's store.
func (p *Pipeline) API() API { return API{p} }

// Pulse is told the head of the log as it moves.
func (p *Pipeline) Pulse() *eventstore.Head { return p.head }

func (a API) works() (*works, error) {
	a.p.mu.Lock()
	defer a.p.mu.Unlock()
	if a.p.works == nil {
		return nil, errNotReady
	}
	return a.p.works, nil
}

// Append appends, and applies the inline views of other databases with it.
func (a API) Append(ctx context.Context, batches []intent.Batch) (intent.Receipt, error) {
	w, err := a.works()
	if err != nil {
		return intent.Receipt{}, err
	}
	return w.append.Append(ctx, batches)
}

// Read is that of the store.
func (a API) Read(ctx context.Context, stream string, from, to int64, fn func(*intent.Event) error) error {
	w, err := a.works()
	if err != nil {
		return err
	}
	return w.app.Read(ctx, stream, from, to, fn)
}

// Log is that of the store.
func (a API) Log(ctx context.Context, after int64, limit int, types []string, fn func(*intent.Event) error) (int64, error) {
	w, err := a.works()
	if err != nil {
		return 0, err
	}
	return w.app.Log(ctx, after, limit, types, fn)
}

// Head is that of the store.
func (a API) Head(ctx context.Context) (int64, error) {
	w, err := a.works()
	if err != nil {
		return 0, err
	}
	return w.app.Head(ctx)
}

// State is that of the store.
func (a API) State(ctx context.Context, stream string, at eventstore.At) (eventstore.State, error) {
	w, err := a.works()
	if err != nil {
		return eventstore.State{}, err
	}
	return w.app.State(ctx, stream, at)
}

// Wait is that of the store.
func (a API) Wait(ctx context.Context, name string, token intent.ID, timeout time.Duration) (int64, error) {
	w, err := a.works()
	if err != nil {
		return 0, err
	}
	return w.app.Wait(ctx, name, token, timeout)
}

// Rows are those of a live view.
func (a API) Rows(ctx context.Context, name string, where map[string]string, limit int, fn func(json.RawMessage) error) error {
	w, err := a.works()
	if err != nil {
		return err
	}
	return w.views.Rows(ctx, name, where, limit, fn)
}
