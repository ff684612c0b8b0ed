package history

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
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

// topicCheck is a topic under comparison.
type topicCheck struct {
	*topic
	v         cdc.Verification
	parts     []*partCheck
	ownTime   bool  // records have the time of the broker
	unchecked bool  // v says why
	first     int64 // position of the first event that is missing
	inside    bool  // an event is missing before one that is there
	another   bool  // it is not the topic that was recorded
	remarks   []string
	repeated  int64
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

// look decides whether a topic can be compared.
func (c *topicCheck) look(v *verification, s cdc.TopicState) {
	l := v.l
	switch {
	case l.memory.progress == nil:
		c.cannot("how far the log was published is not known: progress topic "+l.cfg.Progress+" has no record; start the daemon (cdc run)", "")
		return
	case s.Partitions == 0 && c.recorded:
		c.cannot(fmt.Sprintf("topic %q is gone, which held events of the log", c.name), mendRepublish)
		return
	case s.Partitions == 0:
		return // events that should stand there are missing
	case s.Partitions != l.cfg.Partitions:
		c.cannot(fmt.Sprintf("topic %q has %d partitions and the pipeline %d: streams would be in others", c.name, s.Partitions, l.cfg.Partitions),
			fmt.Sprintf("Set partitions: of the pipeline to %d if that is what it was; else delete the topic, then: %s", s.Partitions, mendRepublish))
		return
	}
	if c.recorded && c.id != "" && s.ID != "" && s.ID != c.id {
		c.another = true
		c.remarks = append(c.remarks, fmt.Sprintf("topic %q was deleted and made again", c.name))
	}
	c.ownTime = s.Config["message.timestamp.type"] == "LogAppendTime"
	for _, p := range c.partitions {
		c.parts = append(c.parts, &partCheck{check: c, tp: p.tp})
	}
}

func (c *topicCheck) cannot(why, mend string) {
	c.unchecked = true
	c.v.Why, c.v.Mend = why, mend
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

// judge gives the verdict.
func (c *topicCheck) judge(v *verification) {
	if c.unchecked {
		c.v.Verdict = cdc.VerdictUnchecked
		return
	}
	why := c.remarks
	if c.repeated > 0 {
		why = append(why, fmt.Sprintf("%d records stand there again, as delivery: at-least-once allows", c.repeated))
	}
	behind := v.upto < v.wanted
	if behind {
		why = append(why, fmt.Sprintf("the log ends at position %d and is published to %d: what lies between was not compared", v.wanted, v.upto))
	}
	if v.refused != nil {
		why = append(why, v.refused.Err.Error())
	}
	switch {
	case c.v.Differences() > 0:
		c.v.Verdict = cdc.VerdictDifferent
		c.v.Mend = c.mend(v)
	case v.refused != nil:
		c.v.Verdict, c.v.Mend = cdc.VerdictUnchecked, v.refused.Mend
	case behind:
		c.v.Verdict, c.v.Mend = cdc.VerdictUnchecked, "cdc run publishes what is waiting; where it runs, cdc status says what it waits for."
	default:
		c.v.Verdict = cdc.VerdictEqual
	}
	c.v.Why = strings.Join(why, "; ")
}

// mend says what makes a topic whole. A publication that is put back writes only what
// lies behind the last record of each partition.
func (c *topicCheck) mend(v *verification) string {
	switch {
	case v.refused != nil:
		return v.refused.Mend
	case c.inside || c.v.Ghosts+c.v.Different > 0 || c.another && c.v.Records > 0:
		return fmt.Sprintf("Find out who has written to or deleted from topic %s. Then delete the topic, and: %s", c.name, mendRepublish)
	}
	return fmt.Sprintf("cdc es republish --from %d", c.first)
}
