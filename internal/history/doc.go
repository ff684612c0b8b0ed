// Package history publishes the numbered log of an event store to Kafka topics
// that keep everything: one topic a category, the stream as the key, never
// compacted, never expiring. The log is in Postgres and stays there, so an outage
// of Kafka holds nothing back, and a topic that was lost is written again.
//
// A Publisher is a sequence of lives; Run is one of them:
//
//	waiting    another instance has taken over: until it stops, or is silent
//	check      progress, store and topics agree; whatever does not is terminal,
//	           and nothing was touched
//	take-over  from here on nobody else can write to our partitions
//	replaying  the log from the progress record: what a partition holds is left out
//	streaming  the same, with nothing left to leave out
//
// Every record carries its position in the log. Positions increase strictly within
// a partition and nothing of its share is left out between them, so the last record
// of a partition says what it holds. What holds at every moment:
//
//	progress record ≤ records in every partition ≤ log
//
// An event of a category without a topic ends a life in order: the next one makes
// the topic and takes it over with the others.
//
// # The progress topic
//
// One partition, compacted, records in JSON. Key "progress": Progress, the newest
// counts; at most one a second, and one every ten while nothing happens, which is
// also how an instance shows that it lives and finds out that it was replaced. Key
// "category:NAME": as what a category's topic was made. It is written before the
// topic's first record, so a category without one has no event at or below the
// progress, and a topic with another id than recorded is another topic.
package history
