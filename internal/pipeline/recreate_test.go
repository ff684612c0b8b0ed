package pipeline_test

import (
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"cdc/internal/cdc"
	"cdc/internal/pipeline"
)

// A topic that was deleted and made again between two looks has its name, its
// partitions and its settings, and none of its records: only its id tells.
func TestG4TopicMadeAgainWhileRunning(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *pipeline.Config) { c.GuardEvery = 500 * time.Millisecond })
	r.db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY)`, `INSERT INTO t VALUES (1)`)
	run := r.start()
	run.waitState(cdc.StateStreaming)
	adm := kadm.NewClient(r.k.Client(t))
	configs, err := adm.DescribeTopicConfigs(t.Context(), r.topic("t"))
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string]*string{}
	for _, c := range configs[0].Configs {
		if c.Source.String() == "DYNAMIC_TOPIC_CONFIG" {
			settings[c.Key] = c.Value
		}
	}
	// The guard remembers the id of its first look, which may come after the first
	// time the topic is made again: then the second time shows it.
	again := time.Now()
	run.wait("the guard", func(s cdc.Status) bool {
		if s.State != cdc.StateFailed && time.Now().After(again) {
			again = time.Now().Add(4 * r.cfg.GuardEvery)
			if _, err := adm.DeleteTopics(t.Context(), r.topic("t")); err != nil {
				t.Fatal(err)
			}
			if _, err := adm.CreateTopics(t.Context(), int32(r.cfg.Partitions), 1, settings, r.topic("t")); err != nil {
				t.Fatal(err)
			}
		}
		return s.State == cdc.StateFailed
	})
	// A look between the two finds no topic at all.
	te := run.failsEither("topic-recreated", "topic-missing")
	if !strings.Contains(te.Error(), r.topic("t")) {
		t.Errorf("error %q does not name the topic", te)
	}
}
