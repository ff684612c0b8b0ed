package cdc

import (
	"fmt"
	"strings"
)

// TopicPartition names one partition of a Kafka topic.
type TopicPartition struct {
	Topic     string
	Partition int32
}

func (tp TopicPartition) String() string { return fmt.Sprintf("%s/%d", tp.Topic, tp.Partition) }

// TopicSpec is a topic as a pipeline wants it.
type TopicSpec struct {
	Name        string
	Partitions  int
	Replication int // -1: the broker's default
	Policy      Policy
	Overrides   map[string]string // configured topic settings beyond the policy's own
}

// TopicState is a topic as the cluster has it. Partitions is 0 where it does not exist.
type TopicState struct {
	Name        string
	Partitions  int
	Replication int
	Config      map[string]string // effective settings, defaults included
	// ID is the topic's id (Kafka 2.8), "" where broker or client do not tell. A
	// topic that was deleted and made again has another.
	ID string
}

// TopicName fills a template's {database}, {schema} and {table}; characters that
// Kafka does not allow in a topic become '_', as Debezium does it. Two tables may
// collide that way: the caller refuses them.
func TopicName(template, database, schema, table string) (string, error) {
	return fillTopic(template, "{database}, {schema} and {table}",
		"{database}", topicPart(database), "{schema}", topicPart(schema), "{table}", topicPart(table))
}

// EventTopicName fills a template's {database} and {category} in the same way.
// Categories that come out as one topic share it without harm: its records keep
// the order of the log, and their keys are the names of streams.
func EventTopicName(template, database, category string) (string, error) {
	return fillTopic(template, "{database} and {category}",
		"{database}", topicPart(database), "{category}", topicPart(category))
}

func fillTopic(template, known string, pairs ...string) (string, error) {
	name := strings.NewReplacer(pairs...).Replace(template)
	switch {
	case strings.ContainsAny(name, "{}"):
		return "", fmt.Errorf("topic template %q: only %s are known", template, known)
	case name == "" || name == "." || name == "..":
		return "", fmt.Errorf("topic template %q gives the topic name %q, which Kafka refuses", template, name)
	case len(name) > maxTopicName:
		return "", fmt.Errorf("topic name %q has %d characters, Kafka allows %d", name, len(name), maxTopicName)
	}
	for _, r := range name {
		if !topicRune(r) {
			return "", fmt.Errorf("topic template %q: character %q is not allowed in a topic name (letters, digits, '.', '_', '-')", template, r)
		}
	}
	return name, nil
}

const maxTopicName = 249 // Kafka's own limit (Topic.MAX_NAME_LENGTH)

func topicRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-'
}

func topicPart(s string) string {
	return strings.Map(func(r rune) rune {
		if topicRune(r) {
			return r
		}
		return '_'
	}, s)
}
