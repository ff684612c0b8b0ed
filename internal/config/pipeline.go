package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"cdc/internal/cdc"
)

// pipeline judges one pipeline alone.
func (v *validator) pipeline(name string, p *Pipeline) {
	path := join("pipelines", name)
	if p.Mode != ModeCDC && p.Mode != ModeEvents { // a fault of its own; what it lacks of either mode is none
		v.outlines[name] = &outline{}
		return
	}
	if !isWord(name, "-_") {
		v.fault(path, "pipeline name %q: write 1 to %d of a-z, 0-9, '-' and '_'; it names the slot and the transactional id", name, maxIdentifier)
	}
	if p.Name != name {
		v.fault(path, "the pipeline built as %q stands under another name", p.Name)
	}
	if p.Postgres != nil {
		v.url(path+".postgres.url", p.Postgres.URL, true)
	}
	v.outlines[name] = v.outline(name, p)
	if p.Mode == ModeEvents {
		v.events(path, p, v.outlines[name])
	} else {
		v.rows(path, p, v.outlines[name])
	}
	v.topics(name, path, p)
	if !isWord(p.Slot.Name, "_") && p.Slot.Name != SlotName(name) { // else the name is the fault
		v.fault(path+".slot.name", "%s is not a slot name: Postgres takes 1 to %d of a-z, 0-9 and '_'", v.show(path+".slot.name", p.Slot.Name), maxIdentifier)
	}
	if n := len(p.Publication); n == 0 || n > maxIdentifier || strings.ContainsRune(p.Publication, 0) || !utf8.ValidString(p.Publication) {
		v.fault(path+".publication", "%s is not a publication name: Postgres takes 1 to %d bytes", v.show(path+".publication", p.Publication), maxIdentifier)
	}
	if p.Replication > 1 && v.Kafka.Embedded != nil {
		v.fault(path+".replication", "the embedded broker is one broker: write 1, or remove the key")
	}
}

// rows judges what pipelines of mode: cdc alone have.
func (v *validator) rows(path string, p *Pipeline, o *outline) {
	v.patterns(path, p, o)
	v.columns(path, p)
	if p.Snapshot.Mode == "never" && p.OnGap == "resnapshot" {
		v.fault(path+".on_gap", "resnapshot contradicts snapshot.mode: never; write on_gap: stop, or snapshot: {mode: initial}")
	}
	if p.Toast == "placeholder" && p.Format == "json" {
		v.fault(path+".toast", "placeholder is Debezium's and needs format: debezium-json; write fill, omit or refuse")
	}
	if p.Debezium.Name == "" {
		v.fault(path+".debezium.name", "is empty: write the name readers find in source.name")
	}
}

// isWord says that s is 1 to 63 of a-z, 0-9 and the marks.
func isWord(s, marks string) bool {
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && !strings.ContainsRune(marks, r) {
			return false
		}
	}
	return s != "" && len(s) <= maxIdentifier
}

// patterns checks tables and exclude beyond each single pattern.
func (v *validator) patterns(path string, p *Pipeline, o *outline) {
	if len(p.Tables) == 0 {
		v.fault(path+".tables", "no tables: write those to capture, as in [\"public.*\"]")
	}
	for i, t := range o.tables {
		if t.text != "" && v.excluded(o, t) {
			at := fmt.Sprintf("%s.tables[%d]", path, i)
			v.fault(at, "exclude leaves nothing of %s: remove it here or there", v.show(at, t.text))
		}
	}
}

// patternList reads patterns; one that cannot be read is a fault and left empty.
func (v *validator) patternList(path string, list []string) []Pattern {
	out := make([]Pattern, len(list))
	seen := map[string]bool{}
	for i, s := range list {
		at := fmt.Sprintf("%s[%d]", path, i)
		p, err := ParsePattern(s)
		switch {
		case err != nil && v.at[at].env:
			v.fault(at, "the value from the environment is not a table pattern: write schema.table, as in public.*")
		case err != nil:
			v.fault(at, "%v", err)
		case seen[p.Plain()]:
			v.fault(at, "%s is listed twice: remove one", v.show(at, s))
		default:
			out[i] = p
		}
		seen[p.Plain()] = err == nil
	}
	return out
}

// columns checks the lists of columns that single tables have.
func (v *validator) columns(path string, p *Pipeline) {
	published := v.tableMap(path+".columns", p.Columns)
	keys := v.tableMap(path+".key", p.Key)
	for table, k := range keys {
		all, ok := published[table]
		if !ok {
			continue
		}
		for i, column := range p.Key[k] {
			if !slices.Contains(p.Columns[all], column) {
				at := fmt.Sprintf("%s.key[%s][%d]", path, k, i)
				v.fault(at, "key column %s is not among the columns of %s: add it there", v.show(at, column), table)
			}
		}
	}
}

// tableMap checks a map of tables to columns and gives the keys by plain name.
func (v *validator) tableMap(path string, m map[string][]string) map[string]string {
	out := map[string]string{}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		at := fmt.Sprintf("%s[%s]", path, k)
		pattern, err := ParsePattern(k)
		if err != nil {
			v.fault(at, "%v", err)
			continue
		}
		if _, _, ok := pattern.Literal(); !ok {
			v.fault(at, "wildcards are not taken here: name one table")
			continue
		}
		if other, ok := out[pattern.Plain()]; ok {
			v.fault(at, "%s and %s are the same table: remove one", other, k)
			continue
		}
		out[pattern.Plain()] = k
		if len(m[k]) == 0 {
			v.fault(at, "no columns: write a list such as [id, name]")
		}
		for i, column := range m[k] {
			where := fmt.Sprintf("%s[%d]", at, i)
			switch {
			case column == "" || len(column) > maxIdentifier || strings.ContainsRune(column, 0):
				v.fault(where, "%s is not a column name: Postgres takes 1 to %d bytes", v.show(where, column), maxIdentifier)
			case slices.Index(m[k], column) < i:
				v.fault(where, "column %s is listed twice: remove one", v.show(where, column))
			}
		}
	}
	return out
}

// topics checks the template and the topics of a pipeline that are no table's.
func (v *validator) topics(name, path string, p *Pipeline) {
	if p.Mode == ModeEvents {
		v.eventTopics(path, p)
	} else if _, err := cdc.TopicName(p.Topic, "d", "s", "t"); err != nil {
		v.topicFault(path+".topic", err)
	} else {
		v.sameTopic(name, path, p)
	}
	for _, t := range p.fixedTopics() {
		if _, err := cdc.TopicName(t.topic, "", "", ""); err != nil {
			v.topicFault(path+t.key, err)
		} else if strings.ContainsAny(t.topic, "{}") {
			v.fault(path+t.key, "a topic of its own has no placeholders: write its name")
		}
	}
	switch {
	case len(p.Messages.Prefixes) > 0 && p.Messages.Topic == "":
		v.fault(path+".messages.topic", "is missing: write the topic messages go to, or remove messages")
	case len(p.Messages.Prefixes) == 0 && p.Messages.Topic != "":
		v.fault(path+".messages.prefixes", "no prefixes: write those to take, as in [audit], or remove messages")
	}
	for i, prefix := range p.Messages.Prefixes {
		if at := fmt.Sprintf("%s.messages.prefixes[%d]", path, i); slices.Index(p.Messages.Prefixes, prefix) < i {
			v.fault(at, "%s is listed twice: remove one", v.show(at, prefix))
		}
	}
	for _, k := range slices.Sorted(maps.Keys(p.TopicConfig)) {
		if at := path + ".topic_config[" + k + "]"; k == "" || p.TopicConfig[k] == "" {
			v.fault(at, "a topic setting has a name and a value, as in segment.ms: 600000")
		}
	}
}

func (v *validator) topicFault(at string, err error) {
	if v.at[at].env {
		err = fmt.Errorf("the value from the environment gives no topic name: letters, digits, '.', '_' and '-' are allowed")
	}
	v.fault(at, "%v", err)
}

// fixedTopic is a topic a key names as a whole.
type fixedTopic struct{ key, topic string }

// fixedTopics are the topics of the pipeline that are no table's.
func (p *Pipeline) fixedTopics() []fixedTopic {
	if p.Mode == ModeEvents {
		return []fixedTopic{{".progress_topic", p.ProgressTopic}}
	}
	list := []fixedTopic{{".dead_letter", p.DeadLetter}, {".progress_topic", p.ProgressTopic}}
	if len(p.Messages.Prefixes) > 0 && p.Messages.Topic != "" {
		list = append(list, fixedTopic{".messages.topic", p.Messages.Topic})
	}
	return list
}

// sameTopic refuses a template that is bound to give two tables one topic: their
// rows would replace each other.
func (v *validator) sameTopic(name, path string, p *Pipeline) {
	if strings.Contains(p.Topic, "{table}") {
		return
	}
	topics := map[string]int{}
	for i, pattern := range v.outlines[name].tables {
		if pattern.text == "" {
			continue // a fault of its own
		}
		this := v.showTable(name, i)
		schema, table, ok := pattern.Literal()
		if !ok {
			v.fault(path+".topic", "without {table} all tables of %s get one topic: add {table}, or name one table", this)
			return
		}
		topic, err := cdc.TopicName(p.Topic, "d", schema, table) // the database is the same for all
		if other, ok := topics[topic]; err == nil && ok {
			v.fault(path+".topic", "%s and %s get one topic: add {schema} and {table}", v.showTable(name, other), this)
			return
		}
		topics[topic] = i
	}
}
