package compaction

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"cdc/internal/cdc"
)

// Verdict is what the law says about a setting of a topic.
type Verdict byte

const (
	// Tolerated: as wanted, or different and harmless.
	Tolerated Verdict = iota
	// Mendable: nothing is lost yet; setting the wanted value is safe.
	Mendable
	// Dangerous: the topic may have lost records already, or would take effect
	// as another kind of topic. Only somebody who knows can mend it.
	Dangerous
)

func (v Verdict) String() string {
	return [...]string{"tolerated", "mendable", "dangerous"}[v]
}

// rule is the law on one setting.
type rule struct {
	setting string
	want    string
	why     string // completes "… so that"
	// judge weighs an actual value that is not literally the wanted one.
	judge func(actual string) Verdict
	// silent settings are not sent when a topic is created, because hosted
	// clusters refuse some of them even at their default.
	silent bool
}

const (
	unlimited = "-1"
	never     = math.MaxInt64

	// A reader that stops for less than a day still sees every tombstone; a
	// snapshot of a state topic by a new reader takes less than that too.
	minDeleteRetention = 24 * 60 * 60 * 1000
	// A restart reads a partition's last position again, back to the newest
	// progress record, which is at most some seconds old: what it has to find
	// there must not be compacted away under it.
	minCompactionLag = 60 * 1000
	// Progress records come once a second, so this bounds the log to some days'
	// worth; hosted clusters refuse less than 50 MiB.
	progressSegment = 64 << 20
)

// The law. A setting that is not named here is the cluster's or the user's.
var laws = map[cdc.Policy][]rule{
	cdc.PolicyState: append([]rule{
		{setting: "cleanup.policy", want: "compact", judge: policyIs("compact"),
			why: "the latest record of every key stays: the topic is the table"},
		{setting: "retention.ms", want: unlimited, judge: always(Mendable),
			why: "no row vanishes for being old, should retention ever apply"},
		{setting: "retention.bytes", want: unlimited, judge: always(Mendable),
			why: "no row vanishes for want of space, should retention ever apply"},
		{setting: "min.compaction.lag.ms", want: strconv.Itoa(minCompactionLag), judge: atLeast(minCompactionLag),
			why: "the stretch that a restart reads again is never compacted under it"},
		{setting: "delete.retention.ms", want: strconv.Itoa(minDeleteRetention), judge: atLeast(minDeleteRetention),
			why: "a reader that was away for a while still sees the deletes"},
		{setting: "min.cleanable.dirty.ratio", want: "0.5", judge: ratioUpTo(0.9),
			why: "the topic is compacted at all, and not at every record"},
	}, common...),
	cdc.PolicyHistory: append([]rule{
		{setting: "cleanup.policy", want: "delete", judge: policyIs("delete"),
			why: "an event is never replaced by a later one of its stream"},
		{setting: "retention.ms", want: unlimited, judge: endless,
			why: "no event vanishes for being old"},
		{setting: "retention.bytes", want: unlimited, judge: endless,
			why: "no event vanishes for want of space"},
	}, common...),
	cdc.PolicyProgress: append([]rule{
		{setting: "cleanup.policy", want: "compact", judge: policyIs("compact"),
			why: "the newest progress record always stays"},
		{setting: "retention.ms", want: unlimited, judge: always(Mendable),
			why: "a pipeline that was stopped for long finds its progress"},
		{setting: "retention.bytes", want: unlimited, judge: always(Mendable),
			why: "a pipeline that was stopped for long finds its progress"},
		{setting: "segment.bytes", want: strconv.Itoa(progressSegment), judge: always(Tolerated),
			why: "old progress records are compacted away soon"},
	}, common...),
}

// common holds for every topic of a pipeline.
var common = []rule{
	{setting: "unclean.leader.election.enable", want: "false", judge: always(Mendable), silent: true,
		why: "a replica that lacks acknowledged records never becomes the leader"},
}

// Settings is the configuration to create a topic with: the policy's own and the
// overrides of spec. An override that breaks the law is an error.
func Settings(spec cdc.TopicSpec) (map[string]string, error) {
	rules, ok := laws[spec.Policy]
	if !ok {
		return nil, fmt.Errorf("topic %q has no policy", spec.Name)
	}
	config := make(map[string]string, len(rules)+len(spec.Overrides))
	maps.Copy(config, spec.Overrides)
	for _, r := range rules {
		over, set := spec.Overrides[r.setting]
		switch {
		case set && over != r.want && r.judge(over) != Tolerated:
			return nil, fmt.Errorf("topic %q: %s=%s is not possible for a %s topic, want %s so that %s",
				spec.Name, r.setting, over, spec.Policy, r.want, r.why)
		case !set && !r.silent:
			config[r.setting] = r.want
		}
	}
	if err := checkLags(spec.Name, config); err != nil {
		return nil, err
	}
	return config, nil
}

// checkLags refuses what Kafka refuses too, with the reason: a greatest lag below the least.
func checkLags(topic string, config map[string]string) error {
	greatest, ok := number(config["max.compaction.lag.ms"])
	least, isLeast := number(config["min.compaction.lag.ms"])
	if ok && isLeast && greatest < least {
		return fmt.Errorf("topic %q: max.compaction.lag.ms=%d is below min.compaction.lag.ms=%d", topic, greatest, least)
	}
	return nil
}

// policyIs wants exactly one cleanup policy. Any other list can have dropped
// records that this kind of topic keeps.
func policyIs(want string) func(string) Verdict {
	return func(actual string) Verdict {
		words := strings.FieldsFunc(actual, func(r rune) bool { return r == ',' || r == ' ' })
		if len(words) > 0 && !slices.ContainsFunc(words, func(w string) bool { return w != want }) {
			return Tolerated
		}
		return Dangerous
	}
}

func always(v Verdict) func(string) Verdict { return func(string) Verdict { return v } }

// endless tolerates any way to write "no limit"; a limit may have cut already.
func endless(actual string) Verdict {
	if n, ok := number(actual); ok && (n < 0 || n == never) {
		return Tolerated
	}
	return Dangerous
}

func atLeast(least int64) func(string) Verdict {
	return func(actual string) Verdict {
		if n, ok := number(actual); ok && n >= least {
			return Tolerated
		}
		return Mendable
	}
}

func ratioUpTo(most float64) func(string) Verdict {
	return func(actual string) Verdict {
		if x, err := strconv.ParseFloat(actual, 64); err == nil && x >= 0 && x <= most {
			return Tolerated
		}
		return Mendable
	}
}

func number(s string) (int64, bool) {
	n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	return n, err == nil
}
