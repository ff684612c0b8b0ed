package history

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"sync"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/eventstore"
	"cdc/internal/intent"
	"cdc/internal/sink"
)

// Publisher writes the log of one store to its topics. Run belongs to one goroutine
// at a time, Status may be called by any.
type Publisher struct {
	cfg        Config
	generation cdc.Generation

	// Of the goroutine that calls Run, from one life to the next.
	client *sink.Client    // remembers the producer id: a newer owner shows itself as a fence
	found  map[string]bool // categories met in the log and not yet recorded
	fenced bool            // replaced in the last life

	silent    time.Duration // silentAfter
	republish bool          // serves Republish

	mu     sync.Mutex
	status Status
	now    *view
}

// view is what Status may see of a running life.
type view struct {
	writer *sink.Writer
	waited time.Time // since when records wait and none was acknowledged; zero: none wait
	behind time.Time // time of the oldest events not acknowledged; zero: none wait
}

// Status is how a publication stands.
type Status struct {
	State   cdc.State
	Since   time.Time // of State
	Stalled string    // why nothing moves though it runs
	Error   string
	Reason  string // of a terminal error
	Mend    string

	Position int64 // every event up to it is acknowledged in its topic
	Recorded int64 // the same, as the progress topic says it
	Head     int64 // newest event known of
	Topics   int

	Records   uint64 // handed to the writer
	Skipped   uint64 // left out because a partition had them
	Bytes     uint64 // of acknowledged record batches, before compression
	TakeOvers uint64
	Lives     uint64

	BufferedBytes int64
	LagSeconds    float64       // age of the oldest events that wait for an acknowledgement, 0 when none do
	AckLatency    time.Duration // of the newest acknowledged request
	Acks          cdc.Latency
}

// New makes a Publisher; Run does everything else.
func New(cfg Config) *Publisher {
	if cfg.Head == nil {
		cfg.Head = eventstore.NewHead()
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Delivery == "" {
		cfg.Delivery = ExactlyOnce
	}
	return &Publisher{
		cfg: cfg, generation: generationOf(cfg.StoreID), found: map[string]bool{}, silent: silentAfter,
		status: Status{State: cdc.StateStarting, Since: time.Now()},
	}
}

// generationOf is the generation of the stamps of a store's events. It follows from
// the store, so stamps keep their meaning when the progress topic is lost.
func generationOf(store intent.ID) cdc.Generation {
	h := fnv.New32a()
	h.Write(store[:])
	return cdc.Generation(max(1, h.Sum32())) // 0 is no generation
}

// errCategories ends a life in order that met categories without a topic.
var errCategories = errors.New("categories without a topic")

// Run is one life: it publishes until ctx ends (nil) or something breaks. It returns
// when everything it started is gone, the connections that Close gives up excepted.
//
// A *cdc.TerminalError is for somebody to mend; to call Run again before that does no
// harm, for it refuses before it touches anything. After any other error it is to be
// called again, with a pause between: also after ErrFenced, when the next life waits
// until the instance that took over has stopped or is silent.
func (p *Publisher) Run(ctx context.Context) error {
	for {
		err := p.live(ctx)
		switch {
		case errors.Is(err, errCategories) && ctx.Err() == nil:
			continue // as often as there are topics at most: maxTopics
		case ctx.Err() != nil:
			if err != nil && !errors.Is(err, errCategories) && !errors.Is(err, context.Canceled) {
				p.cfg.Logger.Warn("publication stopped in disorder, the next start reads again from the progress record", "error", err)
			}
			p.enter(cdc.StateStopped, nil)
			return nil
		case errors.Is(err, sink.ErrFenced):
			p.fenced = true
			err = fmt.Errorf("%w: this one has stopped writing and nothing is lost", ErrFenced)
			p.enter(cdc.StateWaiting, err)
		case cdc.IsTerminal(err):
			p.enter(cdc.StateFailed, err)
		default:
			p.enter(cdc.StateBackingOff, err)
		}
		return err
	}
}

// ErrFenced: another instance publishes now, or `cdc es republish` has put the
// progress back. It is not terminal.
var ErrFenced = fmt.Errorf("publication: %w", sink.ErrFenced)

// Close gives the connections up that outlive a life. Run must have returned.
func (p *Publisher) Close() {
	if p.client != nil {
		_ = p.client.Close() // never fails
		p.client = nil
	}
}

// enter changes the state that Status shows.
func (p *Publisher) enter(s cdc.State, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.status.State != s {
		p.status.State, p.status.Since = s, time.Now()
	}
	p.status.Error, p.status.Reason, p.status.Mend, p.status.Stalled = "", "", "", ""
	if err == nil {
		return
	}
	p.status.Error = err.Error()
	var t *cdc.TerminalError
	if errors.As(err, &t) {
		p.status.Error, p.status.Reason, p.status.Mend = t.Err.Error(), t.Reason, t.Mend
	}
}

// note changes what Status shows under its lock.
func (p *Publisher) note(f func(*Status)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.status)
}

// Status may be called at any time, by anybody.
func (p *Publisher) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.status
	s.Head = max(s.Head, p.cfg.Head.Pos())
	v := p.now
	if v == nil {
		return s
	}
	st := v.writer.Stats()
	s.Bytes += st.Bytes
	s.BufferedBytes, s.AckLatency, s.Acks = st.Buffered, st.LastAck, st.Acks
	if !v.behind.IsZero() {
		s.LagSeconds = max(0, time.Since(v.behind).Seconds())
	}
	if !v.waited.IsZero() && st.Buffered > 0 && s.Stalled == "" {
		if d := time.Since(v.waited); d > stalledAfter {
			s.Stalled = "Kafka has acknowledged nothing for " + d.Round(time.Second).String()
		}
	}
	return s
}
