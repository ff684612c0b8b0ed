package intent

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Fault is one thing wrong with definitions.
type Fault struct {
	// Path is the place, in the words of the configuration, as in
	// events[enrolment-cancelled].stream or views[waiting].when[place-offered].
	Path string
	Text string // what is wrong and what to write instead
}

func (f Fault) String() string { return f.Path + ": " + f.Text }

// MaxSnapshots bounds Definitions.Snapshots: a larger number is as good as none.
const MaxSnapshots = 1_000_000

// Validate returns every fault at once; none: the definitions may be installed.
// Whether their SQL is SQL, the server says.
//
// A fault repeats the value at its own path and names of definitions, never a
// value of another place: who knows that a value is secret can hide its fault.
func (d *Definitions) Validate() []Fault {
	v := &validator{Definitions: d, types: map[string]*EventType{}}
	for i := range d.Events {
		v.event(&d.Events[i])
	}
	if d.MaxEvent < 0 {
		v.fault("max_event", "%d bytes are less than nothing", d.MaxEvent)
	}
	if d.Snapshots < 0 || d.Snapshots > MaxSnapshots {
		v.fault("snapshots.every", "%d is out of range: write a number of events up to %d, or 0 for no snapshots", d.Snapshots, MaxSnapshots)
	}
	v.folds()
	v.views()
	v.reactions()
	return v.faults
}

// validator collects. Types are judged first: the rest is judged by them.
type validator struct {
	*Definitions
	faults []Fault
	types  map[string]*EventType
}

func (v *validator) fault(path, format string, args ...any) {
	v.faults = append(v.faults, Fault{path, fmt.Sprintf(format, args...)})
}

// at is the path of a member of a section.
func at(section, name string) string { return section + "[" + name + "]" }

// NameOK says that an event type, a reaction or a field can have the name: 1 to
// MaxName letters, digits, '-' and '_', the first a letter.
func NameOK(s string) bool {
	return nameOf(s, func(c byte) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-'
	})
}

// ViewNameOK says that a view can have the name, which is that of its table: as
// NameOK, but without '-' and upper case, which every statement would have to
// quote.
func ViewNameOK(s string) bool {
	return nameOf(s, func(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_' })
}

func nameOf(s string, ok func(byte) bool) bool {
	for i := range len(s) {
		if !ok(s[i]) {
			return false
		}
	}
	return s != "" && len(s) <= MaxName && isWordStart(s[0]) && s[0] != '_'
}

// event judges a declared type.
func (v *validator) event(e *EventType) {
	path := at("events", e.Name)
	if !NameOK(e.Name) {
		v.fault(path, "%q cannot name a type: write 1 to %d letters, digits, '-' and '_', the first a letter", e.Name, MaxName)
	}
	if v.types[e.Name] != nil {
		v.fault(path, "the type is declared twice: remove one")
	}
	v.types[e.Name] = e
	if e.Schema < 1 {
		v.fault(path+".schema", "%d is out of range: the first version is 1", e.Schema)
	}
	v.fields(path, e)
	if err := e.Stream.Check(e.Fields); err != nil {
		v.fault(path+".stream", "%v", err)
	}
	v.upcast(path, e)
}

func (v *validator) fields(path string, e *EventType) {
	for i, f := range e.Fields {
		where := at(path+".data", f.Name)
		if !NameOK(f.Name) {
			v.fault(where, "%q cannot name a field: write 1 to %d letters, digits, '-' and '_', the first a letter", f.Name, MaxName)
		}
		if slices.ContainsFunc(e.Fields[:i], func(g Field) bool { return g.Name == f.Name }) {
			v.fault(where, "the field is declared twice: remove one")
		}
		if f.Type.SQL() == "" {
			v.fault(where, "%q is no type of a field: write one of %s, with a ? behind it where it may be missing", string(f.Type), strings.Join(FieldTypes(), ", "))
		}
	}
}

// FieldTypes are the types of fields as they are written.
func FieldTypes() []string {
	return []string{string(TypeString), string(TypeInt), string(TypeNumber), string(TypeBool), string(TypeTime), string(TypeDate), string(TypeUUID), string(TypeJSON)}
}

// upcast judges the steps from one version of a type's fields to the next: one
// for each version before the newest, or old events could not be read.
func (v *validator) upcast(path string, e *EventType) {
	path += ".upcast"
	missing := 0
	for from := 1; from < e.Schema && missing <= maxMissing; from++ {
		if _, ok := e.Upcast[from]; ok {
			continue
		}
		if missing++; missing > maxMissing {
			v.fault(path, "more steps are missing: schema is %d", e.Schema)
			break
		}
		v.fault(path, "there is no step from version %d: write the SQL expression that makes the data of version %d", from, from+1)
	}
	for _, from := range sortedKeys(e.Upcast) {
		where := at(path, fmt.Sprint(from))
		if from < 1 || from >= e.Schema {
			v.fault(where, "there is no version %d to come from: schema is %d, steps go from 1 to %d", from, e.Schema, e.Schema-1)
		}
		s, ok := v.sql(where, e.Upcast[from])
		if !ok {
			continue
		}
		for _, name := range s.Names() {
			v.fault(where, ":%s has no meaning here: data, meta, stream and at are called by their plain names", name)
		}
	}
}

// maxMissing bounds how many missing steps are listed one by one.
const maxMissing = 5

// sql judges the text of a statement or expression alone.
func (v *validator) sql(path, text string) (Statement, bool) {
	s, err := ParseSQL(text)
	if err != nil {
		v.fault(path, "the SQL %v", err)
	}
	return s, err == nil
}

// plain judges SQL that knows no placeholders.
func (v *validator) plain(path, text string) {
	if s, ok := v.sql(path, text); ok && len(s.Names()) > 0 {
		v.fault(path, ":%s has no meaning here: no event is at hand", s.Names()[0])
	}
}

// typeKnown judges the name of a type that a definition uses.
func (v *validator) typeKnown(path, name string) bool {
	switch {
	case v.types[name] != nil:
		return true
	case !v.Undeclared:
		v.fault(path, "type %q is not declared: add it to events%s", name, v.declared())
		return false
	case !TypeOK(name):
		v.fault(path, "%q cannot name a type: write 1 to %d bytes without control characters", name, MaxName)
		return false
	}
	return true
}

// TypeOK says that events can have the type, declared or not: the store holds
// them to no more.
func TypeOK(s string) bool {
	return s != "" && len(s) <= MaxName && utf8.ValidString(s) && !strings.ContainsFunc(s, isControl)
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// declared lists the declared types for a message, where there are few.
func (v *validator) declared() string {
	names := sortedKeys(v.types)
	if len(names) == 0 || len(names) > maxListed {
		return ""
	}
	return "; declared are " + strings.Join(names, ", ")
}

// maxListed bounds the names a message lists.
const maxListed = 20

// place is where a statement stands: which placeholders it knows besides the
// fields.
type place struct {
	state bool // :state
	pos   bool // :pos
	why   string
}

// placeholders judges the names of a statement that is run for events of a type.
func (v *validator) placeholders(path string, s Statement, types []string, p place) {
	for _, name := range s.Names() {
		switch name {
		case ParamID, ParamStream, ParamVersion, ParamType, ParamSchema, ParamData, ParamMeta, ParamAt:
			continue
		case ParamPos:
			if p.pos {
				continue
			}
			if !v.isField(types, name) {
				v.fault(path, ":pos is not known %s", p.why)
				continue
			}
			v.fault(path, ":pos is the position in the log, which is not known %s; the field of that name is :data->>'pos'", p.why)
			continue
		case ParamState:
			if !p.state {
				v.fault(path, ":state is known in state alone")
			}
			continue
		}
		for _, typ := range types {
			if t := v.types[typ]; t != nil && !hasField(t, name) {
				v.fault(path, ":%s is not a field of %s%s", name, typ, fieldsHint(t, name))
			}
		}
	}
}

func (v *validator) isField(types []string, name string) bool {
	return slices.ContainsFunc(types, func(t string) bool { return v.types[t] != nil && hasField(v.types[t], name) })
}

func hasField(t *EventType, name string) bool {
	return slices.ContainsFunc(t.Fields, func(f Field) bool { return f.Name == name })
}

// fieldsHint says what a placeholder may have meant.
func fieldsHint(t *EventType, name string) string {
	var names []string
	for _, f := range t.Fields {
		if strings.HasPrefix(f.Name, name+"-") {
			return fmt.Sprintf("; a name with '-' is reached by :data, as in (:data->>%s)", Literal(f.Name))
		}
		names = append(names, f.Name)
	}
	slices.Sort(names)
	switch {
	case len(names) == 0:
		return ", which declares none: add it to data"
	case len(names) > maxListed:
		return ": add it to data"
	}
	return ", it has " + strings.Join(names, ", ")
}

// folds judges the states of streams.
func (v *validator) folds() {
	seen := map[string]bool{}
	for _, f := range v.Folds {
		path := at("state", f.Category)
		switch {
		case !CategoryOK(f.Category):
			v.fault(path, "%q is no category: write 1 to %d of letters, digits, '.', '_' and '-'", f.Category, MaxCategory)
		case seen[f.Category]:
			v.fault(path, "the category has two states: remove one")
		case !v.Undeclared && !slices.ContainsFunc(v.Events, func(e EventType) bool { return e.Stream.Category() == f.Category }):
			v.fault(path, "no declared type has streams of category %q, as in stream: \"%s/{id}\"", f.Category, f.Category)
		}
		seen[f.Category] = true
		if len(f.Initial) > 0 && !json.Valid(f.Initial) {
			v.fault(path+".initial", "is not JSON: write it as in '{\"students\": []}'")
		}
		if len(f.When) == 0 {
			v.fault(path+".when", "there is none: write the expression of the state after each type of event")
		}
		for _, typ := range sortedKeys(f.When) {
			where := at(path+".when", typ)
			known := v.typeKnown(where, typ)
			if t := v.types[typ]; known && t != nil && t.Stream.Category() != f.Category && CategoryOK(t.Stream.Category()) {
				v.fault(where, "events of the type are in streams of another category: they never come here")
			}
			if s, ok := v.sql(where, f.When[typ]); ok && known {
				v.placeholders(where, s, []string{typ}, place{state: true, why: "here: the state counts events that have no position yet"})
			}
		}
	}
}

// views judges the views.
func (v *validator) views() {
	seen := map[string]bool{}
	for _, w := range v.Views {
		path := at("views", w.Name)
		if !ViewNameOK(w.Name) {
			v.fault(path, "%q cannot name a view, it is the name of a table: write 1 to %d of a-z, 0-9 and '_', the first a letter", w.Name, MaxName)
		} else if seen[w.Name] {
			v.fault(path, "the view is defined twice: remove one")
		}
		seen[w.Name] = true
		p := place{pos: true}
		switch w.Mode {
		case Async:
		case Inline:
			p = place{why: "in an inline view: it is given after the commit"}
		default:
			v.fault(path+".mode", "%q is not one of inline, async", string(w.Mode))
		}
		v.columns(path+".table", w.Table, "write its columns, as in \"course text primary key, taken int\"")
		for i, x := range w.Indexes {
			v.columns(fmt.Sprintf("%s.indexes[%d]", path, i), x, "write its columns, as in \"course, since\"")
		}
		if len(w.When) == 0 {
			v.fault(path+".when", "there is none: write a statement for each type of event that changes the view")
		}
		for _, typ := range sortedKeys(w.When) {
			where := at(path+".when", typ)
			known := v.typeKnown(where, typ)
			if s, ok := v.sql(where, w.When[typ]); ok && known {
				v.placeholders(where, s, []string{typ}, p)
			}
		}
	}
}

// columns judges what stands between parentheses of CREATE TABLE or CREATE INDEX.
func (v *validator) columns(path, text, hint string) {
	if strings.TrimSpace(text) == "" {
		v.fault(path, "is empty: %s", hint)
		return
	}
	v.plain(path, text)
}

// reactions judges the reactions, each alone and then whether they go round.
func (v *validator) reactions() {
	seen := map[string]bool{}
	for _, r := range v.Reactions {
		path := at("reactions", r.Name)
		if !NameOK(r.Name) {
			v.fault(path, "%q cannot name a reaction: write 1 to %d letters, digits, '-' and '_', the first a letter", r.Name, MaxName)
		} else if seen[r.Name] {
			v.fault(path, "the reaction is defined twice: remove one")
		}
		seen[r.Name] = true
		if r.After != "" && !slices.ContainsFunc(v.Views, func(w View) bool { return w.Name == r.After }) {
			v.fault(path+".after", "there is no view %q: name one of views, or remove the key", r.After)
		}
		if r.From != FromEnd && r.From != FromBeginning {
			v.fault(path+".from", "%q is not one of %s, %s", string(r.From), FromEnd, FromBeginning)
		}
		if len(r.When) == 0 {
			v.fault(path+".when", "there is none: name the types of event to react to")
		}
		var known []string
		for i, typ := range r.When {
			where := fmt.Sprintf("%s.when[%d]", path, i)
			if slices.Index(r.When, typ) < i {
				v.fault(where, "type %q is listed twice: remove one", typ)
			} else if v.typeKnown(where, typ) {
				known = append(known, typ)
			}
		}
		if s, ok := v.sql(path+".append", r.Append); ok {
			v.placeholders(path+".append", s, known, place{pos: true})
			v.appended(path+".append", s)
		}
	}
	v.cycles()
}

// appended judges the types a query says it appends.
func (v *validator) appended(path string, s Statement) {
	for _, typ := range s.appends() {
		if v.types[typ] == nil && !v.Undeclared {
			v.fault(path, "appends type %q, which is not declared: add it to events%s", typ, v.declared())
		}
	}
}

// cycles refuses reactions that set each other off for ever. Seen are types that
// a query names as such; others are not known before it runs.
func (v *validator) cycles() {
	g := graph{appends: make([][]string, len(v.Reactions)), reacts: map[string][]int{}}
	for i, r := range v.Reactions {
		if s, err := ParseSQL(r.Append); err == nil { // else a fault of its own
			g.appends[i] = s.appends()
		}
		for _, typ := range r.When {
			g.reacts[typ] = append(g.reacts[typ], i)
		}
	}
	told := make([]bool, len(v.Reactions))
	for i := range v.Reactions {
		round := g.roundTrip(i)
		if round == nil || told[i] {
			continue
		}
		var names []string
		for _, j := range round {
			told[j] = true
			names = append(names, v.Reactions[j].Name)
		}
		v.fault(at("reactions", v.Reactions[i].Name)+".append",
			"sets itself off for ever: %s; append a type that leads no further", strings.Join(append(names, names[0]), " -> "))
	}
}

// graph says which reaction appends which types and who reacts to them.
type graph struct {
	appends [][]string // by reaction
	reacts  map[string][]int
}

// roundTrip is a shortest way from a reaction back to itself; nil where there is
// none. The time is in proportion to the definitions: each type is followed once.
func (g graph) roundTrip(i int) []int {
	from := map[int]int{}
	followed := map[string]bool{}
	queue := []int{i}
	for len(queue) > 0 {
		here := queue[0]
		queue = queue[1:]
		for _, typ := range g.appends[here] {
			if followed[typ] {
				continue
			}
			followed[typ] = true
			for _, j := range g.reacts[typ] {
				if j == i {
					return wayBack(from, i, here)
				}
				if _, seen := from[j]; !seen {
					from[j] = here
					queue = append(queue, j)
				}
			}
		}
	}
	return nil
}

// wayBack lists the way from i to here.
func wayBack(from map[int]int, i, here int) []int {
	var way []int
	for ; here != i; here = from[here] {
		way = append(way, here)
	}
	way = append(way, i)
	slices.Reverse(way)
	return way
}
