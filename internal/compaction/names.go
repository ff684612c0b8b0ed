package compaction

import (
	"cmp"
	"slices"
	"strings"

	"cdc/internal/cdc"
)

// Claim says that a pipeline writes a topic, for a table or for itself.
type Claim struct {
	Pipeline string
	Table    string // schema.table, "" for a topic of the pipeline's own
	Topic    string
}

func (c Claim) String() string {
	switch {
	case c.Pipeline == "":
		return "table " + c.Table
	case c.Table == "":
		return "pipeline " + c.Pipeline
	}
	return "table " + c.Table + " of pipeline " + c.Pipeline
}

// CheckNames refuses two tables that would share a topic: their keys are not
// told apart there, so a row of one would replace a row of the other. The map
// goes from table to topic.
func CheckNames(topics map[string]string) error {
	claims := make([]Claim, 0, len(topics))
	for table, topic := range topics {
		claims = append(claims, Claim{Table: table, Topic: topic})
	}
	return CheckClaims(claims)
}

// CheckClaims refuses a topic with two writers: two tables, or two pipelines,
// whose positions would not increase in one partition. Names that differ only in
// '.' and '_' count as one, because Kafka refuses to create the second
// (Topic.hasCollision: they collide in its metrics).
func CheckClaims(claims []Claim) error {
	sorted := slices.Clone(claims)
	slices.SortFunc(sorted, func(a, b Claim) int {
		return cmp.Or(cmp.Compare(a.Pipeline, b.Pipeline), cmp.Compare(a.Table, b.Table), cmp.Compare(a.Topic, b.Topic))
	})
	owner := make(map[string]Claim, len(sorted))
	for _, c := range sorted {
		folded := strings.ReplaceAll(c.Topic, ".", "_")
		first, taken := owner[folded]
		if !taken {
			owner[folded] = c
			continue
		}
		const mend = "give each table its own topic, for example with {schema} and {table} in the topic template, and each pipeline its own prefix"
		if first.Topic != c.Topic {
			return cdc.Terminal("topic-collision", mend,
				"%s has topic %q and %s has topic %q: Kafka takes names that differ only in '.' and '_' for one",
				first, first.Topic, c, c.Topic)
		}
		return cdc.Terminal("topic-collision", mend,
			"%s and %s both have topic %q: records of one would replace those of the other", first, c, c.Topic)
	}
	return nil
}
