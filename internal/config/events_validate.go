package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"cdc/internal/cdc"
	"cdc/internal/intent"
)

// events judges what pipelines of mode: events alone have.
func (v *validator) events(path string, p *Pipeline, o *outline) {
	for _, name := range sortedNames(p.Events) {
		v.eventType(fmt.Sprintf("%s.events[%s]", path, name), p.Events[name])
	}
	v.viewDatabases(path, p, o)
	// What is known by now is not said twice in other words.
	known := map[string]bool{}
	for _, f := range v.list {
		known[f.Path] = true
	}
	definitions := p.Definitions()
	for _, f := range definitions.Validate() {
		at := join(path, f.Path)
		switch {
		case known[at] || v.follows(path, f.Path):
		case v.at[at].env: // the message may repeat the value
			v.fault(at, "the value from the environment is not valid here: write it into the file to see why")
			known[at] = true
		default:
			v.fault(at, "%s", f.Text)
		}
	}
}

// follows says that a fault may follow from one that decoding found: what could
// not be read is missing to those who use it.
func (v *validator) follows(path, of string) bool {
	for _, g := range v.decoding {
		if within(g.Path, path+".events") && !within(of, "events") || within(g.Path, path+".views") && strings.HasSuffix(of, ".after") {
			return true
		}
	}
	return false
}

// eventType judges what the definition made of it has lost.
func (v *validator) eventType(path string, e *EventType) {
	for _, name := range slices.Sorted(maps.Keys(e.Data)) {
		at := fmt.Sprintf("%s.data[%s]", path, name)
		if f := intent.ParseField(name, e.Data[name]); f.Type.SQL() == "" {
			v.fieldType(at, string(f.Type))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(e.Upcast)) {
		if _, ok := version(key); !ok {
			v.fault(fmt.Sprintf("%s.upcast[%s]", path, key), "%q is no version: write the number of the version to come from, as in 1", key)
		}
	}
}

func (v *validator) fieldType(path, typ string) {
	hint := ""
	if near := nearest(typ, intent.FieldTypes()); near != "" && typ != "" {
		hint = fmt.Sprintf("; did you mean %q?", near)
	}
	v.fault(path, "%s is not one of %s, with a ? behind it where the field may be missing%s", v.show(path, typ), strings.Join(intent.FieldTypes(), ", "), hint)
}

// viewDatabases judges the URLs of other Postgres.
func (v *validator) viewDatabases(path string, p *Pipeline, o *outline) {
	first := map[target]string{} // view that named it first
	for _, name := range sortedNames(p.Views) {
		at, url := fmt.Sprintf("%s.views[%s].database", path, name), string(p.Views[name].Database)
		v.url(at, url, false)
		t, err := parseURL(url)
		if url == "" || err != nil {
			continue
		}
		switch other, named := first[t]; {
		case o.known && t == o.target:
			v.fault(at, "is the pipeline's own database: remove the key")
		case named && string(p.Views[other].Database) != url: // one login serves all views there
			v.fault(at, "is the database of view %s by another URL: write the same", other)
		case !named:
			first[t] = name
		}
	}
}

// category is one that events of a pipeline have. The zero value stands for all
// that are not known.
type category struct {
	name string
	path string // of the template it comes from
}

// categories are those of the declared types, and the zero value where others are
// accepted.
func (v *validator) categories(path string, p *Pipeline) []category {
	var out []category
	d := p.Definitions()
	for _, e := range d.Events {
		name := e.Stream.Category()
		if !intent.CategoryOK(name) || slices.ContainsFunc(out, func(c category) bool { return c.name == name }) {
			continue
		}
		out = append(out, category{name, fmt.Sprintf("%s.events[%s].stream", path, e.Name)})
	}
	if d.Undeclared {
		out = append(out, category{})
	}
	return out
}

// eventTopics judges the template of topics.
func (v *validator) eventTopics(path string, p *Pipeline) {
	if _, err := cdc.EventTopicName(p.Topic, "d", "c"); err != nil {
		v.topicFault(path+".topic", err)
		return
	}
	for _, c := range v.outlines[p.Name].categories {
		if c.name == "" {
			continue
		}
		if _, err := cdc.EventTopicName(p.Topic, "d", c.name); err != nil {
			if v.at[c.path].env {
				err = errors.New("with a category from the environment it gives no topic name")
			}
			v.topicFault(path+".topic", err)
			return
		}
	}
}

// eventTopicGlob is what topics a template can give for a category.
func eventTopicGlob(template, database string, c category) glob {
	text := strings.ReplaceAll(template, "{category}", "{table}")
	table := glob{anyRun}
	if c.name != "" {
		table = glob(c.name)
	}
	return topicGlob(text, database, Pattern{table: table})
}
