package compaction

import (
	"maps"
	"strings"
	"testing"

	"cdc/internal/cdc"
)

func spec(policy cdc.Policy, overrides ...string) cdc.TopicSpec {
	s := cdc.TopicSpec{Name: "t", Partitions: 6, Replication: -1, Policy: policy}
	for i := 0; i < len(overrides); i += 2 {
		if s.Overrides == nil {
			s.Overrides = map[string]string{}
		}
		s.Overrides[overrides[i]] = overrides[i+1]
	}
	return s
}

func TestSettings(t *testing.T) {
	for _, tt := range []struct {
		spec cdc.TopicSpec
		want map[string]string
	}{
		{spec(cdc.PolicyState), map[string]string{
			"cleanup.policy": "compact", "retention.ms": "-1", "retention.bytes": "-1",
			"min.compaction.lag.ms": "60000", "delete.retention.ms": "86400000", "min.cleanable.dirty.ratio": "0.5",
		}},
		{spec(cdc.PolicyHistory), map[string]string{
			"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1",
		}},
		{spec(cdc.PolicyProgress), map[string]string{
			"cleanup.policy": "compact", "retention.ms": "-1", "retention.bytes": "-1", "segment.bytes": "67108864",
		}},
		{spec(cdc.PolicyState, "min.compaction.lag.ms", "3600000", "compression.type", "zstd"), map[string]string{
			"cleanup.policy": "compact", "retention.ms": "-1", "retention.bytes": "-1",
			"min.compaction.lag.ms": "3600000", "delete.retention.ms": "86400000", "min.cleanable.dirty.ratio": "0.5",
			"compression.type": "zstd",
		}},
		{spec(cdc.PolicyHistory, "unclean.leader.election.enable", "false"), map[string]string{
			"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1",
			"unclean.leader.election.enable": "false",
		}},
	} {
		got, err := Settings(tt.spec)
		if err != nil || !maps.Equal(got, tt.want) {
			t.Errorf("%s %v:\n got %v, %v\nwant %v", tt.spec.Policy, tt.spec.Overrides, got, err, tt.want)
		}
	}
}

func TestSettingsRefuseUnlawfulOverrides(t *testing.T) {
	for _, tt := range []struct {
		spec cdc.TopicSpec
		want string
	}{
		{spec(cdc.PolicyState, "cleanup.policy", "compact,delete"), "cleanup.policy=compact,delete"},
		{spec(cdc.PolicyState, "retention.ms", "604800000"), "retention.ms=604800000"},
		{spec(cdc.PolicyState, "min.compaction.lag.ms", "0"), "min.compaction.lag.ms=0"},
		{spec(cdc.PolicyState, "min.compaction.lag.ms", "a minute"), "min.compaction.lag.ms=a minute"},
		{spec(cdc.PolicyState, "delete.retention.ms", "1000"), "delete.retention.ms=1000"},
		{spec(cdc.PolicyState, "min.cleanable.dirty.ratio", "1"), "min.cleanable.dirty.ratio=1"},
		{spec(cdc.PolicyState, "max.compaction.lag.ms", "30000"), "below min.compaction.lag.ms"},
		{spec(cdc.PolicyHistory, "cleanup.policy", "compact"), "cleanup.policy=compact"},
		{spec(cdc.PolicyHistory, "retention.bytes", "1073741824"), "retention.bytes=1073741824"},
		{spec(cdc.PolicyProgress, "cleanup.policy", "delete"), "cleanup.policy=delete"},
		{spec(cdc.PolicyProgress, "unclean.leader.election.enable", "true"), "unclean.leader.election.enable=true"},
		{spec(0), "no policy"},
	} {
		if got, err := Settings(tt.spec); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s %v: got %v, %v, want an error with %q", tt.spec.Policy, tt.spec.Overrides, got, err, tt.want)
		}
	}
}

// What a topic's setting may be, and what not (G4). Case 88.
func TestCase088Verdicts(t *testing.T) {
	for _, tt := range []struct {
		policy  cdc.Policy
		setting string
		actual  string
		want    Verdict
	}{
		{cdc.PolicyState, "cleanup.policy", "compact", Tolerated},
		{cdc.PolicyState, "cleanup.policy", " compact ", Tolerated},
		{cdc.PolicyState, "cleanup.policy", "delete", Dangerous},
		{cdc.PolicyState, "cleanup.policy", "compact,delete", Dangerous},
		{cdc.PolicyState, "cleanup.policy", "delete, compact", Dangerous},
		{cdc.PolicyState, "cleanup.policy", "", Dangerous},
		{cdc.PolicyState, "cleanup.policy", "none", Dangerous},
		{cdc.PolicyState, "retention.ms", "604800000", Mendable},
		{cdc.PolicyState, "retention.bytes", "1", Mendable},
		{cdc.PolicyState, "min.compaction.lag.ms", "0", Mendable},
		{cdc.PolicyState, "min.compaction.lag.ms", "59999", Mendable},
		{cdc.PolicyState, "min.compaction.lag.ms", "60001", Tolerated},
		{cdc.PolicyState, "delete.retention.ms", "0", Mendable},
		{cdc.PolicyState, "delete.retention.ms", "604800000", Tolerated},
		{cdc.PolicyState, "min.cleanable.dirty.ratio", "0.01", Tolerated},
		{cdc.PolicyState, "min.cleanable.dirty.ratio", "1.0", Mendable},
		{cdc.PolicyState, "unclean.leader.election.enable", "true", Mendable},
		{cdc.PolicyHistory, "cleanup.policy", "delete", Tolerated},
		{cdc.PolicyHistory, "cleanup.policy", "compact", Dangerous},
		{cdc.PolicyHistory, "cleanup.policy", "compact,delete", Dangerous},
		{cdc.PolicyHistory, "retention.ms", "604800000", Dangerous},
		{cdc.PolicyHistory, "retention.ms", "9223372036854775807", Tolerated},
		{cdc.PolicyHistory, "retention.ms", "forever", Dangerous},
		{cdc.PolicyHistory, "retention.bytes", "0", Dangerous},
		{cdc.PolicyHistory, "retention.bytes", "-1", Tolerated},
		{cdc.PolicyProgress, "cleanup.policy", "compact,delete", Dangerous},
		{cdc.PolicyProgress, "segment.bytes", "1073741824", Tolerated},
	} {
		s := spec(tt.policy)
		state := lawful(t, s)
		state.Config[tt.setting] = tt.actual
		faults := Drift(s, state)
		got := Tolerated
		if len(faults) == 1 && faults[0].Setting == tt.setting && faults[0].Got == tt.actual {
			got = faults[0].Verdict
		} else if len(faults) > 0 {
			t.Errorf("%s %s=%s: faults %v", tt.policy, tt.setting, tt.actual, faults)
		}
		if got != tt.want {
			t.Errorf("%s topic with %s=%q: %s, want %s", tt.policy, tt.setting, tt.actual, got, tt.want)
		}
	}
}

// lawful is a topic exactly as spec wants it.
func lawful(t *testing.T, s cdc.TopicSpec) cdc.TopicState {
	t.Helper()
	config, err := Settings(s)
	if err != nil {
		t.Fatal(err)
	}
	return cdc.TopicState{Name: s.Name, Partitions: s.Partitions, Replication: 1, Config: config}
}

// Every rule must hold itself, or a plan would never come to an end.
func TestLawsHoldThemselves(t *testing.T) {
	for policy := range laws {
		for _, s := range []cdc.TopicSpec{spec(policy), spec(policy, "compression.type", "zstd")} {
			if faults := Drift(s, lawful(t, s)); len(faults) > 0 {
				t.Errorf("a new %s topic has faults: %v", policy, faults)
			}
		}
	}
}
