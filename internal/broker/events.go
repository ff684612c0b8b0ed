package broker

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kfake"
)

// events passes kfake's log on and counts what it says went wrong: its
// compaction reports a failure in no other way.
type events struct {
	log    *slog.Logger
	faults atomic.Int64
	// unwritten is called, before anything else is served, when the log could not
	// be written. It may not return.
	unwritten func()
}

// remarks begin what kfake warns of though nothing is wrong with the log: an
// empty transaction that took the disk's time, clients of groups that are late.
var remarks = []string{"txn: EndTxn slow", "consumerHeartbeatLate:", "consumerRebalanceTimeout:", "consumerSessionTimeout:", "OffsetCommit STALE:"}

// Logf implements kfake.Logger.
func (e *events) Logf(level kfake.LogLevel, format string, args ...any) {
	to := slog.LevelDebug
	remark := slices.ContainsFunc(remarks, func(r string) bool { return strings.HasPrefix(format, r) })
	if !remark && (level == kfake.LogLevelError || level == kfake.LogLevelWarn) {
		e.faults.Add(1)
		to = slog.LevelWarn
	}
	if e.log.Enabled(context.Background(), to) {
		e.log.Log(context.Background(), to, "embedded broker reports", "text", fmt.Sprintf(format, args...))
	}
	if to == slog.LevelWarn && e.unwritten != nil && unwritten(format) {
		e.unwritten()
	}
}

// unwritten says that a message of kfake's is of a write that failed while it
// served. What it saves when it is closed is only to make the next start quick.
func unwritten(format string) bool {
	return strings.HasPrefix(format, "persist ") && !strings.HasPrefix(format, "persist to disk")
}
