package history

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/intent"
)

// VerifyOptions says how much Verify tells, and how long it waits.
type VerifyOptions struct {
	Samples  int // differences shown of each topic
	Patience time.Duration
}

// DefaultPatience is how long Verify waits for a publication that is behind: a
// running one records its progress once a second.
const DefaultPatience = 30 * time.Second

const (
	// verifyReaders is how many partitions are read side by side: each holds a fetch
	// and a decompressed batch of about a megabyte. Where there are more, the log is
	// gone over once for each so many.
	verifyReaders = 32
	// verifyPoll is how often the progress is looked at while Verify waits for it.
	verifyPoll = 100 * time.Millisecond
)

// Verify compares every topic of the publication with the log, record by record and
// byte by byte, up to the position that the progress topic says. It may be called
// beside a running publication, which it does not disturb, and while events are
// appended. The error is about what could not be looked at, and is no verdict.
//
// The order matters. First the progress is read: events up to it are acknowledged.
// Then the ends of the partitions: what is acknowledged stands before them. Then the
// head of the log: it has every event whose record stands before them. Positions
// increase within a partition, so both sides are gone through in the order of
// positions at once, and nothing is held but the batch of the log and a fetch a
// partition.
func Verify(ctx context.Context, cfg Config, o VerifyOptions) ([]cdc.Verification, error) {
	return verify(ctx, cfg, o, verifyReaders)
}

// verify is Verify with so many partitions side by side.
func verify(ctx context.Context, cfg Config, o VerifyOptions, readers int) ([]cdc.Verification, error) {
	p := New(cfg)
	defer p.Close()
	l := newLife(p)
	defer l.close()
	v := &verification{l: l, o: o, readers: readers, checks: map[string]*topicCheck{}, began: time.Now()}
	if err := l.dial(ctx); err != nil {
		return nil, err
	}
	if err := v.awaitPublished(ctx); err != nil {
		return nil, err
	}
	if err := v.prepare(ctx); err != nil {
		return nil, err
	}
	for pass := range max(1, v.passes) {
		if err := v.walk(ctx, pass); err != nil {
			return nil, err
		}
	}
	return v.verdicts(), nil
}

// verification is one run of Verify.
type verification struct {
	l       *life
	o       VerifyOptions
	readers int // partitions side by side
	began   time.Time
	wanted  int64 // head of the log at the start
	upto    int64 // compared up to here
	head    int64 // no record has a higher position
	// refused: the publication itself would not go on from here, because the log is
	// not the one that was published.
	refused *cdc.TerminalError
	checks  map[string]*topicCheck // by topic
	passes  int
	watch   *time.Timer // of the pull under way
}

// awaitPublished returns when the progress has come to the head of the log as it was
// at the start; also when it does not in time, or nobody publishes.
func (v *verification) awaitPublished(ctx context.Context) error {
	l := v.l
	if err := l.remember(ctx); err != nil {
		return err
	}
	v.wanted = l.head
	limit := time.NewTimer(cmp.Or(v.o.Patience, DefaultPatience))
	defer limit.Stop()
	tick := time.NewTicker(verifyPoll)
	defer tick.Stop()
	for l.memory.progress == nil || l.memory.position() < v.wanted && !l.memory.progress.Released {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-limit.C:
			return nil
		case <-tick.C:
		}
		if l.memory.progress == nil { // the topic itself may have come meanwhile
			if err := l.remember(ctx); err != nil {
				return err
			}
		} else if err := l.memory.update(ctx, l.client, l.cfg.Progress); err != nil {
			return err
		}
	}
	return nil
}

// prepare finds the topics and what of them is to be read.
func (v *verification) prepare(ctx context.Context) error {
	l := v.l
	if err := l.agree(ctx); err != nil {
		var t *cdc.TerminalError
		if !errors.As(err, &t) || t.Reason == "other-store" {
			return err
		}
		v.refused = t
	}
	if err := l.resolve(); err != nil {
		return err
	}
	states, err := l.states(ctx)
	if err != nil {
		return err
	}
	v.upto = l.memory.position()
	var all []cdc.TopicPartition
	for _, name := range slices.Sorted(maps.Keys(l.topics)) {
		c := v.check(l.topics[name])
		c.look(v, states[name])
		for _, p := range c.parts {
			all = append(all, p.tp)
		}
	}
	if err := v.offsets(ctx, all); err != nil {
		return err
	}
	if err := l.askHead(ctx); err != nil {
		return err
	}
	v.head = l.head
	v.upto = min(v.upto, v.head)
	return nil
}

// check is the comparison of a topic.
func (v *verification) check(t *topic) *topicCheck {
	c := v.checks[t.name]
	if c == nil {
		c = &topicCheck{topic: t, v: cdc.Verification{Subject: "topic " + t.name, Topic: t.name}}
		v.checks[t.name] = c
	}
	return c
}

// offsets says what of each partition is to be read, and in which pass.
func (v *verification) offsets(ctx context.Context, all []cdc.TopicPartition) error {
	if len(all) == 0 {
		return nil
	}
	start, end, err := v.l.client.Offsets(ctx, all)
	if err != nil {
		return fmt.Errorf("ends of the topics: %w", err)
	}
	n := 0
	for _, name := range slices.Sorted(maps.Keys(v.checks)) {
		for _, p := range v.checks[name].parts {
			p.start, p.end = start[p.tp], end[p.tp]
			if p.start < p.end {
				p.pass = n / v.readers
				n++
			}
		}
	}
	v.passes = (n + v.readers - 1) / v.readers
	return nil
}

// walk goes through the log and the partitions of one pass.
func (v *verification) walk(ctx context.Context, pass int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	v.watch = time.AfterFunc(verifyStall, func() { cancel(errVerifyStall) })
	v.watch.Stop()
	defer v.watch.Stop()
	var parts []*partCheck
	defer func() {
		for _, p := range parts {
			p.close()
		}
	}()
	for _, name := range slices.Sorted(maps.Keys(v.checks)) {
		for _, p := range v.checks[name].parts {
			if p.pass == pass {
				p.open(ctx, v.l.client)
				parts = append(parts, p)
			}
		}
	}
	err := v.merge(ctx, pass, parts)
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(err, cause) {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

func (v *verification) merge(ctx context.Context, pass int, parts []*partCheck) error {
	for read := int64(0); read < v.upto; {
		events, last, err := v.batch(ctx, read)
		if err != nil {
			return err
		}
		for _, ev := range events {
			if err := v.meet(ev, pass); err != nil {
				return err
			}
		}
		if last == read { // the log has no more
			break
		}
		read = last
	}
	for _, p := range parts {
		if err := v.rest(p); err != nil {
			return err
		}
	}
	return nil
}

// batch is a piece of the log behind a position, and the position it reaches. No
// statement is kept open for Kafka's sake.
func (v *verification) batch(ctx context.Context, after int64) (events []*intent.Event, last int64, err error) {
	l, bytes := v.l, 0
	last, err = l.cfg.Store.Log(ctx, after, l.limit, nil, func(ev *intent.Event) error {
		if bytes >= chunkBytes {
			return errChunk
		}
		bytes += len(ev.Data) + len(ev.Meta) + len(ev.Stream)
		events = append(events, ev)
		return nil
	})
	switch {
	case errors.Is(err, errChunk):
		last = events[len(events)-1].Position
		l.limit = max(1, len(events)) // rows behind the last one were sent for nothing
	case err != nil:
		return nil, after, fmt.Errorf("read the log behind position %d: %w", after, err)
	default:
		l.limit = min(2*l.limit, chunkEvents)
	}
	return events, last, nil
}

// meet looks for an event in its partition.
func (v *verification) meet(ev *intent.Event, pass int) error {
	if ev.Position > v.upto {
		return nil
	}
	c, err := v.topicOf(ev)
	if err != nil || c.unchecked {
		return err
	}
	if pass == 0 {
		c.v.Rows++
	}
	if len(c.parts) == 0 {
		if pass == 0 {
			v.missing(c, nil, ev)
		}
		return nil
	}
	rec := v.l.enc.encode(ev)
	p := c.parts[c.partitionOf(rec)]
	if p.pass != pass {
		return nil
	}
	for {
		m, err := v.peek(p)
		switch {
		case err != nil:
			return err
		case m == nil || p.pos > ev.Position:
			v.missing(c, p, ev)
			return nil
		case p.pos < ev.Position:
			v.ghost(p, m, "an event of this partition", p.pos)
			p.msg = nil
			continue
		}
		p.there()
		if diffs := c.differ(m, ev, rec, v.l.p.generation); diffs != nil {
			c.v.Different++
			v.show(c, cdc.Sample{Kind: "different", Key: string(m.Key), Partition: p.tp.Partition, Offset: m.Offset, Columns: diffs})
		}
		p.msg = nil
		return nil
	}
}

// topicOf is the topic in which an event should be.
func (v *verification) topicOf(ev *intent.Event) (*topicCheck, error) {
	category := intent.Category(ev.Stream)
	if t := v.l.categories[category]; t != nil {
		return v.check(t), nil
	}
	// The progress topic has no record of the category, and the progress lies behind
	// an event of it.
	name, err := cdc.EventTopicName(v.l.cfg.Topic, v.l.cfg.Database, category)
	if err != nil {
		return nil, err
	}
	t := &topic{name: name}
	v.l.categories[category] = t
	c := v.check(t)
	c.remarks = append(c.remarks, fmt.Sprintf("the progress topic has no record of category %q", category))
	return c, nil
}

// rest goes through what a partition holds behind the last event that was compared.
func (v *verification) rest(p *partCheck) error {
	for {
		m, err := v.peek(p)
		if m == nil || err != nil {
			return err
		}
		if p.pos <= v.upto {
			v.ghost(p, m, "an event of this partition", p.pos)
		} else {
			p.there() // published since
		}
		p.msg = nil
	}
}

// verdicts are the outcome, sorted by topic.
func (v *verification) verdicts() []cdc.Verification {
	var all []cdc.Verification
	for _, name := range slices.Sorted(maps.Keys(v.checks)) {
		c := v.checks[name]
		c.judge(v)
		c.v.Position, c.v.At = v.upto, time.Now()
		c.v.Took = c.v.At.Sub(v.began)
		all = append(all, c.v)
	}
	return all
}
