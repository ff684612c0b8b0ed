package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"cdc/internal/cdc"
	"cdc/internal/compaction"
	"cdc/internal/format"
	"cdc/internal/sink"
	"cdc/internal/source"
)

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
	if l.cfg.OnGap != "resnapshot" || l.cfg.Snapshot == SnapshotNever {
		err := compaction.Vanished(steps, func(topic string) bool { return l.gone[topic] })
		return nil, (&gap{reason: "topic-missing", cure: cureTopics, err: err}).terminal(l.cfg.Name, l.cfg.Snapshot)
	}
	l.log.Error("gap: topics are gone: they are made anew and their tables copied again (on_gap: resnapshot)", "topics", slices.Sorted(maps.Keys(l.gone)))
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

// checkTopicIDs finds state topics that were filled and then deleted and made again:
// they have their names, and none of the records. With on_gap: resnapshot their
// tables are taken for never copied. Where ids were not kept yet, they are now.
func (l *life) checkTopicIDs() error {
	g := &gap{reason: reasonTopicRemade, cure: cureTopics}
	var lost []error
	for _, c := range l.order {
		name := c.table.FullName()
		rec, ok := l.memory.tables[name]
		id := l.topicIDs[c.topic]
		switch {
		case !ok || rec.Topic != c.topic || id == "" || rec.TopicID == id:
		case rec.TopicID == "":
			rec.TopicID = id
			l.memory.tables[name] = rec
			if err := l.append(tablePrefix+name, rec); err != nil {
				return err
			}
		default:
			lost = append(lost, fmt.Errorf("topic %q of table %s was deleted and made again (its id is %s, that of the topic that was filled %s): what it held is gone", c.topic, name, id, rec.TopicID))
			delete(l.memory.tables, name)
		}
	}
	if len(lost) == 0 {
		return nil
	}
	g.err = errors.Join(lost...)
	if !g.healed(l.cfg.OnGap, l.cfg.Snapshot) {
		return g.terminal(l.cfg.Name, l.cfg.Snapshot)
	}
	l.log.Error("gap: topics were made again: their tables are copied again (on_gap: resnapshot)", "reason", g.reason, "error", g)
	return nil
}

// limit learns the largest record that every topic takes, so that one that is too
// large is met by the policy for it and not by the broker; and the topics' ids.
func (l *life) limit(ctx context.Context) error {
	var names []string
	for _, s := range l.specs() {
		names = append(names, s.Name)
	}
	topics, err := l.client.Topics(ctx, names...)
	if err != nil {
		return err
	}
	l.topicIDs = make(map[string]string, len(topics))
	for _, t := range topics {
		l.topicIDs[t.Name] = t.ID
		n, err := strconv.Atoi(t.Config["max.message.bytes"])
		if err == nil && n > 0 && (l.maxRecord == 0 || n < l.maxRecord) {
			l.maxRecord = n
		}
	}
	return nil
}
