// Package pgoutput decodes the messages of Postgres' pgoutput plugin, protocol
// version 1, and the envelope they travel in (PostgreSQL documentation,
// "Streaming Replication Protocol" and "Logical Replication Message Formats").
//
// It does no I/O and keeps nothing: what Decode returns aliases its input and
// is reused by the next call. Every byte is read through a bounds-checked
// reader whose first failure sticks; trailing bytes, unknown flags and kinds
// are errors. Which message may follow which is not decided here.
package pgoutput
