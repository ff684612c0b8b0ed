package compaction

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"cdc/internal/cdc"
)

// Fault is one thing about a topic that is not as its policy wants it.
type Fault struct {
	Topic   string
	Setting string // the topic setting, or "partitions", "topic"
	Want    string
	Got     string
	Verdict Verdict // Mendable or Dangerous
	Why     string  // what the wanted value is for
	Mend    string  // the command that mends it
}

func (f Fault) String() string {
	return fmt.Sprintf("topic %q: %s is %s, want %s so that %s", f.Topic, f.Setting, f.Got, f.Want, f.Why)
}

// Missing: the topic is not there. A state topic's records come back by a copy of
// its table, as they do for one that is Remade.
func (f Fault) Missing() bool { return f.Setting == faultTopic && f.Got == gotMissing }

// Remade: the topic was deleted and made again, and has none of its records.
func (f Fault) Remade() bool { return f.Setting == faultTopic && f.Got != gotMissing }

const gotMissing = "missing"

// The settings of Fault that are not topic configuration.
const (
	faultTopic      = "topic"
	faultPartitions = "partitions"
)

// Drift compares a topic with its spec: what a plan mends or refuses, and what
// the guard looks for while the pipeline runs. A topic that does not exist is
// one Dangerous fault: the caller that may create topics asks Plan. Settings
// that the cluster does not report are left alone, except the cleanup policy,
// without which nothing can be said. The order is that of the law.
func Drift(spec cdc.TopicSpec, state cdc.TopicState) []Fault {
	if state.Partitions == 0 {
		return []Fault{missing(spec)}
	}
	var faults []Fault
	if state.Partitions != spec.Partitions {
		faults = append(faults, Fault{Topic: spec.Name, Setting: faultPartitions,
			Want: strconv.Itoa(spec.Partitions), Got: strconv.Itoa(state.Partitions), Verdict: Dangerous,
			Why: "a key stays in its partition, and with it the order of its records", Mend: mendPartitions(spec, state)})
	}
	for _, r := range laws[spec.Policy] {
		want, ownWant := r.want, true
		if over, set := spec.Overrides[r.setting]; set {
			want, ownWant = over, false
		}
		got, reported := state.Config[r.setting]
		switch {
		case !reported && (r.setting == "cleanup.policy" || !ownWant):
			got = "not set"
		case !reported, got == want, ownWant && r.judge(got) == Tolerated:
			continue
		}
		verdict := r.judge(got)
		if verdict == Tolerated {
			verdict = Mendable // lawful, but not what was configured
		}
		faults = append(faults, fault(spec, r.setting, want, got, verdict, r.why))
	}
	return append(faults, driftOfOverrides(spec, state)...)
}

func missing(spec cdc.TopicSpec) Fault {
	return Fault{Topic: spec.Name, Setting: faultTopic, Want: "present", Got: gotMissing, Verdict: Dangerous,
		Why: "the records that the progress record counts as written are there", Mend: mendMissing(spec)}
}

// driftOfOverrides looks at the configured settings that the law does not name.
func driftOfOverrides(spec cdc.TopicSpec, state cdc.TopicState) []Fault {
	var faults []Fault
	for setting, want := range spec.Overrides {
		named := slices.ContainsFunc(laws[spec.Policy], func(r rule) bool { return r.setting == setting })
		if got, reported := state.Config[setting]; !named && got != want {
			if !reported {
				got = "not set"
			}
			faults = append(faults, fault(spec, setting, want, got, Mendable, "the topic is as configured"))
		}
	}
	slices.SortFunc(faults, func(a, b Fault) int { return strings.Compare(a.Setting, b.Setting) })
	return faults
}

func fault(spec cdc.TopicSpec, setting, want, got string, v Verdict, why string) Fault {
	f := Fault{Topic: spec.Name, Setting: setting, Want: want, Got: got, Verdict: v, Why: why, Mend: "cdc topics --apply"}
	if v == Dangerous {
		f.Mend = mendDanger(spec, f)
	}
	return f
}

// alterConfig is the command for one setting. kafka-configs.sh takes values with
// commas in brackets only.
func alterConfig(topic, setting, value string) string {
	if strings.Contains(value, ",") {
		value = "[" + value + "]"
	}
	return fmt.Sprintf("kafka-configs.sh --bootstrap-server HOST:PORT --alter --entity-type topics --entity-name %s --add-config %s=%s", topic, setting, value)
}

// mendDanger names the two steps that follow a danger: stop losing, then put back.
func mendDanger(spec cdc.TopicSpec, f Fault) string {
	return alterConfig(f.Topic, f.Setting, f.Want) + "\nthen put back what the topic may have lost: " + refill(spec)
}

// mendPartitions: Kafka never lowers the number, and keys written since it rose
// lie in other partitions than their earlier records.
func mendPartitions(spec cdc.TopicSpec, state cdc.TopicState) string {
	return fmt.Sprintf("set partitions: %d if the new number is meant; then in both cases kafka-topics.sh --bootstrap-server HOST:PORT --delete --topic %s, cdc topics --apply, and write the topic again: %s",
		state.Partitions, spec.Name, refill(spec))
}

func mendMissing(spec cdc.TopicSpec) string {
	if spec.Policy == cdc.PolicyProgress {
		return refill(spec)
	}
	return "cdc topics --apply creates the topic; then write it again: " + refill(spec)
}

// refill is how the records of a topic come back.
func refill(spec cdc.TopicSpec) string {
	switch spec.Policy {
	case cdc.PolicyHistory:
		return "publish the events again from es.log (it holds all of them)"
	}
	return "cdc drop PIPELINE, then cdc run, copies the tables again; what was deleted meanwhile is tombstoned"
}
