package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"cdc/internal/cdctest"
	"cdc/internal/eventstore"
	"cdc/internal/pgserver"
)

// eventSizes are the sizes of the figures of mode: events.
type eventSizes struct {
	turns   int           // of each side of a comparison of appends
	turn    time.Duration // how long one is
	commits int           // transactions of one event, written while nobody numbers
	events  int           // of the log that is followed, rebuilt and published
	rebuilt int           // of the log whose rebuild is sampled for memory, 0: not run
	timed   int           // appends whose way to a reader of the topic is timed
}

func (s *eventSizes) validate() error {
	switch {
	case s.turns < 1 || s.turn <= 0:
		return errors.New("-turns and -turn must be positive")
	case s.commits < 1 || s.events < minEvents || s.timed < 1:
		return fmt.Errorf("-commits and -timed must be positive, and -events at least %d", minEvents)
	case s.rebuilt < 0 || s.rebuilt > 0 && s.rebuilt < s.commits+s.events:
		return errors.New("-rebuild must be 0, or not less than -commits and -events together: the log is filled up to it")
	}
	return nil
}

// The figures of mode: events.
const (
	figAppend  = "append"
	figInline  = "inline"
	figNumber  = "number"
	figViews   = "views"
	figPublish = "publish"
	figMemory  = "memory"
)

var eventFigures = []string{figAppend, figInline, figNumber, figViews, figPublish, figMemory}

// takes says that a figure is wanted.
func (b *eventBench) takes(figure string) bool { return slices.Contains(b.options.figures, figure) }

// minEvents is a log of two batches of a view: one alone has no rate.
const minEvents = 10_000

// clients append at the same time.
const clients = 16

// eventSettings are a server as it is run, commits synced to disk, with room for
// the log and no statistics made in the middle of a turn.
var eventSettings = map[string]string{
	"shared_buffers":            "256MB",
	"max_wal_size":              "16GB",
	"checkpoint_timeout":        "1h",
	"autovacuum":                "off",
	"max_connections":           "200",
	"max_replication_slots":     "20",
	"max_prepared_transactions": "0",
}

// eventBench is everything that is running while it measures.
type eventBench struct {
	options
	log     io.Writer
	figures *figures
	pg      *pgserver.Server
	admin   *pgx.Conn // database postgres
}

// runEvents measures mode: events; results go to out, progress to log.
func runEvents(ctx context.Context, o options, out, log io.Writer) error {
	b := &eventBench{options: o, log: log, figures: &figures{options: o, load: loadAverage()}}
	b.say("starting PostgreSQL")
	var err error
	b.pg, err = pgserver.Start(ctx, pgserver.Options{Version: o.major, Settings: eventSettings, Notice: log})
	if err != nil {
		return err
	}
	defer b.pg.Close()
	if b.admin, err = pgx.Connect(ctx, b.pg.URL("postgres")); err != nil {
		return fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	defer func() { _ = b.admin.Close(context.WithoutCancel(ctx)) }()
	if err := b.admin.QueryRow(ctx, `SELECT current_setting('server_version')`).Scan(&b.figures.postgres); err != nil {
		return fmt.Errorf("read the server's version: %w", err)
	}
	if b.takes(figAppend) {
		if err := b.appends(ctx); err != nil {
			return err
		}
	}
	if b.takes(figInline) {
		if err := b.inline(ctx); err != nil {
			return err
		}
	}
	if slices.ContainsFunc([]string{figNumber, figViews, figPublish, figMemory}, b.takes) {
		if err := b.follow(ctx); err != nil {
			return err
		}
	}
	return b.figures.write(out)
}

func (b *eventBench) say(format string, args ...any) { fmt.Fprintf(b.log, format+"\n", args...) }

// database makes a database with an empty store and returns its URL.
func (b *eventBench) database(ctx context.Context, name string) (url string, err error) {
	if _, err := b.admin.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		return "", fmt.Errorf("create database %s: %w", name, err)
	}
	url = b.pg.URL(name)
	if _, err := eventstore.Init(ctx, url, eventstore.InitOptions{}); err != nil {
		return "", err
	}
	return url, nil
}

// drop drops a database whose figures are taken.
func (b *eventBench) drop(ctx context.Context, name string) error {
	if _, err := b.admin.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
		return fmt.Errorf("drop database %s: %w", name, err)
	}
	return nil
}

// follow is what a daemon does with a log, each part alone where it can be: it
// numbers what was appended while it was down, keeps and rebuilds views, publishes.
func (b *eventBench) follow(ctx context.Context) error {
	f, err := b.newFollowing(ctx)
	if err != nil {
		return err
	}
	defer f.close()
	if err := f.number(ctx); err != nil { // it makes the log the others need
		return err
	}
	if b.takes(figViews) {
		if err := f.views(ctx); err != nil {
			return err
		}
	}
	if b.takes(figPublish) {
		if err := f.publishAll(ctx); err != nil {
			return err
		}
	}
	if b.takes(figMemory) && b.sizes.rebuilt > 0 {
		return f.memory(ctx)
	}
	return nil
}

// publishAll publishes to each broker.
func (f *following) publishAll(ctx context.Context) error {
	addr, stop, err := startBroker()
	if err != nil {
		return err
	}
	err = f.publish(ctx, "embedded broker", addr)
	stop()
	if err != nil || f.kafka == "" {
		return err
	}
	f.say("starting Apache Kafka")
	addr, stop, err = cdctest.StartApache(ctx, f.kafka)
	if err != nil {
		return fmt.Errorf("%w (-kafka '' does without)", err)
	}
	defer stop()
	return f.publish(ctx, "Apache Kafka", addr)
}
