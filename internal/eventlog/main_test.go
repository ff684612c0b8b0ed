package eventlog_test

import (
	"testing"

	"cdc/internal/cdctest"
)

func TestMain(m *testing.M) {
	cdctest.RunVictim(child)
	cdctest.Main(m)
}
