package history

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/compaction"
	"cdc/internal/sink"
)

// begin takes a life to where it may write: everything is looked at before anything
// is touched, and what the progress topic says once more behind the take-over.
func (l *life) begin(ctx context.Context) error {
	l.p.enter(cdc.StateStarting, nil)
	if err := l.dial(ctx); err != nil {
		return err
	}
	if err := l.remember(ctx); err != nil {
		return err
	}
	if err := l.agree(ctx); err != nil {
		return err
	}
	if err := l.resolve(); err != nil {
		return err
	}
	steps, err := l.plan(ctx)
	if err != nil {
		return err
	}
	if err := l.apply(ctx, steps); err != nil {
		return err
	}
	if err := l.takeOver(ctx); err != nil {
		return err
	}
	if err := l.memory.update(ctx, l.client, l.cfg.Progress); err != nil {
		return err
	}
	l.hook(HookProgressRead)
	for name := range l.memory.categories {
		if l.categories[name] == nil { // another instance wrote until a moment ago
			return errCategories
		}
	}
	if err := l.agree(ctx); err != nil {
		return err
	}
	return l.settle(ctx)
}

// dial reaches Kafka. A publisher that was replaced waits, and comes back as a new
// producer: it is a newcomer now and its old id would be refused.
func (l *life) dial(ctx context.Context) error {
	p := l.p
	if p.fenced {
		p.Close()
	}
	if p.client == nil {
		c, err := sink.Dial(ctx, l.cfg.Sink)
		if err != nil {
			return err
		}
		p.client = c
	}
	l.client = p.client
	if !p.fenced {
		return nil
	}
	if err := l.awaitSilence(ctx); err != nil {
		return err
	}
	p.fenced = false
	p.enter(cdc.StateStarting, nil)
	return nil
}

// awaitSilence returns when whoever has taken over has ended in order, or has given
// no sign of life for long enough: it writes a progress record at every heartbeat.
func (l *life) awaitSilence(ctx context.Context) error {
	l.p.enter(cdc.StateWaiting, nil)
	l.p.note(func(s *Status) { s.Stalled = "another instance publishes" })
	m, err := readMemory(ctx, l.client, l.cfg.Progress)
	if err != nil {
		return err
	}
	tick := time.NewTicker(waitPoll)
	defer tick.Stop()
	for heard := time.Now(); ; {
		if m.progress != nil && m.progress.Released || time.Since(heard) >= l.p.silent {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		end := m.end
		if err := m.update(ctx, l.client, l.cfg.Progress); err != nil {
			return err
		}
		if m.end != end {
			heard = time.Now()
		}
	}
}

// remember reads what there is of the progress topic, and the head of the log.
func (l *life) remember(ctx context.Context) error {
	if err := l.askHead(ctx); err != nil {
		return err
	}
	states, err := l.client.Topics(ctx, l.cfg.Progress)
	if err != nil {
		return err
	}
	if states[l.cfg.Progress].Partitions == 0 {
		return nil
	}
	l.memory, err = readMemory(ctx, l.client, l.cfg.Progress)
	return err
}

func (l *life) askHead(ctx context.Context) error {
	head, err := l.cfg.Store.Head(ctx)
	if err != nil {
		return fmt.Errorf("head of the log: %w", err)
	}
	l.head = head
	l.cfg.Head.Set(head)
	return nil
}

// agree compares the progress with the store: another store, one that was put back
// to an earlier moment, and one that went on from there, are terminal.
func (l *life) agree(ctx context.Context) error {
	p := l.memory.progress
	if p == nil {
		return nil
	}
	if p.Store != l.cfg.StoreID {
		return cdc.Terminal("other-store",
			fmt.Sprintf("Give the pipeline a topic: and a progress_topic: of its own. If the other store is gone for good, delete its topics and %s, and start again.", l.cfg.Progress),
			"progress topic %q is of the store %s, this one is %s", l.cfg.Progress, p.Store, l.cfg.StoreID)
	}
	if p.Position > l.head { // it may have grown since it was asked
		if err := l.askHead(ctx); err != nil {
			return err
		}
	}
	if p.Position > l.head {
		return l.ahead("progress topic "+strconv.Quote(l.cfg.Progress), p.Position)
	}
	if p.Position == 0 || p.Event.IsZero() {
		return nil
	}
	at, err := l.eventAt(ctx, p.Position)
	switch {
	case err != nil:
		return err
	case at.id != p.Event:
		return l.forked("progress topic "+strconv.Quote(l.cfg.Progress), p.Position)
	}
	l.proven = p.Position
	return nil
}

const mendRepublish = "cdc es republish --from 1"

// ahead: what was published is no longer in the store.
func (l *life) ahead(who string, pos int64) error {
	return cdc.Terminal("topics-ahead",
		"Restore the store to a moment at or behind that position. If what it has lost is lost for good, delete the topics that hold it, then: "+mendRepublish,
		"%s has reached position %d and the log of the store ends at %d: the store was put back to an earlier moment", who, pos, l.head)
}

// forked: the store has given a published position to another event.
func (l *life) forked(who string, pos int64) error {
	return cdc.Terminal("log-forked",
		"The store was put back to an earlier moment and has gone on from there. Delete the topics, which hold events of the other past, then: "+mendRepublish,
		"%s has another event at position %d than the log of the store", who, pos)
}

// eventAt is the event at a position, zero where the log has none.
func (l *life) eventAt(ctx context.Context, pos int64) (place, error) {
	var at place
	if pos < 1 {
		return at, nil
	}
	_, err := l.cfg.Store.Log(ctx, pos-1, 1, nil, at.set)
	if err != nil {
		return at, fmt.Errorf("read the log at position %d: %w", pos, err)
	}
	if at.pos != pos {
		return place{}, nil
	}
	return at, nil
}

// resolve gives each category that is known its topic.
func (l *life) resolve() error {
	l.categories, l.topics = map[string]*topic{}, map[string]*topic{}
	known := maps.Clone(l.p.found)
	for _, name := range l.cfg.Categories {
		known[name] = true
	}
	for name := range l.memory.categories {
		known[name] = true
	}
	for _, category := range slices.Sorted(maps.Keys(known)) {
		name, err := cdc.EventTopicName(l.cfg.Topic, l.cfg.Database, category)
		if err != nil {
			return cdc.Terminal("topic-name", "Set topic: of the pipeline.", "category %q: %w", category, err)
		}
		t := l.topics[name]
		if t == nil {
			t = &topic{name: name}
			for i := range l.cfg.Partitions {
				t.partitions = append(t.partitions, &partition{tp: cdc.TopicPartition{Topic: name, Partition: int32(i)}})
			}
			l.topics[name] = t
		}
		l.categories[category] = t
		if rec, ok := l.memory.categories[category]; ok {
			if rec.Topic != name && !l.p.republish {
				return cdc.Terminal("topic-changed",
					fmt.Sprintf("Set topic: of the pipeline back; or have all events written to the new topics too: %s", mendRepublish),
					"events of category %q are in topic %q, and topic: now gives %q", category, rec.Topic, name)
			}
			if rec.Topic == name {
				t.recorded, t.id = true, rec.ID
			}
		}
	}
	return l.checkNames()
}

// checkNames refuses what Kafka refuses (Topic.hasCollision), and too much.
func (l *life) checkNames() error {
	if len(l.topics) > maxTopics {
		return cdc.Terminal("too-many-topics",
			"A category is the part of a stream's name before the first '/': a kind of thing, never an id. Leave {category} out of topic: to have one topic for all.",
			"%d categories would have a topic each, %d are allowed", len(l.topics), maxTopics)
	}
	folded := map[string]string{strings.ReplaceAll(l.cfg.Progress, ".", "_"): l.cfg.Progress}
	for _, name := range slices.Sorted(maps.Keys(l.topics)) {
		f := strings.ReplaceAll(name, ".", "_")
		if other, taken := folded[f]; taken {
			return cdc.Terminal("topic-collision", "Set topic: of the pipeline.",
				"topics %q and %q: Kafka takes names that differ only in '.' and '_' for one", other, name)
		}
		folded[f] = name
	}
	return nil
}

// specs is every topic of the pipeline as it must be, sorted by name.
func (l *life) specs() []cdc.TopicSpec {
	specs := []cdc.TopicSpec{{Name: l.cfg.Progress, Partitions: 1, Replication: l.cfg.Replication, Policy: cdc.PolicyProgress}}
	for _, name := range slices.Sorted(maps.Keys(l.topics)) {
		specs = append(specs, cdc.TopicSpec{
			Name: name, Partitions: l.cfg.Partitions, Replication: l.cfg.Replication,
			Policy: cdc.PolicyHistory, Overrides: l.cfg.TopicConfig,
		})
	}
	return specs
}

// plan says what is to be done to the topics, and refuses those that have lost
// events, or could.
func (l *life) plan(ctx context.Context) ([]compaction.Step, error) {
	states, err := l.states(ctx)
	if err != nil {
		return nil, err
	}
	if err := l.lost(states); err != nil {
		return nil, err
	}
	return judge(l.specs(), states)
}

func (l *life) states(ctx context.Context) (map[string]cdc.TopicState, error) {
	specs := l.specs()
	names := make([]string, len(specs))
	for i, s := range specs {
		names[i] = s.Name
	}
	states, err := l.client.Topics(ctx, names...)
	if err != nil {
		return nil, err
	}
	for name, s := range states {
		if s.Partitions > 0 && len(s.Config) == 0 { // its settings are asked for behind its partitions
			return nil, fmt.Errorf("topic %q was deleted while it was looked at", name)
		}
	}
	return states, nil
}

// lost refuses a topic that was written and is no more, or is another one.
func (l *life) lost(states map[string]cdc.TopicState) error {
	for _, name := range slices.Sorted(maps.Keys(l.topics)) {
		t, s := l.topics[name], states[name]
		switch {
		case !t.recorded:
		case s.Partitions == 0:
			return cdc.Terminal("topic-missing", mendRepublish,
				"topic %q is gone, which held events of the log", name)
		case t.id != "" && s.ID != "" && s.ID != t.id:
			return cdc.Terminal("topic-recreated", "Delete the topic if it holds records, then: "+mendRepublish,
				"topic %q was deleted and made again: its id is %s, the events were written to the one with id %s", name, s.ID, t.id)
		}
	}
	return nil
}

// judge is the law on the topics' settings. Steps are safe; a refusal says what to do
// about events that may be gone already.
func judge(specs []cdc.TopicSpec, states map[string]cdc.TopicState) ([]compaction.Step, error) {
	steps, err := compaction.Plan(specs, states)
	var t *cdc.TerminalError
	switch {
	case err == nil:
		return steps, nil
	case asTerminal(err, &t):
		return nil, cdc.Terminal(t.Reason, t.Mend+"\nIf events are missing in a topic, delete it, then: "+mendRepublish, "%w", t.Err)
	}
	return nil, cdc.Terminal("configuration", "Mend topic_config: of the pipeline.", "%w", err)
}

func (l *life) apply(ctx context.Context, steps []compaction.Step) error {
	l.hook(HookTopics)
	for _, s := range steps {
		l.log.Info("topic", "step", s.String())
	}
	return compaction.Apply(ctx, l.client, steps)
}

const maxMessage = "max.message.bytes"

// takeOver makes this life the only writer of the topics.
func (l *life) takeOver(ctx context.Context) error {
	states, err := l.states(ctx)
	if err != nil {
		return err
	}
	wc := l.cfg.Writer
	wc.TransactionalID, wc.Hook = "", l.cfg.Hook
	if l.cfg.Delivery == ExactlyOnce {
		wc.TransactionalID = l.cfg.Name
	}
	for _, s := range states { // one writer, one limit: the least that a topic takes
		n, err := strconv.Atoi(s.Config[maxMessage])
		if over, set := l.cfg.TopicConfig[maxMessage]; set && l.topics[s.Name] != nil {
			n, err = strconv.Atoi(over) // set a moment ago perhaps, and not yet told by every broker
		}
		if err == nil && n > 0 && (wc.MaxRecordBytes == 0 || n < wc.MaxRecordBytes) {
			wc.MaxRecordBytes = n
		}
	}
	l.w = l.client.NewWriter(wc)
	all := []cdc.TopicPartition{{Topic: l.cfg.Progress}}
	for _, name := range slices.Sorted(maps.Keys(l.topics)) {
		for _, p := range l.topics[name].partitions {
			all = append(all, p.tp)
		}
	}
	l.hook(HookTakeOver)
	if err := l.w.TakeOver(ctx, all); err != nil {
		return err
	}
	l.w.Start(context.WithoutCancel(ctx)) // an orderly stop still has to flush; close ends it
	l.progressTo = l.w.Target(all[0])
	for _, t := range l.topics {
		for _, p := range t.partitions {
			p.target = l.w.Target(p.tp)
			// Without a fence the last record proves nothing.
			p.asked = l.cfg.Delivery == AtLeastOnce
		}
	}
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	l.p.now = &view{writer: l.w}
	l.p.status.Topics = len(l.topics)
	l.p.status.TakeOvers++
	return nil
}

// settle records as what the topics were made, and claims the progress: who waits
// sees that somebody publishes.
func (l *life) settle(ctx context.Context) error {
	states, err := l.states(ctx)
	if err != nil {
		return err
	}
	if err := l.lost(states); err != nil {
		return err
	}
	l.hook(HookCategories)
	if err := l.recordCategories(states); err != nil {
		return err
	}
	at, err := l.eventAt(ctx, l.memory.position())
	if err != nil {
		return err
	}
	l.read, l.acked, l.marked = at, at, at.pos
	l.replayTo = l.head
	if err := l.putProgress(at, false); err != nil {
		return err
	}
	if err := l.flush(ctx); err != nil {
		return err
	}
	for name := range l.categories { // recorded: the next life finds them by themselves
		delete(l.p.found, name)
	}
	return nil
}

// recordCategories writes the records that are missing, or lack the topic's id.
func (l *life) recordCategories(states map[string]cdc.TopicState) error {
	now := time.Now()
	for _, category := range slices.Sorted(maps.Keys(l.categories)) {
		t := l.categories[category]
		want := CategoryRecord{Format: progressFormat, Topic: t.name, ID: states[t.name].ID}
		if l.memory.categories[category] == want {
			t.recorded, t.id = true, want.ID
			continue
		}
		rec, err := encode(categoryPrefix+category, want, now)
		if err != nil {
			return err
		}
		if err := l.w.Append(l.progressTo, rec, cdc.Stamp{}); err != nil {
			return fmt.Errorf("record category %q: %w", category, err)
		}
		l.memory.categories[category] = want
		t.recorded, t.id = true, want.ID
	}
	return nil
}
