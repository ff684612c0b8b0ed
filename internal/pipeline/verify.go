package pipeline

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"cdc/internal/cdc"
	"cdc/internal/compaction"
	"cdc/internal/source"
)

const (
	// verifyReaders bounds how many partitions are read at a time.
	verifyReaders = 4
	// verifySamples bounds the differences of a table that are shown.
	verifySamples = 10
	// leastShare is the memory the comparison of a table has at least: rows of all
	// tables come from one snapshot, so all comparisons are open at once.
	leastShare = 64 << 10
	// tableAttempts bounds how often the tables are resolved again because one was
	// dropped between that and its lock.
	tableAttempts = 3
	// DefaultVerifyTimeout is how long a verification waits for older transactions
	// to end, and for the pipeline to reach the place at which the tables were read.
	DefaultVerifyTimeout = 10 * time.Minute
	// DefaultVerifyRate is what a verification reads per second.
	DefaultVerifyRate = 32 << 20
)

// VerifyOptions bound a verification.
type VerifyOptions struct {
	Rate    int64         // bytes read per second from Postgres and Kafka together; 0: no limit
	Memory  int64         // bytes of all comparisons together; 0: compaction.DefaultCompareMemory
	Dir     string        // for what does not fit into Memory; "": the system's
	Timeout time.Duration // of each wait: for older transactions, for the pipeline; 0: DefaultVerifyTimeout
	// Difference, where set, is called for every difference, by one goroutine; its
	// slices are valid until it returns. An error of it ends the verification.
	Difference func(VerifyDifference) error
}

func (o *VerifyOptions) timeout() time.Duration { return cmp.Or(o.Timeout, DefaultVerifyTimeout) }

// VerifyDifference is one key that differs.
type VerifyDifference struct {
	Table     string   // schema.table
	Kind      string   // compaction.DifferenceMissing, DifferenceGhost, DifferenceDifferent
	Key       []byte   // of the records
	Row       []string // text of the row's key columns; nil for a ghost
	Partition int32    // of the record that decides, -1 where there is none
	Offset    int64
}

// Verified is the result for one table.
type Verified struct {
	cdc.Verification
	// Ends are, by partition, the offsets the topic was read up to. A key that
	// differs has no record behind the LSN in front of them.
	Ends map[int32]int64
}

// VerifyProgress tells how far a verification has come.
type VerifyProgress struct {
	Rows, RowsTotal       int64 // the total is the planner's estimate, 0 unknown
	Records, RecordsTotal int64 // the total is 0 before the pipeline has reached the place of the rows
	Bytes                 int64
	Waiting               string // what it waits for, "" for nothing
}

// Verifier compares tables with their topics while the pipeline runs, here or in
// another process. It changes nothing in either and takes nothing from the
// pipeline.
//
// The rows are those of a snapshot, which has an exact LSN, L. A record belongs to
// the state of the topic at L when its position lies before L. Once the progress
// record has reached L all of those are in the topic, so what is read up to its end
// from then on, without what is behind L, is the topic at L.
//
//	open ─▶ snapshot at L ─▶ rows ──────────────────────┐
//	                    └──▶ progress ≥ L ─▶ records ───┴▶ differences ─▶ samples
type Verifier struct {
	l *life

	reading atomic.Pointer[verification]
}

// OpenVerifier reaches both sides and resolves the tables. The caller closes it.
func OpenVerifier(ctx context.Context, cfg Config) (*Verifier, error) {
	cfg.Hook = nil // a life's; this is none
	l := newLife(New(cfg))
	v := &Verifier{l: l}
	if err := l.connect(ctx); err != nil {
		v.Close()
		return nil, err
	}
	return v, nil
}

// Tables are the captured tables, by name.
func (v *Verifier) Tables() []cdc.Table {
	tables := make([]cdc.Table, len(v.l.order))
	for i, c := range v.l.order {
		tables[i] = c.table
	}
	return tables
}

// Close ends the connections.
func (v *Verifier) Close() {
	v.l.close()
	v.l.p.hangUp()
}

// Progress may be called by any goroutine.
func (v *Verifier) Progress() VerifyProgress {
	r := v.reading.Load()
	if r == nil {
		return VerifyProgress{}
	}
	return r.progress()
}

// Run compares the tables that want names (nil: all) and returns a result for each,
// in their order. What keeps one table from being compared is in its result; an
// error is about what is around all of them. It may be called once at a time.
func (v *Verifier) Run(ctx context.Context, want func(cdc.Table) bool, o VerifyOptions) ([]Verified, error) {
	r := &verification{l: v.l, o: o, began: time.Now(), pace: newPace(o.Rate)}
	for _, c := range v.l.order {
		if want == nil || want(c.table) {
			r.checks = append(r.checks, newCheck(v.l, c))
		}
	}
	v.reading.Store(r)
	if err := r.run(ctx); err != nil {
		return nil, fmt.Errorf("verify pipeline %s: %w", v.l.cfg.Name, err)
	}
	out := make([]Verified, len(r.checks))
	for i, k := range r.checks {
		out[i] = k.result(r)
	}
	return out, nil
}

// verification is one run.
type verification struct {
	l      *life
	o      VerifyOptions
	began  time.Time
	pace   *pace
	checks []*check

	start    memory // the progress topic as it was found
	follower *follower
	before   map[cdc.TopicPartition]int64 // ends of the topics before the snapshot was begun
	sn       *source.Snapshot
	at       cdc.LSN // of the snapshot

	rows, records, bytes  atomic.Int64
	rowsTotal, recordsAll atomic.Int64

	mu      sync.Mutex
	waiting string
}

func (r *verification) run(ctx context.Context) error {
	defer r.close()
	if err := r.look(ctx); err != nil || len(r.open()) == 0 {
		return err
	}
	if err := r.snapshot(ctx); err != nil || len(r.open()) == 0 {
		return err
	}
	if err := r.prepare(ctx); err != nil {
		return err
	}
	both, ctxBoth := errgroup.WithContext(ctx)
	both.Go(func() error { return r.readRows(ctxBoth) })
	both.Go(func() error {
		if err := r.await(ctxBoth); err != nil || len(r.open()) == 0 {
			return err
		}
		return r.readTopics(ctxBoth)
	})
	if err := both.Wait(); err != nil {
		return err
	}
	if err := r.lookAgain(ctx); err != nil {
		return err
	}
	for _, k := range r.open() {
		if err := k.compare(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

func (r *verification) close() {
	if r.follower != nil {
		r.follower.close()
	}
	if r.sn != nil {
		_ = r.sn.Close() // nothing can be left behind
	}
	for _, k := range r.checks {
		k.close(r.l.log)
	}
}

// open are the checks that can still come to a verdict.
func (r *verification) open() []*check {
	var open []*check
	for _, k := range r.checks {
		if k.unchecked() == "" {
			open = append(open, k)
		}
	}
	return open
}

// giveUp ends all checks for one reason.
func (r *verification) giveUp(mend, format string, args ...any) {
	for _, k := range r.open() {
		k.giveUp(mend, format, args...)
	}
}

func (r *verification) progress() VerifyProgress {
	r.mu.Lock()
	waiting := r.waiting
	r.mu.Unlock()
	if waiting == "" {
		waiting = r.l.src.Waiting()
	}
	return VerifyProgress{
		Rows: r.rows.Load(), RowsTotal: r.rowsTotal.Load(), Records: r.records.Load(), RecordsTotal: r.recordsAll.Load(),
		Bytes: r.bytes.Load(), Waiting: waiting,
	}
}

func (r *verification) wait(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting = fmt.Sprintf(format, args...)
}

// prepare makes the comparisons. The memory is shared by the number of entries.
func (r *verification) prepare(ctx context.Context) error {
	starts, ends, err := r.l.client.Offsets(ctx, r.partitions())
	if err != nil {
		return err
	}
	open := r.open()
	entries, all, rows := make([]int64, len(open)), int64(0), int64(0)
	for i, k := range open {
		k.begin(starts, r.before)
		entries[i] = max(k.c.table.Rows, 0) + 1
		rows += max(k.c.table.Rows, 0)
		for _, p := range k.parts {
			entries[i] += ends[p.tp] - starts[p.tp]
		}
		all += entries[i]
	}
	r.rowsTotal.Store(rows)
	total := cmp.Or(r.o.Memory, compaction.DefaultCompareMemory)
	for i, k := range open {
		share := max(int64(float64(total)*float64(entries[i])/float64(all)), leastShare)
		k.cmp, err = compaction.NewComparison(compaction.CompareOptions{Memory: share, Dir: r.o.Dir, Entries: entries[i], Err: ctx.Err})
		if err != nil {
			return fmt.Errorf("compare table %s: %w", k.name(), err)
		}
	}
	return nil
}

// partitions are those of the topics that are still to be read.
func (r *verification) partitions() []cdc.TopicPartition {
	var tps []cdc.TopicPartition
	for _, k := range r.open() {
		for i := range k.parts {
			tps = append(tps, k.parts[i].tp)
		}
	}
	return tps
}
