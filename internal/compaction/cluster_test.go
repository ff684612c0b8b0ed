package compaction_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"cdc/internal/broker"
	"cdc/internal/cdc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cluster is an embedded broker with an independent client on it. It implements
// compaction.Admin.
type cluster struct {
	t      *testing.T
	broker *broker.Broker
	client *kgo.Client
	admin  *kadm.Client
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	b, err := broker.Start(t.Context(), broker.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.Addr()), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return &cluster{t, b, cl, kadm.NewClient(cl)}
}

func (c *cluster) Topics(ctx context.Context, names ...string) (map[string]cdc.TopicState, error) {
	// Not kadm's ListTopics, which answers from a cache.
	req := kmsg.NewPtrMetadataRequest()
	for _, name := range names {
		req.Topics = append(req.Topics, kmsg.MetadataRequestTopic{Topic: &name})
	}
	resp, err := req.RequestWith(ctx, c.client)
	if err != nil {
		return nil, err
	}
	states := make(map[string]cdc.TopicState)
	for _, d := range resp.Topics {
		err := kerr.ErrorForCode(d.ErrorCode)
		if errors.Is(err, kerr.UnknownTopicOrPartition) {
			continue
		}
		configs, errConfigs := c.admin.DescribeTopicConfigs(ctx, *d.Topic)
		if err := errors.Join(err, errConfigs); err != nil {
			return nil, err
		}
		st := cdc.TopicState{Name: *d.Topic, ID: fmt.Sprintf("%x", d.TopicID), Partitions: len(d.Partitions), Config: map[string]string{}}
		for _, rc := range configs {
			if rc.Err != nil {
				return nil, rc.Err // deleted since
			}
			for _, kv := range rc.Configs {
				st.Config[kv.Key] = kv.MaybeValue()
			}
		}
		states[*d.Topic] = st
	}
	return states, nil
}

func (c *cluster) CreateTopic(ctx context.Context, spec cdc.TopicSpec, config map[string]string) error {
	settings := make(map[string]*string, len(config))
	for k, v := range config {
		settings[k] = &v
	}
	_, err := c.admin.CreateTopic(ctx, int32(spec.Partitions), int16(spec.Replication), settings, spec.Name)
	return err
}

func (c *cluster) SetTopicConfig(ctx context.Context, topic string, config map[string]string) error {
	var alter []kadm.AlterConfig
	for k, v := range config {
		alter = append(alter, kadm.AlterConfig{Op: kadm.SetConfig, Name: k, Value: &v})
	}
	answers, err := c.admin.AlterTopicConfigs(ctx, alter, topic)
	for _, a := range answers {
		err = errors.Join(err, a.Err)
	}
	return err
}

// must is for the steps of a test that are not its point.
func (c *cluster) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) set(topic, setting, value string) {
	c.t.Helper()
	c.must(c.SetTopicConfig(c.t.Context(), topic, map[string]string{setting: value}))
}

func (c *cluster) produce(topic string, records ...*kgo.Record) {
	c.t.Helper()
	for _, r := range records {
		r.Topic = topic
	}
	c.must(c.client.ProduceSync(c.t.Context(), records...).FirstErr())
}

// ReadAll implements compaction.KeyReader with the independent client.
func (c *cluster) ReadAll(ctx context.Context, tp cdc.TopicPartition, from, to int64, fn func(key []byte, tombstone bool, offset int64) error) error {
	return c.read(ctx, tp, from, to, func(r *kgo.Record) error { return fn(r.Key, r.Value == nil, r.Offset) })
}

func (c *cluster) read(ctx context.Context, tp cdc.TopicPartition, from, to int64, fn func(*kgo.Record) error) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.broker.Addr()), kgo.KeepControlRecords(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{tp.Topic: {tp.Partition: kgo.NewOffset().At(from)}}))
	if err != nil {
		return err
	}
	defer cl.Close()
	// An offset below the log's start is where compaction has been: begin there.
	for next := from; next < to; {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("poll at %d of %d: %w", next, to, err)
		}
		for it := fetches.RecordIter(); !it.Done(); {
			r := it.Next()
			next = r.Offset + 1
			if r.Offset >= to || r.Attrs.IsControl() {
				continue
			}
			if err := fn(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// end is the partition's high watermark.
func (c *cluster) end(tp cdc.TopicPartition) int64 {
	c.t.Helper()
	ends, err := c.admin.ListEndOffsets(c.t.Context(), tp.Topic)
	c.must(err)
	end, _ := ends.Lookup(tp.Topic, tp.Partition)
	return end.Offset
}

// patience bounds every wait; nothing is asserted about time.
const patience = 10 * time.Second

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}
