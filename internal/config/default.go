package config

import "strings"

// Default is a configuration without pipelines; DefaultPipeline is one pipeline.
// Together they hold every default there is.
func Default() *Config {
	return &Config{
		Kafka:     Kafka{Replication: -1},
		Admin:     Admin{Listen: "127.0.0.1:8083"},
		Log:       Log{Level: "info", Format: "text"},
		Pipelines: map[string]*Pipeline{},
	}
}

// DefaultPipeline is the pipeline of that name with every key left out. It has
// no tables yet.
func DefaultPipeline(name string) *Pipeline { return defaultPipeline(name, ModeCDC) }

// DefaultEventsPipeline is that of mode: events.
func DefaultEventsPipeline(name string) *Pipeline { return defaultPipeline(name, ModeEvents) }

// topicOf is the default of Pipeline.Topic.
var topicOf = map[string]string{
	ModeCDC:    "{database}.{schema}.{table}",
	ModeEvents: "{database}.events.{category}",
}

// defaultPipeline has the defaults of both modes: those of the other have no
// effect.
func defaultPipeline(name, mode string) *Pipeline {
	slot := SlotName(name)
	return &Pipeline{
		Name:          name,
		Mode:          mode,
		Topic:         topicOf[mode],
		Partitions:    6,
		Format:        "json",
		Debezium:      Debezium{Unknown: "text", Name: name},
		Delivery:      "exactly-once",
		Snapshot:      Snapshot{Mode: "initial", Workers: 4},
		Toast:         "fill",
		Truncate:      "tombstones",
		Oversize:      "stop",
		OnGap:         "stop",
		DeadLetter:    name + ".dead-letter",
		MaxEvent:      1 << 20,
		Snapshots:     Snapshots{Every: 200},
		Memory:        64 << 20,
		Compression:   "none",
		Verify:        Verify{Rate: 32 << 20},
		Slot:          Slot{Name: slot},
		Publication:   slot,
		ProgressTopic: "_cdc.progress." + name,
	}
}

// SlotName is the replication slot a pipeline of that name has unless another is
// set: Postgres allows no '-' in it.
func SlotName(pipeline string) string { return strings.ReplaceAll(pipeline, "-", "_") }

// setDefaults is called when the section appears in a file.
func (e *Embedded) setDefaults() {
	e.Dir = "data/broker"
	e.Listen = "127.0.0.1:9092"
}

// One version is enough until the fields change.
func (e *EventType) setDefaults() { e.Schema = 1 }

// Of a new reaction nobody expects that it takes up what happened years ago.
func (r *Reaction) setDefaults() { r.From = "end" }
