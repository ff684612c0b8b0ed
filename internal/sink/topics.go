package sink

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/alterconfigs"
	"github.com/segmentio/kafka-go/protocol/createtopics"
	"github.com/segmentio/kafka-go/protocol/deletetopics"
	"github.com/segmentio/kafka-go/protocol/describeconfigs"
	"github.com/segmentio/kafka-go/protocol/incrementalalterconfigs"
	"github.com/segmentio/kafka-go/protocol/metadata"

	"cdc/internal/cdc"
)

const (
	resourceTopic int8 = 2
	// configChunk is how many topics one DescribeConfigs asks for: a topic has
	// some forty settings, and an answer must stay far below maxFrame.
	configChunk = 500
	// adminTimeout is what the broker may take to create or delete a topic.
	adminTimeout = 30 * time.Second
	// sourceTopic marks a setting that was made on the topic itself (ConfigSource DYNAMIC_TOPIC_CONFIG).
	sourceTopic int8 = 1
)

// Topics tells how topics stand: Partitions is 0 where one does not exist, Config
// holds the effective settings, defaults included, ID is "" before Kafka 2.8.
func (c *Client) Topics(ctx context.Context, names ...string) (map[string]cdc.TopicState, error) {
	out := make(map[string]cdc.TopicState, len(names))
	if len(names) == 0 {
		return out, nil
	}
	var res *metadata.Response
	var ids map[string]string
	var refused []string
	err := c.retry(ctx, controlDeadline, func(int) (err error) {
		if res, err = c.refresh(ctx, names); err != nil {
			return err
		}
		if ids, err = c.topicIDs(ctx, names); err != nil {
			return err
		}
		refused = nil
		for _, t := range res.Topics {
			switch kafka.Error(t.ErrorCode) {
			case 0, kafka.UnknownTopicOrPartition:
			case kafka.TopicAuthorizationFailed:
				refused = append(refused, t.Name)
			default:
				return fmt.Errorf("topic %s: %w", t.Name, codeError(t.ErrorCode))
			}
		}
		if len(refused) > 0 {
			return fmt.Errorf("topic %s: %w", refused[0], kafka.TopicAuthorizationFailed)
		}
		return nil
	})
	if err != nil {
		return nil, denied(err, rightDescribe, c.user(), "", refused...)
	}
	var there []string
	for _, t := range res.Topics {
		s := cdc.TopicState{Name: t.Name}
		if t.ErrorCode == 0 && len(t.Partitions) > 0 {
			s.ID = ids[t.Name]
			s.Partitions = len(t.Partitions)
			s.Replication = len(t.Partitions[0].ReplicaNodes)
			there = append(there, t.Name)
		}
		out[t.Name] = s
	}
	for chunk := range slices.Chunk(there, configChunk) {
		settings, err := c.settings(ctx, chunk)
		if err != nil {
			return nil, err
		}
		for name, cfg := range settings {
			s := out[name]
			s.Config = map[string]string{}
			for k, e := range cfg {
				s.Config[k] = e.value
			}
			out[name] = s
		}
	}
	return out, nil
}

type setting struct {
	value string
	own   bool // set on the topic itself
}

// settings asks for the effective settings of topics.
func (c *Client) settings(ctx context.Context, names []string) (map[string]map[string]setting, error) {
	req := &describeconfigs.Request{}
	for _, n := range names {
		req.Resources = append(req.Resources, describeconfigs.RequestResource{ResourceType: resourceTopic, ResourceName: n})
	}
	out := map[string]map[string]setting{}
	err := c.retry(ctx, controlDeadline, func(int) error {
		res, err := ask[*describeconfigs.Response](ctx, c, seed, req)
		if err != nil {
			return err
		}
		clear(out)
		for _, r := range res.Resources {
			switch err := codeError(r.ErrorCode); {
			case errors.Is(err, kafka.UnknownTopicOrPartition):
				continue // deleted meanwhile
			case err != nil:
				return denied(fmt.Errorf("settings of topic %s: %w", r.ResourceName, err), rightDescribeConfigs, c.user(), "", r.ResourceName)
			}
			m := map[string]setting{}
			for _, e := range r.ConfigEntries {
				m[e.ConfigName] = setting{e.ConfigValue, e.ConfigSource == sourceTopic}
			}
			out[r.ResourceName] = m
		}
		return nil
	})
	return out, err
}

// CreateTopic creates a topic with the given settings and returns when every
// partition has a leader. A topic that exists already is left as it is.
func (c *Client) CreateTopic(ctx context.Context, spec cdc.TopicSpec, config map[string]string) error {
	t := createtopics.RequestTopic{Name: spec.Name, NumPartitions: int32(spec.Partitions), ReplicationFactor: int16(spec.Replication)}
	if spec.Replication == 0 {
		t.ReplicationFactor = -1
	}
	for _, k := range slices.Sorted(maps.Keys(config)) {
		t.Configs = append(t.Configs, createtopics.RequestConfig{Name: k, Value: config[k]})
	}
	req := &createtopics.Request{Topics: []createtopics.RequestTopic{t}, TimeoutMs: int32(adminTimeout / time.Millisecond)}
	err := c.controller(ctx, func(id int32) error {
		res, err := ask[*createtopics.Response](ctx, c, id, req)
		if err != nil {
			return err
		}
		for _, r := range res.Topics {
			if err := codeError(r.ErrorCode); err != nil && !errors.Is(err, kafka.TopicAlreadyExists) {
				return withMessage(err, r.ErrorMessage)
			}
		}
		return nil
	})
	if err != nil {
		return denied(fmt.Errorf("create topic %s: %w", spec.Name, err), rightCreate, c.user(), "", spec.Name)
	}
	return c.awaitLeaders(ctx, spec.Name)
}

// awaitLeaders waits until every partition of a topic has a leader.
func (c *Client) awaitLeaders(ctx context.Context, topic string) error {
	err := c.retry(ctx, controlDeadline, func(int) error {
		res, err := c.refresh(ctx, []string{topic})
		if err != nil {
			return err
		}
		for _, t := range res.Topics {
			if t.ErrorCode != 0 {
				return codeError(t.ErrorCode)
			}
			for _, p := range t.Partitions {
				if p.LeaderID < 0 || p.ErrorCode == int16(kafka.LeaderNotAvailable) {
					return kafka.LeaderNotAvailable
				}
			}
			if len(t.Partitions) > 0 {
				return nil
			}
		}
		return kafka.UnknownTopicOrPartition
	})
	if err != nil {
		return fmt.Errorf("wait for leaders of topic %s: %w", topic, err)
	}
	return nil
}

// SetTopicConfig changes the named settings of a topic and leaves the others.
func (c *Client) SetTopicConfig(ctx context.Context, topic string, config map[string]string) error {
	if len(config) == 0 {
		return nil
	}
	r := incrementalalterconfigs.RequestResource{ResourceType: resourceTopic, ResourceName: topic}
	for _, k := range slices.Sorted(maps.Keys(config)) {
		r.Configs = append(r.Configs, incrementalalterconfigs.RequestConfig{Name: k, Value: config[k]})
	}
	err := c.controller(ctx, func(id int32) error {
		res, err := ask[*incrementalalterconfigs.Response](ctx, c, id, &incrementalalterconfigs.Request{Resources: []incrementalalterconfigs.RequestResource{r}})
		if err != nil {
			return err
		}
		for _, a := range res.Responses {
			if err := codeError(a.ErrorCode); err != nil {
				return withMessage(err, a.ErrorMessage)
			}
		}
		return nil
	})
	if errors.Is(err, errVersion) || errors.Is(err, kafka.UnsupportedVersion) {
		err = c.replaceConfig(ctx, topic, config) // before Kafka 2.3
	}
	if err != nil {
		return denied(fmt.Errorf("change settings of topic %s: %w", topic, err), rightAlterConfigs, c.user(), "", topic)
	}
	return nil
}

// replaceConfig sends the topic's whole set of own settings with the changes in
// it: AlterConfigs forgets what it is not told.
func (c *Client) replaceConfig(ctx context.Context, topic string, config map[string]string) error {
	now, err := c.settings(ctx, []string{topic})
	if err != nil {
		return err
	}
	merged := map[string]string{}
	for k, e := range now[topic] {
		if e.own {
			merged[k] = e.value
		}
	}
	maps.Copy(merged, config)
	r := alterconfigs.RequestResources{ResourceType: resourceTopic, ResourceName: topic}
	for _, k := range slices.Sorted(maps.Keys(merged)) {
		r.Configs = append(r.Configs, alterconfigs.RequestConfig{Name: k, Value: merged[k]})
	}
	return c.controller(ctx, func(id int32) error {
		res, err := ask[*alterconfigs.Response](ctx, c, id, &alterconfigs.Request{Resources: []alterconfigs.RequestResources{r}})
		if err != nil {
			return err
		}
		for _, a := range res.Responses {
			if err := codeError(a.ErrorCode); err != nil {
				return withMessage(err, a.ErrorMessage)
			}
		}
		return nil
	})
}

// DeleteTopic deletes a topic and waits until the brokers no longer tell of it, so
// that one made anew is not taken for it. One that does not exist is not an error.
func (c *Client) DeleteTopic(ctx context.Context, topic string) error {
	req := &deletetopics.Request{TopicNames: []string{topic}, TimeoutMs: int32(adminTimeout / time.Millisecond)}
	err := c.controller(ctx, func(id int32) error {
		res, err := ask[*deletetopics.Response](ctx, c, id, req)
		if err != nil {
			return err
		}
		for _, r := range res.Responses {
			if err := codeError(r.ErrorCode); err != nil && !errors.Is(err, kafka.UnknownTopicOrPartition) {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return denied(fmt.Errorf("delete topic %s: %w", topic, err), rightDelete, c.user(), "", topic)
	}
	c.mu.Lock()
	maps.DeleteFunc(c.leaders, func(tp cdc.TopicPartition, _ int32) bool { return tp.Topic == topic })
	c.mu.Unlock()
	err = c.retry(ctx, controlDeadline, func(int) error {
		res, err := c.refresh(ctx, []string{topic})
		if err != nil {
			return err
		}
		for _, t := range res.Topics {
			if t.ErrorCode == 0 {
				return kafka.LeaderNotAvailable // still told of: a wait
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("wait until topic %s is gone: %w", topic, err)
	}
	return nil
}

// List names the topics with a prefix, sorted, Kafka's internal ones left out.
func (c *Client) List(ctx context.Context, prefix string) ([]string, error) {
	var names []string
	err := c.retry(ctx, controlDeadline, func(int) error {
		res, err := c.refresh(ctx, nil)
		if err != nil {
			return err
		}
		names = names[:0]
		for _, t := range res.Topics {
			if !t.IsInternal && t.ErrorCode == 0 && strings.HasPrefix(t.Name, prefix) {
				names = append(names, t.Name)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list topics: %w", err)
	}
	slices.Sort(names)
	return names, nil
}

// controller runs f with the controller's node id, again where it has moved.
func (c *Client) controller(ctx context.Context, f func(id int32) error) error {
	return c.retry(ctx, controlDeadline, func(int) error {
		res, err := c.refresh(ctx, []string{})
		if err != nil {
			return err
		}
		if res.ControllerID < 0 {
			return kafka.BrokerNotAvailable
		}
		return f(res.ControllerID)
	})
}

// withMessage adds what the broker says to its error code.
func withMessage(err error, message string) error {
	if message == "" {
		return err
	}
	return fmt.Errorf("%w: %s", err, message)
}
