// Command crash runs the real cdc against real servers, hurts all of them, and
// compares what is in the topics with what Postgres committed:
//
//	go run ./internal/crash -seeds 100                  # the broker in cdc, and one beside it
//	go run ./internal/crash -seeds 50 -kafka 4.4.0      # Apache Kafka
//	go run ./internal/crash -seed 17 -kafka embedded    # one seed again
//	go run ./internal/crash -seed 17 -kafka embedded -shrink
//	go run ./internal/crash -seeds 20 -sabotage no-skip # it must find what is broken
//
// A seed is a workload, a list of faults and a configuration (plan.go,
// workload.go, faults.go). How the operating system interleaves them is not part
// of it, so a seed that failed once may have to be run a few times.
//
// The checker (check.go) knows nothing of cdc but what the documentation tells
// every reader of a topic. It compares with an audit table that triggers fill in
// the same transactions, so it knows every version of every key in its order.
package main
