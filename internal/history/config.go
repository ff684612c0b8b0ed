package history

import (
	"context"
	"log/slog"
	"time"

	"cdc/internal/eventstore"
	"cdc/internal/intent"
	"cdc/internal/sink"
)

// Log is the numbered log of a store; *eventstore.Store is one.
type Log interface {
	// Log calls fn with the events behind a position, in their order, at most limit
	// of them, and returns the position it has read up to. types nil: all events.
	// fn's error ends it and comes back. It blocks, and is called by one goroutine.
	Log(ctx context.Context, after int64, limit int, types []string, fn func(*intent.Event) error) (last int64, err error)
	// Head is the position of the newest event, 0 where there is none.
	Head(ctx context.Context) (int64, error)
}

// Config is what a Publisher needs.
type Config struct {
	Name    string    // of the pipeline: the transactional id
	Store   Log       // what is published
	StoreID intent.ID // es.meta.store
	// Head is told the position of the newest event as it is numbered. Nil, or a head
	// that nobody sets, costs latency alone: the store is asked every heartbeat.
	Head *eventstore.Head

	Sink     sink.Config
	Writer   sink.WriterConfig // TransactionalID is set from Delivery, MaxRecordBytes from the topics
	Topic    string            // template, cdc.EventTopicName
	Database string            // {database} of it
	Progress string            // topic of the progress records
	// Categories get their topic at the start; others when their first event is met.
	Categories []string

	Partitions  int
	Replication int // 0 or -1: the broker's default
	TopicConfig map[string]string

	Delivery   Delivery      // default ExactlyOnce
	GuardEvery time.Duration // how often topics are looked at; default compaction.DefaultGuardInterval

	Logger *slog.Logger // carries the pipeline's name
	// Hook, where set, is called at the Hook… points and those of package sink, so
	// that tests can kill the process there.
	Hook func(point string)
}

// Delivery is the promise to readers of the topics.
type Delivery string

// The deliveries. At-least-once is for brokers without InitProducerId: what was not
// recorded in the progress topic is written again.
const (
	ExactlyOnce Delivery = "exactly-once"
	AtLeastOnce Delivery = "at-least-once"
)

// Points at which Config.Hook is called, beside those of sink.WriterConfig.
const (
	HookTopics       = "topics"        // topics are about to be made
	HookTakeOver     = "take-over"     // all topics are there
	HookProgressRead = "progress-read" // taken over, and the progress read again
	HookCategories   = "categories"    // what the topics were made as is about to be recorded
	HookFollow       = "follow"        // the log is about to be read
	HookProgress     = "progress"      // a progress record is about to be appended
	HookStop         = "stop"          // everything is acknowledged and recorded
	HookRepublish    = "republish"     // topics are there and fenced, the progress is about to be put back
)

const (
	// progressEvery bounds how often the progress record is written while events
	// flow: a restart reads about this much again.
	progressEvery = time.Second
	// heartbeat is how often it is written while none do.
	heartbeat = 10 * time.Second
	// silentAfter is how long a publisher that was replaced waits for a sign of life
	// of the other: three heartbeats.
	silentAfter = 3 * heartbeat
	// waitPoll is how often it looks.
	waitPoll = time.Second
	// stopWithin bounds the orderly stop; the process promises 10 s in all.
	stopWithin = 8 * time.Second
	// stalledAfter is how long buffered records may go without any acknowledgement
	// before the publication counts as stalled.
	stalledAfter = 30 * time.Second
	// chunkEvents bounds one reading of the log: a statement is short, and its cost
	// is spread over many events.
	chunkEvents = 1000
	// firstChunk is the first one, when the size of events is not known yet.
	firstChunk = 100
	// chunkBytes bounds the same: what is read is appended without waiting for room,
	// so it comes on top of the writer's memory.
	chunkBytes = 4 << 20
	// maxPlaces bounds the marks that are waiting for an acknowledgement.
	maxPlaces = 1024
	// maxTopics bounds the topics of a pipeline. Categories are kinds of things; where
	// there are thousands of them, ids stand before the first '/' of streams.
	maxTopics = 1000
	// lastStampWithin bounds one look at the end of a partition.
	lastStampWithin = 20 * time.Second
	// askers is how many partitions are looked at at once.
	askers = 8
)
