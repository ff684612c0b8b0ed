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
func DefaultPipeline(name string) *Pipeline {
	slot := SlotName(name)
	return &Pipeline{
		Name:          name,
		Mode:          "cdc",
		Topic:         "{database}.{schema}.{table}",
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
		Memory:        64 << 20,
		Compression:   "none",
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
