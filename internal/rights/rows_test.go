package rights

import (
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"cdc/internal/cdctest"
	"cdc/internal/pipeline"
)

// 177: with the documented rights and no others a pipeline of rows makes its topics,
// copies, streams, starts again and is verified; it lacks nothing. Without one of
// them it stops, says which, and goes on when it was given what the error says.
func TestCase177RightsOfRows(t *testing.T) {
	r := newRig(t)
	rights := documented(t, "### mode: cdc")
	r.k.Allow(t, rights...)
	r.start()
	r.settle()
	r.start()
	r.verify()
	r.settle()
	r.once()

	const data, progress, dead = "university.", "_cdc.progress.rows", "rows.dead-letter"
	topic := func(op kmsg.ACLOperation, name string) cdctest.Right {
		return cdctest.Right{Operation: op, Type: kmsg.ACLResourceTypeTopic, Name: name}
	}
	for _, tt := range []struct {
		name   string
		revoke cdctest.Right
		before func()
		reason string
		says   []string
	}{
		{"write as the transactional id", cdctest.Right{Operation: kmsg.ACLOperationWrite, Type: kmsg.ACLResourceTypeTransactionalId, Name: "rows"}, nil,
			"acl-transactional-id", []string{`"rows"`, "right Write"}},
		{"write to a table's topic", topic(kmsg.ACLOperationWrite, data), nil,
			"acl-topic", []string{"university.public.students", "right Write"}},
		{"write to the progress topic", topic(kmsg.ACLOperationWrite, progress), nil,
			"acl-topic", []string{progress, "right Write"}},
		{"read of a table's topic", topic(kmsg.ACLOperationRead, data), nil,
			"acl-topic", []string{"university.public.students", "right Read"}},
		{"read of the progress topic", topic(kmsg.ACLOperationRead, progress), nil,
			"acl-topic", []string{progress, "right Read"}},
		{"settings of a table's topic", topic(kmsg.ACLOperationDescribeConfigs, data), nil,
			"acl-topic", []string{"university.public.students", "right DescribeConfigs"}},
		{"settings of the dead-letter topic", topic(kmsg.ACLOperationDescribeConfigs, dead), nil,
			"acl-topic", []string{dead, "right DescribeConfigs"}},
		{"everything about the progress topic", topic(kmsg.ACLOperationAny, progress), nil,
			"acl-topic", []string{progress, "right Describe"}},
		{"making a topic", topic(kmsg.ACLOperationCreate, data), func() { r.db.Exec(t, `CREATE TABLE courses(id int PRIMARY KEY)`) },
			"acl-topic", []string{"university.public.courses", "right Create"}},
		// Not among the rights: nothing asks for it but a setting that has changed.
		{"changing a setting", topic(kmsg.ACLOperationAlterConfigs, data), func() { r.cfg.TopicConfig = map[string]string{"segment.ms": "600000"} },
			"acl-topic", []string{"university.public.", "right AlterConfigs"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r.t = t
			r.allow(rights)
			r.k.Revoke(t, tt.revoke)
			if tt.before != nil {
				tt.before()
			}
			for tries := 0; ; tries++ { // a command for one topic of several
				r.run()
				if r.streams() {
					if tries == 0 {
						t.Errorf("it streams without the right %v", tt.revoke)
					}
					break
				}
				if tries == 3 {
					t.Fatalf("refused still: %v", r.err)
				}
				granted(t, r.k, r.refused(), tt.reason, tt.says...)
			}
			r.settle()
			r.once()
		})
	}
	r.t = t

	// A right goes while rows stream: some of them are in their topic by then.
	r.cfg.GuardEvery = 50 * time.Millisecond
	for _, tt := range []struct {
		revoke cdctest.Right
		says   []string
	}{
		{topic(kmsg.ACLOperationWrite, data), []string{"university.public.students", "right Write"}},
		{topic(kmsg.ACLOperationWrite, progress), []string{progress, "right Write"}},
		{topic(kmsg.ACLOperationDescribeConfigs, data), []string{"university.public.", "right DescribeConfigs"}},
	} {
		t.Run("while it streams: "+strings.Join(tt.says, ", "), func(t *testing.T) {
			r.t = t
			r.allow(rights)
			r.start()
			r.db.Exec(t, `INSERT INTO students SELECT (SELECT max(id) FROM students) + n FROM generate_series(1, 2000) n`)
			r.k.Revoke(t, tt.revoke)
			r.enrol()
			granted(t, r.k, r.refused(), "acl-topic", tt.says...)
			r.k.Allow(t, rights...)
			r.start()
			r.settle()
			r.once()
		})
	}
	r.t = t
	r.start()
	r.verify()
	r.settle()
	// Not among the rights either: cdc drop alone deletes a topic.
	granted(t, r.k, pipeline.Drop(t.Context(), r.cfg), "acl-topic", progress, "right Delete")
	if err := pipeline.Drop(t.Context(), r.cfg); err != nil {
		t.Errorf("drop: %v", err)
	}
}
