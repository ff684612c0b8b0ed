package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// row is a row by column, each value as JSON.
type row map[string]string

// null is the value of a column that is there and has none.
const null = "null"

func parseRow(text []byte) (row, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var values map[string]any
	if err := dec.Decode(&values); err != nil {
		return nil, fmt.Errorf("decode %.100q: %w", text, err)
	}
	r := make(row, len(values))
	for k, v := range values {
		b, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		r[k] = string(b)
	}
	return r, nil
}

// key is the row's key as text.
func (r row) key(columns []string) string {
	parts := make([]string, len(columns))
	for i, c := range columns {
		parts[i] = c + "=" + r[c]
	}
	return strings.Join(parts, ",")
}

// equal says that two rows have the same columns and values.
func (r row) equal(o row) bool { return maps.Equal(r, o) }

// alike says that two rows are the same but for columns that one of them lacks
// and that are null in the other, or that are not in now: the table's columns
// were changed between the two.
func (r row) alike(o row, now func(column string) bool) bool {
	in := func(a, b row) bool {
		for c, v := range a {
			w, there := b[c]
			if !there {
				if v != null && now(c) {
					return false
				}
			} else if v != w {
				return false
			}
		}
		return true
	}
	return in(r, o) && in(o, r)
}

// brief names a row in a report: its version is its own.
func (r row) brief() string {
	if r == nil {
		return "-"
	}
	return "v" + r["ver"]
}

// change is a row of the audit table.
type change struct {
	seq   int64
	xid   uint64
	table string
	op    string // i, u, d, t
	old   row    // the key
	new   row
}

func parseAudit(rows [][]string) ([]change, error) {
	all := make([]change, len(rows))
	for i, r := range rows {
		c := change{table: r[2], op: r[3]}
		var err error
		if c.seq, err = strconv.ParseInt(r[0], 10, 64); err != nil {
			return nil, err
		}
		if c.xid, err = strconv.ParseUint(r[1], 10, 64); err != nil {
			return nil, err
		}
		if r[4] != "" {
			if c.old, err = parseRow([]byte(r[4])); err != nil {
				return nil, err
			}
		}
		if r[5] != "" {
			if c.new, err = parseRow([]byte(r[5])); err != nil {
				return nil, err
			}
		}
		all[i] = c
	}
	return all, nil
}

// entry is what a key became in one change: nil for gone.
type entry struct {
	seq int64
	xid uint64
	row row
}

// histories are the entries of every key of a table in the order of the audit.
func histories(t table, audit []change) map[string][]entry {
	all := map[string][]entry{}
	alive := map[string]bool{}
	put := func(c change, key string, r row) {
		all[key] = append(all[key], entry{c.seq, c.xid, r})
		if r == nil {
			delete(alive, key)
		} else {
			alive[key] = true
		}
	}
	for _, c := range audit {
		if c.table != t.name {
			continue
		}
		if c.op == "t" {
			for _, key := range slices.Sorted(maps.Keys(alive)) {
				put(c, key, nil)
			}
			continue
		}
		before, after := "", ""
		if c.old != nil {
			before = c.old.key(t.key)
		}
		if c.new != nil {
			after = c.new.key(t.key)
		}
		if before != "" && before != after {
			put(c, before, nil)
		}
		if after != "" {
			put(c, after, c.new)
		}
	}
	return all
}

// record is a record of a topic.
type record struct {
	partition int32
	offset    int64
	op        string
	tx        uint64 // low 32 bits of the transaction id
	row       row    // nil for a tombstone
	lacks     []string
	refilled  bool
}

func (r record) brief() string {
	return fmt.Sprintf("%s:%s@%d/%d", r.op, r.row.brief(), r.partition, r.offset)
}
