package history

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/intent"
	"cdc/internal/sink"
)

// life is one attempt: everything it learns dies with it. One goroutine, the caller
// of run, reads the log and appends; the writer's own goroutines send; the guard
// looks at the topics from outside.
type life struct {
	p   *Publisher
	cfg *Config
	log *slog.Logger

	client *sink.Client
	w      *sink.Writer
	memory *memory
	head   int64 // of the store, when last asked
	proven int64 // what was published up to it is what the store has

	categories map[string]*topic
	topics     map[string]*topic // by name
	progressTo *sink.Target

	enc      encoder
	read     place   // everything up to it was appended or left out
	marked   int64   // position of the newest mark
	places   []place // marked and not acknowledged, oldest first
	acked    place
	progress Progress // as last written
	recorded int64    // its position, as last acknowledged
	wrote    time.Time
	limit    int  // events in the next reading of the log
	caughtUp bool // streaming
	replayTo int64

	strange []string     // categories without a topic in what was read
	unasked []*partition // partitions in it whose last record is not known
	tally   tally
}

// place is an event as a position to come back to.
type place struct {
	pos int64
	id  intent.ID
	at  time.Time
}

// tally counts what the reading goroutine did since it was last shown.
type tally struct{ records, skipped uint64 }

// topic is one topic of the pipeline.
type topic struct {
	name       string
	recorded   bool   // in the progress topic: its records are counted on
	id         string // as recorded
	made       bool   // by this Republish
	partitions []*partition
}

// partition is one partition of a topic.
type partition struct {
	tp     cdc.TopicPartition
	target *sink.Target
	asked  bool  // last is known
	queued bool  // in life.unasked
	last   int64 // position of its last record when this life began, 0 for none
}

func newLife(p *Publisher) *life {
	return &life{
		p: p, cfg: &p.cfg, log: p.cfg.Logger,
		memory: &memory{categories: map[string]CategoryRecord{}}, limit: firstChunk,
	}
}

func (l *life) hook(point string) {
	if l.cfg.Hook != nil {
		l.cfg.Hook(point)
	}
}

// live is one life.
func (p *Publisher) live(parent context.Context) (err error) {
	l := newLife(p)
	p.note(func(s *Status) { s.Lives++ })
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	defer l.close()
	if err := l.begin(ctx); err != nil {
		return err
	}
	var guard sync.WaitGroup
	guard.Go(func() {
		if err := l.guard(ctx); err != nil {
			cancel(fmt.Errorf("%w: %w", errGuard, err))
		}
	})
	defer guard.Wait()
	defer cancel(nil)
	err = l.follow(ctx, parent)
	if cause := context.Cause(ctx); parent.Err() == nil && errors.Is(cause, errGuard) {
		err = cause
	}
	return err
}

// errGuard is the cause with which the guard ends a life.
var errGuard = errors.New("topics")

// close ends what the life holds.
func (l *life) close() {
	l.show()
	l.p.mu.Lock()
	if l.p.now != nil {
		l.p.status.Bytes += l.p.now.writer.Stats().Bytes
		l.p.now = nil
	}
	l.p.mu.Unlock()
	if l.w != nil {
		_ = l.w.Close() // never fails
	}
}

// failure is the writer's error as the caller of Run sees it.
func (l *life) failure() error { return l.explain(l.w.Err()) }

func (l *life) explain(err error) error {
	var large *sink.RecordTooLargeError
	if errors.As(err, &large) {
		return cdc.Terminal("record-too-large",
			fmt.Sprintf("Set topic_config: {max.message.bytes: \"%d\"} or more for the pipeline, then cdc topics --apply.", large.Size+large.Size/8),
			"publish: %w", err)
	}
	return fmt.Errorf("publish: %w", err)
}
