package main

import (
	"context"
	"fmt"

	"cdc/internal/eventstore"
	"cdc/internal/intent"
)

// appends compares es.append with a bare INSERT of the same row.
func (b *eventBench) appends(ctx context.Context) error {
	for i, synced := range []bool{true, false} {
		name := fmt.Sprintf("appends%d", i)
		b.say("appending, %d clients, %s", clients, how(synced))
		if err := b.appendsOf(ctx, name, synced); err != nil {
			return err
		}
		if err := b.drop(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

func how(synced bool) string {
	if synced {
		return "every commit synced to disk"
	}
	return "synchronous_commit = off: processor time alone"
}

func (b *eventBench) appendsOf(ctx context.Context, name string, synced bool) error {
	url, err := b.database(ctx, name)
	if err != nil {
		return err
	}
	if !synced {
		if _, err := b.admin.Exec(ctx, "ALTER DATABASE "+name+" SET synchronous_commit = off"); err != nil {
			return fmt.Errorf("set synchronous_commit: %w", err)
		}
	}
	admin, err := openPool(ctx, url)
	if err != nil {
		return err
	}
	defer admin.Close()
	// es.event gets the rows of two sides: those of the INSERT go to streams of
	// another name.
	for _, sql := range []string{
		`create table public.bare (like es.event including defaults, primary key (id), unique (stream, version))`,
		`create table public.shaped (like es.event including all)`,
		`alter table public.shaped add foreign key (stream) references es.stream`,
		fmt.Sprintf(`insert into es.stream select format('course/%%s-%%s', c, s), 0 from generate_series(0, %d) c, generate_series(0, %d) s`, clients-1, streamsOfClient-1),
	} {
		if _, err := admin.Exec(ctx, sql); err != nil {
			return fmt.Errorf("prepare tables: %w", err)
		}
	}
	store, err := openApp(ctx, url)
	if err != nil {
		return err
	}
	defer store.Close()
	declaredURL, err := b.database(ctx, name+"_declared")
	if err != nil {
		return err
	}
	if !synced {
		if _, err := b.admin.Exec(ctx, "ALTER DATABASE "+name+"_declared SET synchronous_commit = off"); err != nil {
			return fmt.Errorf("set synchronous_commit: %w", err)
		}
	}
	declared, err := b.installed(ctx, declaredURL, nil)
	if err != nil {
		return err
	}
	defer declared.Close()
	sides := []*side{
		insertSide("INSERT into a table with the same columns, primary and unique key", "public.bare", admin),
		insertSide("INSERT into a table as es.event is (foreign key and index of subjects too)", "public.shaped", admin),
		appendSide("es.append", store),
		appendSide("es.append of a declared type", declared),
	}
	rates, err := b.compare(ctx, sides)
	if err != nil {
		return err
	}
	g := b.figures.group(fmt.Sprintf("one event to one stream a call, %d clients, %s", clients, how(synced)), "calls/s", "of the first INSERT", "of the second")
	for i, s := range sides {
		l := line{name: s.name, cells: []string{whole(rates[i])}}
		if i > 0 {
			l.cells = append(l.cells, ratio(rates[i], rates[0]))
		} else {
			l.cells = append(l.cells, "1")
		}
		if i > 1 {
			l.cells = append(l.cells, ratio(rates[i], rates[1]))
		} else {
			l.cells = append(l.cells, "")
		}
		if i == 2 {
			l.mark = atLeast(goalAppend, "%.2f").mark(spreadOf(ratios(rates[i], rates[0])).median)
		}
		g.add(l)
	}
	declared.Close()
	return b.drop(ctx, name+"_declared")
}

// installed makes a store with declared types and views, for an application to use.
// There are no events yet: the views are live at once.
func (b *eventBench) installed(ctx context.Context, url string, views []intent.View) (*eventstore.Store, error) {
	d := intent.Definitions{MaxEvent: 1 << 20, Events: universityEvents(), Views: views}
	if err := install(ctx, url, d); err != nil {
		return nil, err
	}
	return openApp(ctx, url)
}

// inline compares appends with and without inline views.
func (b *eventBench) inline(ctx context.Context) error {
	b.say("appending, %d clients, with inline views", clients)
	all := inlineViews()
	var sides []*side
	counts := []int{0, 1, len(all)}
	for _, n := range counts {
		url, err := b.database(ctx, fmt.Sprintf("inline%d", n))
		if err != nil {
			return err
		}
		store, err := b.installed(ctx, url, all[:n])
		if err != nil {
			return err
		}
		defer store.Close()
		sides = append(sides, appendSide(fmt.Sprintf("%d views", n), store))
	}
	rates, err := b.compare(ctx, sides)
	if err != nil {
		return err
	}
	g := b.figures.group(fmt.Sprintf("inline views of one type, declared, %d clients, %s", clients, how(true)), "calls/s", "times the cost without")
	for i, s := range sides {
		l := line{name: s.name, cells: []string{whole(rates[i])}}
		if i > 0 {
			cost := ratios(rates[0], rates[i])
			l.cells = append(l.cells, ratio(rates[0], rates[i]))
			if counts[i] == len(all) {
				l.mark = atMost(goalInline, "%.1f").mark(spreadOf(cost).median)
			}
		}
		g.add(l)
	}
	for i, n := range counts {
		if err := b.checkInline(ctx, sides[i], n); err != nil {
			return err
		}
		sides[i].pool.Close()
		if err := b.drop(ctx, fmt.Sprintf("inline%d", n)); err != nil {
			return err
		}
	}
	return nil
}

// checkInline compares the views' rows with the appends that were made.
func (b *eventBench) checkInline(ctx context.Context, s *side, views int) error {
	want := 0
	for _, n := range s.done {
		want += n
	}
	for _, sql := range []string{
		`select count(*) from views.enrolments`,
		`select sum(n) from views.counts`,
	}[:min(views, 2)] {
		var got int
		if err := s.pool.QueryRow(ctx, sql).Scan(&got); err != nil {
			return fmt.Errorf("read an inline view: %w", err)
		}
		if got != want {
			return fmt.Errorf("%s: %s gives %d after %d appends", s.name, sql, got, want)
		}
	}
	return nil
}
