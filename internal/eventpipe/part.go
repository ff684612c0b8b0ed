package eventpipe

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"cdc/internal/cdc"
)

// A part that failed is started again after a pause that doubles up to the
// maximum, and begins anew after a life longer than that.
const (
	backoffMin = 200 * time.Millisecond
	backoffMax = 30 * time.Second
)

// backoff is the pause before the next attempt.
type backoff struct{ wait time.Duration }

// pause tells of an error that can pass and waits, until ctx ends at the latest.
func (b *backoff) pause(ctx context.Context, log *slog.Logger, what string, err error, until func(time.Time)) {
	b.wait = max(b.wait, backoffMin)
	pause := b.wait/2 + rand.N(b.wait/2+1)
	b.wait = min(2*b.wait, backoffMax)
	log.Warn(what, "error", err, "in", pause.Round(time.Millisecond))
	until(time.Now().Add(pause))
	select {
	case <-ctx.Done():
	case <-time.After(pause):
	}
}

// lookAgain is how long a part that recovers by itself rests after an error that
// somebody has to mend. It is for parts that touch nothing before they have seen
// that it was mended.
const lookAgain = time.Minute

// part is one thing a pipeline runs, supervised.
type part struct {
	log      *slog.Logger
	run      func(context.Context) error
	recovers bool // after a terminal error it is run again, see lookAgain

	mu     sync.Mutex
	status cdc.PartStatus
}

func newPart(name string, log *slog.Logger, run func(context.Context) error) *part {
	return &part{log: log.With("part", name), run: run, status: cdc.PartStatus{Name: name, State: cdc.StateStarting}}
}

// supervise runs the part until ctx ends (nil) or an error that trying again
// cannot mend.
func (p *part) supervise(ctx context.Context) error {
	var again backoff
	for {
		if p.state().State != cdc.StateFailed { // until it has shown that it was mended
			p.enter(cdc.StateStreaming, nil)
		}
		began := time.Now()
		err := p.run(ctx)
		switch {
		case ctx.Err() != nil:
			p.enter(cdc.StateStopped, nil)
			return nil
		case err == nil:
			err = errors.New("ended by itself")
		case cdc.IsTerminal(err):
			p.enter(cdc.StateFailed, err)
			s := p.state()
			p.log.Error("part failed, the others go on", "reason", s.Reason, "error", s.Error, "mend", s.Mend)
			if !p.recovers {
				return err
			}
			select {
			case <-ctx.Done():
			case <-time.After(lookAgain):
			}
			continue
		}
		if time.Since(began) > backoffMax {
			again = backoff{}
		}
		p.enter(cdc.StateBackingOff, err)
		again.pause(ctx, p.log, "part starts again", err, func(at time.Time) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.status.RetryAt = at
			p.status.Restarts++
		})
	}
}

func (p *part) enter(s cdc.State, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status.State, p.status.Error, p.status.Reason, p.status.Mend = s, "", "", ""
	p.status.RetryAt = time.Time{}
	if err == nil {
		return
	}
	p.status.Error = err.Error()
	var t *cdc.TerminalError
	if errors.As(err, &t) {
		p.status.Error, p.status.Reason, p.status.Mend = t.Err.Error(), t.Reason, t.Mend
	}
}

func (p *part) state() cdc.PartStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status
}
