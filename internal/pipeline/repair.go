package pipeline

import (
	"context"
	"fmt"

	"cdc/internal/cdc"
	"cdc/internal/source"
)

// repair writes what a comparison found wrong with one table's topic, in order
// with the stream: rows read afresh like a chunk, ghosts written off.
type repair struct {
	k       *copier
	capture *capture
	request cdc.RepairRequest
	done    chan<- repaired // capacity 1
	result  cdc.RepairResult
	began   bool
	before  int64 // copier.rows when it began
	read    bool
	ghosts  map[int32]map[string]struct{} // not yet looked at
}

type repaired struct {
	result cdc.RepairResult
	err    error
}

// next does the next thing: rows, then the ghosts of each partition.
func (r *repair) next(ctx context.Context) error {
	k := r.k
	switch {
	case !r.began:
		r.began, r.before = true, k.rows
		k.take(r.capture)
		k.settle(ctx)
		return nil
	case !r.read && len(r.request.Keys) > 0:
		k.read(ctx, func(ctx context.Context, cr *source.ChunkReader) (*source.Chunk, error) {
			return cr.Rows(ctx, r.request.Keys)
		}, func(*source.Chunk) error {
			r.read = true
			return nil
		})
		return nil
	case k.enc == nil:
		k.describe(ctx)
		return nil
	}
	for n, keys := range r.ghosts {
		delete(r.ghosts, n)
		k.writeOff(ctx, r.capture.partitions[n], r.request.Ends[n], keys, func(gone, left int64) {
			r.result.Tombstones += gone
			r.result.Left += left
		})
		return nil
	}
	k.written(func() error {
		r.result.Upserts = k.rows - r.before
		r.result.Left += max(0, int64(len(r.request.Keys))-r.result.Upserts)
		r.end(nil)
		return nil
	})
	return nil
}

// end answers, once.
func (r *repair) end(err error) {
	r.done <- repaired{r.result, err}
	r.k.repairs = r.k.repairs[1:]
	r.k.leave()
}

func (l *life) newRepair(req cdc.RepairRequest, done chan<- repaired) (*repair, error) {
	c := l.byName(req.Table)
	if c == nil {
		return nil, fmt.Errorf("table %s is not captured by this pipeline", req.Table)
	}
	if n := len(req.Keys) + len(req.Ghosts); n > cdc.MaxRepairKeys {
		return nil, fmt.Errorf("repair %s: %d keys, at most %d are taken at a time", req.Table, n, cdc.MaxRepairKeys)
	}
	r := &repair{k: l.copier, capture: c, request: req, done: done, ghosts: map[int32]map[string]struct{}{}}
	for _, key := range req.Keys {
		if len(key) != len(c.table.Key) {
			return nil, fmt.Errorf("repair %s: a key has %d columns, want %d", req.Table, len(key), len(c.table.Key))
		}
	}
	for _, g := range req.Ghosts {
		if g.Partition < 0 || int(g.Partition) >= len(c.partitions) {
			return nil, fmt.Errorf("repair %s: partition %d of %d", req.Table, g.Partition, len(c.partitions))
		}
		if _, ok := req.Ends[g.Partition]; !ok {
			return nil, fmt.Errorf("repair %s: no end for partition %d", req.Table, g.Partition)
		}
		if r.ghosts[g.Partition] == nil {
			r.ghosts[g.Partition] = map[string]struct{}{}
		}
		r.ghosts[g.Partition][string(g.Key)] = struct{}{}
	}
	return r, nil
}

// Repair writes a comparison's findings right, in order with the stream, and
// returns when everything is acknowledged. It fails where the pipeline does not
// stream, or begins a new life meanwhile: what was written then is right, the rest
// is as it was.
func (p *Pipeline) Repair(ctx context.Context, req cdc.RepairRequest) (cdc.RepairResult, error) {
	done := make(chan repaired, 1)
	err := p.command(ctx, func(l *life, reply func(error)) {
		r, err := l.newRepair(req, done)
		if err == nil {
			l.copier.repairs = append(l.copier.repairs, r)
		}
		reply(err)
	})
	if err != nil {
		return cdc.RepairResult{}, err
	}
	select {
	case r := <-done:
		return r.result, r.err
	case <-ctx.Done():
		return cdc.RepairResult{}, fmt.Errorf("repair of %s goes on without being waited for: %w", req.Table, context.Cause(ctx))
	}
}
