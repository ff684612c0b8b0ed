package cdctest

import (
	"strings"
	"testing"
	"time"
)

func TestOutputAwait(t *testing.T) {
	o := newOutput()
	go func() {
		_, _ = o.Write([]byte("one\ntwo words "))
		_, _ = o.Write([]byte("here\n"))
		o.end()
	}()
	line, err := o.await("words here", readyLimit)
	if err != nil || line != "two words here" {
		t.Errorf("got %q, %v; want the whole line", line, err)
	}
	if _, err := o.await("three", readyLimit); err == nil || !strings.Contains(err.Error(), "ended") {
		t.Errorf("got %v, want that it ended", err)
	}
	if _, err := newOutput().await("x", time.Millisecond); err == nil || !strings.Contains(err.Error(), "not there") {
		t.Errorf("got %v, want that it is not there", err)
	}
}

func TestJavaMajor(t *testing.T) {
	for text, want := range map[string]int{
		"openjdk version \"17.0.15\" 2025-04-15\nOpenJDK": 17,
		"java version \"1.8.0_292\"":                      1,
		"openjdk version \"25\" 2025-09-16":               25,
		"bash: java: command not found":                   0,
	} {
		if got, _ := javaMajor(text); got != want {
			t.Errorf("%q: got %d, want %d", text, got, want)
		}
	}
}
