package cdctest

import (
	"testing"

	"cdc/internal/child"
)

// FreePort is a port of 127.0.0.1 that nobody listens on, from a range that the
// system does not give to outgoing connections.
func FreePort(t testing.TB) int {
	t.Helper()
	port, err := child.FreePort()
	if err != nil {
		t.Fatalf("%v", err)
	}
	return port
}
