package pipeline

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/format"
	"cdc/internal/sink"
	"cdc/internal/source"
)

// errMonitor is the cause with which the monitor ends a life.
var errMonitor = errors.New("monitor ended the life")

// life is one attempt: everything it learns dies with it. One goroutine, the
// caller of run, reads the stream, formats and appends; the writer's own
// goroutines send; the monitor looks at slot and topics from outside.
type life struct {
	p   *Pipeline
	cfg *Config
	log *slog.Logger

	client *sink.Client
	src    *source.Source
	format *format.Format
	w      *sink.Writer
	stream *source.Stream

	system    cdc.System
	captures  map[uint32]*capture // by table OID
	gone      map[string]bool     // topics that were filled and are no more
	topicIDs  map[string]string   // by topic, as this life found them; "" where Kafka does not tell
	maxRecord int                 // bytes; 0: not known
	order     []*capture
	routes    map[uint32]*route // by relation OID, newest version
	last      *route            // of the row before: most rows follow one of the same table
	passed    *cdc.Relation     // newest that is published and none of ours

	memory     memory
	progress   Progress // as last written
	wrote      time.Time
	progressTo *partition
	deadTo     *partition
	messageTo  *partition

	// mark is what the acknowledged prefix means: everything appended belongs to
	// it or to the transaction being read behind it.
	mark      sink.Mark
	tickets   []ticket // in order
	at        place
	copier    *copier
	confirmed cdc.LSN
	advanced  bool // confirmed has moved

	// Of the change in hand.
	change    *cdc.Change
	capture   *capture
	record    uint32
	missing   []int // columns whose value the stream left out
	keyValues []cdc.Value
	snapshot  cdc.LSN // consistent point while a snapshot is copied
	running   uint64  // number of the last snapshot record

	told string // the newest warning of lookForTables; of the monitor

	replayTo cdc.LSN // end of the server's log when streaming began
	tally    tally   // not yet in counts
	bytes    uint64  // of the writer, as last counted
	counts   counts
	house    time.Time
	ticks    int

	view view
}

// view is what other goroutines may see of a life.
type view struct {
	mu       sync.Mutex
	src      *source.Source
	writer   *sink.Writer
	stream   *source.Stream
	snapshot *source.Snapshot
	copies   []cdc.TableProgress
	tables   int
	received cdc.LSN
	acked    sink.Mark
	confirmd cdc.LSN
	behind   time.Time // commit time of the oldest transaction not acknowledged, zero when caught up
	slot     *cdc.Slot
	restart  cdc.LSN   // restart_lsn of the look before that of slot: it is on Postgres' disk
	whole    cdc.LSN   // received when the publication was last found whole
	moved    time.Time // when acknowledgements last moved or nothing was waiting
}

func newLife(p *Pipeline) *life {
	l := &life{
		p: p, cfg: &p.cfg, log: p.log,
		captures: map[uint32]*capture{}, routes: map[uint32]*route{},
		view: view{moved: time.Now()},
	}
	l.copier = newCopier(l)
	return l
}

func (l *life) hook(point string) {
	if l.cfg.Hook != nil {
		l.cfg.Hook(point)
	}
}

func (l *life) run(parent context.Context) (done bool, err error) {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	defer l.close()
	if err := l.connect(ctx); err != nil {
		return false, err
	}
	if err := l.topics(ctx); err != nil {
		return false, err
	}
	if err := l.awaitSlot(ctx); err != nil {
		return false, err
	}
	if err := l.takeOver(ctx); err != nil {
		return false, err
	}
	if len(l.gone) > 0 {
		return false, l.forget(ctx)
	}
	todo, join, err := l.decide(ctx)
	if err != nil {
		return false, err
	}
	if todo == actDone {
		return true, nil
	}

	var monitor sync.WaitGroup
	monitor.Go(func() { l.monitor(ctx, cancel) })
	defer monitor.Wait()
	defer cancel(nil)
	err = l.work(ctx, todo, join)
	if cause := context.Cause(ctx); parent.Err() == nil && cause != nil && errors.Is(cause, errMonitor) {
		err = cause
	}
	return err == nil && l.cfg.Snapshot == SnapshotOnly && parent.Err() == nil, err
}

func (l *life) work(ctx context.Context, todo action, join []*capture) error {
	switch todo {
	case actSnapshot:
		if err := l.copyAll(ctx); err != nil {
			return err
		}
		if l.cfg.Rebuilt != nil {
			if err := l.cfg.Rebuilt(); err != nil {
				return err
			}
		}
		if l.cfg.Snapshot == SnapshotOnly {
			return nil
		}
	case actCreate:
		if err := l.createSlot(ctx); err != nil {
			return err
		}
	case actStream:
		if err := l.join(ctx, join); err != nil {
			return err
		}
	}
	return l.follow(ctx)
}

// close ends what the life holds, in the order in which one depends on the other.
func (l *life) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	l.view.mu.Lock()
	l.view.src, l.view.writer, l.view.stream, l.view.snapshot = nil, nil, nil, nil
	l.view.mu.Unlock()
	l.copier.close()
	var errs []error
	if l.stream != nil {
		errs = append(errs, l.stream.Close(ctx))
	}
	if l.w != nil {
		errs = append(errs, l.w.Close())
	}
	if l.src != nil {
		errs = append(errs, l.src.Close())
	}
	if err := errors.Join(errs...); err != nil {
		l.log.Debug("closing a life", "error", err)
	}
	l.publishTally()
}
