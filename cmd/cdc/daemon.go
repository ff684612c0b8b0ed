package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"cdc/internal/admin"
	"cdc/internal/cdc"
	"cdc/internal/config"
)

// compactEvery is how often the embedded broker compacts its log: it stops the
// broker for about a second per 100 MB, so rarely, and never by its own timer.
const compactEvery = time.Hour

// daemon runs a stack until ctx ends, or until no pipeline is left running.
type daemon struct {
	*stack
	log *slog.Logger
}

// Status implements admin.Source.
func (d *daemon) Status() []cdc.Status {
	all := make([]cdc.Status, len(d.pipelines))
	for i, p := range d.pipelines {
		all[i] = p.Status()
	}
	return all
}

// Version implements admin.Source.
func (d *daemon) Version() string { return version() }

// runDaemon builds what the configuration describes and runs it. A pipeline that
// fails for good leaves the others running, and is seen in /readyz; the error
// comes when none is left.
func runDaemon(ctx context.Context, cfg *config.Config, log *slog.Logger) error {
	s, err := build(ctx, cfg, log)
	if err != nil {
		return err
	}
	d := &daemon{stack: s, log: log}
	err = d.run(ctx, cfg.Admin.Listen)
	return errors.Join(err, s.close())
}

func (d *daemon) run(ctx context.Context, listen string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var side, pipelines sync.WaitGroup
	if listen != "" {
		side.Go(func() {
			if err := admin.New(d, d.log).Run(ctx, listen); err != nil {
				cancel(err)
			}
		})
	}
	if d.broker != nil {
		side.Go(func() { d.compact(ctx) })
	}
	errs := make([]error, len(d.pipelines))
	for i, p := range d.pipelines {
		pipelines.Go(func() {
			if err := p.Run(ctx); err != nil {
				errs[i] = fmt.Errorf("pipeline %s: %w", p.Status().Name, err)
			}
		})
	}
	pipelines.Wait()
	cause := context.Cause(ctx)
	cancel(nil)
	side.Wait()
	if cause != nil && !errors.Is(cause, context.Canceled) {
		errs = append(errs, cause)
	}
	return errors.Join(errs...)
}

// compact compacts the embedded broker's log from time to time.
func (d *daemon) compact(ctx context.Context) {
	tick := time.NewTicker(compactEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := d.broker.Compact(ctx); err != nil && ctx.Err() == nil {
			d.log.Warn("compact the embedded broker's log", "error", err)
		}
	}
}
