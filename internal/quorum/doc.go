// Package quorum holds the tests of a pipeline on three nodes of Apache Kafka that
// are killed, stopped, frozen and restarted under it.
//
// One node has no elections: a partition's leader and a transaction's coordinator
// only move, and replicas only lag behind, where there are several. The tests run
// one after the other on one cluster, in make test-kafka alone.
package quorum
