package eventlog_test

import (
	"os"
	"testing"

	"cdc/internal/cdctest"
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		os.Exit(child())
	}
	cdctest.Main(m)
}
