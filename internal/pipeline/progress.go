package pipeline

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/sink"
)

// progressFormat is the version of the records in the progress topic. A reader
// refuses a newer one: what it means is not known here.
const progressFormat = 1

// Phase is how far a pipeline has come in its life as a whole.
type Phase string

// The phases.
const (
	// PhaseSnapshot: a snapshot was begun and not finished. The slot, if there is
	// one, is ours and holds nothing that matters.
	PhaseSnapshot Phase = "snapshot"
	// PhaseStream: everything up to the progress record is in the topics.
	PhaseStream Phase = "stream"
	// PhaseDone: `snapshot: only` has finished.
	PhaseDone Phase = "done"
)

// Progress is the newest record of key progressKey in the progress topic. It is a
// lower bound: every record at or below it is acknowledged in its partition, and
// the slot is never confirmed beyond End.
type Progress struct {
	Format      int            `json:"format"`
	System      string         `json:"system"`
	Timeline    uint32         `json:"timeline"`
	Database    string         `json:"database"`
	Slot        string         `json:"slot"`
	Publication string         `json:"publication"` // hash of its tables and options
	Generation  cdc.Generation `json:"generation"`
	Phase       Phase          `json:"phase"`
	Tx          cdc.LSN        `json:"tx"`       // final_lsn of the last transaction that is wholly acknowledged
	End         cdc.LSN        `json:"end"`      // where streaming resumes
	PrevEnd     cdc.LSN        `json:"prev_end"` // end of the transaction before (Debezium's sequence)
	// Restart: the slot's restart_lsn was seen there. Postgres makes it durable before
	// it shows, so on one timeline a lower one is that of an older copy of the server.
	Restart cdc.LSN   `json:"restart,omitempty"`
	At      time.Time `json:"at"`
}

// TableRecord says as what a table's topic was filled, once per table under the
// key tablePrefix+name. A captured table that has none, or another one, is
// copied: it is new, was dropped and made again, or has another key or format,
// and with it other key bytes and partitions.
type TableRecord struct {
	Format int      `json:"format"`
	OID    uint32   `json:"oid"`
	Member uint32   `json:"member"` // source.Memberships: another one has missed changes
	Key    []string `json:"key"`
	Topic  string   `json:"topic"`
	// TopicID: another one under the same name has none of the records. "": written
	// before ids were kept, or Kafka tells none.
	TopicID string `json:"topic_id,omitempty"`
	Values  string `json:"values"` // format of keys and values: json, debezium-json
	// Since: changes of transactions below it are in the table's own snapshot.
	Since cdc.LSN `json:"since"`
}

// CopyRecord says how far the copy of a table by chunks has come, under the key
// copyPrefix+name. There is none where no copy is under way.
type CopyRecord struct {
	Format int       `json:"format"`
	OID    uint32    `json:"oid"`
	State  copyState `json:"state"`
	Error  string    `json:"error,omitempty"` // of copyFailed
	// After is the key of the last row whose record is acknowledged, the text of its
	// columns; nil before the first. All: there is none behind it.
	After []string `json:"after,omitempty"`
	All   bool     `json:"all,omitempty"`
	Rows  int64    `json:"rows"`
	// Before are the ends of the topic's partitions when the copy began: a key alive
	// before them without a record behind them is gone from the table. Once All
	// rows are there, partitions before Cleared are free of such ghosts.
	Before  []int64 `json:"before"`
	Cleared int     `json:"cleared,omitempty"`
}

// copyState is what is to be done about a copy.
type copyState string

const (
	copyActive copyState = "active"
	copyPaused copyState = "paused"
	copyFailed copyState = "failed" // Error says why; asking for it again begins anew
)

const (
	progressKey = "progress"
	tablePrefix = "table:"
	copyPrefix  = "copy:"
)

// memory is what the progress topic holds.
type memory struct {
	progress *Progress
	tables   map[string]TableRecord
	copies   map[string]CopyRecord
}

// readMemory reads the progress topic from its start to its end. Call it behind
// a take-over: nobody can append any more.
func readMemory(ctx context.Context, c *sink.Client, topic string) (memory, error) {
	m := memory{tables: map[string]TableRecord{}, copies: map[string]CopyRecord{}}
	tp := cdc.TopicPartition{Topic: topic}
	start, end, err := c.Offsets(ctx, []cdc.TopicPartition{tp})
	if err != nil {
		return m, fmt.Errorf("read progress topic %q: %w", topic, err)
	}
	err = c.ReadAll(ctx, tp, start[tp], end[tp], func(r *sink.Message) error {
		return m.apply(topic, r)
	})
	if err != nil {
		return m, fmt.Errorf("read progress topic %q: %w", topic, err)
	}
	return m, nil
}

func (m *memory) apply(topic string, r *sink.Message) error {
	key := string(r.Key)
	bad := func(err error) error {
		return cdc.Terminal("progress-unreadable",
			"If the topic was damaged, drop the pipeline's state and copy the tables again: cdc drop PIPELINE, then cdc run.",
			"progress topic %q offset %d key %q: %w", topic, r.Offset, key, err)
	}
	switch {
	case key == progressKey:
		var p Progress
		if r.Value == nil {
			m.progress = nil
			return nil
		}
		if err := json.Unmarshal(r.Value, &p); err != nil {
			return bad(err)
		}
		if p.Format != progressFormat {
			return bad(errFormat(p.Format))
		}
		m.progress = &p
	case strings.HasPrefix(key, tablePrefix):
		t, err := remember[TableRecord](m.tables, key[len(tablePrefix):], r.Value)
		if err == nil && t.Format != progressFormat && r.Value != nil {
			err = errFormat(t.Format)
		}
		if err != nil {
			return bad(err)
		}
	case strings.HasPrefix(key, copyPrefix):
		c, err := remember[CopyRecord](m.copies, key[len(copyPrefix):], r.Value)
		if err == nil && c.Format != progressFormat && r.Value != nil {
			err = errFormat(c.Format)
		}
		if err != nil {
			return bad(err)
		}
	default:
		return bad(fmt.Errorf("not a key of this service: another program writes to the topic"))
	}
	return nil
}

// remember keeps the newest value of a key; nil removes it.
func remember[T any](m map[string]T, name string, value []byte) (v T, err error) {
	if value == nil {
		delete(m, name)
		return v, nil
	}
	if err := json.Unmarshal(value, &v); err != nil {
		return v, err
	}
	m[name] = v
	return v, nil
}

func errFormat(found int) error {
	return fmt.Errorf("format %d, this version of cdc reads %d: run the version that wrote it", found, progressFormat)
}

// encode makes the Kafka record of v under a key; nil v is a tombstone.
func encode(key string, v any) (*cdc.Record, error) {
	r := &cdc.Record{Key: []byte(key), Time: time.Now().UnixMilli()}
	if v == nil {
		return r, nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %s record: %w", key, err)
	}
	r.Value = b
	return r, nil
}
