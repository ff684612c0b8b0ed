package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/format"
	"cdc/internal/pipeline"
	"cdc/internal/sink"
	"cdc/internal/source"
)

// The sinks.
const (
	sinkDiscard  = "discard"  // sealed batches are dropped
	sinkEmbedded = "embedded" // the embedded broker in another process, every batch synced to disk
	sinkKafka    = "kafka"    // Apache Kafka, one node
)

// job is one run of a pipeline: what it reads, what it writes, when it ends.
type job struct {
	Name    string // of pipeline and slot
	URL     string
	Table   string // also names the publication
	Brokers []string
	Format  string
	Discard bool
	Copy    bool    // copy the table; else stream
	Rows    int     // changes there are
	Until   cdc.LSN // inside the last transaction
	Profile string  // directory, "" for none
}

// partitions is the configuration file's default.
const partitions = 6

// config is what the configuration file's defaults give, exactly-once delivery
// among them.
func (j job) config() pipeline.Config {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	cfg := pipeline.Config{
		Name: j.Name,
		// The tick is shorter than by default: acknowledgements are looked at
		// after it once the stream is at its end, and that would be measured.
		Source: source.Config{URL: j.URL, Slot: j.Name, Publication: j.Table, Include: []string{"public." + j.Table}, Tick: 20 * time.Millisecond, Logger: log},
		Sink:   sink.Config{Brokers: j.Brokers, ClientID: "cdc", Logger: log},
		Format: format.Options{Format: j.Format, Server: j.Name, Toast: "fill", Unknown: "text"},
		Writer: sink.WriterConfig{Compression: "none", Memory: 64 << 20, Discard: j.Discard},
		Topic:  j.topic(), Progress: j.progress(), Partitions: partitions, Replication: -1,
		Delivery: pipeline.ExactlyOnce, Snapshot: pipeline.SnapshotNever, Workers: 4,
		Toast: "fill", Truncate: "tombstones", Oversize: "stop", OnGap: "stop",
		Logger: log,
	}
	if j.Copy {
		cfg.Snapshot = pipeline.SnapshotOnly
	}
	return cfg
}

func (j job) topic() string { return j.Name + ".public." + j.Table }

func (j job) progress() string { return "_cdc.progress." + j.Name }

// prepare makes the job's slot, publication and progress record: a pipeline that
// runs until it streams, and is stopped.
func (j job) prepare(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	cfg := j.config()
	cfg.Writer.Discard = false
	p := pipeline.New(cfg)
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	tick := time.NewTicker(statusEvery)
	defer tick.Stop()
	for p.Status().State != cdc.StateStreaming {
		select {
		case err := <-done:
			if err == nil {
				err = errors.New("it ended")
			}
			return fmt.Errorf("prepare pipeline %s: %w", j.Name, err)
		case <-tick.C:
		}
	}
	stop()
	if err := <-done; err != nil {
		return fmt.Errorf("prepare pipeline %s: %w", j.Name, err)
	}
	return nil
}

// finished says that every change was read and acknowledged. A keepalive in the
// middle of a transaction moves the acknowledged position too, so that alone
// does not tell.
func (j job) finished(s cdc.Status) bool {
	return s.Changes >= uint64(j.Rows) && s.Acked >= j.Until && s.Acked == s.Received
}

// check compares what a run says of itself, and then what is in the topic, with
// the number of rows there must be.
func (j job) check(ctx context.Context, o outcome) error {
	rows := j.Rows
	if o.Changes != uint64(rows) || o.Records != uint64(rows) || o.Restarts != 0 {
		return fmt.Errorf("%s: %d changes, %d records and %d restarts, want %d, %d and 0", j.Name, o.Changes, o.Records, o.Restarts, rows, rows)
	}
	if j.Discard {
		return nil
	}
	return j.withClient(ctx, func(c *sink.Client) error {
		found, err := countTopic(ctx, c, j.topic())
		if err == nil && found != rows {
			err = fmt.Errorf("%s: %d records in topic %s, want %d", j.Name, found, j.topic(), rows)
		}
		return err
	})
}

// countTopic counts the records of a topic; the positions of a partition must rise.
func countTopic(ctx context.Context, c *sink.Client, topic string) (int, error) {
	n := 0
	for i := range int32(partitions) {
		tp := cdc.TopicPartition{Topic: topic, Partition: i}
		start, end, err := c.Offsets(ctx, []cdc.TopicPartition{tp})
		if err != nil {
			return n, err
		}
		var last cdc.Position
		err = c.ReadAll(ctx, tp, start[tp], end[tp], func(m *sink.Message) error {
			s, ok, err := m.Stamp()
			if err == nil && (!ok || !last.Before(s.Position)) {
				err = fmt.Errorf("%s offset %d: position %s behind %s", tp, m.Offset, s.Position, last)
			}
			n, last = n+1, s.Position
			return err
		})
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// forget deletes the job's topics, so that the disk does not fill.
func (j job) forget(ctx context.Context) error {
	return j.withClient(ctx, func(c *sink.Client) error {
		return errors.Join(c.DeleteTopic(ctx, j.topic()), c.DeleteTopic(ctx, j.progress()))
	})
}

func (j job) withClient(ctx context.Context, f func(c *sink.Client) error) error {
	c, err := sink.Dial(ctx, sink.Config{Brokers: j.Brokers})
	if err != nil {
		return err
	}
	return errors.Join(f(c), c.Close())
}
