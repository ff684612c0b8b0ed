// Package pipeline moves the changes of one Postgres database to Kafka topics:
// it composes source, format and sink, and owns what lies between them: where to
// start, what to leave out, when a position may be confirmed.
//
// A Pipeline is a sequence of lives. Each life does, in this order:
//
//	waiting    Postgres and Kafka answer; no walsender holds the slot
//	take-over  from here on nobody else can write to our partitions
//	progress   the newest progress record is read: the log is the memory
//	decide     snapshot, create the slot, or stream; or a gap, which is terminal
//	snapshot   rows under one snapshot, ghosts of earlier attempts tombstoned
//	replaying  the stream from the progress record: what a partition holds is left out
//	streaming  the same, with nothing left to leave out
//
// An error that can pass ends the life; the next one begins after a backoff and
// trusts nothing that the last one held in memory. A cdc.TerminalError ends the
// pipeline until somebody acts.
//
// What holds at every moment, in this order, each at or behind the one before:
//
//	slot's confirmed position ≤ progress record ≤ records in every partition
package pipeline
