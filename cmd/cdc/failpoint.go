//go:build failpoint

package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// failpointVariable says at which point of a pipeline's life the process is to
// be hit: POINT:N:kill or POINT:N:stop, at the N-th passing (from 1).
const failpointVariable = "CDC_FAILPOINT"

// failpointHook reads the variable; nil where it is not set. A text that says
// nothing ends the process: a crash test that hits nothing would prove nothing.
func failpointHook() func(point string) {
	text := os.Getenv(failpointVariable)
	if text == "" {
		return nil
	}
	hook, err := parseFailpoint(text, hitItself)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(exitUsage)
	}
	return hook
}

// stopTakes is far longer than a signal to the own process.
const stopTakes = 500 * time.Millisecond

// hitItself sends the signal to the own process. It may find another thread first,
// and this one would go on for a moment: long enough to send what the process was
// to be hit with.
func hitItself(sig syscall.Signal) {
	_ = syscall.Kill(os.Getpid(), sig)
	if sig == syscall.SIGKILL {
		select {}
	}
	time.Sleep(stopTakes)
}

func parseFailpoint(text string, hit func(syscall.Signal)) (func(point string), error) {
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return nil, fmt.Errorf("%s is %q, want POINT:N:kill or POINT:N:stop", failpointVariable, text)
	}
	at, err := strconv.ParseInt(parts[1], 10, 64)
	signals := map[string]syscall.Signal{"kill": syscall.SIGKILL, "stop": syscall.SIGSTOP}
	sig, known := signals[parts[2]]
	if err != nil || at < 1 || !known || parts[0] == "" {
		return nil, fmt.Errorf("%s is %q, want POINT:N:kill or POINT:N:stop", failpointVariable, text)
	}
	var passed atomic.Int64
	return func(point string) {
		if point == parts[0] && passed.Add(1) == at {
			hit(sig)
		}
	}, nil
}
