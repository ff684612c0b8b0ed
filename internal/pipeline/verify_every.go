package pipeline

import (
	"context"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/recheck"
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
	return recheck.Start(ctx, p.cfg.Verify.Every, p.log, p.verify, func(results []cdc.Verification) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.status.Verified = results
	})
}

func (p *Pipeline) verify(ctx context.Context) ([]cdc.Verification, error) {
	v, err := OpenVerifier(ctx, p.cfg)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	found, err := v.Run(ctx, nil, VerifyOptions{Rate: p.cfg.Verify.Rate, Dir: p.cfg.Verify.Dir})
	if err != nil {
		return nil, err
	}
	results := make([]cdc.Verification, len(found))
	for i := range found {
		results[i] = found[i].Verification
	}
	return results, nil
}
