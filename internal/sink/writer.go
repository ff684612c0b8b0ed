package sink

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"cdc/internal/cdc"
)

// WriterConfig tunes a Writer. Zero values take the defaults.
type WriterConfig struct {
	// TransactionalID names the producer that is fenced: one per pipeline. Empty
	// is at-least-once: no producer id, one set of batches in flight, TakeOver does nothing.
	TransactionalID string
	Compression     string // none (default), snappy, lz4, zstd
	// BatchBytes closes a set when one of its batches reaches it. Default 64 KiB
	// (stays in the cache), 256 KiB compressed. It is kept at or below MaxRecordBytes.
	BatchBytes int
	// RequestBytes closes a set when all its batches reach it. Default 1 MiB.
	RequestBytes int
	// MaxRecordBytes refuses a record whose batch, with it alone and not
	// compressed, would be larger. Default: Kafka's max.message.bytes.
	MaxRecordBytes int
	// Memory bounds the bytes of batches not yet acknowledged: Full says when it
	// is reached. Default 64 MiB. At least two sets fit, whatever it says.
	Memory int64
	// InFlight is how many sets may be unanswered: 1 to 5, default 5. The broker
	// remembers five batches of a partition.
	InFlight int
	// Linger lets a set that was handed over wait for more, from its first record
	// on. Default 0: sent the moment nothing is in flight.
	Linger time.Duration
	// RequestTimeout is how long the broker may wait for its replicas; a little
	// later the connection is given up. Default 30s.
	RequestTimeout time.Duration
	// RetryDeadline is how long batches are sent again without one being
	// acknowledged before the Writer fails. Default 2m.
	RetryDeadline time.Duration
	// Discard drops sealed batches instead of sending them, and calls them
	// acknowledged: what is appended is lost. For measuring everything else.
	Discard bool
	// Hook, where set, is called at the Hook… points. For crash tests.
	Hook func(point string)
}

// Points at which WriterConfig.Hook is called.
const (
	HookProduceBefore  = "produce-before"  // a request is about to be written
	HookProduceAfter   = "produce-after"   // its answer has arrived and nothing was done about it
	HookTakeoverInit   = "takeover-init"   // the new epoch is in force
	HookTakeoverAdded  = "takeover-added"  // all partitions are in the empty transaction
	HookTakeoverEnded  = "takeover-ended"  // the coordinator called it committed
	HookTakeoverMarker = "takeover-marker" // our marker was seen in every partition
)

// Defaults and limits of WriterConfig.
const (
	defaultBatchBytes       = 64 << 10
	defaultBatchBytesPacked = 256 << 10
	defaultRequestBytes     = 1 << 20
	// defaultMaxRecordBytes is the broker's message.max.bytes: 1 MiB and the 12
	// bytes in front of a batch that the limit does not count.
	defaultMaxRecordBytes = 1<<20 + 12
	defaultMemory         = 64 << 20
	maxInFlight           = 5 // a broker remembers the last five batches of a producer in a partition
	defaultRequestTimeout = 30 * time.Second
	defaultRetryDeadline  = 2 * time.Minute
)

func (cfg *WriterConfig) defaults() (codec, error) {
	c, err := parseCodec(cfg.Compression)
	if err != nil {
		return 0, err
	}
	positive := func(v *int, def int) {
		if *v <= 0 {
			*v = def
		}
	}
	if c == codecNone {
		positive(&cfg.BatchBytes, defaultBatchBytes)
	} else {
		positive(&cfg.BatchBytes, defaultBatchBytesPacked)
	}
	positive(&cfg.RequestBytes, defaultRequestBytes)
	positive(&cfg.MaxRecordBytes, defaultMaxRecordBytes)
	positive(&cfg.InFlight, maxInFlight)
	cfg.BatchBytes = min(cfg.BatchBytes, cfg.MaxRecordBytes)
	cfg.InFlight = min(cfg.InFlight, maxInFlight)
	if cfg.TransactionalID == "" {
		cfg.InFlight = 1 // without sequences a resend behind a later batch would reorder
	}
	if cfg.Memory <= 0 {
		cfg.Memory = defaultMemory
	}
	cfg.Memory = max(cfg.Memory, int64(2*cfg.RequestBytes))
	if cfg.RequestTimeout <= 0 {
		cfg.RequestTimeout = defaultRequestTimeout
	}
	if cfg.RetryDeadline <= 0 {
		cfg.RetryDeadline = defaultRetryDeadline
	}
	if cfg.Hook == nil {
		cfg.Hook = func(string) {}
	}
	return c, nil
}

// Mark is a place in the source's stream. The Writer keeps it and gives it back.
type Mark struct {
	Position   cdc.Position
	End        cdc.LSN
	PrevEnd    cdc.LSN
	CommitTime int64
	Recorded   cdc.LSN
	Ticket     uint64 // of what waits until everything appended before it is acknowledged
}

// Stats are a Writer's running totals.
type Stats struct {
	Bytes    uint64 // of acknowledged batches, before compression
	Wire     uint64 // the same as sent
	Records  uint64 // acknowledged
	Batches  uint64 // acknowledged
	Resends  uint64 // batches sent again
	Buffered int64  // bytes handed to the sender and not yet acknowledged
	LastAck  time.Duration
	Acks     cdc.Latency // from the first sending of a set to its acknowledgement
}

// Writer is the one producer of a pipeline.
//
// Records are appended to the open set: one batch for each partition touched.
// The set is closed when it is large enough, and waits in the queue; or it is
// handed over when the source has nothing more at hand, and is taken by the
// sender the moment nothing is in flight. Until then the next Append takes it
// back and goes on filling it. So there is at most one batch of a partition in a
// set, sets leave in the order in which they were filled, and five sets in flight
// are at most five batches of a partition.
//
// Target, Append, Mark, Handover, Full and Flush belong to one goroutine. All
// else may be called by any.
type Writer struct {
	c     *Client
	cfg   WriterConfig
	codec codec
	log   *slog.Logger

	// Of the appending goroutine.
	open    *set  // nil until the next Append; never empty between calls
	blank   batch // empty for ever: what a record's length in a new batch is asked of
	ids     uint64
	targets map[cdc.TopicPartition]*Target

	mu sync.Mutex
	// slot holds the set that was handed over and may be taken back; while it
	// does, open is nil and it is the newest set.
	slot *set
	// queue holds closed sets that were never sent, oldest first; flight those
	// that were, oldest first, at most cfg.InFlight. Every set of flight is older
	// than every set of queue.
	queue, flight []*set
	unanswered    int       // requests on the wire; only the sender adds to it
	trouble       error     // why something must be sent again; nothing new is sent while it is set
	troubled      time.Time // since when, without one batch acknowledged; zero: all is well
	tries         int       // resends since then
	stale         error     // the broker knows a newer epoch: the sender finds out whose
	acked         Mark
	idle          []chan struct{} // closed when nothing is left unacknowledged
	pool          pool
	stats         Stats
	err           error
	pipes         map[int32]*pipe
	started       bool
	closing       bool

	buffered atomic.Int64 // bytes of slot, queue and flight
	failed   chan struct{}
	stop     context.CancelCauseFunc
	done     chan struct{} // closed when the sender has ended
	wake     chan struct{} // cap 1: the sender looks again
	changed  chan struct{} // cap 1
	space    chan struct{} // cap 1

	// owner is the identity TakeOver won; sequences start anew with each.
	owner producer
	owned bool
}

// Target is a partition that a Writer appends to.
type Target struct {
	tp    cdc.TopicPartition
	limit int // largest batch, unless a single record is larger
	room  int // length of the last batch

	batch *batch // in the set named set; of the appending goroutine
	set   uint64

	sequence int32 // of the next batch; of the sender, as is leader
	leader   int32 // -1: to be asked for

	// Guarded by Writer.mu.
	unacked int       // batches in flight
	proven  time.Time // when a batch was last acknowledged; zero: never under this owner
}

// Partition is the partition appended to.
func (t *Target) Partition() cdc.TopicPartition { return t.tp }

// NewWriter makes a Writer. It panics on a compression that does not exist: the
// configuration has been validated.
func (c *Client) NewWriter(cfg WriterConfig) *Writer {
	cd, err := cfg.defaults()
	if err != nil {
		panic("sink: " + err.Error())
	}
	w := &Writer{
		c: c, cfg: cfg, codec: cd, log: c.log,
		targets: map[cdc.TopicPartition]*Target{}, pipes: map[int32]*pipe{},
		failed: make(chan struct{}), done: make(chan struct{}),
		wake: make(chan struct{}, 1), changed: make(chan struct{}, 1), space: make(chan struct{}, 1),
		owner: noProducer, blank: batch{buf: make([]byte, headerLen)},
	}
	w.pool.limit = 2 * maxInFlight * cfg.RequestBytes
	return w
}

// Start starts the sender; it ends with ctx, Close or a failure. In exactly-once
// mode TakeOver must have succeeded: anything else panics.
func (w *Writer) Start(ctx context.Context) {
	if w.cfg.TransactionalID != "" && !w.owned {
		panic("sink: Start of a Writer that has not taken over")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.started {
		panic("sink: Start of a Writer that runs")
	}
	if w.closing {
		return
	}
	w.started = true
	ctx, w.stop = context.WithCancelCause(ctx)
	go w.run(ctx)
}

// Target is the handle to append to a partition with.
func (w *Writer) Target(tp cdc.TopicPartition) *Target {
	t := w.targets[tp]
	if t == nil {
		t = &Target{tp: tp, limit: w.c.batchLimit(tp.Topic, w.cfg.BatchBytes), leader: -1}
		w.targets[tp] = t
	}
	return t
}

// Append adds a record with its stamp (none where s is zero) to the partition's
// batch; the bytes of r are copied. Positions must increase within a partition.
// It never blocks: ask Full. The only error is a RecordTooLargeError, and the
// record is then nowhere.
func (w *Writer) Append(t *Target, r *cdc.Record, s cdc.Stamp) error {
	stamped := s != cdc.Stamp{}
	if w.open == nil {
		w.reopen()
	}
	b := &w.blank
	if t.set == w.open.id {
		b = t.batch
	}
	body, all := b.recordLen(r, stamped)
	if len(b.buf)+all > t.limit {
		if _, alone := w.blank.recordLen(r, stamped); headerLen+alone > w.cfg.MaxRecordBytes {
			w.dropEmpty()
			return &RecordTooLargeError{Topic: t.tp.Topic, Partition: t.tp.Partition, Size: headerLen + alone, Limit: w.cfg.MaxRecordBytes}
		}
		if b != &w.blank { // does not fit beside what is there
			w.closeOpen()
			w.reopen()
			b = &w.blank
			body, all = b.recordLen(r, stamped)
		}
	}
	if b == &w.blank {
		b = w.begin(t)
	}
	b.add(r, s, stamped, body)
	w.open.bytes += int64(all)
	if len(b.buf) >= t.limit || w.open.bytes >= int64(w.cfg.RequestBytes) {
		w.closeOpen()
	}
	return nil
}

// begin puts an empty batch of t into the open set.
func (w *Writer) begin(t *Target) *batch {
	w.mu.Lock()
	b := w.pool.batch()
	w.mu.Unlock()
	b.reset(t)
	w.open.batches = append(w.open.batches, b)
	w.open.bytes += headerLen
	t.batch, t.set = b, w.open.id
	return b
}

// dropEmpty takes back an open set into which nothing was put.
func (w *Writer) dropEmpty() {
	if s := w.open; len(s.batches) == 0 {
		w.open = nil
		w.mu.Lock()
		w.pool.put(s)
		w.mu.Unlock()
	}
}

// Mark says that everything appended so far belongs to m or lies before it.
// Acked gives it back once all of that is acknowledged; a later mark may come in
// its place.
func (w *Writer) Mark(m Mark) {
	if w.open != nil {
		w.open.mark, w.open.marked = m, true
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.newestLocked(); s != nil {
		s.mark, s.marked = m, true
		return
	}
	w.acked = m
	signal(w.changed)
}

// newestLocked is the newest set that is not acknowledged, open excepted.
func (w *Writer) newestLocked() *set {
	switch {
	case w.slot != nil:
		return w.slot
	case len(w.queue) > 0:
		return w.queue[len(w.queue)-1]
	case len(w.flight) > 0:
		return w.flight[len(w.flight)-1]
	}
	return nil
}

// Acked is the newest mark before which, and with which, everything is acknowledged.
func (w *Writer) Acked() Mark {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.acked
}

// Changed has a value when Acked has moved since it was last received from.
func (w *Writer) Changed() <-chan struct{} { return w.changed }

// Handover says that the source has nothing more at hand: the sender takes the
// open set the moment nothing is in flight.
func (w *Writer) Handover() {
	if w.open == nil {
		return
	}
	s := w.shut()
	w.mu.Lock()
	busy := len(w.flight) > 0
	if w.cfg.Linger == 0 && !busy && len(w.queue) == 0 {
		w.queue = append(w.queue, s) // the sender is free: it shall not lose a race against the next Append
	} else {
		w.slot = s
	}
	w.mu.Unlock()
	if !busy { // else the next answer wakes the sender, which can do nothing with the slot before
		signal(w.wake)
	}
}

// reopen takes the handed over set back, or begins a new one.
func (w *Writer) reopen() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.slot; s != nil {
		w.slot, w.open = nil, s
		w.buffered.Add(-s.bytes)
		return
	}
	s := w.pool.set()
	w.ids++
	s.id = w.ids
	if w.cfg.Linger > 0 {
		s.born = time.Now()
	}
	w.open = s
}

// shut ends the filling of the open set.
func (w *Writer) shut() *set {
	s := w.open
	w.open = nil
	w.buffered.Add(s.bytes)
	for _, b := range s.batches {
		b.target.room = len(b.buf)
	}
	return s
}

// closeOpen queues the open set.
func (w *Writer) closeOpen() {
	s := w.shut()
	w.mu.Lock()
	w.queue = append(w.queue, s)
	w.mu.Unlock()
	signal(w.wake)
}

// Full says that the memory bound is reached: wait for Space before appending
// more. It is never true when nothing is with the sender.
func (w *Writer) Full() bool {
	n := w.buffered.Load()
	if n == 0 {
		return false
	}
	if w.open != nil {
		n += w.open.bytes
	}
	return n >= w.cfg.Memory
}

// Space has a value when memory was released since it was last received from.
func (w *Writer) Space() <-chan struct{} { return w.space }

// Flush hands over what is open and waits until everything is acknowledged.
func (w *Writer) Flush(ctx context.Context) error {
	if w.open != nil {
		w.closeOpen()
	}
	w.mu.Lock()
	if w.slot != nil {
		w.queue = append(w.queue, w.slot)
		w.slot = nil
	}
	if w.err == nil && len(w.queue)+len(w.flight) == 0 {
		w.mu.Unlock()
		return nil
	}
	idle := make(chan struct{})
	w.idle = append(w.idle, idle)
	w.mu.Unlock()
	signal(w.wake)
	select {
	case <-idle:
		return nil
	case <-w.failed:
		return w.Err()
	case <-ctx.Done():
		return fmt.Errorf("flush: %w", context.Cause(ctx))
	}
}

// Failed is closed when the Writer has failed or was closed; Err says why.
func (w *Writer) Failed() <-chan struct{} { return w.failed }

// Err is why the Writer failed; nil while it has not.
func (w *Writer) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Stats are the running totals.
func (w *Writer) Stats() Stats {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.stats
	s.Buffered = w.buffered.Load()
	return s
}

// Close ends the sender and drops what is not acknowledged: Flush first to keep
// it. It waits for every goroutine of the Writer and may be called more than once.
func (w *Writer) Close() error {
	w.mu.Lock()
	w.closing = true
	started := w.started
	w.mu.Unlock()
	w.fail(fmt.Errorf("writer: %w", ErrClosed))
	if started {
		<-w.done
	}
	return nil
}

// fail ends the Writer with its first error.
func (w *Writer) fail(err error) {
	w.mu.Lock()
	if w.err != nil {
		w.mu.Unlock()
		return
	}
	w.err = err
	close(w.failed)
	for _, p := range w.pipes {
		p.k.close() // unblocks a write
	}
	stop := w.stop
	w.mu.Unlock()
	if stop != nil {
		stop(err)
	}
}

// signal puts a value into a channel of capacity one, unless there is one.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// batchLimit is the largest batch to make for a topic: want, or less where the
// broker refused it.
func (c *Client) batchLimit(topic string, want int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n, ok := c.limits[topic]; ok {
		return min(n, want)
	}
	return want
}
