package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"cdc/internal/cdctest"
)

// compare gathers the evidence and has it judged.
func (s *seed) compare(ctx context.Context, got map[string][]cdctest.Record, judge func(evidence) []string) error {
	e := evidence{
		records: map[string]map[string][]record{}, rows: map[string]map[string]row{},
		sum: accounts * accountBalance, samples: s.sampler.samples, commits: s.commits,
		strict: s.strict, cut: s.sampler.first,
		topic: func(name string) string { return s.topic(table{name: name}) },
	}
	rows, err := s.db.query(ctx, "SELECT seq, xid, tbl, op, old, new FROM audit.log ORDER BY seq")
	if err != nil {
		return err
	}
	if e.audit, err = parseAudit(rows); err != nil {
		return err
	}
	s.changes = len(e.audit)
	for _, t := range tables {
		if rows, err = s.db.query(ctx, "SELECT to_jsonb(t) FROM "+t.name+" t"); err != nil {
			return err
		}
		e.rows[t.name] = map[string]row{}
		for _, text := range rows {
			r, err := parseRow([]byte(text[0]))
			if err != nil {
				return err
			}
			e.rows[t.name][r.key(t.key)] = r
		}
		records := got[s.topic(t)]
		s.records += len(records)
		if e.records[t.name], err = byKey(t, records); err != nil {
			s.violate("topic %s: %v", s.topic(t), err)
			return nil
		}
	}
	s.violations = append(s.violations, judge(e)...)
	return nil
}

// byKey sorts the records of a topic by their key.
func byKey(t table, records []cdctest.Record) (map[string][]record, error) {
	all := map[string][]record{}
	for _, r := range records {
		k, err := parseRow(r.Key)
		if err != nil {
			return nil, fmt.Errorf("partition %d offset %d: key: %w", r.Partition, r.Offset, err)
		}
		rec := record{partition: r.Partition, offset: r.Offset}
		if op, ok := r.Header("op"); ok {
			rec.op = string(op)
		}
		if tx, ok := r.Header("tx"); ok {
			rec.tx, _ = strconv.ParseUint(string(tx), 10, 64)
		}
		if _, ok := r.Header("refilled"); ok {
			rec.refilled = true
		}
		if names, ok := r.Header("incomplete"); ok {
			if err := json.Unmarshal(names, &rec.lacks); err != nil {
				return nil, fmt.Errorf("partition %d offset %d: header incomplete: %w", r.Partition, r.Offset, err)
			}
		}
		if r.Value != nil {
			if rec.row, err = parseRow(r.Value); err != nil {
				return nil, fmt.Errorf("partition %d offset %d: value: %w", r.Partition, r.Offset, err)
			}
		}
		key := k.key(t.key)
		if had := all[key]; len(had) > 0 && had[0].partition != rec.partition {
			return nil, fmt.Errorf("key %s is in partition %d and in %d", key, had[0].partition, rec.partition)
		}
		all[key] = append(all[key], rec)
	}
	return all, nil
}
