package sink

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/segmentio/kafka-go/protocol/listoffsets"

	"cdc/internal/cdc"
)

// Timestamps of ListOffsets that mean an end of the log.
const (
	offsetEnd   int64 = -1
	offsetStart int64 = -2
)

// partitionChunk is how many partitions one control request names: thousands of
// topics must not make a request that a broker refuses or chews on for seconds.
const partitionChunk = 1000

// Offsets tells the first offset of partitions and their high watermark: the
// offset behind the last record that is replicated.
func (c *Client) Offsets(ctx context.Context, tps []cdc.TopicPartition) (start, end map[cdc.TopicPartition]int64, err error) {
	if start, err = c.listOffsets(ctx, tps, offsetStart, controlDeadline); err != nil {
		return nil, nil, err
	}
	if end, err = c.listOffsets(ctx, tps, offsetEnd, controlDeadline); err != nil {
		return nil, nil, err
	}
	return start, end, nil
}

// OffsetsSince tells the offset of the first record of each partition that is not
// older than t (milliseconds since 1970-01-01 UTC), and the high watermark where
// there is none.
func (c *Client) OffsetsSince(ctx context.Context, tps []cdc.TopicPartition, t int64) (map[cdc.TopicPartition]int64, error) {
	at, err := c.listOffsets(ctx, tps, max(t, 0), controlDeadline)
	if err != nil {
		return nil, err
	}
	var none []cdc.TopicPartition
	for tp, offset := range at {
		if offset < 0 {
			none = append(none, tp)
		}
	}
	if len(none) == 0 {
		return at, nil
	}
	end, err := c.listOffsets(ctx, none, offsetEnd, controlDeadline)
	maps.Copy(at, end)
	return at, err
}

func (c *Client) listOffsets(ctx context.Context, tps []cdc.TopicPartition, which int64, patience time.Duration) (map[cdc.TopicPartition]int64, error) {
	out := make(map[cdc.TopicPartition]int64, len(tps))
	err := c.perLeader(ctx, tps, patience, func(id int32, tps []cdc.TopicPartition) error {
		req := &listoffsets.Request{ReplicaID: -1}
		for _, tp := range tps {
			if n := len(req.Topics); n == 0 || req.Topics[n-1].Topic != tp.Topic {
				req.Topics = append(req.Topics, listoffsets.RequestTopic{Topic: tp.Topic})
			}
			t := &req.Topics[len(req.Topics)-1]
			t.Partitions = append(t.Partitions, listoffsets.RequestPartition{Partition: tp.Partition, CurrentLeaderEpoch: -1, Timestamp: which})
		}
		res, err := ask[*listoffsets.Response](ctx, c, id, req)
		if err != nil {
			return err
		}
		for _, t := range res.Topics {
			for _, p := range t.Partitions {
				tp := cdc.TopicPartition{Topic: t.Topic, Partition: p.Partition}
				if p.ErrorCode != 0 {
					return denied(fmt.Errorf("offsets of %s: %w", tp, codeError(p.ErrorCode)), rightDescribe, c.user(), "", tp.Topic)
				}
				out[tp] = p.Offset
			}
		}
		for _, tp := range tps {
			if _, ok := out[tp]; !ok {
				return fmt.Errorf("offsets of %s: %w: left out of the answer", tp, errMalformed)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// perLeader calls f for the partitions of each leader, sorted by topic and at
// most partitionChunk at a time; what fails is asked again of its new leader.
func (c *Client) perLeader(ctx context.Context, tps []cdc.TopicPartition, patience time.Duration, f func(id int32, tps []cdc.TopicPartition) error) error {
	left := slices.Clone(tps)
	slices.SortFunc(left, func(a, b cdc.TopicPartition) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	left = slices.Compact(left)
	return c.retry(ctx, patience, func(try int) error {
		by, err := c.group(ctx, left, try > 0)
		if err != nil {
			return err
		}
		var first error
		var again []cdc.TopicPartition
		for id, tps := range by {
			for chunk := range slices.Chunk(tps, partitionChunk) {
				if err := f(id, chunk); err != nil {
					if !transient(err) {
						return err
					}
					if first == nil {
						first = err
					}
					again = append(again, chunk...)
				}
			}
		}
		slices.SortFunc(again, func(a, b cdc.TopicPartition) int {
			return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
		})
		left = again
		return first
	})
}
