// Package broker runs a Kafka broker inside this process: franz-go's kfake with
// a data directory. It serves one machine: trial, development, tests. Any Kafka
// client can connect to it; it listens on loopback only.
//
// What was acknowledged survives a kill of the process at any moment, a forced
// compaction included. With synced writes it also survives a crash of the
// machine as far as the file system keeps what was fsynced; kfake does not fsync
// directories. It has no replicas: a lost disk is a lost log.
//
// Around kfake stand four things it lacks. A guard reads every request's header
// before kfake does, because kfake allocates whatever length a frame announces
// and dereferences nil for an api key that it does not know. A lock keeps a
// second process off the directory. And compaction, which in kfake deletes
// segments before it has written their successors, runs while no request is
// served and over hard links to the old segments, which the next start puts back
// if it was killed in between. And a full disk is seen before kfake writes to it,
// because what it could not write it acknowledges when it is sent again (disk.go).
package broker
