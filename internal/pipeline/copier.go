package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/chunk"
	"cdc/internal/format"
	"cdc/internal/source"
)

const (
	// chunkRows and chunkBytes bound a chunk, and with it what the copier holds.
	chunkRows  = 8192
	chunkBytes = 4 << 20
	// leastChunkRows is what a chunk of a table with very many changes shrinks to.
	leastChunkRows = 64
	// maxTracked bounds the keys tracked while a chunk is read; a chunk during
	// which more of them change is read again.
	maxTracked = 1 << 17
	// refusedPause is how long a chunk that came too early (a transaction whose
	// events are written is not visible yet) waits before it is read again.
	refusedPause = 50 * time.Millisecond
)

// copier writes rows that are read while the stream goes on: chunks of a table
// that is copied, and repairs. Package chunk has the argument why a row never
// lands behind a newer event of its key; the copier brings it the events, the
// chunks and the position of the stream, and puts what it gives back between the
// changes.
//
// It does one thing at a time. Everything is the life's goroutine, which calls
// step; readers run beside it, one at a time, and hand over a function that step
// runs.
//
//	settle ─▶ open ─▶ read ─▶ arrive ─▶ stream has passed ─▶ write ─▶ open …
//	                    └── refused: read again           └▶ acknowledged: recorded
type copier struct {
	l       *life
	copies  []*copying // in the order in which they were asked for
	repairs []*repair

	// capture is the table in hand, nil for none; its events go to window and
	// suspects before they are written.
	capture  *capture
	window   *chunk.Window[[]cdc.Value]
	suspects *suspects
	enc      *format.Encoder
	rel      *cdc.Relation // of enc
	key      []byte

	reader  *source.ChunkReader
	reading sync.Mutex // one reader's statement at a time
	busy    bool       // a reader is on its way, or a ticket is awaited
	turn    int        // counts the tables left
	arrived *arrival   // a chunk that waits for the stream to pass
	results chan result
	readers sync.WaitGroup
	unlist  context.CancelFunc // ends the listing of ghosts
	rows    int64              // written
	limit   int                // of the rows of a chunk
	inStep  bool

	paused  time.Time // nothing is begun before
	backoff time.Duration
}

// arrival is a chunk whose rows are in the window.
type arrival struct {
	chunk *source.Chunk
	tx    cdc.Tx
	then  func() error
}

// result is what a reader has delivered for the table in hand at its turn.
type result struct {
	turn int
	then func() error
}

func newCopier(l *life) *copier {
	return &copier{l: l, limit: cmp.Or(l.cfg.ChunkRows, chunkRows), results: make(chan result, 1)}
}

// step does what can be done now. It is called between two changes.
func (k *copier) step(ctx context.Context) error {
	if k.inStep || !k.l.current() {
		return nil
	}
	k.inStep = true
	defer func() { k.inStep = false }()
	select {
	case r := <-k.results:
		if r.turn != k.turn {
			break // of a table that was left
		}
		k.busy = false
		if err := k.judge(r.then()); err != nil {
			return err
		}
	default:
	}
	if a := k.arrived; a != nil && k.window.Ready(k.l.passedTo()) {
		k.arrived = nil
		if err := k.write(ctx, a); err != nil {
			return err
		}
	}
	if k.busy || k.arrived != nil || time.Now().Before(k.paused) {
		return nil
	}
	return k.judge(k.begin(ctx))
}

// begin starts the next thing to do: a repair before a copy.
func (k *copier) begin(ctx context.Context) error {
	if len(k.repairs) > 0 {
		return k.repairs[0].next(ctx)
	}
	for _, c := range k.copies {
		if c.record.State == copyActive {
			return c.next(ctx)
		}
	}
	k.leave()
	return nil
}

// take makes a table the one in hand, and begins to note its events. Those written
// before are covered by a settled snapshot: call async with source.Settle next.
func (k *copier) take(c *capture) {
	k.leave()
	k.capture = c
	k.window = chunk.NewWindow[[]cdc.Value](maxTracked)
	k.reader = k.l.src.ChunkReader(c.table)
}

func (k *copier) leave() {
	if k.unlist != nil {
		k.unlist()
	}
	if k.reader != nil {
		reader := k.reader
		k.readers.Go(func() {
			k.reading.Lock()
			defer k.reading.Unlock()
			if err := reader.Close(); err != nil {
				k.l.log.Debug("closing a reader of chunks", "error", err)
			}
		})
	}
	k.turn++
	k.busy = false
	k.capture, k.window, k.suspects, k.reader, k.enc, k.rel, k.arrived, k.unlist = nil, nil, nil, nil, nil, nil, nil, nil
}

// async runs f beside the stream. What it delivers is run by step; f may deliver
// once and go on a little (the reader stays taken until it returns). What arrives
// when the table in hand has been left is dropped.
func (k *copier) async(ctx context.Context, f func(ctx context.Context, deliver func(func() error))) {
	k.busy = true
	turn := k.turn
	k.readers.Go(func() {
		k.reading.Lock()
		defer k.reading.Unlock()
		f(ctx, func(then func() error) {
			select {
			case k.results <- result{turn, then}:
			case <-ctx.Done():
			}
		})
	})
}

// written runs then once everything written so far is acknowledged; nothing else
// is begun before.
func (k *copier) written(then func() error) {
	k.busy = true
	turn := k.turn
	k.l.afterAck(func() error {
		if k.turn != turn {
			return nil
		}
		k.busy = false
		return k.judge(then())
	})
}

// settle waits until everything that had begun is visible.
func (k *copier) settle(ctx context.Context) {
	k.async(ctx, func(ctx context.Context, deliver func(func() error)) {
		err := k.l.src.Settle(ctx)
		deliver(func() error { return err })
	})
}

// describe compiles the table in hand where no chunk has done so.
func (k *copier) describe(ctx context.Context) {
	c := k.capture
	k.async(ctx, func(ctx context.Context, deliver func(func() error)) {
		rel, err := k.l.src.Relation(ctx, c.table.OID)
		deliver(func() error {
			if err != nil {
				return err
			}
			return k.compile(rel)
		})
	})
}

// read opens the window and reads a chunk; then runs when its rows are written
// (not acknowledged).
func (k *copier) read(ctx context.Context, get func(context.Context, *source.ChunkReader) (*source.Chunk, error), then func(*source.Chunk) error) {
	k.window.Open()
	reader := k.reader
	k.async(ctx, func(ctx context.Context, deliver func(func() error)) {
		ch, err := get(ctx, reader)
		deliver(func() error {
			if err != nil {
				return err
			}
			return k.arrive(ch, func() error { return then(ch) })
		})
		if err == nil {
			if err := reader.Pulse(ctx); err != nil && ctx.Err() == nil {
				k.l.log.Debug("moving the stream past a chunk", "error", err)
			}
		}
	})
}

// arrive puts the rows of a chunk into the window.
func (k *copier) arrive(ch *source.Chunk, then func() error) error {
	if err := k.compile(ch.Relation); err != nil {
		return err
	}
	snapshot, err := chunk.ParseSnapshot(ch.Snapshot)
	if err != nil {
		return err
	}
	rows := make([]chunk.Row[[]cdc.Value], len(ch.Rows))
	keys := make([]byte, 0, len(ch.Rows)*32)
	for i, row := range ch.Rows {
		at := len(keys)
		if keys, err = k.enc.AppendKey(keys, row); err != nil {
			return unsayable(&cdc.Change{LSN: ch.High}, err)
		}
		rows[i] = chunk.Row[[]cdc.Value]{Key: keys[at:len(keys):len(keys)], Record: row}
	}
	if !k.window.Arrive(snapshot, ch.High, rows) {
		why, xid := k.window.Why()
		k.l.log.Debug("a chunk is read again", "table", k.capture.table.FullName(), "because", why.String(), "transaction", xid)
		if why == chunk.TooMany { // fewer rows are read sooner
			k.limit = max(k.limit/2, min(k.limit, leastChunkRows))
		}
		k.paused = time.Now().Add(refusedPause)
		return nil
	}
	k.limit = min(2*k.limit, cmp.Or(k.l.cfg.ChunkRows, chunkRows))
	k.arrived = &arrival{chunk: ch, then: then,
		tx: cdc.Tx{XID: uint32(snapshot.XMin()), Final: ch.High, CommitTime: ch.ReadAt}}
	return nil
}

func (k *copier) compile(rel *cdc.Relation) error {
	if k.rel == rel {
		return nil
	}
	r, err := k.l.compile(rel, nil)
	if err != nil {
		return err
	}
	k.enc, k.rel = r.enc, rel
	return nil
}

// write puts what is left of a chunk between the changes.
func (k *copier) write(ctx context.Context, a *arrival) error {
	for _, r := range k.window.Take() {
		if err := k.put(a, r.Record); err != nil {
			return err
		}
		if err := k.l.room(ctx); err != nil {
			return err
		}
	}
	return k.judge(a.then())
}

// put writes one row of a chunk.
func (k *copier) put(a *arrival, row []cdc.Value) error {
	l := k.l
	change, capture := l.change, l.capture
	defer func() { l.change, l.capture = change, capture }()
	l.change = &cdc.Change{Op: cdc.OpRead, Relation: k.rel, Tx: &a.tx, LSN: a.tx.Final, New: row, Mark: cdc.MarkIncremental}
	l.capture = k.capture
	l.tally.changes++
	k.rows++
	err := k.enc.Encode(l.change, emitTo(func(r *cdc.Record) error {
		return l.putPlaced(l.capture.of(r.Key), r)
	}))
	if err != nil {
		return unsayable(l.change, err)
	}
	return nil
}

// judge decides on an error of the thing in hand: one that can pass is tried
// again after a pause, the stream going on; one of the life ends the life.
func (k *copier) judge(err error) error {
	switch {
	case err == nil:
		k.backoff = 0
		return nil
	case errors.Is(err, context.Canceled) || k.l.w.Err() != nil:
		return err
	}
	if r := k.repairing(); r != nil {
		r.end(err)
		return nil
	}
	for _, c := range k.copies {
		if c.record.State != copyActive {
			continue
		}
		if errors.Is(err, source.ErrCursor) {
			k.l.log.Warn("copying a table: beginning anew", "table", c.capture.table.FullName(), "because", err)
			c.anew = true
			k.leave() // and settle
			return nil
		}
		var gone *source.GoneError
		if cdc.IsTerminal(err) || errors.As(err, &gone) {
			return c.fail(err)
		}
		k.backoff = min(max(2*k.backoff, backoffMin), backoffMax)
		k.paused = time.Now().Add(k.backoff)
		c.trouble = err.Error()
		k.l.log.Warn("copying a table: trying again", "table", c.capture.table.FullName(), "error", err, "in", k.backoff)
		k.leave()
		return nil
	}
	return err
}

// repairing is the repair in hand, nil for none.
func (k *copier) repairing() *repair {
	if len(k.repairs) > 0 && k.repairs[0].began {
		return k.repairs[0]
	}
	return nil
}

// close ends the readers; the context they run under has ended.
func (k *copier) close() {
	for len(k.repairs) > 0 {
		k.repairs[0].end(fmt.Errorf("the pipeline began a new life: repair again"))
	}
	k.leave()
	k.readers.Wait()
}
