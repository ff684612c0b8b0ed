package source

import (
	"testing"
	"time"
)

func TestRate(t *testing.T) {
	start := time.Unix(1, 0)
	tests := []struct {
		name  string
		every time.Duration
		bytes int
		hold  bool // a read waits for more
	}{
		{"a row a millisecond", time.Millisecond, 300, false},
		{"three rows a millisecond", time.Millisecond / 3, 300, false},
		{"a load of small rows", 10 * time.Microsecond, 250, true},
		{"a load of large reads", time.Millisecond, 100 << 10, true},
		{"large and seldom", 10 * time.Millisecond, 1 << 20, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var r rate
			now := start
			for range 2000 {
				now = now.Add(tt.every)
				r.add(now, tt.bytes)
			}
			now = now.Add(tt.every)
			got := r.want(now)
			if (got > 0) != tt.hold || got > gatherMost {
				t.Errorf("a read waits for %d bytes, want it to wait: %t", got, tt.hold)
			}
			if got := r.want(now.Add(gatherMemory * gatherWait)); got != 0 {
				t.Errorf("after a pause: a read waits for %d bytes, want none", got)
			}
		})
	}
}
