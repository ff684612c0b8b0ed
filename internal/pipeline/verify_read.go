package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"cdc/internal/cdc"
	"cdc/internal/compaction"
	"cdc/internal/format"
	"cdc/internal/sink"
)

const (
	// paceStep is how many bytes are read before the pace is looked at.
	paceStep = 64 << 10
	// paceBurst is how far the reading may run ahead of its pace, in time.
	paceBurst = 100 * time.Millisecond
	// recordCost is what a record takes in its batch beside key, value and headers.
	recordCost = 16
	// compactionLag is less than the time for which nothing of a state topic is
	// compacted (its policy, min.compaction.lag.ms).
	compactionLag = 30 * time.Second
	// catchUps bounds how often a topic is read on because the reading before took
	// longer than that.
	catchUps = 8
)

// pace keeps several readers together below a number of bytes per second.
type pace struct {
	rate int64 // 0: no limit

	mu   sync.Mutex
	free time.Time // from when on more may be read
}

func newPace(rate int64) *pace { return &pace{rate: rate} }

// take waits until n bytes more may be read.
func (p *pace) take(ctx context.Context, n int64) error {
	if p.rate <= 0 {
		return ctx.Err()
	}
	p.mu.Lock()
	now := time.Now()
	if least := now.Add(-paceBurst); p.free.Before(least) {
		p.free = least
	}
	p.free = p.free.Add(time.Duration(float64(n) / float64(p.rate) * float64(time.Second)))
	wait := p.free.Sub(now)
	p.mu.Unlock()
	if wait <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// meter counts what one goroutine reads.
type meter struct {
	r     *verification
	count interface{ Add(int64) int64 } // rows or records
	n     int64
	bytes int64
}

func (m *meter) add(ctx context.Context, bytes int) error {
	m.n++
	m.bytes += int64(bytes)
	if m.bytes < paceStep {
		return nil
	}
	return m.settle(ctx)
}

func (m *meter) settle(ctx context.Context) error {
	bytes := m.bytes
	m.count.Add(m.n)
	m.r.bytes.Add(bytes)
	m.n, m.bytes = 0, 0
	return m.r.pace.take(ctx, bytes)
}

// readRows gives each row of the snapshot to its table's check.
func (r *verification) readRows(ctx context.Context) error {
	byOID := map[uint32]*check{}
	for _, k := range r.open() {
		byOID[k.c.table.OID] = k
	}
	m := meter{r: r, count: &r.rows}
	for {
		c, err := r.sn.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		k := byOID[c.Relation.ID]
		if k == nil {
			return fmt.Errorf("table %s was delivered and is not verified", c.Relation.FullName())
		}
		if !k.rows.over {
			if err := k.row(c); err != nil {
				return err
			}
		}
		bytes := len(c.New)
		for i := range c.New {
			bytes += len(c.New[i].Data)
		}
		if err := m.add(ctx, bytes); err != nil {
			return err
		}
	}
	for _, k := range byOID {
		if w := k.rows.writer; w != nil {
			if err := w.Flush(); err != nil {
				return fmt.Errorf("compare table %s: %w", k.name(), err)
			}
		}
	}
	return m.settle(ctx)
}

// readTopics reads every topic that is still to be compared, several partitions at
// a time.
func (r *verification) readTopics(ctx context.Context) error {
	_, ends, err := r.l.client.Offsets(ctx, r.partitions())
	if err != nil {
		return err
	}
	var all int64
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(verifyReaders)
	for _, k := range r.open() {
		for i := range k.parts {
			all += max(0, ends[k.parts[i].tp]-k.parts[i].start)
		}
	}
	r.recordsAll.Store(all)
	for _, k := range r.open() {
		for i := range k.parts {
			group.Go(func() error {
				if k.unchecked() != "" {
					return nil
				}
				return r.readPartition(ctx, k, &k.parts[i], ends[k.parts[i].tp])
			})
		}
	}
	return group.Wait()
}

// readPartition reads to end, and then what has come meanwhile, until that took so
// little time that nothing can have been compacted in it: a record that was there
// at the snapshot and was compacted away before it was read has a later one of its
// key then, and the comparison knows not to miss it.
func (r *verification) readPartition(ctx context.Context, k *check, p *checkPart, end int64) error {
	side := topicSide{
		r: r, k: k, p: p, writer: k.cmp.Writer(), meter: meter{r: r, count: &r.records},
		generation: r.start.progress.Generation, replays: r.l.cfg.Delivery == AtLeastOnce,
	}
	enc, err := r.encoder(ctx, k)
	if err != nil {
		return err
	}
	side.digest = k.format.NewDigester(enc.Columns())
	began := time.Now()
	for n := 0; ; n++ {
		round := time.Now()
		err := r.l.client.ReadAll(ctx, p.tp, p.end, end, func(m *sink.Message) error { return side.record(ctx, m) })
		if errors.Is(err, errGivenUp) {
			return nil
		}
		if err != nil {
			return r.lostTopic(ctx, k, err)
		}
		p.end = end
		if time.Since(round) < compactionLag {
			break
		}
		if n == catchUps {
			k.giveUp("", "topic %q is written faster than it is read: give --rate more", k.c.topic)
			return nil
		}
		tps := []cdc.TopicPartition{p.tp}
		_, ends, err := r.l.client.Offsets(ctx, tps)
		if err != nil {
			return err
		}
		end = ends[p.tp]
	}
	if err := side.writer.Flush(); err != nil {
		return fmt.Errorf("compare table %s: %w", k.name(), err)
	}
	if err := side.meter.settle(ctx); err != nil {
		return err
	}
	return r.intact(ctx, k, p, time.Since(began))
}

// encoder compiles the table as it is: the snapshot holds its lock.
func (r *verification) encoder(ctx context.Context, k *check) (*format.Encoder, error) {
	rel, err := r.l.src.Relation(ctx, k.c.table.OID)
	if err != nil {
		return nil, err
	}
	enc, err := k.format.Compile(rel)
	if err != nil {
		return nil, fmt.Errorf("table %s: %w", k.name(), err)
	}
	return enc, nil
}

// lostTopic says what an error of reading means: that the topic is gone or another
// one is a result, everything else is not.
func (r *verification) lostTopic(ctx context.Context, k *check, cause error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	topics, err := r.l.client.Topics(ctx, k.c.topic)
	if err != nil {
		return errors.Join(cause, err)
	}
	if t := topics[k.c.topic]; t.Partitions != k.topic.Partitions || t.ID != k.topic.ID {
		k.giveUp("", "topic %q was deleted, or made anew, while it was read", k.c.topic)
		return nil
	}
	return cause
}

// intact gives the check up where the topic has lost records while it was read:
// its beginning was cut off, or it was read for so long that tombstones may be gone
// whose rows were read before.
func (r *verification) intact(ctx context.Context, k *check, p *checkPart, took time.Duration) error {
	starts, _, err := r.l.client.Offsets(ctx, []cdc.TopicPartition{p.tp})
	if err != nil {
		return r.lostTopic(ctx, k, err)
	}
	if now := starts[p.tp]; now > p.start {
		k.giveUp("", "topic %q was cut while it was read: partition %d began at offset %d and begins at %d now", k.c.topic, p.tp.Partition, p.start, now)
	}
	if keeps := k.retention(); keeps > 0 && took > keeps {
		k.giveUp("", "reading partition %d of topic %q took %s, and tombstones are kept for %s: give --rate more", p.tp.Partition, k.c.topic, took.Round(time.Second), keeps)
	}
	return nil
}

// errGivenUp ends the reading of a partition of a check that was given up.
var errGivenUp = errors.New("given up")

// topicSide takes the records of one partition.
type topicSide struct {
	r          *verification
	k          *check
	p          *checkPart
	writer     *compaction.CompareWriter
	digest     *format.Digester
	meter      meter
	generation cdc.Generation
	replays    bool
}

// record takes one record.
func (s *topicSide) record(ctx context.Context, m *sink.Message) error {
	stamp, ok, err := m.Stamp()
	if !ok || err != nil {
		s.k.giveUp("", "partition %d offset %d of topic %q holds a record without a position: something else writes to the topic", s.p.tp.Partition, m.Offset, s.k.c.topic)
		return errGivenUp
	}
	bytes := recordCost + len(m.Key) + len(m.Value)
	for _, h := range m.Headers {
		bytes += len(h.Key) + len(h.Value)
	}
	if err := s.meter.add(ctx, bytes); err != nil {
		return err
	}
	if s.repeated(stamp) {
		return nil
	}
	behind := standsBehind(stamp, s.generation, s.r.at)
	dig, alive, older, err := s.digest.Digest(m.Value)
	if err != nil {
		s.k.giveUp("", "partition %d offset %d of topic %q: %v", s.p.tp.Partition, m.Offset, s.k.c.topic, err)
		return errGivenUp
	}
	if !behind && m.Offset >= s.p.before {
		s.p.doubt(m)
	}
	return s.writer.Record(m.Key, dig, alive, older, behind, s.p.tp.Partition, m.Offset)
}

// standsBehind says that a record does not belong to the state at an LSN. Those of
// another generation were left by a former pipeline: they stand before all.
func standsBehind(s cdc.Stamp, generation cdc.Generation, at cdc.LSN) bool {
	return s.Generation == generation && s.Position.Tx >= at
}

// repeated says that a record was written again by a replay (at-least-once): what
// it says was there before, and perhaps something newer.
func (s *topicSide) repeated(stamp cdc.Stamp) bool {
	if !s.replays || stamp.Generation != s.generation {
		return false
	}
	if stamp.Position.Before(s.p.last) {
		return true
	}
	s.p.last = stamp.Position
	return false
}

// doubt remembers a record that may show values from behind the snapshot: those
// read back for it (header refilled), or left out because the row was gone by then
// (incomplete). They were read when the record was written; one written before the
// snapshot was begun shows nothing newer than it. A later record of the key follows.
func (p *checkPart) doubt(m *sink.Message) {
	for _, h := range m.Headers {
		if h.Key != format.HeaderRefilled && h.Key != format.HeaderIncomplete {
			continue
		}
		if len(p.doubtful) >= maxDoubtful {
			p.doubtAll = true
			return
		}
		if p.doubtful == nil {
			p.doubtful = map[int64]struct{}{}
		}
		p.doubtful[m.Offset] = struct{}{}
	}
}

// doubts says that a record that differs from its row may have been ahead of it.
func (k *check) doubts(partition int32, offset int64) bool {
	if partition < 0 || int(partition) >= len(k.parts) {
		return false
	}
	p := &k.parts[partition]
	_, ok := p.doubtful[offset]
	return ok || p.doubtAll && offset >= p.before
}
