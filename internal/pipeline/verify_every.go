package pipeline

import (
	"context"
	"sync"
	"time"

	"cdc/internal/cdc"
)

// VerifySchedule is how often a running pipeline compares what it has written with
// its tables.
type VerifySchedule struct {
	Every time.Duration // 0: never
	Rate  int64         // VerifyOptions
	Dir   string
}

// verifying begins to verify from time to time; what it returns ends that. It runs
// beside the lives, over connections of its own, and has no say in how the pipeline
// is: a difference is told in the log, by Status and by the metrics.
func (p *Pipeline) verifying(ctx context.Context) (stop func()) {
	if p.cfg.Verify.Every <= 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() {
		tick := time.NewTicker(p.cfg.Verify.Every)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				p.verify(ctx)
			}
		}
	})
	return func() {
		cancel()
		running.Wait()
	}
}

// verify makes one verification known. Of one that could not be made the last
// result stays, and grows old.
func (p *Pipeline) verify(ctx context.Context) {
	results, err := verifyOnce(ctx, p.cfg)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		p.log.Warn("cannot verify, trying again", "error", err, "in", p.cfg.Verify.Every)
		return
	}
	for i := range results {
		v := &results[i]
		switch v.Verdict {
		case cdc.VerdictDifferent:
			p.log.Error("topic differs from table", "table", v.Subject, "topic", v.Topic, "lsn", v.LSN,
				"missing", v.Missing, "ghosts", v.Ghosts, "different", v.Different, "mend", v.Mend)
		case cdc.VerdictUnchecked:
			p.log.Warn("topic could not be compared with table", "table", v.Subject, "topic", v.Topic, "why", v.Why)
		case cdc.VerdictEqual:
		}
		for j := range v.Samples {
			v.Samples[j].Columns = nil // values of rows are for who asks for them
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status.Verified = results // Status hands it out: it is never changed in place
}

func verifyOnce(ctx context.Context, cfg Config) ([]cdc.Verification, error) {
	v, err := OpenVerifier(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	found, err := v.Run(ctx, nil, VerifyOptions{Rate: cfg.Verify.Rate, Dir: cfg.Verify.Dir})
	if err != nil {
		return nil, err
	}
	results := make([]cdc.Verification, len(found))
	for i := range found {
		results[i] = found[i].Verification
	}
	return results, nil
}
