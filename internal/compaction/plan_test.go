package compaction

import (
	"errors"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"cdc/internal/cdc"
)

func named(name string, s cdc.TopicSpec) cdc.TopicSpec { s.Name = name; return s }

func TestPlan(t *testing.T) {
	stateTopic, history := named("rows", spec(cdc.PolicyState)), named("events", spec(cdc.PolicyHistory))
	altered := func(s cdc.TopicSpec, partitions int, settings ...string) cdc.TopicState {
		st := lawful(t, s)
		st.Partitions = partitions
		for i := 0; i < len(settings); i += 2 {
			st.Config[settings[i]] = settings[i+1]
		}
		return st
	}
	for _, tt := range []struct {
		name    string
		want    []cdc.TopicSpec
		actual  []cdc.TopicState
		steps   []string
		refused []string
		mend    []string
	}{
		{name: "nothing there", want: []cdc.TopicSpec{stateTopic, history}, steps: []string{
			"create topic events: history, 6 partitions, cleanup.policy=delete retention.bytes=-1 retention.ms=-1",
			"create topic rows: state, 6 partitions, cleanup.policy=compact delete.retention.ms=86400000 min.cleanable.dirty.ratio=0.5 min.compaction.lag.ms=60000 retention.bytes=-1 retention.ms=-1",
		}},
		{name: "all there", want: []cdc.TopicSpec{stateTopic, history}, actual: []cdc.TopicState{lawful(t, stateTopic), lawful(t, history)}},
		{name: "tightened", want: []cdc.TopicSpec{stateTopic},
			actual: []cdc.TopicState{altered(stateTopic, 6, "retention.ms", "604800000", "min.compaction.lag.ms", "0")},
			steps:  []string{"configure topic rows: min.compaction.lag.ms=60000 retention.ms=-1"}},
		{name: "override that is not set yet", want: []cdc.TopicSpec{named("rows", spec(cdc.PolicyState, "compression.type", "zstd"))},
			actual: []cdc.TopicState{lawful(t, stateTopic)},
			steps:  []string{"configure topic rows: compression.type=zstd"}},
		{name: "override tighter than the topic", want: []cdc.TopicSpec{named("rows", spec(cdc.PolicyState, "min.compaction.lag.ms", "3600000"))},
			actual: []cdc.TopicState{altered(stateTopic, 6, "min.compaction.lag.ms", "120000")},
			steps:  []string{"configure topic rows: min.compaction.lag.ms=3600000"}},
		{name: "case 87: partitions added", want: []cdc.TopicSpec{stateTopic}, actual: []cdc.TopicState{altered(stateTopic, 12)},
			refused: []string{`topic "rows": partitions is 12, want 6`}, mend: []string{"kafka-topics.sh --bootstrap-server HOST:PORT --delete --topic rows"}},
		{name: "case 88: state topic not compacted", want: []cdc.TopicSpec{stateTopic}, actual: []cdc.TopicState{altered(stateTopic, 6, "cleanup.policy", "delete")},
			refused: []string{`cleanup.policy is delete, want compact`}, mend: []string{"--entity-name rows --add-config cleanup.policy=compact", "cdc drop PIPELINE"}},
		{name: "history topic compacted", want: []cdc.TopicSpec{history}, actual: []cdc.TopicState{altered(history, 6, "cleanup.policy", "compact,delete")},
			refused: []string{`cleanup.policy is compact,delete, want delete`}, mend: []string{"es.log"}},
		{name: "history topic that ends", want: []cdc.TopicSpec{history}, actual: []cdc.TopicState{altered(history, 6, "retention.ms", "604800000", "retention.bytes", "5")},
			refused: []string{"retention.ms is 604800000", "retention.bytes is 5"}, mend: []string{"retention.ms=-1", "retention.bytes=-1"}},
		{name: "one refused, the other created, a refused one is not touched", want: []cdc.TopicSpec{stateTopic, history},
			actual:  []cdc.TopicState{altered(stateTopic, 5, "retention.ms", "1")},
			steps:   []string{"create topic events: history, 6 partitions, cleanup.policy=delete retention.bytes=-1 retention.ms=-1"},
			refused: []string{"partitions is 5, want 6"}, mend: []string{"cdc topics --apply"}},
		{name: "policy unknown", want: []cdc.TopicSpec{stateTopic}, actual: []cdc.TopicState{{Name: "rows", Partitions: 6}},
			refused: []string{"cleanup.policy is not set"}, mend: []string{"kafka-configs.sh"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			actual := map[string]cdc.TopicState{}
			for _, st := range tt.actual {
				actual[st.Name] = st
			}
			steps, err := Plan(tt.want, actual)
			var lines []string
			for _, s := range steps {
				lines = append(lines, s.String())
			}
			if !reflect.DeepEqual(lines, tt.steps) {
				t.Errorf("steps:\n got %q\nwant %q", lines, tt.steps)
			}
			checkRefusal(t, err, tt.refused, tt.mend)
		})
	}
}

func checkRefusal(t *testing.T, err error, reasons, mends []string) {
	t.Helper()
	if len(reasons) == 0 {
		if err != nil {
			t.Errorf("refused: %v", err)
		}
		return
	}
	var terminal *cdc.TerminalError
	var refusal *Refusal
	if !errors.As(err, &terminal) || !errors.As(err, &refusal) || terminal.Reason != Reason {
		t.Fatalf("got %v, want a terminal refusal", err)
	}
	if len(refusal.Faults) != len(reasons) {
		t.Errorf("got %d faults, want %d: %v", len(refusal.Faults), len(reasons), err)
	}
	for _, want := range reasons {
		if !strings.Contains(terminal.Err.Error(), want) {
			t.Errorf("reason %q is not in %q", want, terminal.Err)
		}
	}
	for _, want := range mends {
		if !strings.Contains(terminal.Mend, want) {
			t.Errorf("mend %q is not in %q", want, terminal.Mend)
		}
	}
}

func TestPlanIsDeterministic(t *testing.T) {
	var want []cdc.TopicSpec
	actual := map[string]cdc.TopicState{}
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		s := named(name, spec(cdc.PolicyState, "compression.type", "zstd", "max.message.bytes", "2000000"))
		want = append(want, s)
		if name > "b" {
			st := lawful(t, s)
			st.Config["compression.type"], st.Config["max.message.bytes"] = "none", "1"
			if name > "d" {
				st.Partitions = 1
			}
			actual[name] = st
		}
	}
	first, firstErr := Plan(want, actual)
	for range 50 {
		rand.Shuffle(len(want), func(i, j int) { want[i], want[j] = want[j], want[i] })
		got, err := Plan(want, actual)
		if !reflect.DeepEqual(got, first) || err.Error() != firstErr.Error() {
			t.Fatalf("got %v, %v\nfirst %v, %v", got, err, first, firstErr)
		}
	}
}

func TestPlanRefusesNonsense(t *testing.T) {
	for _, want := range [][]cdc.TopicSpec{
		{spec(cdc.PolicyState), spec(cdc.PolicyState)},
		{{Name: "t", Policy: cdc.PolicyState}},
		{{Name: "t", Partitions: 1}},
		{spec(cdc.PolicyHistory, "retention.ms", "1")},
	} {
		if steps, err := Plan(want, nil); err == nil || steps != nil {
			t.Errorf("Plan(%v) = %v, %v, want an error", want, steps, err)
		}
	}
}

// A topic that was written and is gone must not come back empty.
func TestVanished(t *testing.T) {
	steps, err := Plan([]cdc.TopicSpec{named("old", spec(cdc.PolicyState)), named("new", spec(cdc.PolicyState))}, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = Vanished(steps, func(topic string) bool { return topic == "old" })
	checkRefusal(t, err, []string{`topic "old": topic is missing`}, []string{"cdc topics --apply"})
	if err := Vanished(steps, func(string) bool { return false }); err != nil {
		t.Error(err)
	}
}

func TestCase089TwoTablesOneTopic(t *testing.T) {
	for _, tt := range []struct {
		name   string
		topics map[string]string
		want   string
	}{
		{"each its own", map[string]string{"public.a": "u.a", "public.b": "u.b"}, ""},
		{"one for both", map[string]string{"public.a": "u", "public.b": "u", "public.c": "v"}, `table public.a and table public.b both have topic "u"`},
		{"dot and underscore", map[string]string{"public.a_b": "u.a_b", "public.a.b": "u.a.b"}, "differ only in '.' and '_'"},
		{"none", nil, ""},
	} {
		checkClaim(t, tt.name, CheckNames(tt.topics), tt.want)
	}
}

func TestCase189TwoPipelinesOneTopic(t *testing.T) {
	for _, tt := range []struct {
		name   string
		claims []Claim
		want   string
	}{
		{"apart", []Claim{{"rows", "public.a", "rows.a"}, {"intents", "", "events.course"}}, ""},
		{"one table, two pipelines, one topic", []Claim{{"rows", "public.a", "a"}, {"audit", "public.a", "a"}},
			`table public.a of pipeline audit and table public.a of pipeline rows both have topic "a"`},
		{"a table in a pipeline's own topic", []Claim{{"rows", "public.a", "_cdc.progress.rows"}, {"rows", "", "_cdc.progress.rows"}},
			`pipeline rows and table public.a of pipeline rows both have topic "_cdc.progress.rows"`},
	} {
		checkClaim(t, tt.name, CheckClaims(tt.claims), tt.want)
	}
}

func checkClaim(t *testing.T, name string, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("%s: %v", name, err)
	case want != "" && (!cdc.IsTerminal(err) || !strings.Contains(err.Error(), want)):
		t.Errorf("%s: got %v, want a terminal error with %q", name, err, want)
	}
}
