package eventstore

import (
	"testing"

	"cdc/internal/cdctest"
)

func TestMain(m *testing.M) { cdctest.Main(m) }
