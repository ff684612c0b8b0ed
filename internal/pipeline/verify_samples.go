package pipeline

import (
	"bytes"
	"context"
	"slices"

	"cdc/internal/cdc"
	"cdc/internal/compaction"
	"cdc/internal/sink"
)

// pendingSample is a difference that is to be shown.
type pendingSample struct {
	kind      string
	key       []byte
	row       []string // text of the key columns
	partition int32
	offset    int64
}

func pending(d compaction.Difference) pendingSample {
	s := pendingSample{kind: d.Kind, key: bytes.Clone(d.Key), partition: d.Partition, offset: d.Offset}
	if d.Kind != compaction.DifferenceGhost {
		s.row = rowKey(d.ID)
	}
	return s
}

// show looks up both sides of the differences to be shown. What cannot be looked up
// any more is left out: the difference stands without it.
func (k *check) show(ctx context.Context, r *verification) []cdc.Sample {
	var samples []cdc.Sample
	var keys [][]string
	for _, p := range k.samples {
		if p.kind == compaction.DifferenceDifferent {
			keys = append(keys, p.row)
		}
	}
	rows, err := k.lookup(ctx, r, keys)
	if err != nil {
		r.l.log.Debug("rows that differ cannot be shown", "table", k.name(), "error", err)
	}
	for _, p := range k.samples {
		s := cdc.Sample{Kind: p.kind, Key: string(p.key), Partition: p.partition, Offset: p.offset}
		if source := rows[s.Key]; p.kind == compaction.DifferenceDifferent && source != nil {
			if s.Columns, err = k.diff(ctx, r, p, source); err != nil {
				r.l.log.Debug("a record that differs cannot be shown", "table", k.name(), "error", err)
			}
		}
		samples = append(samples, s)
	}
	return samples
}

// lookup reads rows under the snapshot, and gives their values in the topic's
// format by their key in the topic.
func (k *check) lookup(ctx context.Context, r *verification, keys [][]string) (map[string][]byte, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	rows, err := r.sn.Lookup(ctx, k.c.table, keys)
	if err != nil {
		return nil, err
	}
	out := make(map[string][]byte, len(rows))
	collect := emitTo(func(rec *cdc.Record) error {
		out[string(rec.Key)] = bytes.Clone(rec.Value)
		return nil
	})
	for _, row := range rows {
		c := cdc.Change{Op: cdc.OpRead, Relation: k.rows.rel, Tx: &cdc.Tx{Final: r.at}, LSN: r.at, New: row, Mark: cdc.MarkTrue}
		if err := k.rows.enc.Encode(&c, collect); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// diff compares a row with the record that stands for it.
func (k *check) diff(ctx context.Context, r *verification, p pendingSample, source []byte) ([]cdc.ColumnDiff, error) {
	var target []byte
	tp := cdc.TopicPartition{Topic: k.c.topic, Partition: p.partition}
	err := r.l.client.ReadAll(ctx, tp, p.offset, p.offset+1, func(m *sink.Message) error {
		target = slices.Clone(m.Value)
		return nil
	})
	if err != nil || target == nil {
		return nil, err
	}
	return k.rows.digest.Diff(source, target)
}
