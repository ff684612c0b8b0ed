package broker

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
)

// A remark is neither a warning nor a fault that would stop a compaction.
func TestRemarksAreNoFaults(t *testing.T) {
	for _, tt := range []struct {
		name, format string
		level        kfake.LogLevel
		faults       int64
		want         string // in the log at level warn
	}{
		{"slow disk", "txn: EndTxn slow pid=%d", kfake.LogLevelWarn, 0, ""},
		{"late client", "consumerHeartbeatLate: group=%d", kfake.LogLevelWarn, 0, ""},
		{"damage", "compact %d: read batch", kfake.LogLevelWarn, 1, "compact 7: read batch"},
		{"error", "persist to disk: %d", kfake.LogLevelError, 1, "persist to disk: 7"},
		{"news", "listening on %d", kfake.LogLevelInfo, 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			e := &events{log: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelWarn}))}
			e.Logf(tt.level, tt.format, 7)
			if got := e.faults.Load(); got != tt.faults {
				t.Errorf("got %d faults, want %d", got, tt.faults)
			}
			if got := out.String(); tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("got log %q, want %q in it", got, tt.want)
			}
		})
	}
}
