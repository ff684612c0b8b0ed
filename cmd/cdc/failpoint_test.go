//go:build failpoint

package main

import (
	"syscall"
	"testing"
)

func TestFailpoint(t *testing.T) {
	var hits []syscall.Signal
	hook, err := parseFailpoint("produce-after:3:stop", func(s syscall.Signal) { hits = append(hits, s) })
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		hook("produce-after")
		hook("produce-before")
	}
	if len(hits) != 1 || hits[0] != syscall.SIGSTOP {
		t.Errorf("five passings: got %v, want one SIGSTOP", hits)
	}
	for _, bad := range []string{"a", "a:1", "a:0:kill", "a:x:kill", ":1:kill", "a:1:sleep", "a:1:kill:b"} {
		if _, err := parseFailpoint(bad, nil); err == nil {
			t.Errorf("%q was understood", bad)
		}
	}
}
