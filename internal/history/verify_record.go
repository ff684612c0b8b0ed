package history

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"cdc/internal/cdc"
	"cdc/internal/intent"
	"cdc/internal/sink"
)

// sampleBytes is how much of a value a sample shows.
const sampleBytes = 1000

func (c *topicCheck) partitionOf(rec *cdc.Record) int32 {
	return sink.Partition(rec.Key, int32(len(c.parts)))
}

// differ compares a record with what the publication writes for an event: nil where
// they are equal in every byte.
func (c *topicCheck) differ(m *sink.Message, ev *intent.Event, rec *cdc.Record, generation cdc.Generation) []cdc.ColumnDiff {
	var stamp [cdc.StampSize]byte
	p := cdc.AppendStamp(stamp[:0], cdc.Stamp{Generation: generation, Position: cdc.Position{Tx: cdc.LSN(ev.Position)}})
	sameTime := c.ownTime || m.Time == rec.Time
	sameHeaders := len(m.Headers) == len(rec.Headers)+1 && same(m.Headers[0], cdc.Header{Key: cdc.StampHeader, Value: p}) &&
		slices.EqualFunc(m.Headers[1:], rec.Headers, same)
	if sameTime && sameHeaders && bytes.Equal(m.Key, rec.Key) && bytes.Equal(m.Value, rec.Value) {
		return nil
	}
	var diffs []cdc.ColumnDiff
	if !bytes.Equal(m.Key, rec.Key) {
		diffs = append(diffs, cdc.ColumnDiff{Column: "key", Source: quoted(string(rec.Key)), Target: quoted(string(m.Key))})
	}
	diffs = append(diffs, differData(rec.Value, m.Value)...)
	if !sameTime {
		diffs = append(diffs, cdc.ColumnDiff{Column: "time", Source: fmt.Sprint(rec.Time), Target: fmt.Sprint(m.Time)})
	}
	if !sameHeaders {
		diffs = append(diffs, differHeaders(append([]cdc.Header{{Key: cdc.StampHeader, Value: p}}, rec.Headers...), m.Headers)...)
	}
	return diffs
}

func same(a, b cdc.Header) bool {
	return a.Key == b.Key && bytes.Equal(a.Value, b.Value)
}

// differData is how values differ: by the members of both objects where they are such.
func differData(source, target []byte) []cdc.ColumnDiff {
	if bytes.Equal(source, target) {
		return nil
	}
	var s, t map[string]json.RawMessage
	var diffs []cdc.ColumnDiff
	if json.Unmarshal(source, &s) == nil && json.Unmarshal(target, &t) == nil && s != nil && t != nil {
		names := maps.Clone(s)
		maps.Copy(names, t)
		for _, name := range slices.Sorted(maps.Keys(names)) {
			if !bytes.Equal(s[name], t[name]) {
				diffs = append(diffs, cdc.ColumnDiff{Column: "data." + name, Source: shown(s[name]), Target: shown(t[name])})
			}
		}
	}
	if diffs == nil {
		diffs = []cdc.ColumnDiff{{Column: "data", Source: shown(source), Target: shown(target)}}
	}
	return diffs
}

// differHeaders is how headers differ: by their keys, or in their order.
func differHeaders(source, target []cdc.Header) []cdc.ColumnDiff {
	texts := func(headers []cdc.Header) (map[string]string, []string) {
		m, keys := map[string]string{}, []string{}
		for _, h := range headers {
			text := quoted(string(h.Value))
			if h.Key == cdc.StampHeader {
				text = quoted(fmt.Sprintf("%x", h.Value))
			}
			m[h.Key] = text
			keys = append(keys, h.Key)
		}
		return m, keys
	}
	s, sKeys := texts(source)
	t, tKeys := texts(target)
	names := maps.Clone(s)
	maps.Copy(names, t)
	var diffs []cdc.ColumnDiff
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if s[name] != t[name] {
			diffs = append(diffs, cdc.ColumnDiff{Column: "header " + name, Source: s[name], Target: t[name]})
		}
	}
	if diffs == nil {
		diffs = []cdc.ColumnDiff{{Column: "headers", Source: quoted(fmt.Sprint(sKeys)), Target: quoted(fmt.Sprint(tKeys))}}
	}
	return diffs
}

// shown is bytes as a JSON value, cut where they are long.
func shown(b []byte) string {
	switch {
	case b == nil:
		return ""
	case len(b) <= sampleBytes && json.Valid(b):
		return string(b)
	}
	return quoted(string(b))
}

// quoted is a text as a JSON string, cut where it is long.
func quoted(s string) string {
	if len(s) > sampleBytes {
		s = fmt.Sprintf("%s… (%d bytes)", s[:sampleBytes], len(s))
	}
	b, err := json.Marshal(s)
	if err != nil {
		panic("history: a string has no JSON form: " + err.Error())
	}
	return string(b)
}
