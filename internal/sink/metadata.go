package sink

import (
	"context"
	"fmt"
	"net"
	"strconv"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/metadata"

	"cdc/internal/cdc"
)

// refresh asks for the metadata of topics: nil for all, empty for brokers alone.
func (c *Client) refresh(ctx context.Context, topics []string) (*metadata.Response, error) {
	k, err := c.anyConn(ctx)
	if err != nil {
		return nil, err
	}
	m, err := k.roundTrip(ctx, &metadata.Request{TopicNames: topics})
	if err != nil {
		return nil, err
	}
	res, ok := m.(*metadata.Response)
	if !ok {
		return nil, fmt.Errorf("%w: %T", errMalformed, m)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(res.Brokers) > 0 {
		c.brokers = make(map[int32]string, len(res.Brokers))
	}
	for _, b := range res.Brokers {
		c.brokers[b.NodeID] = net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port)))
	}
	for _, t := range res.Topics {
		for _, p := range t.Partitions {
			tp := cdc.TopicPartition{Topic: t.Name, Partition: p.PartitionIndex}
			if p.LeaderID < 0 || p.ErrorCode == int16(kafka.LeaderNotAvailable) {
				delete(c.leaders, tp)
				continue
			}
			c.leaders[tp] = p.LeaderID
		}
	}
	return res, nil
}

// group sorts partitions by their leaders, asking for those that are not known;
// fresh asks for all of them again.
func (c *Client) group(ctx context.Context, tps []cdc.TopicPartition, fresh bool) (map[int32][]cdc.TopicPartition, error) {
	for try := 0; ; try++ {
		by := map[int32][]cdc.TopicPartition{}
		var missing []cdc.TopicPartition
		c.mu.Lock()
		for _, tp := range tps {
			if id, ok := c.leaders[tp]; ok {
				by[id] = append(by[id], tp)
			} else {
				missing = append(missing, tp)
			}
		}
		c.mu.Unlock()
		switch {
		case try == 0 && fresh:
			missing = tps
		case len(missing) == 0:
			return by, nil
		case try == 1:
			return nil, fmt.Errorf("leader of %s: %w", missing[0], c.missing(missing[0]))
		}
		if err := c.learn(ctx, missing); err != nil {
			return nil, err
		}
		if try == 1 {
			return nil, fmt.Errorf("leader of %s: %w", missing[0], c.missing(missing[0]))
		}
	}
}

// missing says why a partition has no leader after its topic was asked for.
func (c *Client) missing(tp cdc.TopicPartition) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for known := range c.leaders {
		if known.Topic == tp.Topic {
			return kafka.LeaderNotAvailable
		}
	}
	return kafka.UnknownTopicOrPartition
}

// learn asks for the leaders of partitions and forgets what it cannot learn.
func (c *Client) learn(ctx context.Context, tps []cdc.TopicPartition) error {
	c.mu.Lock()
	var topics []string
	seen := map[string]bool{}
	for _, tp := range tps {
		delete(c.leaders, tp)
		if !seen[tp.Topic] {
			seen[tp.Topic] = true
			topics = append(topics, tp.Topic)
		}
	}
	c.mu.Unlock()
	res, err := c.refresh(ctx, topics)
	if err != nil {
		return err
	}
	for _, t := range res.Topics {
		if t.ErrorCode == int16(kafka.TopicAuthorizationFailed) {
			return denied(fmt.Errorf("topic %s: %w", t.Name, kafka.TopicAuthorizationFailed), rightDescribe, c.user(), "", t.Name)
		}
		if t.ErrorCode == int16(kafka.InvalidTopic) {
			return fmt.Errorf("topic %s: %w", t.Name, kafka.InvalidTopic)
		}
	}
	return nil
}

// leaderOf is the node that leads a partition; fresh asks again.
func (c *Client) leaderOf(ctx context.Context, tp cdc.TopicPartition, fresh bool) (int32, error) {
	by, err := c.group(ctx, []cdc.TopicPartition{tp}, fresh)
	for id := range by {
		return id, err
	}
	return 0, err
}
