package view

import (
	"os"
	"testing"

	"cdc/internal/cdctest"
)

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		os.Exit(runChild())
	}
	if os.Getenv(coordinatorVariable) != "" {
		os.Exit(runCoordinator())
	}
	cdctest.Main(m)
}
