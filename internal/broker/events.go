package broker

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kfake"
)

// events passes kfake's log on and counts what it says went wrong: its
// compaction reports a failure in no other way.
type events struct {
	log    *slog.Logger
	faults atomic.Int64
}

// Logf implements kfake.Logger.
func (e *events) Logf(level kfake.LogLevel, format string, args ...any) {
	to := slog.LevelDebug
	if level == kfake.LogLevelError || level == kfake.LogLevelWarn {
		e.faults.Add(1)
		to = slog.LevelWarn
	}
	if e.log.Enabled(context.Background(), to) {
		e.log.Log(context.Background(), to, "embedded broker reports", "text", fmt.Sprintf(format, args...))
	}
}
