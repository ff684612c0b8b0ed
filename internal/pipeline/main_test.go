package pipeline_test

import (
	"errors"
	"os"
	"testing"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		os.Exit(child())
	}
	cdctest.Main(m)
}

func asTerminal(err error, te **cdc.TerminalError) bool { return errors.As(err, te) }
