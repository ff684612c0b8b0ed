package cdctest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"cdc/internal/cdc"
)

// Record is one record as an independent client read it.
type Record struct {
	Partition int32
	Offset    int64
	Key       []byte
	Value     []byte // nil for a tombstone
	Headers   []cdc.Header
	Time      time.Time
}

// Header returns the value of the first header of that key.
func (r Record) Header(key string) (value []byte, ok bool) {
	for _, h := range r.Headers {
		if h.Key == key {
			return h.Value, true
		}
	}
	return nil, false
}

// readLimit bounds a Read, WaitRecords' default.
const readLimit = 60 * time.Second

// Read returns everything a read_committed client sees in the topic up to its
// end offsets now: the partitions one after the other, each in offset order. A
// topic that does not exist fails the test.
func Read(t testing.TB, brokers []string, topic string) []Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), readLimit)
	defer cancel()
	records, err := read(ctx, brokers, topic)
	if err != nil {
		t.Fatalf("read topic %s: %v", topic, err)
	}
	return records
}

func read(ctx context.Context, brokers []string, topic string) ([]Record, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	starts, err := adm.ListStartOffsets(ctx, topic)
	if err != nil {
		return nil, err
	}
	// Committed end offsets are the last stable ones: what lies behind them is
	// not visible to a read_committed client.
	ends, err := adm.ListCommittedOffsets(ctx, topic)
	if err != nil {
		return nil, err
	}
	if err := ends.Error(); err != nil {
		return nil, err
	}
	var records []Record
	for partition := range int32(len(ends[topic])) {
		start, _ := starts.Lookup(topic, partition)
		end, ok := ends.Lookup(topic, partition)
		if !ok {
			return nil, fmt.Errorf("partition %d is missing", partition)
		}
		if end.Offset <= start.Offset {
			continue
		}
		part, err := readPartition(ctx, brokers, topic, partition, start.Offset, end.Offset)
		if err != nil {
			return nil, err
		}
		records = append(records, part...)
	}
	return records, nil
}

// readPartition reads from start up to the offset before end. Control records
// are kept, because a marker may be the last thing there is. Where compaction has
// taken the last records nothing arrives at all: then the log itself is asked.
func readPartition(ctx context.Context, brokers []string, topic string, partition int32, start, end int64) ([]Record, error) {
	cl, err := kgo.NewClient(
		kgo.SeedBrokers(brokers...),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(),
		kgo.FetchMaxWait(100*time.Millisecond),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().At(start)}}),
	)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	var records []Record
	for next := start; next < end; {
		poll, cancel := context.WithTimeout(ctx, silence)
		fetches := cl.PollFetches(poll)
		cancel()
		for _, e := range fetches.Errors() {
			if ctx.Err() != nil || !errors.Is(e.Err, context.DeadlineExceeded) {
				return nil, fmt.Errorf("partition %d: %w", partition, e.Err)
			}
		}
		fetches.EachRecord(func(r *kgo.Record) {
			next = r.Offset + 1
			if r.Attrs.IsControl() || r.Offset >= end {
				return
			}
			records = append(records, convert(r))
		})
		if fetches.NumRecords() == 0 {
			left, err := anyLeft(ctx, cl, topic, partition, next)
			if err != nil {
				return nil, fmt.Errorf("partition %d: %w", partition, err)
			}
			if !left {
				return records, nil
			}
		}
	}
	return records, nil
}

// silence is how long a reader hears nothing before it asks the log whether
// there is anything to hear.
const silence = 500 * time.Millisecond

// anyLeft says that a batch with records lies at or behind offset. It reads the
// first answer of a fetch, whose batches begin there.
func anyLeft(ctx context.Context, cl *kgo.Client, topic string, partition int32, offset int64) (bool, error) {
	req := kmsg.NewPtrFetchRequest()
	req.MaxBytes = 1 << 20
	req.ReplicaID = -1
	t := kmsg.NewFetchRequestTopic()
	t.Topic = topic
	part := kmsg.NewFetchRequestTopicPartition()
	part.Partition = partition
	part.FetchOffset = offset
	part.PartitionMaxBytes = 1 << 20
	part.CurrentLeaderEpoch = -1
	t.Partitions = append(t.Partitions, part)
	req.Topics = append(req.Topics, t)
	details, err := kadm.NewClient(cl).ListTopics(ctx, topic)
	if err != nil {
		return false, err
	}
	req.Topics[0].TopicID = details[topic].ID
	res, err := req.RequestWith(ctx, cl.Broker(int(details[topic].Partitions[partition].Leader)))
	if err != nil {
		return false, err
	}
	if len(res.Topics) != 1 || len(res.Topics[0].Partitions) != 1 {
		return false, fmt.Errorf("fetch at %d: the answer holds no partition", offset)
	}
	got := res.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(got.ErrorCode); err != nil {
		return false, fmt.Errorf("fetch at %d: %w", offset, err)
	}
	return holdsRecords(got.RecordBatches, offset), nil
}

// holdsRecords reads the headers of record batches (Kafka message format v2):
// base offset 0, length 8, last offset delta 23, number of records 57. A batch
// that compaction has emptied is kept, with none. The last batch may be cut off.
func holdsRecords(batches []byte, offset int64) bool {
	const header = 61
	for len(batches) >= header {
		base := int64(binary.BigEndian.Uint64(batches))
		last := base + int64(int32(binary.BigEndian.Uint32(batches[23:])))
		if last >= offset && binary.BigEndian.Uint32(batches[57:]) > 0 {
			return true
		}
		size := 12 + int64(binary.BigEndian.Uint32(batches[8:]))
		if size > int64(len(batches)) {
			return false
		}
		batches = batches[size:]
	}
	return false
}

func convert(r *kgo.Record) Record {
	rec := Record{Partition: r.Partition, Offset: r.Offset, Key: r.Key, Value: r.Value, Time: r.Timestamp}
	for _, h := range r.Headers {
		rec.Headers = append(rec.Headers, cdc.Header{Key: h.Key, Value: h.Value})
	}
	return rec
}

// Fold keeps the latest value of each key; a tombstone removes the key.
func Fold(records []Record) map[string]string {
	state := make(map[string]string)
	for _, r := range records {
		if r.Value == nil {
			delete(state, string(r.Key))
		} else {
			state[string(r.Key)] = string(r.Value)
		}
	}
	return state
}

// WaitRecords reads the topic until cond holds for everything in it, and returns
// that. The topic may come into being meanwhile. It fails the test after a minute.
func WaitRecords(t testing.TB, brokers []string, topic string, cond func([]Record) bool) []Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), readLimit)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	var records []Record
	var err error
	for {
		if records, err = read(ctx, brokers, topic); err == nil && cond(records) {
			return records
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("wait for records in %s: not there after %v; %d records, last error: %v", topic, readLimit, len(records), err)
		}
	}
}

// AtLeast is a condition for WaitRecords.
func AtLeast(n int) func([]Record) bool {
	return func(records []Record) bool { return len(records) >= n }
}
