// Package eventstore keeps immutable events in Postgres: the schema es, appends,
// reads, the numbered log, declared types, states and snapshots.
//
// The rules live in the database, in functions that only their owner may change
// (schema/): an application in any language appends in a transaction of its own,
// from psql as well, and is held to them. This package installs the functions,
// calls them, and gives their errors types.
//
// Order: an event has a version in its stream when it is appended, and a position
// in the log when its transaction has committed. Positions follow the order of the
// commits in the WAL, which one reader per store writes down in es.log
// (LogWriter); a transaction's events stand together. So every event below a
// position that is visible is visible too, and a view that has applied a position
// has applied everything before it.
package eventstore
