package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/compaction"
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
	maxRecord int                 // bytes; 0: not known
	order     []*capture
	routes    map[uint32]*route // by relation OID, newest version
	last      *route            // of the row before: most rows follow one of the same table

	memory     memory
	progress   Progress // as last written
	wrote      time.Time
	progressTo *partition
	deadTo     *partition
	messageTo  *partition

	// mark is what the acknowledged prefix means: everything appended belongs to
	// it or to the transaction being read behind it.
	mark      sink.Mark
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
	tables   int
	received cdc.LSN
	acked    sink.Mark
	confirmd cdc.LSN
	behind   time.Time // commit time of the oldest transaction not acknowledged, zero when caught up
	slot     *cdc.Slot
	moved    time.Time // when acknowledgements last moved or nothing was waiting
}

func newLife(p *Pipeline) *life {
	return &life{
		p: p, cfg: &p.cfg, log: p.log,
		captures: map[uint32]*capture{}, routes: map[uint32]*route{},
		view: view{moved: time.Now()},
	}
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
		if err := l.copyJoining(ctx, join); err != nil {
			return err
		}
	}
	return l.follow(ctx)
}

// open reaches both sides.
func (l *life) open(ctx context.Context) error {
	var err error
	if l.src, err = source.Open(ctx, l.cfg.Source); err != nil {
		return err
	}
	l.view.mu.Lock()
	l.view.src = l.src
	l.view.mu.Unlock()
	if l.system, err = l.src.System(ctx); err != nil {
		return err
	}
	if l.p.client == nil {
		if l.p.client, err = sink.Dial(ctx, l.cfg.Sink); err != nil {
			return err
		}
	}
	l.client = l.p.client
	return nil
}

// connect resolves the tables and the topics they go to. It changes nothing.
func (l *life) connect(ctx context.Context) error {
	l.p.enter(cdc.StateStarting, nil)
	if err := l.open(ctx); err != nil {
		return err
	}
	options := l.cfg.Format
	options.Database = l.system.Database
	var err error
	if l.format, err = format.New(options); err != nil {
		return cdc.Terminal("configuration", "", "%w", err)
	}
	tables, err := l.src.Tables(ctx)
	if err != nil {
		return err
	}
	names := make(map[string]string, len(tables))
	for _, t := range tables {
		topic, err := cdc.TopicName(l.cfg.Topic, l.system.Database, t.Namespace, t.Name)
		if err != nil {
			return cdc.Terminal("topic-name", "Set topic: of the pipeline.", "table %s: %w", t.FullName(), err)
		}
		names[t.FullName()] = topic
		c := &capture{table: t, topic: topic}
		l.captures[t.OID] = c
		l.order = append(l.order, c)
	}
	if err := compaction.CheckNames(names); err != nil {
		return err
	}
	l.view.mu.Lock()
	l.view.tables = len(tables)
	l.view.mu.Unlock()
	for _, c := range l.order {
		c.partitions = make([]*partition, l.cfg.Partitions)
		for i := range c.partitions {
			c.partitions[i] = &partition{tp: cdc.TopicPartition{Topic: c.topic, Partition: int32(i)}}
		}
	}
	return nil
}

// specs is every topic of the pipeline as it must be.
func (l *life) specs() []cdc.TopicSpec {
	specs := []cdc.TopicSpec{{Name: l.cfg.Progress, Partitions: 1, Replication: l.cfg.Replication, Policy: cdc.PolicyProgress}}
	for _, c := range l.order {
		specs = append(specs, cdc.TopicSpec{
			Name: c.topic, Partitions: l.cfg.Partitions, Replication: l.cfg.Replication,
			Policy: cdc.PolicyState, Overrides: l.cfg.TopicConfig,
		})
	}
	for _, name := range []string{l.deadLetter(), l.cfg.Messages} {
		if name != "" {
			specs = append(specs, cdc.TopicSpec{Name: name, Partitions: 1, Replication: l.cfg.Replication, Policy: cdc.PolicyHistory})
		}
	}
	return specs
}

func (l *life) deadLetter() string {
	if l.cfg.Oversize == "dead-letter" {
		return l.cfg.DeadLetter
	}
	return ""
}

// topics brings the topics in order, or says why that cannot be done.
func (l *life) topics(ctx context.Context) error {
	steps, err := compaction.Look(ctx, l.client, l.specs())
	if err != nil {
		return err
	}
	if steps, err = l.vanished(ctx, steps); err != nil {
		return err
	}
	for _, s := range steps {
		l.log.Info("topic", "step", s.String())
	}
	if err := compaction.Apply(ctx, l.client, steps); err != nil {
		return err
	}
	return l.limit(ctx)
}

// vanished finds state topics that were filled, by the progress topic, and are
// gone: made anew they would be empty and taken for whole. With on_gap: resnapshot
// their steps are left out; forget then sees to it that their tables are copied.
func (l *life) vanished(ctx context.Context, steps []compaction.Step) ([]compaction.Step, error) {
	create := map[string]bool{}
	for _, s := range steps {
		if s.Kind == compaction.StepCreate {
			create[s.Topic.Name] = true
		}
	}
	if len(create) == 0 || create[l.cfg.Progress] {
		return steps, nil
	}
	m, err := readMemory(ctx, l.client, l.cfg.Progress)
	if err != nil {
		return nil, err
	}
	l.gone = map[string]bool{}
	for _, c := range l.order {
		if rec, ok := m.tables[c.table.FullName()]; ok && rec.Topic == c.topic && create[c.topic] {
			l.gone[c.topic] = true
		}
	}
	if len(l.gone) == 0 {
		return steps, nil
	}
	if l.cfg.OnGap != "resnapshot" {
		err := compaction.Vanished(steps, func(topic string) bool { return l.gone[topic] })
		return nil, cdc.Terminal("topic-missing", "Set on_gap: resnapshot for the pipeline: it makes the topic anew and copies its table.", "gap: %w", err)
	}
	return slices.DeleteFunc(steps, func(s compaction.Step) bool { return l.gone[s.Topic.Name] }), nil
}

// forget takes the records of tables whose topic is gone out of the progress
// topic, before anything else: the next life finds them as tables never copied.
func (l *life) forget(ctx context.Context) error {
	for _, c := range l.order {
		if l.gone[c.topic] {
			if err := l.append(tablePrefix+c.table.FullName(), nil); err != nil {
				return err
			}
		}
	}
	if err := l.flush(ctx); err != nil {
		return err
	}
	return fmt.Errorf("gap: %d topics are gone: made anew, and their tables copied again (on_gap: resnapshot)", len(l.gone))
}

// limit learns the largest record that every topic takes, so that one that is too
// large is met by the policy for it and not by the broker.
func (l *life) limit(ctx context.Context) error {
	var names []string
	for _, s := range l.specs() {
		names = append(names, s.Name)
	}
	topics, err := l.client.Topics(ctx, names...)
	if err != nil {
		return err
	}
	for _, t := range topics {
		n, err := strconv.Atoi(t.Config["max.message.bytes"])
		if err == nil && n > 0 && (l.maxRecord == 0 || n < l.maxRecord) {
			l.maxRecord = n
		}
	}
	return nil
}

// awaitSlot waits until nobody reads the slot. Only then is it right to take
// over: a healthy instance is never fenced by a second one.
func (l *life) awaitSlot(ctx context.Context) error {
	said := false
	for {
		holder, err := l.src.Holder(ctx)
		if err != nil {
			return err
		}
		if holder == "" {
			return nil
		}
		if !said {
			l.log.Info("waiting: another instance reads the slot", "slot", l.cfg.Source.Slot, "holder", holder)
			l.p.enter(cdc.StateWaiting, nil)
			said = true
		}
		l.p.stall("slot %q is read by %s", l.cfg.Source.Slot, holder)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(slotPoll):
		}
	}
}

// takeOver makes this life the only writer of its partitions, then reads what the
// one before left in the progress topic.
func (l *life) takeOver(ctx context.Context) error {
	l.p.enter(cdc.StateStarting, nil)
	wc := l.cfg.Writer
	if l.cfg.Delivery == ExactlyOnce {
		wc.TransactionalID = l.cfg.Name
	}
	wc.Hook = l.cfg.Hook
	wc.MaxRecordBytes = l.maxRecord
	l.w = l.client.NewWriter(wc)
	all := []cdc.TopicPartition{{Topic: l.cfg.Progress}}
	for _, c := range l.order {
		for _, p := range c.partitions {
			if !l.gone[c.topic] {
				all = append(all, p.tp)
			}
		}
	}
	for _, name := range []string{l.deadLetter(), l.cfg.Messages} {
		if name != "" {
			all = append(all, cdc.TopicPartition{Topic: name})
		}
	}
	l.hook("take-over")
	if err := l.w.TakeOver(ctx, all); err != nil {
		return err
	}
	l.tally.takeOvers++
	l.w.Start(context.WithoutCancel(ctx)) // an orderly stop still has to flush; close ends it
	l.view.mu.Lock()
	l.view.writer = l.w
	l.view.mu.Unlock()
	for _, c := range l.order {
		for _, p := range c.partitions {
			l.bind(p)
		}
	}
	l.progressTo = l.bind(&partition{tp: cdc.TopicPartition{Topic: l.cfg.Progress}, caught: true})
	if name := l.deadLetter(); name != "" {
		l.deadTo = l.bind(&partition{tp: cdc.TopicPartition{Topic: name}})
	}
	if name := l.cfg.Messages; name != "" {
		l.messageTo = l.bind(&partition{tp: cdc.TopicPartition{Topic: name}})
	}
	var err error
	l.memory, err = readMemory(ctx, l.client, l.cfg.Progress)
	l.hook("progress-read")
	return err
}

func (l *life) bind(p *partition) *partition {
	p.target = l.w.Target(p.tp)
	// Without a fence the last record proves nothing: another instance may still
	// write, and a retried batch may stand behind a newer one.
	p.caught = p.caught || l.cfg.Delivery == AtLeastOnce
	return p
}

// decide gathers the facts and says what to do first, and which tables of a
// streaming pipeline have to be copied.
func (l *life) decide(ctx context.Context) (action, []*capture, error) {
	f := facts{
		name: l.cfg.Name, mode: l.cfg.Snapshot, onGap: l.cfg.OnGap,
		slotName: l.cfg.Source.Slot, progress: l.memory.progress,
		rebuild: l.cfg.Rebuild != nil && l.cfg.Rebuild(),
	}
	var err error
	if f.system, err = l.src.System(ctx); err != nil {
		return 0, nil, err
	}
	l.system = f.system
	if slot, ok, err := l.src.Slot(ctx); err != nil {
		return 0, nil, err
	} else if ok {
		f.slot = &slot
	}
	if p := f.progress; p != nil && p.Phase == PhaseStream && p.System == f.system.ID && p.Timeline < f.system.Timeline {
		if f.switched, err = l.src.TimelineSwitch(ctx, p.Timeline); err != nil {
			return 0, nil, err
		}
	}
	s, err := decide(f)
	if err != nil {
		return 0, nil, err
	}
	if s.gap != nil {
		l.log.Error("gap: the tables are copied again (on_gap: resnapshot)", "error", s.gap)
	}
	if s.dropSlot {
		if err := l.src.DropSlot(ctx); err != nil {
			return 0, nil, err
		}
	}
	if s.action == actDone {
		return s.action, nil, nil
	}
	missing := map[string]bool{}
	if s.action == actStream {
		if missing, err = l.unpublished(ctx); err != nil {
			return 0, nil, err
		}
	}
	if err := l.publish(ctx); err != nil {
		return 0, nil, err
	}
	if s.action == actStream {
		publication := l.progress.Publication
		l.progress = *l.memory.progress
		l.progress.Publication = publication
		l.confirmed = l.progress.End
		l.mark = sink.Mark{Position: cdc.EndOf(l.progress.Tx), End: l.progress.End, PrevEnd: l.progress.PrevEnd, Recorded: l.progress.End}
		return s.action, l.joining(missing), nil
	}
	return s.action, nil, nil
}

// unpublished are the captured tables that the publication of a streaming
// pipeline does not hold: changes made to them meanwhile were never streamed.
func (l *life) unpublished(ctx context.Context) (map[string]bool, error) {
	_, names, err := l.src.PublicationState(ctx)
	if err != nil {
		return nil, err
	}
	missing := map[string]bool{}
	for _, c := range l.order {
		missing[c.table.FullName()] = true
	}
	for _, name := range names {
		delete(missing, name)
	}
	return missing, nil
}

// publish brings the publication in order.
func (l *life) publish(ctx context.Context) error {
	tables := make([]cdc.Table, len(l.order))
	for i, c := range l.order {
		tables[i] = c.table
	}
	l.hook("publish")
	if _, err := l.src.Publish(ctx, tables); err != nil {
		return err
	}
	var err error
	l.progress.Publication, _, err = l.src.PublicationState(ctx)
	return err
}

// close ends what the life holds, in the order in which one depends on the other.
func (l *life) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	l.view.mu.Lock()
	l.view.src, l.view.writer, l.view.stream, l.view.snapshot = nil, nil, nil, nil
	l.view.mu.Unlock()
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
