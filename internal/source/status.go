package source

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/source/pgoutput"
)

const (
	// longestInterval is the longest between two statuses: what the server and
	// pg_stat_replication know of us is never older.
	longestInterval = 10 * time.Second
	// shortestInterval keeps a tiny wal_sender_timeout from flooding the server.
	shortestInterval = 5 * time.Millisecond
	// assumedTimeout stands in for wal_sender_timeout where that is 0, which
	// turns the server's keepalives off.
	assumedTimeout = 60 * time.Second
	// minLiveness is the least wal_sender_timeout our own patience is measured
	// by: while it spills a huge transaction the walsender says nothing.
	minLiveness = 10 * time.Second
	// writeTimeout bounds writing a status of a few bytes: a server that takes
	// none for so long reads nothing at all.
	writeTimeout = 10 * time.Second
)

// statusClock says when to send a status and when to give the server up.
type statusClock struct {
	interval time.Duration // between statuses, at most
	patience time.Duration // silence after which the server is asked; twice as much again and it is dead
	sent     time.Time
	flush    cdc.LSN       // what the newest status confirmed
	owed     bool          // the server asked for a status
	probed   time.Duration // silence at which the server was asked, 0: it was not
	buf      []byte
}

func newStatusClock(senderTimeout, liveness time.Duration, now time.Time) statusClock {
	if senderTimeout == 0 {
		senderTimeout = assumedTimeout
	}
	return statusClock{
		interval: min(max(senderTimeout/3, shortestInterval), longestInterval),
		patience: max(senderTimeout, liveness),
		sent:     now,
	}
}

// Confirm says that everything before lsn is durable: the next status reports
// it and the server never sends it again. Only the end of a transaction or of
// an idle event that Next returned may be confirmed. A lower position than
// before is ignored. It does not block and may be called from any goroutine.
func (st *Stream) Confirm(lsn cdc.LSN) {
	for {
		old := st.confirmed.Load()
		if uint64(lsn) <= old || st.confirmed.CompareAndSwap(old, uint64(lsn)) {
			return
		}
	}
}

// ConfirmNow sends the newest confirmed position at once. It works until the
// connection is lost, after an error of Next too.
func (st *Stream) ConfirmNow(ctx context.Context) error {
	if err := st.usable(ctx); err != nil {
		return err
	}
	return st.sendStatus(time.Now(), false)
}

// Interval is the longest the owner of the stream may be away: between two
// calls of Next or Tick.
func (st *Stream) Interval() time.Duration { return st.status.interval }

// Tick sends a status if one is due. The owner calls it at least every Interval
// while it does not call Next; a server whose stream nobody reads lives on it.
func (st *Stream) Tick(ctx context.Context) error {
	if err := st.usable(ctx); err != nil {
		return err
	}
	st.taken = 0
	now := time.Now()
	if !st.due(now) {
		return nil
	}
	return st.sendStatus(now, false)
}

func (st *Stream) usable(ctx context.Context) error {
	switch {
	case st.broken && st.err != nil:
		return st.err
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w", errNotNow, context.Cause(ctx))
	}
	return nil
}

// due: the interval has passed, the server asked, or there is news and the
// newest status is a tick old.
func (st *Stream) due(now time.Time) bool {
	passed := now.Sub(st.status.sent)
	news := cdc.LSN(st.confirmed.Load()) > st.status.flush
	return st.status.owed || passed >= st.status.interval || news && passed >= st.sock.tick
}

// beforeWait runs when nothing is at hand any more: what the server asked for
// is answered once for all its requests, with what they made the owner confirm.
func (st *Stream) beforeWait() error {
	if st.hook != nil {
		st.hook()
	}
	if !st.status.owed {
		return nil
	}
	return st.sendStatus(time.Now(), false)
}

// housekeep does what is due at a tick: statuses, and the question whether the
// server is alive.
func (st *Stream) housekeep(ctx context.Context) (*cdc.Event, error) {
	if err := st.Tick(ctx); err != nil {
		return nil, err
	}
	now := time.Now()
	c := &st.status
	switch silent := st.sock.silent; {
	case silent < c.patience:
		c.probed = 0
	case c.probed == 0 || silent < c.probed:
		if err := st.sendStatus(now, true); err != nil {
			return nil, err
		}
		c.probed = silent
	case silent-c.probed >= 2*c.patience:
		return nil, fmt.Errorf("slot %q of %s after %s: nothing for %s: %w", st.source.cfg.Slot, st.source.target,
			st.asm.seen, silent.Round(time.Millisecond), ErrSilent)
	}
	st.sock.due = now.Add(st.sock.tick)
	return st.asm.tick(), nil
}

// sendStatus writes a standby status update: write ≥ flush ≥ apply, each as it
// is; a zero flush says "nothing".
func (st *Stream) sendStatus(now time.Time, probe bool) error {
	c := &st.status
	flush := cdc.LSN(st.confirmed.Load())
	if flush > st.asm.seen {
		// The server would believe it and drop what lies between for ever.
		return st.fail(fmt.Errorf("confirm %s to slot %q: only %s was received", flush, st.source.cfg.Slot, st.asm.seen))
	}
	const header = 5 // CopyData's tag and length
	c.buf = append(c.buf[:0], 'd')
	c.buf = binary.BigEndian.AppendUint32(c.buf, header-1+pgoutput.StatusSize)
	c.buf = pgoutput.AppendStatus(c.buf, pgoutput.Status{Write: st.asm.seen, Flush: flush, Apply: flush, Time: now, Reply: probe})
	deadline := st.closeBy
	if deadline.IsZero() {
		deadline = now.Add(writeTimeout)
	}
	err := st.conn.Conn.SetWriteDeadline(deadline)
	if err == nil {
		err = st.conn.Frontend.SendUnbufferedEncodedCopyData(c.buf)
	}
	if err != nil { // perhaps half of it was written
		st.broken = true
		return st.fail(fmt.Errorf("send status to %s: %w", st.source.target, err))
	}
	c.sent, c.flush, c.owed = now, flush, false
	return nil
}
