package source

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/source/pgoutput"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// ErrServerClosed says that the server ended the stream in order (a shutdown).
// Try again.
var ErrServerClosed = errors.New("server ended the replication stream")

// ErrSilent says that the server did not answer although it was asked.
var ErrSilent = errors.New("server does not answer")

// Stream is a running replication stream. It belongs to one goroutine, the
// caller of Next, which also writes to the connection; Confirm and ServerEnd
// may be called from anywhere.
type Stream struct {
	source *Source
	asm    *assembler
	conn   *pgconn.HijackedConn
	sock   *socket
	hook   func() // see BeforeRead

	// confirmed ≤ asm.seen: what is durable was received. It never goes back.
	confirmed atomic.Uint64
	serverEnd atomic.Uint64
	held      atomic.Pointer[string] // see Held; nil for nothing
	heldUp    bool                   // held is set

	status  statusClock
	taken   uint32    // messages since the clock was looked at
	err     error     // the first failure; it sticks
	broken  bool      // the connection is of no use any more
	closeBy time.Time // bounds writes while Close is under way
}

// clockEvery bounds how many messages at hand are taken without a look at the
// clock: they are in memory, so this is a fraction of a millisecond.
const clockEvery = 256

func (st *Stream) begin(conn *pgconn.HijackedConn, sock *socket, senderTimeout time.Duration) {
	st.conn, st.sock = conn, sock
	st.status = newStatusClock(senderTimeout, st.source.liveness, time.Now())
	sock.begin(min(st.source.cfg.Tick, st.status.interval), st.beforeWait)
}

// Next returns the next event, valid until the next call. It blocks for a tick
// at most and then returns EventTick; so long does it take to notice that ctx
// is done, too. After an error the stream is over. Errors that cannot pass are
// terminal (cdc.IsTerminal); after others, start a new stream.
func (st *Stream) Next(ctx context.Context) (*cdc.Event, error) {
	if st.err != nil {
		return nil, st.err
	}
	ev, err := st.next(ctx)
	if err != nil && !errors.Is(err, errNotNow) {
		return nil, st.fail(err)
	}
	return ev, err
}

// errNotNow marks that a call found its context done before it took anything
// from the stream, which may go on.
var errNotNow = errors.New("replication stream left as it is")

func (st *Stream) next(ctx context.Context) (*cdc.Event, error) {
	if st.asm.pending() {
		ev, err := st.asm.nextTruncated(ctx)
		if err != nil {
			return nil, st.messageError(err, st.asm.change.LSN)
		}
		if ev != nil {
			return ev, nil
		}
	}
	for {
		if st.taken++; st.taken >= clockEvery {
			if err := st.Tick(ctx); err != nil {
				return nil, err
			}
		}
		msg, err := st.conn.Frontend.Receive()
		switch {
		case errors.Is(err, errTick):
			return st.housekeep(ctx)
		case err != nil:
			st.broken = true
			return nil, fmt.Errorf("read from %s: %w", st.source.target, err)
		}
		data, ok := msg.(*pgproto3.CopyData)
		if !ok {
			if err := st.other(msg); err != nil {
				st.broken = true
				return nil, err
			}
			continue
		}
		ev, err := st.copyData(ctx, data.Data)
		if ev != nil || err != nil {
			return ev, err
		}
	}
}

// copyData takes one message of the stream; the event is nil where it makes none.
func (st *Stream) copyData(ctx context.Context, b []byte) (*cdc.Event, error) {
	if len(b) == 0 {
		return nil, st.messageError(fmt.Errorf("%w: empty CopyData message", ErrProtocol), 0)
	}
	switch b[0] {
	case pgoutput.TagXLogData:
		if st.heldUp {
			st.held.Store(nil)
			st.heldUp = false
		}
		x, err := pgoutput.ParseXLogData(b)
		if err != nil {
			return nil, st.messageError(fmt.Errorf("%w: %w", ErrProtocol, err), 0)
		}
		ev, err := st.asm.message(ctx, x)
		if err != nil {
			return nil, st.messageError(err, x.Start)
		}
		return ev, nil
	case pgoutput.TagKeepalive:
		k, err := pgoutput.ParseKeepalive(b)
		if err != nil {
			return nil, st.messageError(fmt.Errorf("%w: %w", ErrProtocol, err), 0)
		}
		st.status.owed = st.status.owed || k.Reply
		ev := st.asm.keepalive(k.End, k.Reply)
		st.serverEnd.Store(max(st.serverEnd.Load(), uint64(k.End)))
		return ev, nil
	}
	return nil, st.messageError(fmt.Errorf("%w: unknown CopyData message %q", ErrProtocol, b[0]), 0)
}

// messageError names where in the stream a message could not be taken. One that
// violates the protocol would come again the same way.
func (st *Stream) messageError(err error, at cdc.LSN) error {
	const format = "message of slot %q at %s, after %s: %w"
	switch {
	case errors.Is(err, pgoutput.ErrTwoPhase):
		return cdc.Terminal("slot-two-phase",
			"The slot was created with two_phase, which delivers data before it is committed: make a slot without it.",
			format, st.source.cfg.Slot, at, st.asm.seen, err)
	case errors.Is(err, ErrProtocol):
		return cdc.Terminal("protocol", "Nothing was skipped. Look for a newer version of cdc if the server is new; otherwise report this.",
			format, st.source.cfg.Slot, at, st.asm.seen, err)
	}
	return fmt.Errorf(format, st.source.cfg.Slot, at, st.asm.seen, err)
}

// other takes what is not CopyData. pgproto3 hands out an ErrorResponse as a
// message like any other, after which the server may leave the connection open.
func (st *Stream) other(msg pgproto3.BackendMessage) error {
	switch m := msg.(type) {
	case *pgproto3.ErrorResponse:
		return st.source.serverError(pgconn.ErrorResponseToPgError(m), st.asm.seen)
	case *pgproto3.NoticeResponse:
		return st.notice((*pgconn.Notice)(pgconn.ErrorResponseToPgError((*pgproto3.ErrorResponse)(m))))
	case *pgproto3.ParameterStatus:
		return nil
	case *pgproto3.CopyDone, *pgproto3.CommandComplete, *pgproto3.ReadyForQuery:
		return fmt.Errorf("slot %q of %s after %s: %w", st.source.cfg.Slot, st.source.target, st.asm.seen, ErrServerClosed)
	}
	return fmt.Errorf("%w: %T in the replication stream", ErrProtocol, msg)
}

// notice logs what the server remarks. Postgres 18 only warns where a
// publication is missing and streams on with nothing, or half: that is an error.
// One that waits for a standby of synchronized_standby_slots (17) remarks on it
// under the same code, again and again.
func (st *Stream) notice(n *pgconn.Notice) error {
	if n.Code == codeNotInState && n.Routine == standbyRoutine {
		held := "the server waits for a standby: " + n.Message
		if before := st.held.Load(); before == nil || *before != held {
			st.held.Store(&held)
			st.logNotice(n)
		}
		st.heldUp = true
		return nil
	}
	if n.Code == codeNotInState {
		return cdc.Terminal("publication-missing",
			"The publication must have existed before the slot and ever since. If it did not, drop the slot and take a new snapshot.",
			"replication from slot %q of %s after %s: the server warns: %s (SQLSTATE %s)",
			st.source.cfg.Slot, st.source.target, st.asm.seen, n.Message, n.Code)
	}
	st.logNotice(n)
	return nil
}

// standbyRoutine is where the server remarks on a standby that is behind
// (replication/slot.c); names of routines are not translated, messages are.
const standbyRoutine = "StandbySlotsHaveCaughtup"

// Held says what the server itself holds the stream back for; "" for nothing. It
// may be called from anywhere.
func (st *Stream) Held() string {
	if held := st.held.Load(); held != nil {
		return *held
	}
	return ""
}

func (st *Stream) connectNotice(n *pgconn.Notice) { st.logNotice(n) }

func (st *Stream) logNotice(n *pgconn.Notice) {
	st.source.log.Warn("notice from Postgres", "severity", n.Severity, "code", n.Code, "message", n.Message, "lsn", st.asm.seen)
}

func (st *Stream) fail(err error) error {
	if st.err == nil {
		st.err = err
	}
	return st.err
}

// BeforeRead sets a function that Next calls when nothing more is at hand,
// right before it waits for the socket: what was gathered so far should be on
// its way then. It runs on the goroutine of Next and must not call the Stream's
// methods, Confirm and ServerEnd excepted.
func (st *Stream) BeforeRead(hook func()) { st.hook = hook }

// ServerEnd is the highest position the server has spoken of in a keepalive: it
// has decoded its WAL up to there.
func (st *Stream) ServerEnd() cdc.LSN { return cdc.LSN(st.serverEnd.Load()) }

// Close ends the stream in order: the newest confirmed position, the end of
// the copy, and what the server still had under way is read and dropped, so
// that its side of the connection does not lose our last words. It blocks until
// then, ctx is done or closeTimeout has passed. It may be called again.
func (st *Stream) Close(ctx context.Context) error {
	if st.conn == nil {
		return nil
	}
	if !st.broken && ctx.Err() == nil {
		st.drain(ctx)
	}
	err := st.conn.Conn.Close()
	st.conn, st.broken = nil, true
	if st.err == nil {
		st.err = errClosed
	}
	if err != nil {
		return fmt.Errorf("close replication connection to %s: %w", st.source.target, err)
	}
	return nil
}

var errClosed = errors.New("stream is closed")

// drain says goodbye; where that fails the connection is lost a moment early.
func (st *Stream) drain(ctx context.Context) {
	st.closeBy = time.Now().Add(closeTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(st.closeBy) {
		st.closeBy = d
	}
	if st.sock.end(st.closeBy) != nil {
		return
	}
	stop := context.AfterFunc(ctx, func() { _ = st.sock.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if st.sendStatus(time.Now(), false) != nil {
		return
	}
	st.conn.Frontend.Send(&pgproto3.CopyDone{})
	if st.conn.Frontend.Flush() != nil {
		return
	}
	for {
		msg, err := st.conn.Frontend.Receive()
		if err != nil {
			return
		}
		switch msg.(type) {
		case *pgproto3.ReadyForQuery, *pgproto3.ErrorResponse:
			st.conn.Frontend.Send(&pgproto3.Terminate{})
			_ = st.conn.Frontend.Flush()
			return
		}
	}
}
