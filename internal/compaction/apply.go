package compaction

import (
	"context"
	"fmt"

	"cdc/internal/cdc"
)

// Viewer looks at topics.
type Viewer interface {
	// Topics returns the named topics that exist, by name, with their effective
	// settings. A topic that does not exist is left out or has no partitions. It
	// blocks and may be called concurrently.
	Topics(ctx context.Context, names ...string) (map[string]cdc.TopicState, error)
}

// Admin looks at topics and changes them. Both changes are acknowledged by the
// cluster when they return.
type Admin interface {
	Viewer
	// CreateTopic creates a topic with these settings; it is an error if it exists.
	CreateTopic(ctx context.Context, spec cdc.TopicSpec, config map[string]string) error
	// SetTopicConfig sets these settings and leaves all others as they are.
	SetTopicConfig(ctx context.Context, topic string, config map[string]string) error
}

// Look asks for the wanted topics and plans: what `cdc topics` shows.
func Look(ctx context.Context, v Viewer, want []cdc.TopicSpec) ([]Step, error) {
	names := make([]string, len(want))
	for i, spec := range want {
		names[i] = spec.Name
	}
	actual, err := v.Topics(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("look at %d topics: %w", len(names), err)
	}
	return Plan(want, actual)
}

// Apply carries steps out in order and stops at the first that fails. Steps that
// were done before are not harmed by doing them again after a new Look.
func Apply(ctx context.Context, a Admin, steps []Step) error {
	for _, s := range steps {
		switch s.Kind {
		case StepCreate:
			if err := a.CreateTopic(ctx, s.Topic, s.Config); err != nil {
				return fmt.Errorf("create topic %q: %w", s.Topic.Name, err)
			}
		case StepConfig:
			if err := a.SetTopicConfig(ctx, s.Topic.Name, s.Config); err != nil {
				return fmt.Errorf("configure topic %q: %w", s.Topic.Name, err)
			}
		default:
			panic(fmt.Sprintf("step of kind %d", s.Kind))
		}
	}
	return nil
}
