package pipeline

import (
	"context"
	"fmt"
	"slices"

	"cdc/internal/cdc"
)

// command is something asked of the life that streams, by another goroutine.
type command struct {
	run  func(l *life, reply func(error))
	done chan error // capacity 1
}

// command has the streaming life run something on its own goroutine, and returns
// what that replies. It waits for a life that streams until ctx ends.
func (p *Pipeline) command(ctx context.Context, run func(l *life, reply func(error))) error {
	c := &command{run: run, done: make(chan error, 1)}
	select {
	case p.commands <- c:
	case <-ctx.Done():
		return fmt.Errorf("pipeline %s is %s, and takes this while it is streaming: %w", p.cfg.Name, p.Status().State, context.Cause(ctx))
	}
	select {
	case err := <-c.done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// obey runs a command, if there is one and the life is far enough.
func (l *life) obey() {
	if !l.current() {
		return
	}
	select {
	case c := <-l.p.commands:
		c.run(l, func(err error) { c.done <- err })
	default:
	}
}

// Copy starts, pauses, resumes or cancels the copy of captured tables while the
// stream goes on. It returns when the progress topic has acknowledged it: from
// then on a restart goes on with it.
func (p *Pipeline) Copy(ctx context.Context, req cdc.CopyRequest) error {
	return p.command(ctx, func(l *life, reply func(error)) {
		if err := l.orderCopies(ctx, req); err != nil {
			reply(err)
			return
		}
		l.afterAck(func() error {
			reply(nil)
			return nil
		})
	})
}

func (l *life) orderCopies(ctx context.Context, req cdc.CopyRequest) error {
	var captures []*capture
	for _, name := range req.Tables {
		c := l.byName(name)
		if c == nil {
			return fmt.Errorf("table %s is not captured by this pipeline", name)
		}
		if _, err := l.copier.find(c); err != nil && req.Action != cdc.CopyStart {
			return err
		}
		captures = append(captures, c)
	}
	for _, c := range captures {
		if err := l.orderCopy(ctx, req.Action, c); err != nil {
			return err
		}
	}
	return nil
}

func (l *life) orderCopy(ctx context.Context, action cdc.CopyAction, c *capture) error {
	k := l.copier
	if k.capture == c && k.repairing() == nil {
		k.leave()
	}
	if action == cdc.CopyStart {
		rec, err := l.newCopy(ctx, c)
		if err != nil {
			return err
		}
		return k.add(c, rec).save(rec)
	}
	job, err := k.find(c)
	if err != nil {
		return err
	}
	switch action {
	case cdc.CopyPause:
		job.record.State = copyPaused
	case cdc.CopyResume:
		job.record.State, job.record.Error = copyActive, ""
	case cdc.CopyCancel:
		return k.remove(c)
	default:
		return fmt.Errorf("action %q of a snapshot: want start, pause, resume or cancel", action)
	}
	return job.save(job.record)
}

// newCopy is the record of a copy that has not begun.
func (l *life) newCopy(ctx context.Context, c *capture) (CopyRecord, error) {
	ctx, cancel := context.WithTimeout(ctx, lastStampWithin)
	defer cancel()
	tps := make([]cdc.TopicPartition, len(c.partitions))
	for i, p := range c.partitions {
		tps[i] = p.tp
	}
	_, ends, err := l.client.Offsets(ctx, tps)
	if err != nil {
		return CopyRecord{}, fmt.Errorf("copy %s: %w", c.table.FullName(), err)
	}
	rec := CopyRecord{Format: progressFormat, OID: c.table.OID, State: copyActive, Before: make([]int64, len(tps))}
	for i, tp := range tps {
		rec.Before[i] = ends[tp]
	}
	return rec, nil
}

func (k *copier) find(c *capture) (*copying, error) {
	for _, job := range k.copies {
		if job.capture == c {
			return job, nil
		}
	}
	return nil, fmt.Errorf("table %s is not being copied", c.table.FullName())
}

// remove forgets the copy of a table, if there is one.
func (k *copier) remove(c *capture) error {
	n := len(k.copies)
	k.copies = slices.DeleteFunc(k.copies, func(o *copying) bool { return o.capture == c })
	if len(k.copies) == n {
		return nil
	}
	return k.l.append(copyPrefix+c.table.FullName(), nil)
}

// progress appends what Status shows of the copies.
func (k *copier) progress(to []cdc.TableProgress) []cdc.TableProgress {
	for _, c := range k.copies {
		to = append(to, c.progress())
	}
	return to
}

func (l *life) byName(name string) *capture {
	for _, c := range l.order {
		if c.table.FullName() == name {
			return c
		}
	}
	return nil
}

// end is a partition's end.
func (l *life) end(ctx context.Context, tp cdc.TopicPartition) (int64, error) {
	_, ends, err := l.client.Offsets(ctx, []cdc.TopicPartition{tp})
	return ends[tp], err
}
