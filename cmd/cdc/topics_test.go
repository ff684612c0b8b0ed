package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
)

// `cdc topics` says what is to be done and does nothing; --apply does it; then
// nothing is left.
func TestTopicsShowAndApply(t *testing.T) {
	t.Parallel()
	r := onCluster(t)
	r.db.Exec(t, "CREATE TABLE t(id int PRIMARY KEY)")
	path := file(t, r.yaml())
	exists := func() bool { return r.topicExists(r.topic("t")) }
	code, out, errOut := command(t, "topics", "--config", path)
	if code != 0 || !strings.Contains(out, "create topic "+r.topic("t")+": state, 3 partitions, cleanup.policy=compact") {
		t.Errorf("topics: %d\n%s%s", code, out, errOut)
	}
	if exists() {
		t.Fatal("the topic was made without --apply")
	}
	code, out, errOut = command(t, "topics", "--apply", "--config", path)
	if code != 0 || !strings.Contains(out, "done: create topic "+r.topic("t")) || !exists() {
		t.Errorf("topics --apply: %d\n%s%s", code, out, errOut)
	}
	code, out, _ = command(t, "topics", "--config", path, "-o", "json")
	var plans []topicPlan
	if err := json.Unmarshal([]byte(out), &plans); err != nil || code != 0 || len(plans) != 2 {
		t.Fatalf("topics -o json: %d %v %s", code, err, out)
	}
	for _, p := range plans {
		if p.Step != "" || p.Applied || p.Pipeline != r.db.Name {
			t.Errorf("after --apply: %+v", p)
		}
	}
	if _, out, _ := command(t, "check", "--config", path); !strings.Contains(out, "the topics are in order") {
		t.Errorf("check says\n%s", out)
	}
}

func (r *rig) topicExists(topic string) bool {
	r.t.Helper()
	found, err := r.admins().ListTopics(r.t.Context(), topic)
	if err != nil {
		r.t.Fatal(err)
	}
	return found.Has(topic)
}

// 87, 88: a topic with another number of partitions, and one whose records are
// deleted by age, are refused with the reason and the command, by topics, check
// and run alike.
func TestCase088TopicsRefused(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name       string
		partitions int32
		config     map[string]*string
		want, mend string
	}{
		{"87 partitions", 4, map[string]*string{"cleanup.policy": new("compact")}, "partitions is 4, want 3", "kafka-topics.sh"},
		{"88 retention", 3, map[string]*string{"cleanup.policy": new("delete"), "retention.ms": new("1000")}, "cleanup.policy is delete, want compact", "kafka-configs.sh"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := onCluster(t)
			r.db.Exec(t, "CREATE TABLE t(id int PRIMARY KEY)")
			if _, err := r.admins().CreateTopic(t.Context(), tt.partitions, 1, tt.config, r.topic("t")); err != nil {
				t.Fatal(err)
			}
			path := file(t, r.yaml())
			for _, args := range [][]string{{"topics"}, {"topics", "--apply"}, {"run"}} {
				code, _, errOut := command(t, append(args, "--config", path)...)
				if code != exitFailed || !strings.Contains(errOut, tt.want) || !strings.Contains(errOut, "\n"+tt.mend) && !strings.Contains(errOut, tt.mend) {
					t.Errorf("%v exits with %d, want %d and %q, %q in\n%s", args, code, exitFailed, tt.want, tt.mend, errOut)
				}
			}
			wrong := findings(t, path, exitEnvironment)
			if len(wrong) != 1 || !strings.Contains(wrong[0].What, tt.want) || !strings.Contains(wrong[0].Mend, tt.mend) {
				t.Errorf("check finds %+v", wrong)
			}
		})
	}
}

// admins is an independent client for topics.
func (r *rig) admins() *kadm.Client {
	r.t.Helper()
	return kadm.NewClient(r.client())
}
