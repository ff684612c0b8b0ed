package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/sink"
)

// Pipeline captures the tables of one database into Kafka topics.
type Pipeline struct {
	cfg Config
	log *slog.Logger

	// client outlives the lives: it keeps the producer id and epoch of the last
	// one. The next takes over with them, so that a newer owner shows itself as a
	// fence instead of being fenced by us. Nil until Kafka was first reached.
	client *sink.Client
	// broken is the gap that ended the life before, where the next one mends it.
	broken *gap
	// unreadable counts the lives in a row that ended by an internal error of the
	// server without getting any further.
	unreadable int

	commands chan *command // to the life that streams

	mu     sync.Mutex
	status cdc.Status
	life   *life // running life, whose counters Status reads; nil between lives
	past   counts
}

// New makes a pipeline; Run does everything else.
func New(cfg Config) *Pipeline {
	p := &Pipeline{cfg: cfg, log: cfg.Logger.With("pipeline", cfg.Name), commands: make(chan *command)}
	p.status = cdc.Status{
		Name: cfg.Name, Mode: "cdc", State: cdc.StateStarting, Since: time.Now(),
		Slot: cfg.Source.Slot, Publication: cfg.Source.Publication, SlotSafe: -1,
	}
	return p
}

// Run captures until ctx ends (nil), until `snapshot: only` is done (nil) or
// until an error that trying again cannot mend (a *cdc.TerminalError). It returns
// when everything it started is gone.
func (p *Pipeline) Run(ctx context.Context) error {
	defer p.hangUp()
	defer p.verifying(ctx)()
	wait := backoffMin
	for {
		done, advanced, err := p.live(ctx)
		switch {
		case ctx.Err() != nil:
			if err != nil && !errors.Is(err, context.Canceled) {
				p.log.Warn("stopped in disorder, the next start replays from the progress record", "error", err)
			}
			p.enter(cdc.StateStopped, nil)
			return nil
		case done:
			p.enter(cdc.StateDone, nil)
			return nil
		case cdc.IsTerminal(err) && !p.heals(err):
			p.enter(cdc.StateFailed, err)
			return err
		}
		if advanced { // it got somewhere: what ended it is news
			wait = backoffMin
		}
		pause := wait/2 + rand.N(wait/2+1)
		wait = min(2*wait, backoffMax)
		p.log.Warn("pipeline starts again", "error", err, "in", pause.Round(time.Millisecond))
		p.enter(cdc.StateBackingOff, err)
		p.mu.Lock()
		p.status.RetryAt = time.Now().Add(pause)
		p.status.Restarts++
		p.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// heals: the error is a gap that the next life mends by a copy.
func (p *Pipeline) heals(err error) bool {
	var g *gap
	if !errors.As(err, &g) || !g.healed(p.cfg.OnGap, p.cfg.Snapshot) {
		return false
	}
	if g.cure == cureAll {
		p.broken = g
	}
	return true
}

func (p *Pipeline) hangUp() {
	if p.client != nil {
		p.client.Close()
		p.client = nil
	}
}

// live is one life from the dial to the last confirmation. advanced: it confirmed
// something to the slot.
func (p *Pipeline) live(ctx context.Context) (done, advanced bool, err error) {
	l := newLife(p)
	p.mu.Lock()
	p.life = l
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.past.add(&l.counts)
		p.life = nil
		p.mu.Unlock()
	}()
	done, err = l.run(ctx)
	return done, l.advanced, l.asGap(err)
}

// enter changes the state that Status shows.
func (p *Pipeline) enter(s cdc.State, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.status.State != s {
		p.status.Since = time.Now()
	}
	p.status.State, p.status.Error, p.status.Reason, p.status.Mend = s, "", "", ""
	p.status.RetryAt, p.status.Stalled = time.Time{}, ""
	if err == nil {
		return
	}
	p.status.Error = err.Error()
	var t *cdc.TerminalError
	if errors.As(err, &t) {
		p.status.Error, p.status.Reason, p.status.Mend = t.Err.Error(), t.Reason, t.Mend
	}
}

// stall says why a running pipeline makes no progress; "" says that it does.
func (p *Pipeline) stall(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status.Stalled = fmt.Sprintf(format, args...)
}

// Status may be called at any time, by anybody.
func (p *Pipeline) Status() cdc.Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.status
	c := p.past.total()
	if l := p.life; l != nil {
		l.describe(&s)
		c.add(l.counts.total())
	}
	s.Transactions, s.Changes, s.Records, s.Bytes = c.transactions, c.changes, c.records, c.bytes
	s.Skipped, s.DeadLetters, s.TakeOvers, s.Rereads = c.skipped, c.deadLetters, c.takeOvers, c.rereads
	switch s.State {
	case cdc.StateSnapshot, cdc.StateReplaying, cdc.StateStreaming, cdc.StateDone:
		s.Ready = s.Stalled == ""
	}
	return s
}
