package compaction

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"cdc/internal/cdc"
)

// StepKind tells what a Step does.
type StepKind byte

// The kinds of step.
const (
	StepCreate StepKind = iota + 1
	StepConfig
)

func (k StepKind) String() string {
	if k == StepCreate {
		return "create"
	}
	return "configure"
}

// Step brings one topic nearer to its spec without risk to its records.
type Step struct {
	Kind   StepKind
	Topic  cdc.TopicSpec
	Config map[string]string // StepCreate: all settings; StepConfig: those to set
	Faults []Fault           // StepConfig: what it mends
}

// String is the line that `cdc topics` prints.
func (s Step) String() string {
	settings := make([]string, 0, len(s.Config))
	for _, k := range slices.Sorted(maps.Keys(s.Config)) {
		settings = append(settings, k+"="+s.Config[k])
	}
	list := strings.Join(settings, " ")
	if s.Kind == StepCreate {
		return fmt.Sprintf("create topic %s: %s, %d partitions, %s", s.Topic.Name, s.Topic.Policy, s.Topic.Partitions, list)
	}
	return fmt.Sprintf("configure topic %s: %s", s.Topic.Name, list)
}

// Refusal holds the faults that no step mends. Plan wraps it in a terminal error.
type Refusal struct {
	Faults []Fault
}

func (r *Refusal) Error() string {
	lines := make([]string, len(r.Faults))
	for i, f := range r.Faults {
		lines[i] = f.String()
	}
	return strings.Join(lines, "\n")
}

// Gone names the topics that are missing or were made again, where nothing else is
// wrong with any; nil otherwise.
func (r *Refusal) Gone() []string {
	var topics []string
	for _, f := range r.Faults {
		if !f.Missing() && !f.Remade() {
			return nil
		}
		topics = append(topics, f.Topic)
	}
	return topics
}

// Reason is the machine word of the terminal errors of this package.
const Reason = "topic-policy"

// Plan compares the topics a pipeline wants with those the cluster has and
// returns the safe steps between them, in order of topic name. What could have
// lost records already, or would move keys, is never a step: it comes as a
// terminal error around a *Refusal, together with the steps of the other topics.
//
// A topic that is not there is created. Whether it was there before, and its
// records with it, only the caller can know: Vanished.
func Plan(want []cdc.TopicSpec, actual map[string]cdc.TopicState) ([]Step, error) {
	specs := slices.Clone(want)
	slices.SortFunc(specs, func(a, b cdc.TopicSpec) int { return cmp.Compare(a.Name, b.Name) })
	var steps []Step
	var refused []Fault
	for i, spec := range specs {
		if i > 0 && specs[i-1].Name == spec.Name {
			return nil, fmt.Errorf("plan topics: %q is wanted twice", spec.Name)
		}
		if spec.Partitions < 1 {
			return nil, fmt.Errorf("plan topics: %q with %d partitions", spec.Name, spec.Partitions)
		}
		config, err := Settings(spec)
		if err != nil {
			return nil, fmt.Errorf("plan topics: %w", err)
		}
		if actual[spec.Name].Partitions == 0 {
			steps = append(steps, Step{Kind: StepCreate, Topic: spec, Config: config})
			continue
		}
		step, dangers := mend(spec, actual[spec.Name])
		refused = append(refused, dangers...)
		if len(step.Config) > 0 && len(dangers) == 0 {
			steps = append(steps, step)
		}
	}
	return steps, refuse(refused)
}

// Vanished refuses the creation of topics that the pipeline has written before,
// by its progress record: an empty topic in the place of one that was deleted
// would be taken for whole.
func Vanished(steps []Step, written func(topic string) bool) error {
	var gone []Fault
	for _, s := range steps {
		if s.Kind == StepCreate && written(s.Topic.Name) {
			gone = append(gone, missing(s.Topic))
		}
	}
	return refuse(gone)
}

func mend(spec cdc.TopicSpec, state cdc.TopicState) (step Step, dangers []Fault) {
	step = Step{Kind: StepConfig, Topic: spec, Config: map[string]string{}}
	for _, f := range Drift(spec, state) {
		if f.Verdict == Dangerous {
			dangers = append(dangers, f)
			continue
		}
		step.Config[f.Setting] = f.Want
		step.Faults = append(step.Faults, f)
	}
	return step, dangers
}

// refuse makes the terminal error of the dangerous faults, nil for none.
func refuse(faults []Fault) error {
	if len(faults) == 0 {
		return nil
	}
	mends := make([]string, 0, len(faults))
	for _, f := range faults {
		if !slices.Contains(mends, f.Mend) {
			mends = append(mends, f.Mend)
		}
	}
	return cdc.Terminal(Reason, strings.Join(mends, "\n"), "%w", &Refusal{Faults: faults})
}
