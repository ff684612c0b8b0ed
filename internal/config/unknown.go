package config

import (
	"reflect"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// later are keys of the file's contract that this version does not carry out.
var later = map[reflect.Type][]string{
	reflect.TypeFor[Config]():    {"erasure"},
	reflect.TypeFor[EventType](): {"personal"},
	reflect.TypeFor[View]():      {"personal"},
}

func (d *decoder) unknownKey(key *yaml.Node, path string, typ reflect.Type, fields []field) {
	at, full := placeOf(key), join(path, key.Value)
	if slices.Contains(later[typ], key.Value) {
		d.add(at, full, "erasure is not in this version: remove the key")
		return
	}
	known := make([]string, len(fields))
	for i, f := range fields {
		known[i] = f.key
	}
	if near := nearest(key.Value, known); near != "" {
		d.add(at, full, "unknown key %q; did you mean %q?", key.Value, near)
		return
	}
	d.add(at, full, "unknown key %q; known here: %s", key.Value, strings.Join(known, ", "))
}

// nearest is the word one most likely meant, "" where none is near.
func nearest(word string, known []string) string {
	// Beyond this many edits a suggestion is noise, and the comparison below
	// costs the product of both lengths.
	limit := max(1, len(word)/3)
	best, name := limit+1, ""
	if len(word) > 64 {
		return ""
	}
	for _, k := range known {
		if n := distance(strings.ToLower(word), k); n < best {
			best, name = n, k
		}
	}
	return name
}

// distance counts the edits between two words: a letter added, left out or
// replaced, or two neighbours swapped (optimal string alignment).
func distance(a, b string) int {
	var before, last []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row = last, row, make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
