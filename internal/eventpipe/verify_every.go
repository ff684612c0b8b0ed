package eventpipe

import (
	"context"
	"strings"

	"cdc/internal/cdc"
	"cdc/internal/recheck"
)

// verifying begins to verify from time to time; what it returns ends that. It runs
// beside the parts, over connections of its own, and has no say in how the pipeline
// is: a difference is told in the log, by Status and by the metrics.
func (p *Pipeline) verifying(ctx context.Context) (stop func()) {
	return recheck.Start(ctx, p.cfg.VerifyEvery, p.log, p.verify, func(results []cdc.Verification) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.status.Verified = results
	})
}

// verify leaves out the samples of views, which are whole rows: values are for who
// asks for them.
func (p *Pipeline) verify(ctx context.Context) ([]cdc.Verification, error) {
	cfg := p.cfg
	cfg.Logger = p.log
	found, err := Verify(ctx, cfg, VerifyOptions{})
	for i := range found {
		if strings.HasPrefix(found[i].Subject, viewSubject) {
			found[i].Samples = nil
		}
	}
	return found, err
}
