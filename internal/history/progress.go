package history

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/intent"
	"cdc/internal/sink"
)

// progressFormat is the version of the records in the progress topic. A reader
// refuses another one: what it means is not known here.
const progressFormat = 1

// Progress is the newest record of key progressKey in the progress topic. It is a
// lower bound: every event up to Position is acknowledged in its topic.
type Progress struct {
	Format     int            `json:"format"`
	Store      intent.ID      `json:"store"`
	Generation cdc.Generation `json:"generation"`
	Position   int64          `json:"position"`
	// Event is the one at Position: a store that was restored and went on from an
	// earlier moment has another there. Zero at position 0, and where it is not known.
	Event intent.ID `json:"event"`
	// Released: who wrote it has ended in order and will write no more.
	Released bool      `json:"released"`
	At       time.Time `json:"at"`
}

// CategoryRecord says which topic holds a category's events.
type CategoryRecord struct {
	Format int    `json:"format"`
	Topic  string `json:"topic"`
	ID     string `json:"id"` // of the topic; "" where the broker tells none (before Kafka 2.8)
}

const (
	progressKey    = "progress"
	categoryPrefix = "category:"
)

// memory is what the progress topic holds.
type memory struct {
	progress   *Progress
	categories map[string]CategoryRecord
	end        int64 // offset behind what was read
}

// readMemory reads the progress topic from its start to its end.
func readMemory(ctx context.Context, c *sink.Client, topic string) (*memory, error) {
	m := &memory{categories: map[string]CategoryRecord{}}
	tp := cdc.TopicPartition{Topic: topic}
	start, _, err := c.Offsets(ctx, []cdc.TopicPartition{tp})
	if err != nil {
		return nil, fmt.Errorf("read progress topic %q: %w", topic, err)
	}
	m.end = start[tp]
	return m, m.update(ctx, c, topic)
}

// update reads what was appended since.
func (m *memory) update(ctx context.Context, c *sink.Client, topic string) error {
	tp := cdc.TopicPartition{Topic: topic}
	_, end, err := c.Offsets(ctx, []cdc.TopicPartition{tp})
	if err == nil {
		err = c.ReadAll(ctx, tp, m.end, end[tp], func(r *sink.Message) error { return m.apply(topic, r) })
	}
	if err != nil {
		return fmt.Errorf("read progress topic %q: %w", topic, err)
	}
	m.end = end[tp]
	return nil
}

func (m *memory) apply(topic string, r *sink.Message) error {
	key := string(r.Key)
	bad := func(err error) error {
		return cdc.Terminal("progress-unreadable",
			fmt.Sprintf("If the topic was damaged, delete %s and start again: the log is read from its start, and what the topics hold already is left out.", topic),
			"progress topic %q offset %d key %q: %w", topic, r.Offset, key, err)
	}
	format := func(got int) error {
		if got != progressFormat {
			return fmt.Errorf("format %d, this version of cdc reads %d: run the version that wrote it", got, progressFormat)
		}
		return nil
	}
	name, isCategory := strings.CutPrefix(key, categoryPrefix)
	switch {
	case key == progressKey && r.Value != nil:
		var p Progress
		if err := json.Unmarshal(r.Value, &p); err != nil {
			return bad(err)
		}
		if err := format(p.Format); err != nil {
			return bad(err)
		}
		m.progress = &p
	case isCategory && r.Value != nil:
		var c CategoryRecord
		if err := json.Unmarshal(r.Value, &c); err != nil {
			return bad(err)
		}
		if err := format(c.Format); err != nil {
			return bad(err)
		}
		m.categories[name] = c
	default:
		return bad(fmt.Errorf("not a record of this service: another program writes to the topic"))
	}
	return nil
}

// position is how far the log was published.
func (m *memory) position() int64 {
	if m.progress == nil {
		return 0
	}
	return m.progress.Position
}

// encode makes the Kafka record of v under a key.
func encode(key string, v any, now time.Time) (*cdc.Record, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %s record: %w", key, err)
	}
	return &cdc.Record{Key: []byte(key), Value: b, Time: now.UnixMilli()}, nil
}
