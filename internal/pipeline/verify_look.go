package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/sink"
)

// look reads the progress topic and finds the tables that cannot be compared.
func (r *verification) look(ctx context.Context) error {
	names := []string{r.l.cfg.Progress}
	for _, k := range r.checks {
		names = append(names, k.c.topic)
	}
	topics, err := r.l.client.Topics(ctx, names...)
	if err != nil {
		return err
	}
	if topics[r.l.cfg.Progress].Partitions == 0 {
		r.giveUp("cdc run", "the pipeline has no progress topic %q: it was never run", r.l.cfg.Progress)
		return nil
	}
	if r.follower, err = newFollower(ctx, r.l.client, r.l.cfg.Progress); err != nil {
		return err
	}
	r.start = r.follower.memory.copy()
	if !r.streaming() {
		return nil
	}
	for _, k := range r.checks {
		k.judge(&r.l.cfg.Format.Format, r.start, topics[k.c.topic])
	}
	return nil
}

// streaming gives everything up where the pipeline has not copied its tables yet,
// or is another's.
func (r *verification) streaming() bool {
	p, s := r.start.progress, &r.l.system
	switch {
	case p == nil:
		r.giveUp("cdc run", "the pipeline has not copied its tables yet")
	case p.System != s.ID || p.Database != s.Database:
		r.giveUp("", "the progress record is of database %q of server %s, this is %q of server %s", p.Database, p.System, s.Database, s.ID)
	case p.Phase == PhaseSnapshot:
		r.giveUp("", "the first copy of the tables is under way")
	case p.Phase == PhaseDone:
		r.giveUp("", "the pipeline has copied its tables once and does not follow them (snapshot: only)")
	default:
		return true
	}
	return false
}

// judge gives a table up whose topic was not filled as it would be now.
func (k *check) judge(format *string, m memory, topic cdc.TopicState) {
	var copied bool
	k.record, copied = m.tables[k.name()]
	c, copying := m.copies[k.name()]
	switch {
	case copying && c.State == copyFailed:
		k.giveUp("", "its copy by chunks has failed: %s", c.Error)
	case copying:
		k.giveUp("", "a copy of it by chunks is under way (%s, %d rows)", c.State, c.Rows)
	case !copied:
		k.giveUp("cdc run", "the table was not copied yet")
	case k.record.OID != k.c.table.OID:
		k.giveUp("", "the table was dropped and made again: the pipeline copies the new one")
	case k.record.Topic != k.c.topic:
		k.giveUp("cdc run", "it was copied into topic %q, the configuration names %q", k.record.Topic, k.c.topic)
	case k.record.Values != *format:
		k.giveUp("cdc run", "its topic was written in format %s, the configuration names %s", k.record.Values, *format)
	case !slices.Equal(k.record.Key, k.c.table.Key):
		k.giveUp("cdc run", "its topic has the key (%s), the table has (%s)", strings.Join(k.record.Key, ", "), strings.Join(k.c.table.Key, ", "))
	case topic.Partitions == 0:
		k.giveUp("", "topic %q does not exist", k.c.topic)
	default:
		k.topic = topic
		k.parts = make([]checkPart, topic.Partitions)
		for i := range k.parts {
			k.parts[i].tp = cdc.TopicPartition{Topic: k.c.topic, Partition: int32(i)}
		}
	}
}

// await waits until the progress record has reached the place of the rows. It gives
// everything up where that takes too long, or where the tables are copied anew.
func (r *verification) await(ctx context.Context) error {
	late, cancel := context.WithTimeout(ctx, r.o.timeout())
	defer cancel()
	defer r.wait("")
	for {
		p := r.follower.memory.progress
		switch {
		case p == nil || p.Generation != r.start.progress.Generation || p.Phase != PhaseStream:
			r.giveUp("", "the tables are being copied again")
			return nil
		case p.End >= r.at:
			return nil
		}
		r.wait("the pipeline stands at %s, the tables were read at %s", p.End, r.at)
		err := r.follower.next(late)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case late.Err() != nil:
			r.giveUp("cdc run", "the pipeline stands at %s, the table was read at %s: is cdc run running?", p.End, r.at)
			return nil
		case err != nil:
			return err
		}
	}
}

// lookAgain gives up what was copied again while it was read.
func (r *verification) lookAgain(ctx context.Context) error {
	if len(r.open()) == 0 {
		return nil
	}
	if err := r.follower.catchUp(ctx); err != nil {
		return err
	}
	now := r.follower.memory
	if now.progress == nil || now.progress.Generation != r.start.progress.Generation {
		r.giveUp("", "the tables were copied again meanwhile")
		return nil
	}
	for _, k := range r.open() {
		if rec, ok := now.tables[k.name()]; !ok || !reflect.DeepEqual(rec, k.record) {
			k.giveUp("", "the table was copied again meanwhile, or left the pipeline")
		}
	}
	return nil
}

// follower reads the progress topic as it grows, beside its writer.
type follower struct {
	client *sink.Client
	tp     cdc.TopicPartition
	reader *sink.Reader
	memory memory
	offset int64 // of the next record
}

// newFollower reads up to the end there is.
func newFollower(ctx context.Context, c *sink.Client, topic string) (*follower, error) {
	f := &follower{client: c, tp: cdc.TopicPartition{Topic: topic}, memory: newMemory()}
	start, _, err := c.Offsets(ctx, []cdc.TopicPartition{f.tp})
	if err != nil {
		return nil, fmt.Errorf("read progress topic %q: %w", topic, err)
	}
	f.offset = start[f.tp]
	return f, f.catchUp(ctx)
}

func newMemory() memory {
	return memory{tables: map[string]TableRecord{}, copies: map[string]CopyRecord{}}
}

// copy is the memory as it is now; what it holds is never changed in place.
func (m memory) copy() memory {
	m.tables, m.copies = maps.Clone(m.tables), maps.Clone(m.copies)
	return m
}

// catchUp reads what is there.
func (f *follower) catchUp(ctx context.Context) error {
	_, end, err := f.client.Offsets(ctx, []cdc.TopicPartition{f.tp})
	if err == nil {
		err = f.client.ReadAll(ctx, f.tp, f.offset, end[f.tp], f.apply)
	}
	if err != nil {
		return fmt.Errorf("read progress topic %q: %w", f.tp.Topic, err)
	}
	f.offset = max(f.offset, end[f.tp])
	return nil
}

// next blocks until a record has come.
func (f *follower) next(ctx context.Context) error {
	if f.reader == nil {
		f.reader = f.client.NewReader(f.tp, f.offset)
	}
	m, err := f.reader.Next(ctx)
	if err == nil {
		err = f.apply(m)
	}
	if err != nil && !errors.Is(err, ctx.Err()) {
		return fmt.Errorf("read progress topic %q: %w", f.tp.Topic, err)
	}
	return err
}

func (f *follower) apply(m *sink.Message) error {
	f.offset = m.Offset + 1
	return f.memory.apply(f.tp.Topic, m)
}

func (f *follower) close() {
	if f.reader != nil {
		_ = f.reader.Close() // never fails
	}
}

// retention is how long the topic keeps the tombstones of keys it has compacted
// away, 0 where that is not known.
func (k *check) retention() time.Duration {
	ms, err := time.ParseDuration(k.topic.Config["delete.retention.ms"] + "ms")
	if err != nil {
		return 0
	}
	return ms
}
