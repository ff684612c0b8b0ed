package history

import (
	"context"
	"maps"
	"slices"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/compaction"
)

// Republish has the events from a position on published again: it makes the topics
// that are missing and puts the progress back. The next life of the publication then
// writes what each partition lacks; what one holds already is left out by the stamp
// of its last record, so nothing is there twice. topics narrows which topics are made
// or taken over as new ones; empty: all of the pipeline.
//
// A publication that runs meanwhile is replaced and starts again by itself
// (ErrFenced). Whatever Republish refuses it has not changed, and to run it again
// after a failure is safe.
//
// The order matters. First nobody else can write. Then topics are made, and taken
// over in their turn: a batch of the instance before may still be on its way to a
// topic of that name. A topic that is not the one of the record must be empty behind
// that, or its first events would be missing for good. The progress goes back before
// the topics are recorded: a crash between leaves topics that are refused, not topics
// that are taken for whole.
func Republish(ctx context.Context, cfg Config, from int64, topics []string) error {
	if from < 1 {
		return cdc.Terminal("configuration", "", "republish from position %d: positions begin at 1", from)
	}
	p := New(cfg)
	p.republish = true
	defer p.Close()
	l := newLife(p)
	defer l.close()
	if err := l.dial(ctx); err != nil {
		return err
	}
	if err := l.remember(ctx); err != nil {
		return err
	}
	if from > l.head+1 {
		return cdc.Terminal("configuration", "", "republish from position %d: the log ends at %d", from, l.head)
	}
	if s := l.memory.progress; s != nil && s.Store != l.cfg.StoreID {
		return l.agree(ctx) // says so
	}
	if cfg.Delivery == AtLeastOnce {
		if err := l.awaitNobody(ctx); err != nil {
			return err
		}
	}
	if err := l.resolve(); err != nil {
		return err
	}
	for _, name := range topics {
		if l.topics[name] == nil {
			return cdc.Terminal("configuration", "", "republish topic %q: the pipeline has %v", name, slices.Sorted(maps.Keys(l.topics)))
		}
	}
	if err := l.remake(ctx, topics); err != nil {
		return err
	}
	return l.putBack(ctx, from, topics)
}

// awaitNobody refuses while a publication without a fence runs: it would write its
// own progress over ours.
func (l *life) awaitNobody(ctx context.Context) error {
	if l.memory.progress == nil || l.memory.progress.Released {
		return nil
	}
	l.log.Info("looking whether the publication runs: delivery is at-least-once, which cannot replace it", "for", l.p.silent)
	end := l.memory.end
	for begin := time.Now(); time.Since(begin) < l.p.silent; {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(waitPoll):
		}
		if err := l.memory.update(ctx, l.client, l.cfg.Progress); err != nil {
			return err
		}
		if l.memory.end != end {
			return cdc.Terminal("publication-runs", "Stop the daemon first.", "the publication of pipeline %q is running", l.cfg.Name)
		}
	}
	return nil
}

// remake takes the topics over that are there, makes those that are asked for and
// are not, and takes all of them over.
func (l *life) remake(ctx context.Context, only []string) error {
	states, err := l.states(ctx)
	if err != nil {
		return err
	}
	all := l.topics
	there := map[string]*topic{}
	var wanted []cdc.TopicSpec
	missing := false
	for _, spec := range l.specs() {
		t, gone := all[spec.Name], states[spec.Name].Partitions == 0
		asked := t == nil || len(only) == 0 || slices.Contains(only, spec.Name)
		if gone && !asked {
			delete(all, spec.Name) // stays missing: the next life says so
			continue
		}
		wanted = append(wanted, spec)
		missing = missing || gone
		if !gone && t != nil {
			there[spec.Name] = t
		}
	}
	steps, err := judge(wanted, states)
	if err != nil {
		return err
	}
	if missing && states[l.cfg.Progress].Partitions > 0 {
		l.topics = there
		if err := l.takeOver(ctx); err != nil {
			return err
		}
		if err := l.w.Close(); err != nil {
			return err
		}
		l.topics = all
	}
	steps = slices.DeleteFunc(steps, func(s compaction.Step) bool { return s.Kind != compaction.StepCreate })
	for _, s := range steps {
		if t := all[s.Topic.Name]; t != nil {
			t.made = true
		}
	}
	if err := l.apply(ctx, steps); err != nil {
		return err
	}
	return l.takeOver(ctx)
}

// putBack writes the progress back behind a look at every partition.
func (l *life) putBack(ctx context.Context, from int64, only []string) error {
	if err := l.memory.update(ctx, l.client, l.cfg.Progress); err != nil {
		return err
	}
	states, err := l.states(ctx)
	if err != nil {
		return err
	}
	if err := l.survey(ctx, states, only); err != nil {
		return err
	}
	at, err := l.eventAt(ctx, min(from-1, l.memory.position()))
	if err != nil {
		return err
	}
	l.hook(HookRepublish)
	if err := l.putProgress(at, false); err != nil {
		return err
	}
	if err := l.flush(ctx); err != nil {
		return err
	}
	maps.DeleteFunc(l.categories, func(_ string, t *topic) bool {
		return l.topics[t.name] == nil || len(only) > 0 && !slices.Contains(only, t.name)
	})
	if err := l.recordCategories(states); err != nil {
		return err
	}
	if err := l.putProgress(at, true); err != nil {
		return err
	}
	if err := l.flush(ctx); err != nil {
		return err
	}
	l.log.Info("the log is published again", "from", at.pos+1, "topics", len(l.topics))
	return nil
}

// survey looks at the last record of every partition: what it holds must be of this
// store, and a topic that is asked for and not the recorded one must be empty.
func (l *life) survey(ctx context.Context, states map[string]cdc.TopicState, only []string) error {
	var all []*partition
	for _, name := range slices.Sorted(maps.Keys(l.topics)) {
		all = append(all, l.topics[name].partitions...)
	}
	for chunk := range slices.Chunk(all, surveyChunk) {
		l.unasked = chunk
		if err := l.ask(ctx); err != nil {
			return err
		}
	}
	for _, p := range all {
		t := l.topics[p.tp.Topic]
		asked := len(only) == 0 || slices.Contains(only, t.name)
		another := t.recorded && t.id != "" && t.id != states[t.name].ID
		if asked && (t.made || another) && p.last > 0 {
			return cdc.Terminal("topic-recreated", "Delete the topic, then run this again: it makes it.",
				"topic %q was deleted and made again, and written since up to position %d without the events before", t.name, p.last)
		}
	}
	return nil
}

// surveyChunk is how many partitions share the patience of one look (lastStampWithin).
const surveyChunk = 200
