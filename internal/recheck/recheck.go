package recheck

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"cdc/internal/cdc"
)

// Start verifies every so often, for the first time after one period, and never twice
// at once. What was found is told in the log and handed to keep, which may hold on to
// it: it is never changed again. Of a verification that could not be made the last
// result stays, and grows old. The stop it returns ends that, a verification that is
// under way too, and returns when nothing runs any more. No period, 0, is never.
func Start(ctx context.Context, every time.Duration, log *slog.Logger, verify func(context.Context) ([]cdc.Verification, error), keep func([]cdc.Verification)) (stop func()) {
	if every <= 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			results, err := verify(ctx)
			switch {
			case ctx.Err() != nil:
				return
			case err != nil:
				log.Warn("cannot verify, trying again", "error", err, "in", every)
			default:
				tell(log, results)
				keep(results)
			}
		}
	})
	return func() {
		cancel()
		running.Wait()
	}
}

// tell logs what is not equal. Of the samples it leaves the keys: values are for who
// asks for them.
func tell(log *slog.Logger, results []cdc.Verification) {
	for i := range results {
		v := &results[i]
		switch v.Verdict {
		case cdc.VerdictDifferent:
			at := slog.Any("lsn", v.LSN)
			if v.LSN == 0 {
				at = slog.Int64("position", v.Position)
			}
			log.Error("verified: it differs from its source", "subject", v.Subject, "topic", v.Topic, at,
				"missing", v.Missing, "ghosts", v.Ghosts, "different", v.Different,
				"look", "cdc verify --pipeline "+v.Pipeline, "mend", v.Mend)
		case cdc.VerdictUnchecked:
			log.Warn("verified: it could not be compared with its source", "subject", v.Subject, "topic", v.Topic, "why", v.Why, "mend", v.Mend)
		case cdc.VerdictEqual:
		}
		for j := range v.Samples {
			v.Samples[j].Columns = nil
		}
	}
}
