package history_test

import (
	"flag"
	"testing"

	"cdc/internal/cdctest"
)

func TestMain(m *testing.M) {
	cdctest.RunVictim(child)
	flag.Parse()
	// They wait for brokers most of the time: more of them than cores run at once.
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	cdctest.Main(m)
}
