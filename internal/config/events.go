package config

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"

	"cdc/internal/intent"
)

// EventType is a declared type of event. Its name is its key in Pipeline.Events.
type EventType struct {
	Stream string            `yaml:"stream"` // template of fields of data: course/{course}
	Schema int               `yaml:"schema" min:"1" max:"10000"`
	Data   map[string]string `yaml:"data"`   // field to type: string, "string?", …
	Upcast map[string]string `yaml:"upcast"` // version to the SQL expression that makes the data of the next one
}

// Fold makes the state of streams of a category, its key in Pipeline.State.
type Fold struct {
	Initial string            `yaml:"initial"` // JSON; null where empty
	When    map[string]string `yaml:"when"`    // type of event to SQL expression
}

// Snapshots are how often states are kept.
type Snapshots struct {
	Every int `yaml:"every" min:"0" max:"1000000"` // events; 0: never
}

// View is a table that follows from the log. Its name is its key in Pipeline.Views.
type View struct {
	Mode     string            `yaml:"mode" oneof:"inline|async"`
	Database URL               `yaml:"database" secret:"true" url:"true"` // another Postgres; "" for the pipeline's own
	Table    string            `yaml:"table"`                             // as between the parentheses of CREATE TABLE
	Indexes  []string          `yaml:"indexes"`                           // each as between the parentheses of CREATE INDEX
	When     map[string]string `yaml:"when"`                              // type of event to SQL statement
}

// Reaction appends events when an event happens. Its name is its key in
// Pipeline.Reactions.
type Reaction struct {
	After  string `yaml:"after"` // view; "" for none
	When   Words  `yaml:"when"`  // types of event
	Append string `yaml:"append"`
	From   string `yaml:"from" oneof:"end|beginning"`
}

// Words is a list that may be written as one word.
type Words []string

// URL is that of a Postgres. It may hold a password: every way Go has of printing
// it gives it Redacted.
type URL string

// Definitions are what the pipeline says about events, for the store and the
// parts that follow the log. They are of use where Validate has no faults.
func (p *Pipeline) Definitions() intent.Definitions {
	d := intent.Definitions{
		Undeclared: p.Undeclared == "allow" || p.Undeclared == "" && len(p.Events) == 0,
		MaxEvent:   int(p.MaxEvent),
	}
	for _, name := range sortedNames(p.Events) {
		d.Events = append(d.Events, p.Events[name].intent(name))
	}
	for _, category := range sortedNames(p.State) {
		f := p.State[category]
		d.Folds = append(d.Folds, intent.Fold{Category: category, Initial: json.RawMessage(f.Initial), When: f.When})
	}
	if len(d.Folds) > 0 {
		d.Snapshots = p.Snapshots.Every
	}
	for _, name := range sortedNames(p.Views) {
		w := p.Views[name]
		d.Views = append(d.Views, intent.View{
			Name: name, Mode: intent.ViewMode(w.Mode), Database: string(w.Database), Table: w.Table, Indexes: w.Indexes, When: w.When,
		})
	}
	for _, name := range sortedNames(p.Reactions) {
		r := p.Reactions[name]
		d.Reactions = append(d.Reactions, intent.Reaction{
			Name: name, After: r.After, When: r.When, Append: r.Append, From: intent.From(r.From),
		})
	}
	return d
}

func (e *EventType) intent(name string) intent.EventType {
	t := intent.EventType{Name: name, Stream: intent.Template(e.Stream), Schema: e.Schema}
	for _, field := range slices.Sorted(maps.Keys(e.Data)) {
		t.Fields = append(t.Fields, intent.ParseField(field, e.Data[field]))
	}
	for key, expression := range e.Upcast {
		if from, ok := version(key); ok { // else Validate has said so
			if t.Upcast == nil {
				t.Upcast = map[int]string{}
			}
			t.Upcast[from] = expression
		}
	}
	return t
}

// version reads a key of upcast, in its one form.
func version(key string) (int, bool) {
	n, err := strconv.Atoi(key)
	return n, err == nil && strconv.Itoa(n) == key
}

// sortedNames are the keys of a section; an entry that is nil is none.
func sortedNames[T any](m map[string]*T) []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if m[name] != nil {
			names = append(names, name)
		}
	}
	return names
}
