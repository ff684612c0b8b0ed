package cdctest

import (
	"context"
	"fmt"
)

func startApache(_ context.Context, version string) (node, error) {
	return nil, fmt.Errorf("start Apache Kafka %s: no such manifest", version)
}
