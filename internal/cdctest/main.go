package cdctest

import (
	"fmt"
	"os"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

// atExit holds what one test binary shares and Main ends.
var atExit struct {
	sync.Mutex
	funcs []func()
}

// AtExit has Main call f after the tests, last registered first.
func AtExit(f func()) {
	atExit.Lock()
	defer atExit.Unlock()
	atExit.funcs = append(atExit.funcs, f)
}

// Main is the body of every TestMain of a package that uses this kit:
//
//	func TestMain(m *testing.M) { cdctest.Main(m) }
//
// It runs the tests, ends the servers they share and fails the binary when a
// goroutine is left over.
func Main(m *testing.M) {
	if os.Getenv(fakePortVariable) != "" {
		os.Exit(serveFake())
	}
	code := m.Run()
	atExit.Lock()
	funcs := atExit.funcs
	atExit.funcs = nil
	atExit.Unlock()
	for i := len(funcs) - 1; i >= 0; i-- {
		funcs[i]()
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintf(os.Stderr, "goroutines left over after the tests: %v\n", err)
		if code == 0 {
			code = 1
		}
	}
	os.Exit(code)
}
