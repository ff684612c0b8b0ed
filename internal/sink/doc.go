// Package sink writes records to Kafka exactly once and reads them back.
//
// A Client is a cluster: topics, offsets, readers. A Writer is the one producer
// of a pipeline. What makes it exactly-once is not a transaction but the log
// itself:
//
//   - Every record carries its position in the source's stream (cdc.StampHeader).
//     Positions strictly increase within a partition and nothing between them is
//     left out, so the last record of a partition says what the partition holds.
//   - Batches are idempotent: the broker knows producer id, epoch and sequence of
//     the last five of a partition, so what it refused for a while may be sent
//     again. What it did not answer is not: the log is asked (docs/adr/0007).
//   - TakeOver makes this instance the only one that can write: a new epoch for
//     the transactional id, then an empty transaction whose markers carry the epoch
//     into the log of every partition. Only after the marker has been seen there
//     may LastStamp be believed: nobody can append behind its back any more.
//
// The states of a Writer:
//
//	new ── TakeOver ──▶ owner ── Start ──▶ running ──┬── Close ──▶ closed
//	                                                 └── failed: Err says why
//
// A failed Writer never runs again. ErrNeedTakeOver means: make a new one on the
// same Client (it remembers the producer id), TakeOver, ask for the last stamps
// and replay. ErrFenced means that another instance has taken over since.
package sink
