// Package rights holds the tests of pipelines that may do in Kafka what
// docs/operations.md asks for, and less.
//
// Only Apache Kafka has an authorizer. The rights are those of the commands in the
// documentation and of the commands that errors name, so both are shown to be right.
// The tests run one after the other on one node, in make test-kafka alone.
package rights
