package intent

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Template is the name of a stream with fields in braces: "course/{course}".
type Template string

// Fields are the fields the template names, in order.
func (t Template) Fields() []string {
	var names []string
	for rest := string(t); ; {
		_, after, ok := strings.Cut(rest, "{")
		if !ok {
			return names
		}
		name, after, ok := strings.Cut(after, "}")
		if !ok {
			return names
		}
		names = append(names, name)
		rest = after
	}
}

// Category is the category of every stream the template names: it must lie before
// the first field.
func (t Template) Category() string { return Category(string(t)) }

// Check says what is wrong with a template whose fields are those of a type.
func (t Template) Check(fields []Field) error {
	if t == "" {
		return errors.New("the stream is missing: write its name with fields of data in braces, as in course/{course}")
	}
	if len(t) > MaxStream || strings.ContainsFunc(string(t), isControl) || !utf8.ValidString(string(t)) {
		return fmt.Errorf("the stream's name is longer than %d bytes, or holds a control character, or is not UTF-8", MaxStream)
	}
	if !CategoryOK(t.Category()) {
		return fmt.Errorf("stream %q: the category, all before the first '/', names the topic: write 1 to %d of letters, digits, '.', '_' and '-' there", string(t), MaxCategory)
	}
	if strings.Count(string(t), "{") != strings.Count(string(t), "}") || strings.Count(string(t), "{") != len(t.Fields()) {
		return fmt.Errorf("stream %q: braces do not match: write course/{course}", string(t))
	}
	for _, name := range t.Fields() {
		i := slices.IndexFunc(fields, func(f Field) bool { return f.Name == name })
		if i < 0 {
			return fmt.Errorf("stream %q: {%s} is not a field of data", string(t), name)
		}
		if f := fields[i]; f.Optional || f.Type == TypeJSON {
			return fmt.Errorf("stream %q: {%s} may be missing, or is no plain value: declare it without ?, and not as json", string(t), name)
		}
	}
	return nil
}

// The limits of names in the store.
const (
	MaxStream   = 512 // bytes of a stream's name: it is a key in indexes and topics
	MaxCategory = 100 // of a category: a topic's name has at most 249 in all
	MaxName     = 40  // of an event type's, view's and reaction's name: they are part of identifiers, which have 63
)

// CategoryOK says that a category can be part of a topic's name.
func CategoryOK(c string) bool {
	for _, r := range c {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._-", r) {
			return false
		}
	}
	return c != "" && len(c) <= MaxCategory
}

// SQL is the SQL expression of the stream's name for an event whose data is the
// jsonb expression data; null where a field is missing. It stands for one operand.
func (t Template) SQL(data string) string {
	var terms []string
	rest := string(t)
	for _, name := range t.Fields() {
		before, after, _ := strings.Cut(rest, "{"+name+"}")
		if before != "" {
			terms = append(terms, Literal(before))
		}
		terms = append(terms, FieldSQL(Field{Name: name, Type: TypeString}, data))
		rest = after
	}
	if rest != "" || len(terms) == 0 {
		terms = append(terms, Literal(rest))
	}
	return "(" + strings.Join(terms, " || ") + ")"
}
