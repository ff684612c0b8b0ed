package history

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/intent"
	"cdc/internal/sink"
)

// verifyStall is how long a partition may bring nothing: an open transaction of
// another program keeps what is behind it from readers. A broker that does not answer
// is given up by itself before.
const verifyStall = 2 * time.Minute

var errVerifyStall = errors.New("a topic cannot be read to its end: another program may have a transaction open there")

// partCheck is a partition under comparison.
type partCheck struct {
	check      *topicCheck
	tp         cdc.TopicPartition
	start, end int64
	pass       int

	next    func() (*sink.Message, error, bool) // nil: nothing to read
	stop    func()
	msg     *sink.Message // not compared yet
	pos     int64         // of msg
	last    int64         // the highest so far
	missing int64
	matched bool // a record was where it should be
}

// open begins to read.
func (p *partCheck) open(ctx context.Context, client *sink.Client) {
	if p.start == p.end {
		return
	}
	p.next, p.stop = iter.Pull2(func(yield func(*sink.Message, error) bool) {
		err := client.ReadAll(ctx, p.tp, p.start, p.end, func(m *sink.Message) error {
			if !yield(m, nil) {
				return errChunk
			}
			return nil
		})
		if err != nil && !errors.Is(err, errChunk) {
			yield(nil, err)
		}
	})
}

func (p *partCheck) close() {
	if p.stop != nil {
		p.stop()
	}
}

// there notes a record that stands where it should.
func (p *partCheck) there() {
	p.matched = true
	if p.missing > 0 {
		p.check.inside = true
	}
}

// peek is the next record of a partition that has its place in the order, nil behind
// the last. Records that have none are told of and passed by.
func (v *verification) peek(p *partCheck) (*sink.Message, error) {
	for p.msg == nil && p.next != nil {
		v.watch.Reset(verifyStall)
		m, err, ok := p.next()
		v.watch.Stop()
		switch {
		case err != nil:
			return nil, fmt.Errorf("verify %s: %w", p.tp, err)
		case !ok:
			p.next = nil
			return nil, nil
		}
		p.check.v.Records++
		v.place(p, m)
	}
	return p.msg, nil
}

// place makes m the partition's next record, or says why it is none.
func (v *verification) place(p *partCheck, m *sink.Message) {
	stamp, ok, err := m.Stamp()
	pos := int64(stamp.Position.Tx)
	switch {
	case err != nil || !ok:
		v.ghost(p, m, "a position", 0)
	case stamp.Generation != v.l.p.generation:
		v.ghost(p, m, "a position of this store", 0)
	case pos < 1 || pos > v.head:
		v.ghost(p, m, fmt.Sprintf("a position of the log, which ends at %d", v.head), pos)
	case pos > p.last:
		p.msg, p.pos, p.last = m, pos, pos
	case v.l.cfg.Delivery == AtLeastOnce:
		p.check.repeated++
	default:
		p.check.v.Different++
		v.show(p.check, cdc.Sample{Kind: "different", Key: string(m.Key), Partition: p.tp.Partition, Offset: m.Offset, Columns: []cdc.ColumnDiff{
			{Column: "order (twice, or not in its place)", Source: fmt.Sprintf(`"a position behind %d"`, p.last), Target: fmt.Sprint(pos)},
		}})
	}
}

// ghost tells of a record that the log does not account for.
func (v *verification) ghost(p *partCheck, m *sink.Message, want string, pos int64) {
	p.check.v.Ghosts++
	d := cdc.ColumnDiff{Column: "position", Source: quoted(want)}
	if pos != 0 {
		d.Target = fmt.Sprint(pos)
	}
	v.show(p.check, cdc.Sample{Kind: "ghost", Key: string(m.Key), Partition: p.tp.Partition, Offset: m.Offset, Columns: []cdc.ColumnDiff{d}})
}

// missing tells of an event without a record. p is nil where the topic is.
func (v *verification) missing(c *topicCheck, p *partCheck, ev *intent.Event) {
	c.v.Missing++
	if c.first == 0 || ev.Position < c.first {
		c.first = ev.Position
	}
	s := cdc.Sample{Kind: "missing", Key: ev.Stream, Partition: -1, Offset: -1, Columns: []cdc.ColumnDiff{
		{Column: "position", Source: fmt.Sprint(ev.Position)}, {Column: "id", Source: quoted(ev.ID.String())},
	}}
	if p != nil {
		s.Partition = p.tp.Partition
		if p.missing++; p.missing == 1 && !p.matched && p.start > 0 {
			c.remarks = append(c.remarks, fmt.Sprintf("partition %d begins at offset %d: what stood before was deleted", p.tp.Partition, p.start))
		}
	}
	v.show(c, s)
}

func (v *verification) show(c *topicCheck, s cdc.Sample) {
	if len(c.v.Samples) < v.o.Samples {
		c.v.Samples = append(c.v.Samples, s)
	}
}
