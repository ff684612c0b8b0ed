package cdctest

import "context"

// StartApache starts Apache Kafka outside of a test, for the benchmarks: its
// jars are fetched once. It returns the broker's address when clients are
// served; stop ends it and removes its data.
func StartApache(ctx context.Context, version string) (addr string, stop func(), err error) {
	n, err := startApache(ctx, version, "", "", "")
	if err != nil {
		return "", nil, err
	}
	return n.addr(), n.close, nil
}
