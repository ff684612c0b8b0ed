package main

import (
	_ "embed"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"time"
)

// The clock of a machine is one for all its processes, and Go reads it without a
// call that could be caught. So cdc is built with a package time whose wall clock is
// off by as many seconds as a file says at that moment; the monotonic clock is not,
// as it is with a machine whose clock is set. Postgres and the brokers keep the time.

//go:embed testdata/clock.go.txt
var clockSource []byte

// clockMutant has time.Now ask clockSource.
var clockMutant = mutant{
	file: "src/time/time.go",
	old:  "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n",
	new:  "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n\tsec += crashClockOff()\n",
}

// clockVariable names the file, of eight bytes.
const clockVariable = "CDC_CRASH_CLOCK"

// clock is that of the machine that cdc runs on, in a seed.
type clock struct{ path string }

func newClock(dir string) (clock, error) {
	c := clock{filepath.Join(dir, "clock")}
	return c, c.set(0)
}

// set has the wall clock of every instance, those that run too, be off by so much.
func (c clock) set(off time.Duration) error {
	f, err := os.OpenFile(c.path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(off/time.Second)), 0)
	return errors.Join(err, f.Close())
}
