// Package cdctest is the test kit: real PostgreSQL servers, brokers, an
// independent reader, a fault proxy and the built binary, for tests and benchmarks.
package cdctest
