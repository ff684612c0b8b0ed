package demo

import (
	"context"
	"fmt"
	"strings"
	"time"

	"cdc/internal/eventpipe"
	"cdc/internal/view"
)

// adds says in the header when the reaction and the view come.
func (r *run) adds() string {
	const what = "reaction " + addedReaction + " and view " + addedView
	after := r.opts.addsAfter()
	switch {
	case r.places.Added:
		return what + " were added by an earlier run"
	case after > 0 && r.opts.Transactions > 0 && r.opts.Add == 0:
		return fmt.Sprintf("%s, after %v or half of the transactions, while everything runs", what, after)
	case after > 0:
		return fmt.Sprintf("%s, after %v, while everything runs", what, after)
	}
	return what + ", after half of the transactions, while everything runs"
}

// add waits for its time and adds the reaction and the view to what runs: the lines
// go into the configuration, and are installed as `cdc es init` does it. Nothing is
// started again. What has begun is finished when ctx ends; hard ends that too.
func (r *run) add(ctx, hard context.Context, half <-chan struct{}) error {
	if r.places.Added {
		return nil
	}
	var due <-chan time.Time
	if after := r.opts.addsAfter(); after > 0 {
		timer := time.NewTimer(after)
		defer timer.Stop()
		due = timer.C
	}
	if r.opts.Add > 0 {
		half = nil
	}
	select {
	case <-due:
	case <-half:
	case <-ctx.Done():
		return nil
	}
	places := r.places
	places.Added = true
	cfg, err := configure(r.folder.dir, places)
	if err != nil {
		return err
	}
	installed, err := eventpipe.Install(hard, r.uni.store, definitions(cfg))
	if err != nil {
		return fmt.Errorf("add %s and %s: %w", addedReaction, addedView, err)
	}
	r.places = places
	r.screen.added(r.screen.lens.config, strings.Split(strings.TrimSuffix(addedText, "\n"), "\n"), installed)
	r.log.Info("definitions were added", "reaction", addedReaction, "view", addedView)
	return r.announce(hard)
}

// announce tells when the added view can be read.
func (r *run) announce(hard context.Context) error {
	ctx, cancel := context.WithTimeoutCause(hard, catchUpLimit, fmt.Errorf("not after %v", catchUpLimit))
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		list, err := view.List(ctx, r.uni.store)
		if err != nil {
			return err
		}
		for _, v := range list {
			if v.Name == addedView && v.State == "live" {
				r.screen.say("%12s %s", "", r.screen.paint.bold(fmt.Sprintf("view %s is live: it has all %d events since the university began", addedView, v.Position)))
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for view %s to have caught up: %w", addedView, context.Cause(ctx))
		}
	}
}
