package cdctest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"cdc/internal/broker"
)

// cleanable are the settings under which Apache Kafka compacts everything but the
// segment that is written to, soon, and keeps no tombstone for long.
var cleanable = map[string]string{
	"segment.ms":                "1",
	"min.cleanable.dirty.ratio": "0",
	"min.compaction.lag.ms":     "0",
	"delete.retention.ms":       "0",
}

// Compact has every broker that holds topics compact them, and returns when every key
// is there once; the settings of the topics are then what they were. compact has the
// broker begin. Nobody else may write to the topics meanwhile.
func (o *Observer) Compact(ctx context.Context, compact func(context.Context) error, topics ...string) error {
	adm, err := o.admin()
	if err != nil {
		return err
	}
	before, err := adm.DescribeTopicConfigs(ctx, topics...)
	if err != nil {
		return fmt.Errorf("describe topics: %w", err)
	}
	for _, topic := range topics {
		if err := o.configure(ctx, topic, cleanable); err != nil {
			return err
		}
		if err := o.roll(ctx, topic); err != nil {
			return fmt.Errorf("roll the segments of %s: %w", topic, err)
		}
	}
	if err := compact(ctx); err != nil {
		return err
	}
	if err := o.awaitCompacted(ctx, topics); err != nil {
		return err
	}
	for _, topic := range before {
		if topic.Err != nil {
			return fmt.Errorf("describe topic %s: %w", topic.Name, topic.Err)
		}
		old := map[string]string{}
		for _, c := range topic.Configs {
			if _, ok := cleanable[c.Key]; ok {
				old[c.Key] = c.MaybeValue()
			}
		}
		if err := o.configure(ctx, topic.Name, old); err != nil {
			return err
		}
	}
	return nil
}

// CompactEmbedded is Compact with the broker that is built into cdc, over its directory
// while no cdc runs.
func (o *Observer) CompactEmbedded(ctx context.Context, dir, listen string, topics ...string) error {
	b, err := broker.Start(ctx, broker.Config{Dir: dir, Listen: listen})
	if err != nil {
		return err
	}
	return errors.Join(o.Compact(ctx, b.Compact, topics...), b.Close())
}

// Compact is for Observer.Compact. The cleaner of Apache Kafka looks by itself.
func (b *StandaloneBroker) Compact(context.Context) error {
	if f, ok := b.node.(*fakeProcess); ok {
		return f.proc.Signal(syscall.SIGUSR1)
	}
	return nil
}

func (o *Observer) configure(ctx context.Context, topic string, config map[string]string) error {
	adm, err := o.admin()
	if err != nil {
		return err
	}
	var all []kadm.AlterConfig
	for name, value := range config {
		all = append(all, kadm.AlterConfig{Name: name, Value: &value})
	}
	if err := altered(adm.AlterTopicConfigs(ctx, all, topic)); err != nil {
		return fmt.Errorf("configure topic %s: %w", topic, err)
	}
	return nil
}

func altered(answers kadm.AlterConfigsResponses, err error) error {
	for _, a := range answers {
		err = errors.Join(err, a.Err)
	}
	return err
}

// roll puts the marker of a transaction without records into every partition of a
// topic: what is before it is then in a segment that is not written to any more.
func (o *Observer) roll(ctx context.Context, topic string) error {
	adm, err := o.admin()
	if err != nil {
		return err
	}
	details, err := adm.ListTopics(ctx, topic)
	if err != nil {
		return err
	}
	id := "cdctest-" + topic
	begin := kmsg.NewPtrInitProducerIDRequest()
	begin.TransactionalID, begin.TransactionTimeoutMillis = &id, 60_000
	for {
		producer, err := begin.RequestWith(ctx, o.client)
		if err == nil {
			err = kerr.ErrorForCode(producer.ErrorCode)
		}
		if err == nil {
			err = o.mark(ctx, id, producer, topic, int32(len(details[topic].Partitions)))
		}
		if !kerr.IsRetriable(err) {
			return err
		}
		if err := pause(ctx, err); err != nil {
			return err
		}
	}
}

func (o *Observer) mark(ctx context.Context, id string, p *kmsg.InitProducerIDResponse, topic string, partitions int32) error {
	add := kmsg.NewPtrAddPartitionsToTxnRequest()
	add.TransactionalID, add.ProducerID, add.ProducerEpoch = id, p.ProducerID, p.ProducerEpoch
	to := kmsg.NewAddPartitionsToTxnRequestTopic()
	to.Topic = topic
	for n := range partitions {
		to.Partitions = append(to.Partitions, n)
	}
	add.Topics = append(add.Topics, to)
	added, err := add.RequestWith(ctx, o.client)
	if err != nil {
		return err
	}
	for _, t := range added.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return err
			}
		}
	}
	end := kmsg.NewPtrEndTxnRequest()
	end.TransactionalID, end.ProducerID, end.ProducerEpoch = id, p.ProducerID, p.ProducerEpoch
	ended, err := end.RequestWith(ctx, o.client)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(ended.ErrorCode)
}

// awaitCompacted waits until no partition has a key twice.
func (o *Observer) awaitCompacted(ctx context.Context, topics []string) error {
	for {
		double := ""
		got, err := o.Read(ctx, topics...)
		if err != nil { // its segments change under it
			double = err.Error()
		}
		for topic, records := range got {
			seen := map[string]bool{}
			for _, r := range records {
				key := fmt.Sprint(r.Partition, " ", string(r.Key))
				if seen[key] {
					double = fmt.Sprintf("topic %s partition %d is not compacted: key %q is there more than once", topic, r.Partition, r.Key)
				}
				seen[key] = true
			}
		}
		if double == "" {
			return nil
		}
		if err := pause(ctx, errors.New(double)); err != nil {
			return err
		}
	}
}

// pause waits a moment, or returns why with the end of ctx.
func pause(ctx context.Context, why error) error {
	select {
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", context.Cause(ctx), why)
	case <-time.After(50 * time.Millisecond):
		return nil
	}
}

// compactWhenAsked compacts at every SIGUSR1.
func compactWhenAsked(c *kfake.Cluster) {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR1)
	for range asked {
		c.Compact()
	}
}
