package config

import (
	"fmt"
	"slices"
	"strings"
)

const (
	// maxPipelines bounds a file: each pipeline holds connections, a slot and
	// memory of its own, and what follows compares each with each.
	maxPipelines = 100
	// maxComparisons bounds how many pairs of patterns are compared: a second of
	// work at the worst, a hundred times what a large file needs.
	maxComparisons = 1_000_000
)

// outline is what a pipeline reads and writes, taken apart once.
type outline struct {
	target          target
	known           bool // target could be read
	tables, exclude []Pattern
	categories      []category // of mode: events
	topics          []glob     // of tables or categories; empty where the pattern could not be read
}

func (v *validator) outline(name string, p *Pipeline) *outline {
	path := join("pipelines", name)
	o := &outline{}
	t, err := parseURL(v.PostgresFor(p).URL)
	o.target, o.known = t, err == nil
	if p.Mode == ModeEvents {
		o.categories = v.categories(path, p)
		for _, c := range o.categories {
			o.topics = append(o.topics, eventTopicGlob(p.Topic, t.database, c))
		}
		return o
	}
	o.tables = v.patternList(path+".tables", p.Tables)
	o.exclude = v.patternList(path+".exclude", p.Exclude)
	for _, x := range o.tables {
		var g glob
		if x.text != "" {
			g = topicGlob(p.Topic, t.database, x)
		}
		o.topics = append(o.topics, g)
	}
	return o
}

// clashes refuses pipelines that would write over each other: two of them never
// share a slot, a publication or a topic.
func (v *validator) clashes(names []string) {
	for j, b := range names {
		for _, a := range names[:j] {
			v.clash(a, b)
		}
	}
	v.ownTopics(names)
}

func (v *validator) clash(a, b string) {
	p, q := v.Pipelines[a], v.Pipelines[b]
	from, to := v.outlines[a], v.outlines[b]
	path := join("pipelines", b)
	// Slots belong to a server, publications to a database.
	sameServer := from.known && to.known && from.target.hosts == to.target.hosts
	sameDatabase := sameServer && from.target.database == to.target.database
	if sameServer && p.Slot.Name == q.Slot.Name {
		v.fault(path+".slot.name", "slot %s is pipeline %s's too: a slot serves one reader, set another", v.show(path+".slot.name", q.Slot.Name), a)
	}
	if sameDatabase && p.Publication == q.Publication {
		v.fault(path+".publication", "publication %s is pipeline %s's too: each manages its own, set another", v.show(path+".publication", q.Publication), a)
	}
	switch {
	case p.Mode != ModeEvents || q.Mode != ModeEvents:
	case sameDatabase:
		v.fault(path+".mode", "pipeline %s is of mode: events on the same database: a database has one log of events, put both into one pipeline", a)
	default: // POST /v1/append and the commands about events name no store
		v.fault(path+".mode", "pipeline %s is of mode: events too: a file has one, run a daemon of its own for another store", a)
	}
	if sameDatabase {
		v.storeAsRows(a, b)
		v.storeAsRows(b, a)
	}
	if i, j, ok := v.sharedTopic(from, to, sameDatabase); ok {
		switch {
		case p.Mode == ModeCDC && q.Mode == ModeCDC:
			v.fault(path+".topic", "tables %s here and %s of pipeline %s get the same topic: set another topic, or exclude them in one of the pipelines",
				v.showTable(b, j), v.showTable(a, i), a)
		default:
			v.fault(path+".topic", "%s here and %s of pipeline %s get the same topic: set another topic", v.showSource(b, j), v.showSource(a, i), a)
		}
	}
	for _, t := range p.fixedTopics() {
		for _, u := range q.fixedTopics() {
			if t.topic == u.topic {
				v.fault(path+u.key, "topic %s is %s of pipeline %s too: two pipelines never share a topic, set another", v.show(path+u.key, u.topic), t.key[1:], a)
			}
		}
	}
}

// storeAsRows refuses a pipeline of rows that captures the tables of the event
// store: they are the other pipeline's, and not what readers should rely on.
func (v *validator) storeAsRows(rows, events string) {
	if v.Pipelines[rows].Mode != ModeCDC || v.Pipelines[events].Mode != ModeEvents {
		return
	}
	const schema, table = "es", "event"
	o := v.outlines[rows]
	if slices.ContainsFunc(o.exclude, func(p Pattern) bool { return p.text != "" && p.Match(schema, table) }) {
		return
	}
	for i, p := range o.tables {
		if p.text != "" && p.Match(schema, table) {
			v.fault(fmt.Sprintf("pipelines.%s.tables[%d]", rows, i), "%s covers the event store of pipeline %s, which publishes it: write exclude: [\"es.*\"]", v.showTable(rows, i), events)
		}
	}
}

// showTable is the i-th entry of a pipeline's tables.
func (v *validator) showTable(pipeline string, i int) string {
	return v.show(fmt.Sprintf("pipelines.%s.tables[%d]", pipeline, i), v.Pipelines[pipeline].Tables[i])
}

// showSource is what the i-th of a pipeline's topics is written from.
func (v *validator) showSource(pipeline string, i int) string {
	if v.Pipelines[pipeline].Mode == ModeCDC {
		return "table " + v.showTable(pipeline, i)
	}
	c := v.outlines[pipeline].categories[i]
	if c.name == "" {
		return "events"
	}
	return "events of category " + v.show(c.path, c.name)
}

// sharedTopic finds a pattern of each pipeline whose tables get a topic in common.
func (v *validator) sharedTopic(from, to *outline, sameDatabase bool) (i, j int, ok bool) {
	literal := map[string]int{} // topics of from that are certain
	var wild []int              // the rest
	for i, g := range from.topics {
		if g.wild() {
			wild = append(wild, i)
		} else if g != nil {
			literal[string(g)] = i
		}
	}
	all := make([]int, len(from.topics))
	for i := range all {
		all[i] = i
	}
	for j, g := range to.topics {
		if g == nil {
			continue
		}
		candidates := all
		if !g.wild() {
			candidates = wild
			if i, hit := literal[string(g)]; hit {
				candidates = append([]int{i}, wild...)
			}
		}
		for _, i := range candidates {
			if !v.compare() {
				return 0, 0, false
			}
			// Where one pipeline leaves out what the other takes, nothing is shared.
			if from.topics[i].meets(g, '.') &&
				!(sameDatabase && from.tables != nil && to.tables != nil && (v.excluded(from, to.tables[j]) || v.excluded(to, from.tables[i]))) {
				return i, j, true
			}
		}
	}
	return 0, 0, false
}

// excluded says that o leaves out all tables of t.
func (v *validator) excluded(o *outline, t Pattern) bool {
	for _, e := range o.exclude {
		if !v.compare() {
			return false
		}
		if e.text != "" && e.coversAll(t) {
			return true
		}
	}
	return false
}

// compare counts a comparison of two patterns; false: there were too many.
func (v *validator) compare() bool {
	v.comparisons++
	if v.comparisons == maxComparisons+1 {
		v.fault("pipelines", "there are too many patterns to compare with each other: use fewer and wider ones")
	}
	return v.comparisons <= maxComparisons
}

// topicGlob is what topics a template can give for a pattern. Characters that
// Kafka does not allow become '_', as in cdc.TopicName. An unknown database is
// any. Wildcards are taken not to stand for dots (see meets): a table may have
// one in its name, but to refuse public.* and sales.* for its sake would be
// wrong nearly always; what then does collide is found when the tables are known.
func topicGlob(template, database string, p Pattern) glob {
	db := glob{anyRun}
	if database != "" {
		db = glob(database)
	}
	out := glob{}
	for template != "" {
		switch {
		case strings.HasPrefix(template, "{database}"):
			out, template = append(out, db.asTopic()...), template[len("{database}"):]
		case strings.HasPrefix(template, "{schema}"):
			out, template = append(out, p.schema.asTopic()...), template[len("{schema}"):]
		case strings.HasPrefix(template, "{table}"):
			out, template = append(out, p.table.asTopic()...), template[len("{table}"):]
		default:
			out, template = append(out, rune(template[0])), template[1:]
		}
	}
	return out
}

func (g glob) asTopic() glob {
	out := make(glob, len(g))
	for i, r := range g {
		if r >= 0 && !isTopicRune(r) {
			r = '_'
		}
		out[i] = r
	}
	return out
}

func isTopicRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-'
}

// ownTopics refuses topics for messages, dead letters and progress that are the
// same within a pipeline, or are certain to be a table's of any pipeline.
func (v *validator) ownTopics(names []string) {
	type owner struct {
		pipeline string
		source   int
	}
	tables := map[string]owner{}
	for _, name := range names {
		o := v.outlines[name]
		for i, g := range o.topics {
			if g != nil && !g.wild() {
				tables[string(g)] = owner{name, i}
			}
		}
	}
	for _, name := range names {
		path := join("pipelines", name)
		fixed := v.Pipelines[name].fixedTopics()
		for i, t := range fixed {
			for _, u := range fixed[:i] {
				if t.topic == u.topic {
					v.fault(path+t.key, "topic %s is %s too: set another", v.show(path+t.key, t.topic), u.key[1:])
				}
			}
			if o, ok := tables[t.topic]; ok {
				v.fault(path+t.key, "topic %s is that of %s of pipeline %s too: set another", v.show(path+t.key, t.topic), v.showSource(o.pipeline, o.source), o.pipeline)
			}
		}
	}
}
