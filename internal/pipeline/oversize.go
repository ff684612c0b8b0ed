package pipeline

import (
	"encoding/json"
	"fmt"
	"time"

	"cdc/internal/cdc"
)

// deadLetterValue is what the dead-letter topic holds in place of a record that
// no broker takes. The record's key is the record's own where it fits.
type deadLetterValue struct {
	Reason     string `json:"reason"`
	Table      string `json:"table"`
	Topic      string `json:"topic"`
	Partition  int32  `json:"partition"`
	Op         string `json:"op"`
	LSN        string `json:"lsn"`
	Position   string `json:"position"`
	KeyBytes   int    `json:"key_bytes"`
	ValueBytes int    `json:"value_bytes"`
	At         string `json:"at"`
}

const mendTooLarge = "Raise max.message.bytes of the topic (and the broker's), or set oversize: dead-letter for the pipeline."

// maxDeadKey bounds the key copied into a dead letter.
const maxDeadKey = 16 << 10

// oversize applies the policy to a record over the broker's limit. A dead letter
// leaves the key's older value in the topic: it is loud (log, metric, topic), and
// the next change of the row that fits mends it.
func (l *life) oversize(p *partition, r *cdc.Record, at cdc.Position, cause error) error {
	table := "(message)"
	if l.capture != nil {
		table = l.capture.table.FullName()
	}
	if l.deadTo == nil || p == l.deadTo {
		return cdc.Terminal("record-too-large",
			mendTooLarge,
			"table %s, change at %s: a record of %d bytes for topic %q: %w", table, l.change.LSN, len(r.Key)+len(r.Value), p.tp.Topic, cause)
	}
	v, err := json.Marshal(deadLetterValue{
		Reason: "record-too-large", Table: table, Topic: p.tp.Topic, Partition: p.tp.Partition,
		Op: l.change.Op.String(), LSN: l.change.LSN.String(), Position: at.String(),
		KeyBytes: len(r.Key), ValueBytes: len(r.Value), At: time.Now().UTC().Format(time.RFC3339Nano),
	})
	if err != nil {
		return fmt.Errorf("encode dead letter: %w", err)
	}
	dead := cdc.Record{Key: r.Key, Value: v, Time: r.Time}
	if len(dead.Key) > maxDeadKey {
		dead.Key = dead.Key[:maxDeadKey]
	}
	l.log.Error("record over the broker's limit went to the dead-letter topic: the row's older value stays in its topic",
		"table", table, "topic", p.tp.Topic, "bytes", len(r.Key)+len(r.Value), "lsn", l.change.LSN)
	l.tally.deadLetters++
	return l.put(l.deadTo, &dead, at)
}
