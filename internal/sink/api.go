package sink

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"cdc/internal/cdc"
)

// SASL is how the client proves who it is.
type SASL struct {
	Mechanism string // plain, scram-sha-256, scram-sha-512
	User      string
	Password  string
}

// Config says how to reach a cluster.
type Config struct {
	Brokers     []string // host:port, at least one
	TLS         *tls.Config
	SASL        *SASL
	ClientID    string        // default "cdc"
	DialTimeout time.Duration // default 10s, TLS and SASL included
	Logger      *slog.Logger  // default: none
}

// Client is a connection to a Kafka cluster; safe for concurrent use.
type Client struct{}

func Dial(ctx context.Context, cfg Config) (*Client, error) { panic("not yet") }
func (c *Client) Close() error                              { panic("not yet") }

func (c *Client) Topics(ctx context.Context, names ...string) (map[string]cdc.TopicState, error) {
	panic("not yet")
}
func (c *Client) CreateTopic(ctx context.Context, spec cdc.TopicSpec, config map[string]string) error {
	panic("not yet")
}
func (c *Client) SetTopicConfig(ctx context.Context, topic string, config map[string]string) error {
	panic("not yet")
}
func (c *Client) DeleteTopic(ctx context.Context, topic string) error { panic("not yet") }
func (c *Client) List(ctx context.Context, prefix string) ([]string, error) {
	panic("not yet")
}
func (c *Client) Offsets(ctx context.Context, tps []cdc.TopicPartition) (start, end map[cdc.TopicPartition]int64, err error) {
	panic("not yet")
}

// Reader reads one partition.
type Reader struct{}

func (c *Client) NewReader(tp cdc.TopicPartition, from int64) *Reader { panic("not yet") }
func (r *Reader) Next(ctx context.Context) (*Message, error)          { panic("not yet") }
func (r *Reader) HighWatermark() int64                                { panic("not yet") }
func (r *Reader) Close() error                                        { panic("not yet") }
func (c *Client) ReadAll(ctx context.Context, tp cdc.TopicPartition, from, to int64, fn func(*Message) error) error {
	panic("not yet")
}

// Message is a record read from a topic.
type Message struct {
	Offset        int64
	Time          int64 // milliseconds since 1970-01-01 UTC
	Key           []byte
	Value         []byte // nil: a tombstone
	Headers       []cdc.Header
	ProducerID    int64
	ProducerEpoch int16
}

// WriterConfig tunes a Writer; zero values take the defaults.
type WriterConfig struct {
	TransactionalID string
	Compression     string
	BatchBytes      int
	RequestBytes    int
	MaxRecordBytes  int
	Memory          int64
	InFlight        int
	Linger          time.Duration
	RequestTimeout  time.Duration
	RetryDeadline   time.Duration
	Hook            func(point string)
}

// Errors of a Writer.
var (
	ErrFenced         = errors.New("another instance has taken over")
	ErrNeedTakeOver   = errors.New("producer state lost: take over again")
	ErrRecordTooLarge = errors.New("record too large")
	ErrClosed         = errors.New("writer closed")
)

// ForeignRecordError is a data record without a stamp at the end of a partition.
type ForeignRecordError struct {
	Topic     string
	Partition int32
	Offset    int64
}

func (e *ForeignRecordError) Error() string {
	return fmt.Sprintf("topic %s partition %d offset %d", e.Topic, e.Partition, e.Offset)
}

// Mark is a place in the source's stream; opaque to the Writer.
type Mark struct {
	Position   cdc.Position
	End        cdc.LSN
	PrevEnd    cdc.LSN
	CommitTime int64
	Recorded   cdc.LSN
}

// Stats are running totals of a Writer.
type Stats struct {
	Bytes    uint64
	Records  uint64
	Batches  uint64
	Requests uint64
	Resends  uint64
	Buffered int64
	LastAck  time.Duration
	Acks     cdc.Latency
}

// Writer is the one producer of a pipeline.
type Writer struct{}

// Target is a partition that a Writer appends to.
type Target struct{}

func (c *Client) NewWriter(cfg WriterConfig) *Writer { panic("not yet") }

func (w *Writer) TakeOver(ctx context.Context, tps []cdc.TopicPartition) error { panic("not yet") }
func (w *Writer) LastStamp(ctx context.Context, tp cdc.TopicPartition) (cdc.Stamp, bool, error) {
	panic("not yet")
}
func (w *Writer) Start(ctx context.Context)                          { panic("not yet") }
func (w *Writer) Target(tp cdc.TopicPartition) *Target               { panic("not yet") }
func (w *Writer) Append(t *Target, r *cdc.Record, s cdc.Stamp) error { panic("not yet") }
func (w *Writer) Mark(m Mark)                                        { panic("not yet") }
func (w *Writer) Acked() Mark                                        { panic("not yet") }
func (w *Writer) Handover()                                          { panic("not yet") }
func (w *Writer) Full() bool                                         { panic("not yet") }
func (w *Writer) Space() <-chan struct{}                             { panic("not yet") }
func (w *Writer) Changed() <-chan struct{}                           { panic("not yet") }
func (w *Writer) Flush(ctx context.Context) error                    { panic("not yet") }
func (w *Writer) Failed() <-chan struct{}                            { panic("not yet") }
func (w *Writer) Err() error                                         { panic("not yet") }
func (w *Writer) Stats() Stats                                       { panic("not yet") }
func (w *Writer) Close() error                                       { panic("not yet") }

// Partition is Java's default partitioner.
func Partition(key []byte, partitions int32) int32 { panic("not yet") }
