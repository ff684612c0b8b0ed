package main

import (
	"bytes"
	"os"
	"testing"
)

// Colours are for terminals whose owner did not ask for plain text.
func TestNoColor(t *testing.T) {
	device, err := os.OpenFile("/dev/null", os.O_WRONLY, 0) // a character device, as a terminal is
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = device.Close() }()
	for _, tt := range []struct {
		name, noColor, term string
		want                bool
	}{
		{"terminal", "", "xterm", true},
		{"NO_COLOR", "1", "xterm", false},
		{"dumb terminal", "", "dumb", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("NO_COLOR", tt.noColor)
			t.Setenv("TERM", tt.term)
			if got := colored(device); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
	if colored(&bytes.Buffer{}) {
		t.Error("a buffer is no terminal")
	}
}
