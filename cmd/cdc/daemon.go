package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"cdc/internal/admin"
	"cdc/internal/api"
	"cdc/internal/broker"
	"cdc/internal/cdc"
	"cdc/internal/config"
	"cdc/internal/pipeline"
)

// compactEvery is how often the embedded broker compacts its log: it stops the
// broker for about a second per 100 MB, so rarely, and never by its own timer.
const compactEvery = time.Hour

// daemon runs a stack until ctx ends, or until no pipeline is left running.
type daemon struct {
	*stack
	log *slog.Logger
	// failed, where set, tells of a pipeline that failed for good when it does,
	// others running on. May be called by several goroutines.
	failed func(name string, err error)
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
// fails for good is told of at once on errOut, leaves the others running, and is
// seen in /readyz; the error comes when none is left, and says no more than which.
func runDaemon(ctx context.Context, cfg *config.Config, log *slog.Logger, errOut io.Writer) error {
	if cfg.Kafka.Embedded == nil { // the embedded broker's memory is not the pipelines'
		pipeline.TightHeap()
	}
	s, err := build(ctx, cfg, log)
	if err != nil {
		if ctx.Err() != nil {
			return nil // stopped in order, before it had begun
		}
		return err
	}
	var failed failures
	d := &daemon{stack: s, log: log, failed: func(name string, err error) {
		failed.tell(log, cfg.Log.Format, errOut, name, err)
	}}
	err = d.run(ctx, cfg.Admin.Listen)
	return errors.Join(failed.err(), err, s.close())
}

// failures are the pipelines that failed for good.
type failures struct {
	mu    sync.Mutex
	names []string
}

// tell logs a failure, and writes for people what is wrong and, on lines of its
// own to be copied, what mends it. A log in JSON is for machines: there both are
// attributes.
func (f *failures) tell(log *slog.Logger, format string, errOut io.Writer, name string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.names = append(f.names, name)
	attrs := []any{"pipeline", name}
	var t *cdc.TerminalError
	if errors.As(err, &t) {
		attrs = append(attrs, "reason", t.Reason)
	}
	if format == "json" {
		attrs = append(attrs, "error", plainError(err))
		if t != nil {
			attrs = append(attrs, "mend", t.Mend)
		}
		log.Error("pipeline failed", attrs...)
		return
	}
	log.Error("pipeline failed", attrs...)
	fmt.Fprintln(errOut, describeError(fmt.Errorf("pipeline %s: %w", name, err)))
}

func (f *failures) err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.names) == 0 {
		return nil
	}
	slices.Sort(f.names)
	return fmt.Errorf("failed for good: %s", strings.Join(f.names, ", "))
}

// plainError is the text of an error without what mends it.
func plainError(err error) string {
	var t *cdc.TerminalError
	if errors.As(err, &t) && t.Mend != "" {
		return strings.TrimSuffix(err.Error(), "\n"+t.Mend)
	}
	return err.Error()
}

func (d *daemon) run(ctx context.Context, listen string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var side, pipelines sync.WaitGroup
	if listen != "" {
		server := admin.New(d, d.log)
		server.Control(d)
		if d.events != nil {
			server.Mount(d.api(ctx), api.Paths...)
		}
		side.Go(func() {
			if err := server.Run(ctx, listen); err != nil {
				cancel(environmentError("%w", err))
			}
		})
	}
	if d.broker != nil {
		side.Go(func() { d.compact(ctx) })
		side.Go(func() {
			select {
			case <-d.broker.Failed():
				cancel(environmentError("%w", broker.ErrFailed))
			case <-ctx.Done():
			}
		})
	}
	errs := make([]error, len(d.pipelines))
	for i, p := range d.pipelines {
		pipelines.Go(func() {
			name, err := p.Status().Name, p.Run(ctx)
			switch {
			case err != nil && d.failed != nil:
				d.failed(name, err)
			case err != nil:
				errs[i] = fmt.Errorf("pipeline %s: %w", name, err)
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

// Copy implements admin.Controller.
func (d *daemon) Copy(ctx context.Context, name string, req cdc.CopyRequest) error {
	p, err := d.rows(name)
	if err != nil {
		return err
	}
	return p.Copy(ctx, req)
}

// Repair implements admin.Controller.
func (d *daemon) Repair(ctx context.Context, name string, req cdc.RepairRequest) (cdc.RepairResult, error) {
	p, err := d.rows(name)
	if err != nil {
		return cdc.RepairResult{}, err
	}
	return p.Repair(ctx, req)
}

// rows is the pipeline of mode: cdc with a name.
func (d *daemon) rows(name string) (*pipeline.Pipeline, error) {
	for _, r := range d.pipelines {
		if p, ok := r.(*pipeline.Pipeline); ok && p.Status().Name == name {
			return p, nil
		}
	}
	return nil, fmt.Errorf("%w: %q", admin.ErrNoPipeline, name)
}

// api serves the store of the pipeline of mode: events.
func (d *daemon) api(ctx context.Context) http.Handler {
	store := d.events.API()
	return api.Handler(api.Config{
		Append: store, Events: store, States: store, Wait: store, Rows: store,
		Head: d.events.Pulse(), Stopping: ctx.Done(), Logger: d.log,
	})
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
