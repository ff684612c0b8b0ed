package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"cdc/internal/eventstore"
	"cdc/internal/intent"
	"cdc/internal/sink"
	"cdc/internal/view"
)

// following is one log and what follows it.
type following struct {
	*eventBench
	url       string
	elsewhere string // URL of another database
	conn      *pgx.Conn
	store     *eventstore.Store
	written   int64 // events in the log, or about to be
}

// databases of the log.
const (
	logDatabase       = "log"
	elsewhereDatabase = "elsewhere"
)

func (b *eventBench) newFollowing(ctx context.Context) (_ *following, err error) {
	f := &following{eventBench: b}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	if f.url, err = b.database(ctx, logDatabase); err != nil {
		return nil, err
	}
	if _, err = b.admin.Exec(ctx, "CREATE DATABASE "+elsewhereDatabase); err != nil {
		return nil, fmt.Errorf("create database %s: %w", elsewhereDatabase, err)
	}
	f.elsewhere = b.pg.URL(elsewhereDatabase)
	if f.conn, err = pgx.Connect(ctx, f.url); err != nil {
		return nil, fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	// The events are made by us; how soon that is on disk is not measured.
	if _, err = f.conn.Exec(ctx, "set synchronous_commit = off"); err != nil {
		return nil, fmt.Errorf("set synchronous_commit: %w", err)
	}
	if f.store, err = eventstore.Open(ctx, eventstore.Config{URL: f.url}); err != nil {
		return nil, err
	}
	if err = f.during(ctx, daemonJob{}, nil); err != nil { // makes the slot
		return nil, err
	}
	return f, nil
}

func (f *following) close() {
	if f.store != nil {
		f.store.Close()
	}
	if f.conn != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = f.conn.Close(ctx)
	}
}

// during runs a daemon until its numbering has caught up, and do beside it; without
// brokers it numbers and keeps views alone. Its samples until do are given to it.
func (f *following) during(ctx context.Context, j daemonJob, do func(d *daemon, caughtUp []sample) error) error {
	j.URL = f.url
	if j.Brokers == nil {
		j.Brokers = []string{nobody}
	}
	if j.Prefix == "" {
		j.Prefix = "none"
	}
	d, err := startDaemon(j)
	if err != nil {
		return err
	}
	defer d.stop()
	all, err := d.follow(ctx, func(s sample) bool { return s.Streaming && s.Head >= f.written })
	if err != nil || do == nil {
		return err
	}
	return do(d, all)
}

// write writes events that nobody numbers yet, or that a daemon meets as they come.
func (f *following) write(ctx context.Context, n, perTransaction int) error {
	err := fillLog(ctx, f.conn, int(f.written), int(f.written)+n, perTransaction)
	f.written += int64(n)
	return err
}

func head(s sample) int64 { return s.Head }

// number measures how fast a daemon numbers what was appended while it was down.
func (f *following) number(ctx context.Context) error {
	g := f.figures.group("numbering of what was appended while no daemon ran", "events/s", "transactions/s", "CPU-s of the daemon per million events")
	const large = 10_000
	for _, kind := range []struct {
		name               string
		total, transaction int
	}{
		{"transactions of one event", f.sizes.commits, 1},
		{fmt.Sprintf("transactions of %d events", large), f.sizes.events, large},
	} {
		f.say("numbering %s", kind.name)
		var rates, cpu []float64
		for _, n := range parts(kind.total, f.rounds) {
			before := f.written
			if err := f.write(ctx, n, kind.transaction); err != nil {
				return err
			}
			err := f.during(ctx, daemonJob{}, func(_ *daemon, all []sample) error {
				rate, used := progressRate(all, func(s sample) bool { return s.Streaming || s.Head > before }, f.written, head)
				rates, cpu = append(rates, rate), append(cpu, perMillion(used, n))
				return nil
			})
			if err != nil {
				return err
			}
		}
		g.add(line{name: kind.name, cells: []string{thousands(rates), whole(scaled(rates, 1/float64(kind.transaction))), fmt.Sprintf("%.1f", spreadOf(cpu).median)}})
	}
	_, err := f.conn.Exec(ctx, "vacuum analyze")
	if err != nil {
		return fmt.Errorf("analyze: %w", err)
	}
	return f.checkLog(ctx)
}

// parts cuts a total into rounds.
func parts(total, rounds int) []int {
	var all []int
	for i := range rounds {
		if n := total*(i+1)/rounds - total*i/rounds; n > 0 {
			all = append(all, n)
		}
	}
	return all
}

// checkLog compares the log with what was written.
func (f *following) checkLog(ctx context.Context) error {
	var n, most int64
	if err := f.conn.QueryRow(ctx, "select count(*), coalesce(max(pos), 0) from es.log").Scan(&n, &most); err != nil {
		return fmt.Errorf("count the log: %w", err)
	}
	if n != f.written || most != f.written {
		return fmt.Errorf("the log has %d events up to position %d, want %d", n, most, f.written)
	}
	return nil
}

// views measures how fast views come forward over the log: each is built beside its
// live build, in turns.
func (f *following) views(ctx context.Context) error {
	list := []struct {
		view intent.View
		name string
		goal *target
		note string
	}{
		{simpleView(viewHere, intent.Async), "an upsert or a delete for every event", atLeast(goalAsync, "%.0f"), "async"},
		{simpleView(viewElsewhere, intent.Async), "the same in another Postgres", atLeast(goalAsync, "%.0f"), "async"},
		{seldomView(), "a delete for one event in ten", atLeast(goalReplay, "%.0f"), "read from the log"},
	}
	list[1].view.Database = f.elsewhere
	rates, cpu := make([][]float64, len(list)), make([][]float64, len(list))
	err := f.during(ctx, daemonJob{Elsewhere: f.elsewhere}, func(d *daemon, _ []sample) error {
		f.say("building the views for the first time")
		stop := d.drain()
		err := install(ctx, f.url, intent.Definitions{MaxEvent: 1 << 20, Events: universityEvents(), Views: []intent.View{list[0].view, list[1].view, list[2].view}})
		stop()
		if err != nil {
			return err
		}
		if _, err := d.follow(ctx, func(s sample) bool {
			return s.Views[viewHere] >= f.written && s.Views[viewSeldom] >= f.written && s.Views[viewElsewhere] >= f.written
		}); err != nil {
			return err
		}
		if err := f.live(ctx, d); err != nil {
			return err
		}
		for round := range f.rounds {
			for i := range list {
				k := (i + round) % len(list)
				f.say("round %d: view %s", round+1, list[k].view.Name)
				name, err := rebuild(ctx, f.store, list[k].view)
				if err != nil {
					return err
				}
				at := func(s sample) int64 { return s.Views[name] }
				all, err := d.follow(ctx, func(s sample) bool { return at(s) >= f.written })
				if err != nil {
					return err
				}
				rate, used := progressRate(all, func(s sample) bool { return at(s) > 0 }, f.written, at)
				rates[k], cpu[k] = append(rates[k], rate), append(cpu[k], perMillion(used, int(f.written)))
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	g := f.figures.group(fmt.Sprintf("views: a rebuild beside the live one, over a log of %d events", f.written), "events/s", "CPU-s of the daemon per million events")
	for i, l := range list {
		g.add(line{name: l.name + " (" + l.note + ")", cells: []string{thousands(rates[i]), fmt.Sprintf("%.1f", spreadOf(cpu[i]).median)},
			mark: l.goal.mark(spreadOf(rates[i]).median)})
	}
	f.say("verifying the views")
	for _, l := range list {
		r, err := view.Verify(ctx, f.store, l.view.Name, view.VerifyOptions{Databases: map[string]string{list[1].view.DatabaseName(): f.elsewhere}})
		if err != nil {
			return err
		}
		if !r.Equal() || r.Position != f.written {
			return fmt.Errorf("view %s is not what the log gives: %d rows missing, %d too many, at position %d of %d", l.view.Name, r.Missing.Count, r.Extra.Count, r.Position, f.written)
		}
	}
	for _, l := range list[1:] {
		if err := view.Drop(ctx, f.store, l.view.Name, view.DropOptions{Databases: map[string]string{list[1].view.DatabaseName(): f.elsewhere}}); err != nil {
			return err
		}
	}
	return nil
}

// live waits until every view can be read: a build beside a live one stays.
func (f *following) live(ctx context.Context, d *daemon) error {
	stop := d.drain()
	defer stop()
	for {
		var building int
		if err := f.conn.QueryRow(ctx, "select count(distinct name) from es.view v where state = 'building' and not exists (select from es.view o where o.name = v.name and o.state = 'live')").Scan(&building); err != nil {
			return fmt.Errorf("read es.view: %w", err)
		}
		if building == 0 {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func published(s sample) int64 { return s.Published }

// publish measures how fast the log is written to topics that are new, and then how
// long an append takes to a reader of its topic.
func (f *following) publish(ctx context.Context, name, addr string) error {
	f.say("publishing to %s", name)
	total := f.written
	var rates, cpu []float64
	for round := range f.rounds {
		j := daemonJob{Brokers: []string{addr}, Prefix: "bench" + strconv.Itoa(round)}
		err := f.during(ctx, j, func(d *daemon, before []sample) error {
			more, err := d.follow(ctx, func(s sample) bool { return s.Published >= f.written })
			if err != nil {
				return err
			}
			rate, used := progressRate(append(before, more...), func(s sample) bool { return s.Published > 0 }, f.written, published)
			rates, cpu = append(rates, rate), append(cpu, perMillion(used, int(f.written)))
			if err := f.checkTopic(ctx, j); err != nil || round < f.rounds-1 {
				return err
			}
			return f.latencies(ctx, d, name, j)
		})
		if err != nil {
			return err
		}
	}
	g := f.figures.group(fmt.Sprintf("publication of a log of %d events, exactly once: %s", total, name), "events/s", "CPU-s of the daemon per million events")
	g.add(line{name: "to new topics", cells: []string{thousands(rates), fmt.Sprintf("%.1f", spreadOf(cpu).median)}})
	return nil
}

// topic is that of the only category.
func (j daemonJob) topic() string { return j.Prefix + ".course" }

// checkTopic compares the topic with the log: so many events, and positions that rise
// in each partition.
func (f *following) checkTopic(ctx context.Context, j daemonJob) error {
	c, err := sink.Dial(ctx, sink.Config{Brokers: j.Brokers})
	if err != nil {
		return err
	}
	n, err := countTopic(ctx, c, j.topic())
	if err == nil && int64(n) != f.written {
		err = fmt.Errorf("%d events in topic %s, want %d", n, j.topic(), f.written)
	}
	return errors.Join(err, c.Close())
}
