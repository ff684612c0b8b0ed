package intent

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Definitions are stored as JSON (es.declared, es.fold, es.view, es.reaction), in
// the words of the configuration. A view's database is stored by its name, never
// as the URL: that may hold a password.

// String is the type of the field as it is written: string, or string? where the
// field is optional.
func (f Field) String() string {
	if f.Optional {
		return string(f.Type) + "?"
	}
	return string(f.Type)
}

// ParseField reads what String wrote. Whether the type is known, Validate says.
func ParseField(name, text string) Field {
	typ, optional := strings.CutSuffix(text, "?")
	return Field{Name: name, Type: FieldType(typ), Optional: optional}
}

// eventJSON is an EventType as it is stored.
type eventJSON struct {
	Name   string            `json:"name"`
	Stream Template          `json:"stream"`
	Schema int               `json:"schema"`
	Data   map[string]string `json:"data"`
	Upcast map[int]string    `json:"upcast,omitempty"`
}

// MarshalJSON writes the fields as the configuration has them:
// {"name": …, "stream": …, "schema": 2, "data": {"reason": "string?"}, "upcast": {"1": …}}.
func (t EventType) MarshalJSON() ([]byte, error) {
	out := eventJSON{t.Name, t.Stream, t.Schema, map[string]string{}, t.Upcast}
	for _, f := range t.Fields {
		out.Data[f.Name] = f.String()
	}
	return json.Marshal(out)
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (t *EventType) UnmarshalJSON(b []byte) error {
	var in eventJSON
	if err := json.Unmarshal(b, &in); err != nil {
		return fmt.Errorf("read the definition of an event type: %w", err)
	}
	*t = EventType{Name: in.Name, Stream: in.Stream, Schema: in.Schema, Upcast: in.Upcast}
	for _, name := range sortedKeys(in.Data) {
		t.Fields = append(t.Fields, ParseField(name, in.Data[name]))
	}
	return nil
}

// viewJSON is a View as it is stored: a type without methods.
type viewJSON View

func (v View) stored() viewJSON {
	v.Database = v.DatabaseName()
	return viewJSON(v)
}

// MarshalJSON writes the database's name in place of its URL. Read again, the
// view has that name as its database, which no connection can be made with.
func (v View) MarshalJSON() ([]byte, error) { return json.Marshal(v.stored()) }

// String and GoString keep the URL out of messages and logs.
func (v View) String() string { return fmt.Sprintf("%+v", v.stored()) }

// GoString is String: a %#v must not show the URL either.
func (v View) GoString() string { return fmt.Sprintf("%#v", v.stored()) }
