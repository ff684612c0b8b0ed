package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/source"
)

// snapshot begins the snapshot of the tables. Before it, it notes where the topics
// end: what stands there was read from Postgres before the snapshot was.
func (r *verification) snapshot(ctx context.Context) error {
	for attempt := 1; ; attempt++ {
		var tables []cdc.Table
		for _, k := range r.open() {
			tables = append(tables, k.c.table)
		}
		if len(tables) == 0 {
			return nil
		}
		var err error
		if _, r.before, err = r.l.client.Offsets(ctx, r.partitions()); err != nil {
			return err
		}
		var late string
		if r.sn, late, err = r.beside(ctx, tables); err == nil {
			break
		}
		if late != "" {
			r.giveUp("", "%s", late)
			return nil
		}
		if ctx.Err() != nil || attempt == tableAttempts {
			return err
		}
		now, errTables := r.l.src.Tables(ctx)
		if errTables != nil {
			return errors.Join(err, errTables)
		}
		if !r.dropMissing(now) {
			return err
		}
	}
	r.at = r.sn.LSN()
	return r.memberships(ctx)
}

// beside begins the snapshot. late says what held it up where that took too long.
func (r *verification) beside(ctx context.Context, tables []cdc.Table) (sn *source.Snapshot, late string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var held atomic.Pointer[string]
	limit := r.o.timeout()
	timer := time.AfterFunc(limit, func() {
		why := fmt.Sprintf("the tables could not be read as of one place within %s: %s", limit, cmp.Or(r.l.src.Waiting(), "the server did not answer"))
		held.Store(&why)
		cancel()
	})
	defer timer.Stop()
	sn, err = r.l.src.SnapshotBeside(ctx, tables, r.l.cfg.Workers)
	if why := held.Load(); err != nil && why != nil {
		late = *why
	}
	return sn, late, err
}

// dropMissing gives up the tables that are no more, and says whether there were any.
func (r *verification) dropMissing(now []cdc.Table) bool {
	there := map[uint32]bool{}
	for _, t := range now {
		there[t.OID] = true
	}
	found := false
	for _, k := range r.open() {
		if !there[k.c.table.OID] {
			found = true
			k.giveUp("", "the table was dropped, or dropped and made again, meanwhile")
		}
	}
	return found
}

// memberships gives up the tables whose changes were not all streamed. The
// snapshot's locks are held: they cannot be dropped any more.
func (r *verification) memberships(ctx context.Context) error {
	var oids []uint32
	for _, k := range r.open() {
		oids = append(oids, k.c.table.OID)
	}
	members, err := r.l.src.Memberships(ctx, oids)
	if err != nil {
		return err
	}
	for _, k := range r.open() {
		if members[k.c.table.OID] != k.record.Member {
			k.giveUp("", "the table was dropped and made again, or taken out of publication %q: the pipeline copies it anew", r.l.cfg.Source.Publication)
		}
	}
	return nil
}
