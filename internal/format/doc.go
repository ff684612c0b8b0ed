// Package format turns a change of a row into the bytes of Kafka records: key,
// value and headers, in the lean form "json" or byte for byte as Debezium's
// PostgreSQL connector writes them ("debezium-json").
//
// A Format belongs to a pipeline. Compile turns a relation into an Encoder once
// per version of the relation: there every decision by type is made, names are
// quoted and defaults encoded, so that a row is only appended, without an
// allocation. An Encoder reuses its buffers and is used by one goroutine.
//
// The package is pure: it reads Postgres' text forms under the session settings
// that the source pins (ISO dates in UTC, intervalstyle postgres, hexadecimal
// bytea, shortest exact floats, lc_monetary C, UTF-8). A text that is not of
// that form is a ValueError, never a guess: no value is invented.
package format
