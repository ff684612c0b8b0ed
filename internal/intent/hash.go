package intent

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// Hashes tell whether what is installed is what is configured. Each covers all
// that decides the result and nothing else: where it changes, a view is built
// anew and snapshots are made again. They are stored: a change of what is hashed
// rebuilds every view, so the first word of each carries a version.

// Hash covers the view's definition, and of the types it uses what its
// statements see: the steps between their versions, and the types of the fields
// they name. Of events, those the view does not use are ignored.
func (v View) Hash(events []EventType) [32]byte {
	return hash("view 1", v.stored(), used(v.When, events))
}

// Hash covers the fold, and of its event types what its expressions see.
func (f Fold) Hash(events []EventType) [32]byte {
	return hash("fold 1", f.Category, initial(f), f.When, used(f.When, events))
}

// Hash covers the reaction's definition.
func (r Reaction) Hash() [32]byte {
	r.When = slices.Sorted(slices.Values(r.When))
	return hash("reaction 1", r)
}

// Hash covers everything that is installed, whatever the order it is given in.
func (d Definitions) Hash() [32]byte {
	events := sorted(d.Events, func(e EventType) string { return e.Name })
	views := sorted(d.Views, func(v View) string { return v.Name })
	reactions := sorted(d.Reactions, func(r Reaction) string { return r.Name })
	var folds []any
	var all [][32]byte
	for _, r := range reactions {
		all = append(all, r.Hash())
	}
	for _, f := range sorted(d.Folds, func(f Fold) string { return f.Category }) {
		folds = append(folds, []any{f.Category, initial(f), f.When})
	}
	return hash("definitions 1", events, d.Undeclared, d.MaxEvent, folds, d.Snapshots, views, all)
}

// hash is that of the values as canonical JSON: object members sorted, no spaces.
func hash(version string, values ...any) [32]byte {
	b, err := json.Marshal(append([]any{version}, values...))
	if err != nil {
		panic(fmt.Sprintf("intent: hash: %v", err)) // nothing hashed has a type that JSON lacks
	}
	return sha256.Sum256(b)
}

// visible is what statements see of a type.
type visible struct {
	Type   string
	Schema int
	Upcast map[int]string
	Fields map[string]FieldType // those the statement names
}

// used is what statements, by event type, see of the declared types.
func used(when map[string]string, events []EventType) []visible {
	var out []visible
	for _, e := range sorted(events, func(e EventType) string { return e.Name }) {
		text, ok := when[e.Name]
		if !ok {
			continue
		}
		s := visible{Type: e.Name, Schema: e.Schema, Upcast: e.Upcast, Fields: map[string]FieldType{}}
		statement, err := ParseSQL(text)
		for _, f := range e.Fields {
			if err != nil || slices.Contains(statement.Names(), f.Name) {
				s.Fields[f.Name] = f.Type
			}
		}
		out = append(out, s)
	}
	return out
}

// initial is the state before the first event, as JSON without spaces; what is not
// JSON, which Validate refuses, is left as it is.
func initial(f Fold) string {
	var b bytes.Buffer
	switch {
	case len(f.Initial) == 0:
		return "null"
	case json.Compact(&b, f.Initial) != nil:
		return string(f.Initial)
	}
	return b.String()
}

func sorted[T any](list []T, name func(T) string) []T {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b T) int { return compare(name(a), name(b)) })
	return list
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func sortedKeys[K interface{ ~int | ~string }, V any](m map[K]V) []K {
	return slices.Sorted(maps.Keys(m))
}
