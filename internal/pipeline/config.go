package pipeline

import (
	"log/slog"
	"time"

	"cdc/internal/format"
	"cdc/internal/sink"
	"cdc/internal/source"
)

// Config is what one pipeline needs. Names are those of the configuration file.
type Config struct {
	Name     string
	Source   source.Config
	Sink     sink.Config
	Format   format.Options
	Writer   sink.WriterConfig // TransactionalID is set from Delivery
	Topic    string            // template, cdc.TopicName
	Progress string            // topic of the progress record

	Partitions  int
	Replication int
	TopicConfig map[string]string

	Delivery   Delivery
	Snapshot   SnapshotMode
	Workers    int
	ChunkRows  int    // of a chunk of a copy beside the stream, at most; default chunkRows
	Toast      string // fill | omit | placeholder | refuse
	Truncate   string // tombstones | stop
	Oversize   string // stop | dead-letter
	DeadLetter string // topic
	OnGap      string // stop | resnapshot
	Messages   string // topic of logical messages, "" for none
	// Rebuild, where set, says that the topics lost records and every table is to be
	// copied again; Rebuilt is called once that is done.
	Rebuild func() bool
	Rebuilt func() error

	Verify VerifySchedule

	GuardEvery   time.Duration // how often topics are looked at; default compaction.DefaultGuardInterval
	MonitorEvery time.Duration // how often slot and publication are looked at; default monitorEvery

	Logger *slog.Logger
	// Hook, where set, is called at named points of a life, so that tests can
	// kill the process there.
	Hook func(point string)
}

// Delivery is the promise to readers of the topics.
type Delivery string

// The deliveries.
const (
	ExactlyOnce Delivery = "exactly-once"
	AtLeastOnce Delivery = "at-least-once"
)

// SnapshotMode says whether the rows that are there are copied first.
type SnapshotMode string

// The snapshot modes.
const (
	SnapshotInitial SnapshotMode = "initial"
	SnapshotNever   SnapshotMode = "never"
	SnapshotOnly    SnapshotMode = "only"
)

const (
	// progressEvery bounds how often the progress record is written while rows
	// flow: a restart replays about this much.
	progressEvery = time.Second
	// idleProgressEvery bounds it where only the server's own position moves, so
	// that an idle pipeline costs a record every ten seconds at most.
	idleProgressEvery = 10 * time.Second
	// houseEvery is how often the loop looks at acknowledgements while rows flow.
	houseEvery = 20 * time.Millisecond
	// slotPoll is how often a held slot is looked at again.
	slotPoll = time.Second
	// stopWithin bounds the orderly stop; the process promises 10 s in all.
	stopWithin = 8 * time.Second
	// stopGuardEvery is how often topics are looked at meanwhile; most stops are over
	// before the first look.
	stopGuardEvery = time.Second
	// backoffMin and backoffMax bound the wait between two lives.
	backoffMin = 500 * time.Millisecond
	backoffMax = 30 * time.Second
	// monitorEvery is how often slot, publication and topics are looked at.
	monitorEvery = 10 * time.Second
	// stalledAfter is how long buffered records may go without any acknowledgement
	// before readiness turns red.
	stalledAfter = 30 * time.Second
	// liveKeysMemory bounds what is held while the live keys of a partition are
	// listed (TRUNCATE, ghosts).
	liveKeysMemory = 64 << 20
)
