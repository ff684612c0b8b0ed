package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"cdc/internal/cdc"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/semaphore"
)

const (
	// maxWorkers bounds the connections of one snapshot.
	maxWorkers = 64
	// chunksPerWorker is how many chunks a worker may be ahead of Next, beside the
	// budget of bytes.
	chunksPerWorker = 2
)

// Snapshot is a copy of the captured tables as of one LSN, its rows delivered
// one at a time by Next to one goroutine.
//
// One replication connection holds the transaction: the tables' ACCESS SHARE
// locks, the snapshot and a temporary slot, whose consistent point is the LSN.
// While it lives the WAL from there on is kept; when it ends, however it ends,
// the server drops the slot, so a process that is killed leaves nothing behind.
// Finish copies the temporary slot to the permanent one, at the same point.
//
//	begin ─▶ copying ─▶ Next: io.EOF ─▶ Finish ─▶ Close
//	            └── connection lost, worker failed, Close: nothing stays
//
// While the snapshot lasts the locks keep ALTER TABLE, TRUNCATE and VACUUM FULL
// waiting, and VACUUM keeps the rows that die meanwhile.
type Snapshot struct {
	source *Source
	export *exporter
	tables []*snapshotTable
	plan   *plan

	workers int
	ctx     context.Context // of the workers; its cause is why the snapshot failed
	cancel  context.CancelCauseFunc
	chunks  chan chunk  // closed when the workers are gone
	free    chan []byte // buffers to be used again
	budget  *semaphore.Weighted
	wait    sync.WaitGroup // everything the snapshot started

	// Next's own.
	incoming chunk
	seq      sequence
	ended    bool
	change   cdc.Change
	tx       cdc.Tx
	values   []cdc.Value

	mu       sync.Mutex
	finished bool
	closed   bool
}

var (
	errSnapshotClosed   = errors.New("snapshot is closed")
	errSnapshotFinished = errors.New("snapshot is finished")
	errGaveWay          = errors.New("a table is locked by somebody who waits for this snapshot")
	errSnapshotBeside   = errors.New("snapshot is for reading alone")
)

// Snapshot locks the tables, makes the temporary slot and starts workers that
// copy. It blocks until every older transaction of the server has ended; Waiting
// tells which one holds it up. The publication must exist, the permanent slot must
// not where the snapshot is to be finished; beside one, tables that join a
// stream are copied. ErrSlotActive: another instance is taking a snapshot. The
// caller closes the Snapshot.
func (s *Source) Snapshot(ctx context.Context, tables []cdc.Table, workers int) (*Snapshot, error) {
	if err := checkSlotName(s.cfg.Slot); err != nil {
		return nil, err
	}
	if err := s.checkReadable(ctx, tables, 2); err != nil {
		return nil, fmt.Errorf("snapshot of %s: %w", s.target, err)
	}
	return s.beginSnapshot(ctx, tables, workers, false)
}

// SnapshotBeside is a Snapshot for reading alone, beside whatever the pipeline does
// and beside others of its kind. Its temporary slot gives it its LSN and is dropped
// at once: no WAL is kept for it. It cannot be finished.
func (s *Source) SnapshotBeside(ctx context.Context, tables []cdc.Table, workers int) (*Snapshot, error) {
	if err := s.checkReadable(ctx, tables, 1); err != nil {
		return nil, fmt.Errorf("snapshot of %s: %w", s.target, err)
	}
	return s.beginSnapshot(ctx, tables, workers, true)
}

// beginSnapshot begins again where another session would have to wait for this
// snapshot and the snapshot for it.
func (s *Source) beginSnapshot(ctx context.Context, tables []cdc.Table, workers int, beside bool) (*Snapshot, error) {
	for n := 1; ; n++ {
		sn, err := s.attemptSnapshot(ctx, tables, workers, beside)
		if err == nil {
			return sn, nil
		}
		if !errors.Is(err, errGaveWay) || n == lockAttempts {
			return nil, fmt.Errorf("snapshot of %s: %w", s.target, err)
		}
		s.log.Info("somebody waits for a table that the snapshot has locked: beginning the snapshot again behind them", "error", err)
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(slotPause):
		}
	}
}

func (s *Source) attemptSnapshot(ctx context.Context, tables []cdc.Table, workers int, beside bool) (_ *Snapshot, err error) {
	slot := snapshotSlot(s.cfg.Slot)
	if beside {
		slot = besideSlot(s.cfg.Slot)
	}
	ex, err := s.openExporter(ctx, tables, slot)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			ex.close()
		}
	}()
	if beside {
		if err := ex.dropSlot(ctx); err != nil {
			return nil, err
		}
	}
	planned, err := s.planSnapshot(ctx, tables)
	if err != nil {
		return nil, gaveWay(err)
	}
	sn := newSnapshot(s, ex, planned, workers)
	if err := sn.start(ctx); err != nil {
		return nil, err
	}
	s.log.Debug("snapshot began", "lsn", ex.lsn, "tables", len(tables), "workers", sn.workers)
	return sn, nil
}

func newSnapshot(s *Source, ex *exporter, tables []*snapshotTable, workers int) *Snapshot {
	workers = min(max(workers, 1), maxWorkers)
	sn := &Snapshot{
		source: s, export: ex, tables: tables, plan: &plan{tables: tables}, workers: workers,
		chunks: make(chan chunk, workers*chunksPerWorker),
		free:   make(chan []byte, workers*(chunksPerWorker+1)),
		budget: semaphore.NewWeighted(chunkBudget),
		tx:     cdc.Tx{XID: ex.xid, Final: ex.lsn, CommitTime: ex.began},
	}
	// The snapshot outlives the context that began it: Close ends it.
	sn.ctx, sn.cancel = context.WithCancelCause(context.Background())
	widest := 0
	for _, t := range tables {
		sn.seq.tables = append(sn.seq.tables, sequenceTable{pieces: t.pieces})
		widest = max(widest, len(t.rel.Columns))
	}
	sn.values = make([]cdc.Value, widest)
	return sn
}

// start connects the workers, so that all hold the locks before a row is read, and
// runs them and the watch over the exporter.
func (sn *Snapshot) start(ctx context.Context) error {
	workers := make([]*worker, sn.workers)
	for i := range workers {
		workers[i] = &worker{sn: sn, ctx: ctx}
		if err := workers[i].connect(); err != nil {
			for _, w := range workers[:i+1] {
				w.close()
			}
			return err
		}
	}
	var copying sync.WaitGroup
	for _, w := range workers {
		copying.Go(func() {
			if err := sn.work(sn.ctx, w); err != nil {
				sn.cancel(err)
			}
		})
	}
	sn.wait.Go(func() {
		copying.Wait()
		close(sn.chunks)
	})
	sn.wait.Go(func() {
		if err := sn.export.hold(sn.ctx); err != nil {
			sn.cancel(fmt.Errorf("the connection that holds the snapshot and its slot was lost: %w", err))
		}
		sn.export.close()
	})
	return nil
}

// LSN is the consistent point: the snapshot holds exactly the transactions whose
// commit record begins before it, and the permanent slot delivers the others.
func (sn *Snapshot) LSN() cdc.LSN { return sn.export.lsn }

// Next returns the next row, valid until the next call, and io.EOF behind the
// last. Rows of one table come in no particular order. It blocks for the
// workers; an error of a worker or of the exporter ends the snapshot.
func (sn *Snapshot) Next(ctx context.Context) (*cdc.Change, error) {
	if sn.ctx.Err() != nil {
		return nil, sn.failure()
	}
	for {
		r, want, err := sn.seq.next()
		switch {
		case err != nil:
			return nil, sn.fail(err)
		case want == haveRow:
			return sn.deliver(r)
		case want == freeChunk:
			sn.recycle(sn.seq.release())
			continue
		}
		if sn.ended {
			return nil, io.EOF
		}
		var ok bool
		select {
		case sn.incoming, ok = <-sn.chunks:
		default:
			select {
			case sn.incoming, ok = <-sn.chunks:
			case <-sn.ctx.Done():
				return nil, sn.failure()
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}
		if ok {
			sn.seq.add(&sn.incoming)
			continue
		}
		if sn.ctx.Err() != nil {
			return nil, sn.failure()
		}
		sn.ended = true
		if r, ok := sn.seq.last(); ok {
			return sn.deliver(r)
		}
	}
}

func (sn *Snapshot) deliver(r snapshotRow) (*cdc.Change, error) {
	t := sn.tables[r.table]
	values := sn.values[:len(t.rel.Columns)]
	if err := decodeRow(r.data, values); err != nil {
		return nil, sn.fail(fmt.Errorf("read %s: %w", t.name, err))
	}
	sn.change = cdc.Change{Op: cdc.OpRead, Relation: t.rel, Tx: &sn.tx, LSN: sn.export.lsn, New: values, Mark: r.mark}
	return &sn.change, nil
}

// recycle gives a delivered chunk's bytes back to the budget and its buffer to
// the workers.
func (sn *Snapshot) recycle(c *chunk) {
	sn.budget.Release(c.weight)
	if cap(c.data) <= keepBuffer {
		select {
		case sn.free <- c.data[:0]:
		default:
		}
	}
	c.data = nil
}

func (sn *Snapshot) fail(err error) error {
	sn.cancel(err)
	return sn.failure()
}

func (sn *Snapshot) failure() error {
	return fmt.Errorf("snapshot of %s: %w", sn.source.target, context.Cause(sn.ctx))
}

// Progress tells how far each table has come. It may be called concurrently.
func (sn *Snapshot) Progress() []cdc.TableProgress {
	out := make([]cdc.TableProgress, len(sn.tables))
	for i, t := range sn.tables {
		out[i] = cdc.TableProgress{
			Table: t.name, Rows: t.readRows.Load(), RowsTotal: t.rows,
			Bytes: t.readBytes.Load(), Done: t.done.Load(),
		}
	}
	return out
}

// Finish makes the permanent slot, with the consistent point as its position,
// and ends the snapshot's transaction. Call it when Next has returned io.EOF and
// every row is safe. After an error it may be called again, unless the snapshot
// itself has failed.
func (sn *Snapshot) Finish(ctx context.Context) error {
	sn.mu.Lock()
	defer sn.mu.Unlock()
	switch {
	case sn.finished:
		return nil
	case sn.closed:
		return errSnapshotClosed
	case sn.export.slot == "":
		return errSnapshotBeside
	case sn.ctx.Err() != nil:
		return sn.failure()
	case !sn.ended:
		return fmt.Errorf("finish snapshot of %s: rows are left to read", sn.source.target)
	}
	if err := sn.source.keepSlot(ctx, sn.export); err != nil {
		return fmt.Errorf("finish snapshot of %s: %w", sn.source.target, err)
	}
	sn.finished = true
	sn.cancel(errSnapshotFinished)
	sn.wait.Wait()
	sn.source.log.Debug("snapshot finished", "lsn", sn.export.lsn)
	return nil
}

// keepSlot copies the temporary slot to the permanent one. The copy may be made
// while the original is held (15.18, 14.20, 17.10, 18.4) and takes over its
// restart_lsn and confirmed_flush_lsn: the consistent point.
func (s *Source) keepSlot(ctx context.Context, ex *exporter) (err error) {
	err = s.withSQL(ctx, func(c *pgx.Conn) error {
		_, err := c.Exec(ctx, `SELECT pg_copy_logical_replication_slot($1, $2, false, $3)`, ex.slot, s.cfg.Slot, plugin)
		exists := sqlState(err) == codeDuplicateObject // of an attempt whose answer was lost, or not ours
		switch {
		case sqlState(err) == codeNotInState:
			return cdc.Terminal("slot-lost", "Raise max_slot_wal_keep_size, then snapshot again.",
				"the WAL from %s on is gone: %w", ex.lsn, err)
		case err != nil && !exists:
			return s.slotError(s.cfg.Slot, "", err)
		}
		slot, _, readErr := readSlot(ctx, c, s.cfg.Slot)
		if exists {
			if readErr == nil && (slot.Confirmed != ex.lsn || slot.Active) {
				return cdc.Terminal("slot-exists", fmt.Sprintf("If nothing reads it: SELECT pg_drop_replication_slot(%s);", quoteLiteral(s.cfg.Slot)), "%w", err)
			}
			return readErr
		}
		err = readErr
		if err == nil && slot.Confirmed != ex.lsn {
			err = fmt.Errorf("slot %q stands at %s, the snapshot at %s", s.cfg.Slot, slot.Confirmed, ex.lsn)
		}
		if err != nil {
			return errors.Join(err, s.dropNewSlot())
		}
		return nil
	})
	if err != nil || !s.cfg.Failover || s.version < 170000 {
		return err
	}
	if err := s.alterFailover(ctx); err != nil {
		return errors.Join(err, s.dropNewSlot())
	}
	return nil
}

// dropNewSlot takes back a slot that was just made, also when the caller's
// context has ended.
func (s *Source) dropNewSlot() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	c, err := connectSQL(ctx, s.cfg.URL)
	if err != nil {
		return err
	}
	defer closeConn(c.PgConn())
	if _, err := c.Exec(ctx, `SELECT pg_drop_replication_slot($1)`, s.cfg.Slot); err != nil {
		return fmt.Errorf("drop slot %q again: %w", s.cfg.Slot, err)
	}
	return nil
}

// alterFailover has the slot synchronised to standbys (PostgreSQL 17 and newer).
func (s *Source) alterFailover(ctx context.Context) error {
	conn, err := connectReplication(ctx, s.cfg.URL, replicationOptions{})
	if err != nil {
		return err
	}
	defer closeConn(conn)
	if err := conn.Exec(ctx, "ALTER_REPLICATION_SLOT "+quote(s.cfg.Slot)+" (FAILOVER true)").Close(); err != nil {
		return fmt.Errorf("set failover of slot %q: %w", s.cfg.Slot, err)
	}
	return nil
}

// Close ends the snapshot and waits until everything it started is gone. It may
// be called more than once. Without Finish nothing is left behind.
func (sn *Snapshot) Close() error {
	sn.mu.Lock()
	defer sn.mu.Unlock()
	sn.closed = true
	sn.cancel(errSnapshotClosed)
	sn.wait.Wait()
	return nil
}
