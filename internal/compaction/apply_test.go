package compaction_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"cdc/internal/cdc"
	"cdc/internal/compaction"
)

func specs() []cdc.TopicSpec {
	return []cdc.TopicSpec{
		{Name: "rows", Partitions: 3, Replication: -1, Policy: cdc.PolicyState, Overrides: map[string]string{"compression.type": "zstd"}},
		{Name: "events", Partitions: 2, Replication: -1, Policy: cdc.PolicyHistory},
		{Name: "_cdc.progress.p", Partitions: 1, Replication: -1, Policy: cdc.PolicyProgress},
	}
}

func (c *cluster) look() []compaction.Step {
	c.t.Helper()
	steps, err := compaction.Look(c.t.Context(), c, specs())
	c.must(err)
	return steps
}

// A plan carried out leaves nothing to plan, on a broker that tells.
func TestApply(t *testing.T) {
	c := newCluster(t)
	steps := c.look()
	if len(steps) != 3 {
		t.Fatalf("steps %v, want three topics created", steps)
	}
	c.must(compaction.Apply(t.Context(), c, steps))
	if again := c.look(); len(again) > 0 {
		t.Errorf("a second plan has steps: %v", again)
	}
	c.set("rows", "retention.ms", "1000")
	c.set("rows", "compression.type", "none")
	steps = c.look()
	if len(steps) != 1 || steps[0].Kind != compaction.StepConfig {
		t.Fatalf("steps %v, want one that configures rows", steps)
	}
	c.must(compaction.Apply(t.Context(), c, steps))
	if again := c.look(); len(again) > 0 {
		t.Errorf("after mending, steps: %v", again)
	}
}

// Topics made by hand with the policy alone are taken over.
func TestApplyTakesOverTopics(t *testing.T) {
	c := newCluster(t)
	for _, s := range specs() {
		policy := "compact"
		if s.Policy == cdc.PolicyHistory {
			policy = "delete"
		}
		config := map[string]string{"cleanup.policy": policy}
		if s.Policy == cdc.PolicyHistory {
			config["retention.ms"] = "-1"
		}
		c.must(c.CreateTopic(t.Context(), s, config))
	}
	c.must(compaction.Apply(t.Context(), c, c.look()))
	if again := c.look(); len(again) > 0 {
		t.Errorf("steps are left: %v", again)
	}
}

// failing fails the n-th change.
type failing struct {
	*cluster
	n int
}

var errRefused = errors.New("refused by a policy of the cluster")

func (f *failing) CreateTopic(ctx context.Context, s cdc.TopicSpec, config map[string]string) error {
	if f.n--; f.n < 0 {
		return errRefused
	}
	return f.cluster.CreateTopic(ctx, s, config)
}

// Whichever step fails, it is named, and a new plan goes on from there.
func TestApplyFailsAndGoesOn(t *testing.T) {
	for n := range 3 {
		c := newCluster(t)
		steps := c.look()
		err := compaction.Apply(t.Context(), &failing{c, n}, steps)
		if !errors.Is(err, errRefused) || !strings.Contains(err.Error(), steps[n].Topic.Name) {
			t.Errorf("step %d: got %v, want the refusal and the name %q", n, err, steps[n].Topic.Name)
		}
		rest := c.look()
		if len(rest) != 3-n {
			t.Errorf("step %d failed: the new plan has %d steps, want %d", n, len(rest), 3-n)
		}
		c.must(compaction.Apply(t.Context(), c, rest))
	}
}
