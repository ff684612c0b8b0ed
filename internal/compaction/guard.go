package compaction

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"cdc/internal/cdc"
)

// DefaultGuardInterval is how often a Guard looks when it is not told: often
// enough to notice a changed policy before the log cleaner acts on it in most
// cases (log.retention.check.interval.ms is 5 minutes), seldom enough to cost
// one metadata and one configuration request.
const DefaultGuardInterval = 30 * time.Second

// Guard watches the topics of a running pipeline (G4). The topics it watches can
// be added to at any time; everything else is Run's.
type Guard struct {
	viewer Viewer
	every  time.Duration
	log    *slog.Logger

	mu    sync.Mutex
	specs map[string]cdc.TopicSpec

	ids    map[string]string // topic → its id when first seen
	mended map[string]string // topic/setting → value last warned about
	blind  bool              // the last look failed
}

// NewGuard makes a guard over the topics of one pipeline. log carries the
// pipeline's name already. every ≤ 0 means DefaultGuardInterval.
func NewGuard(v Viewer, every time.Duration, log *slog.Logger, specs ...cdc.TopicSpec) *Guard {
	if every <= 0 {
		every = DefaultGuardInterval
	}
	g := &Guard{viewer: v, every: every, log: log,
		specs: make(map[string]cdc.TopicSpec), ids: make(map[string]string), mended: make(map[string]string)}
	g.Watch(specs...)
	return g
}

// Watch adds topics, or replaces their specs. It may be called while Run runs.
func (g *Guard) Watch(specs ...cdc.TopicSpec) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range specs {
		g.specs[s.Name] = s
	}
}

// Know tells the ids, by topic, of topics that were seen before the first look, so
// that one made again in between is noticed. Call it before Run.
func (g *Guard) Know(ids map[string]string) {
	for topic, id := range ids {
		if id != "" {
			g.ids[topic] = id
		}
	}
}

// Run looks at once and then at every interval, until ctx ends (nil) or a topic
// could lose records (a terminal error that says which, and the command that
// mends it). A look that fails is logged and tried again: not to know is not a
// fault, and a cluster that cannot be asked takes no records either.
func (g *Guard) Run(ctx context.Context) error {
	tick := time.NewTicker(g.every)
	defer tick.Stop()
	for {
		if err := g.Check(ctx); cdc.IsTerminal(err) {
			return err
		} else if ctx.Err() != nil {
			return nil
		} else {
			g.note(err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Check looks once. It must not be called while Run runs.
func (g *Guard) Check(ctx context.Context) error {
	specs := g.watched()
	names := make([]string, 0, len(specs))
	for name := range specs {
		names = append(names, name)
	}
	if len(names) == 0 {
		return nil
	}
	actual, err := g.viewer.Topics(ctx, names...)
	if err != nil {
		return fmt.Errorf("look at %d topics: %w", len(names), err)
	}
	var dangers []Fault
	for _, name := range slices.Sorted(slices.Values(names)) {
		if actual[name].Partitions > 0 && len(actual[name].Config) == 0 {
			continue // deleted between the two requests of a look: the next one says what it is now
		}
		dangers = append(dangers, g.weigh(specs[name], actual[name])...)
	}
	return refuse(dangers)
}

func (g *Guard) watched() map[string]cdc.TopicSpec {
	g.mu.Lock()
	defer g.mu.Unlock()
	return maps.Clone(g.specs)
}

// weigh returns the dangerous faults of one topic and warns once of the others.
func (g *Guard) weigh(spec cdc.TopicSpec, state cdc.TopicState) (dangers []Fault) {
	faults := Drift(spec, state)
	if f, ok := g.recreated(spec, state); ok {
		faults = append(faults, f)
	}
	for _, f := range faults {
		if f.Verdict == Dangerous {
			dangers = append(dangers, f)
			continue
		}
		if key := f.Topic + "/" + f.Setting; g.mended[key] != f.Got {
			g.mended[key] = f.Got
			g.log.Warn("topic setting has changed", "topic", f.Topic, "setting", f.Setting,
				"got", f.Got, "want", f.Want, "why", f.Why, "mend", f.Mend)
		}
	}
	return dangers
}

// recreated compares topic ids (Kafka 2.8): a topic that was deleted and made
// again between two looks has another one and none of its records.
func (g *Guard) recreated(spec cdc.TopicSpec, state cdc.TopicState) (Fault, bool) {
	if state.ID == "" {
		return Fault{}, false
	}
	first, known := g.ids[spec.Name]
	if !known {
		g.ids[spec.Name] = state.ID
	}
	if !known || first == state.ID {
		return Fault{}, false
	}
	return Fault{Topic: spec.Name, Setting: faultTopic, Want: "the one with id " + first, Got: "another, with id " + state.ID,
		Verdict: Dangerous, Why: "the records that the progress record counts as written are there", Mend: "the topic was deleted and made again; write it again: " + refill(spec)}, true
}

// note logs the change between seeing and not seeing, not every look.
func (g *Guard) note(err error) {
	switch {
	case err != nil && !g.blind:
		g.log.Warn("cannot look at the topics' policies, trying again", "error", err, "every", g.every)
	case err == nil && g.blind:
		g.log.Info("the topics' policies can be seen again")
	}
	g.blind = err != nil
}
