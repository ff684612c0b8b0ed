package main

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"cdc/internal/intent"
)

// memory rebuilds a view over a long log and looks at the memory of the daemon, a
// process of its own that has done nothing before, and of the sessions of Postgres.
func (f *following) memory(ctx context.Context) error {
	more := f.sizes.rebuilt - int(f.written)
	f.say("filling the log up to %d events", f.sizes.rebuilt)
	err := f.during(ctx, daemonJob{}, func(d *daemon, _ []sample) error {
		stop := d.drain()
		err := install(ctx, f.url, intent.Definitions{MaxEvent: 1 << 20, Events: universityEvents(), Views: []intent.View{simpleView(viewHere, intent.Async)}})
		stop()
		if err != nil {
			return err
		}
		stop = d.drain()
		err = f.write(ctx, max(more, 0), 10_000)
		stop()
		if err == nil {
			_, err = d.follow(ctx, func(s sample) bool { return s.Head >= f.written && s.Views[viewHere] >= f.written })
		}
		if err != nil {
			return err
		}
		return f.live(ctx, d)
	})
	if err != nil {
		return err
	}
	if err := f.checkLog(ctx); err != nil {
		return err
	}
	f.say("rebuilding a view over %d events", f.written)
	var all []sample
	var name string
	var sessions []memoryAt
	err = f.during(ctx, daemonJob{}, func(d *daemon, _ []sample) (err error) {
		if name, err = rebuild(ctx, f.store, simpleView(viewHere, intent.Async)); err != nil {
			return err
		}
		watch, err := watchSessions(ctx, f.url)
		if err != nil {
			return err
		}
		all, err = d.follow(ctx, func(s sample) bool { return s.Views[name] >= f.written })
		sessions = watch()
		return err
	})
	if err != nil {
		return err
	}
	position := func(s sample) int64 { return s.Views[name] }
	rate, cpu := progressRate(all, func(s sample) bool { return position(s) > 0 }, f.written, position)
	var daemon []memoryAt
	for _, s := range all {
		if p := position(s); p > 0 {
			daemon = append(daemon, memoryAt{s.At, s.Memory})
		}
	}
	g := f.figures.group(fmt.Sprintf("memory while a view is rebuilt over %d events, %s/s, %.1f CPU-s of the daemon per million", f.written, thousands([]float64{rate}), perMillion(cpu, int(f.written))),
		"least", "most in the first half", "most in the second half")
	for _, part := range []struct {
		name    string
		samples []memoryAt
	}{{"the daemon, resident", daemon}, {"the session of PostgreSQL that applies, beside shared memory", sessions}} {
		least, first, second := halves(part.samples)
		l := line{name: part.name, cells: []string{megabytes(least), megabytes(first), megabytes(second)}}
		if first > 0 {
			l.mark = atMost(goalFlat, "%.2f times the first").mark(float64(second) / float64(first))
		}
		g.add(l)
	}
	return nil
}

type memoryAt struct {
	at    time.Time
	bytes int64
}

// halves is the least of all samples and the most in each half of the time.
func halves(all []memoryAt) (least, first, second int64) {
	if len(all) == 0 {
		return 0, 0, 0
	}
	middle := all[0].at.Add(all[len(all)-1].at.Sub(all[0].at) / 2)
	least = all[0].bytes
	for _, m := range all {
		least = min(least, m.bytes)
		if m.at.Before(middle) {
			first = max(first, m.bytes)
		} else {
			second = max(second, m.bytes)
		}
	}
	return least, first, second
}

// watchSessions looks ten times a second at the memory of the daemon's sessions, that
// which is theirs alone, until the function it returns is called, which gives the
// largest of each look.
func watchSessions(ctx context.Context, url string) (stop func() []memoryAt, err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	var all []memoryAt
	var done sync.WaitGroup
	done.Go(func() {
		defer func() { _ = conn.Close(context.Background()) }()
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			rows, err := conn.Query(ctx, `select pid from pg_stat_activity where datname = current_database() and query like '%.apply(%' and pid <> pg_backend_pid()`)
			if err != nil {
				return
			}
			pids, err := pgx.CollectRows(rows, pgx.RowTo[int])
			if err != nil {
				return
			}
			m := memoryAt{at: time.Now()}
			for _, pid := range pids {
				m.bytes = max(m.bytes, resident(strconv.Itoa(pid), "RssAnon:"))
			}
			if m.bytes > 0 {
				all = append(all, m)
			}
		}
	})
	return func() []memoryAt { cancel(); done.Wait(); return all }, nil
}
