package pipeline_test

import (
	"errors"
	"flag"
	"testing"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
)

func TestMain(m *testing.M) {
	cdctest.RunVictim(child)
	// These tests wait for servers most of the time: more of them than cores run at
	// once. Sharing them, they also disturb each other as pipelines in a process do.
	flag.Parse()
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	cdctest.ServeNames()
	cdctest.Main(m)
}

func asTerminal(err error, te **cdc.TerminalError) bool { return errors.As(err, te) }
