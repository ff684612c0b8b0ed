package intent

import (
	"encoding/json"
	"time"
)

// Definitions are what a configuration says about events. They are installed in
// the store, where every writer, in whatever language, is held to them.
type Definitions struct {
	Events     []EventType // sorted by name
	Undeclared bool        // accept types that are not declared
	// MaxEvent bounds data and meta of one event together, in bytes of their text.
	MaxEvent  int
	Folds     []Fold // sorted by category
	Snapshots int    // events folded since the last snapshot that make a new one; 0: none
	Views     []View // sorted by name
	Reactions []Reaction
}

// EventType declares one type of event.
type EventType struct {
	Name   string
	Stream Template
	Schema int     // newest version of its fields, from 1
	Fields []Field // of that version, sorted by name
	// Upcast has, by the version it starts from, the SQL expression that makes the
	// data of the next one: `data`, `meta`, `stream` and `at` are at hand.
	Upcast map[int]string
}

// Field is a member of an event's data.
type Field struct {
	Name     string
	Type     FieldType
	Optional bool // may be missing or null
}

// FieldType is what a field holds. In YAML "string", or "string?" where it is
// optional.
type FieldType string

// The types of fields, with their type in SQL.
const (
	TypeString FieldType = "string" // text
	TypeInt    FieldType = "int"    // bigint
	TypeNumber FieldType = "number" // numeric
	TypeBool   FieldType = "bool"   // boolean
	TypeTime   FieldType = "time"   // timestamptz, an RFC 3339 string in JSON
	TypeDate   FieldType = "date"   // date, YYYY-MM-DD in JSON
	TypeUUID   FieldType = "uuid"   // uuid
	TypeJSON   FieldType = "json"   // jsonb: anything
)

// Fold makes the state of the streams of a category.
type Fold struct {
	Category string          `json:"category"`
	Initial  json.RawMessage `json:"initial,omitempty"` // state before the first event; null where nil
	// When has, by event type, the SQL expression (jsonb) of the state after it:
	// :state is the state before. A type that is not named changes nothing.
	When map[string]string `json:"when"`
}

// ViewMode is when a view follows the log.
type ViewMode string

// The modes.
const (
	Inline ViewMode = "inline" // in the transaction of the append
	Async  ViewMode = "async"  // soon after, in batches
)

// View is a table that follows from the log.
type View struct {
	Name     string            `json:"name"`
	Mode     ViewMode          `json:"mode"`
	Database string            `json:"database,omitempty"` // URL of another Postgres that holds it; "" for the store's own
	Table    string            `json:"table"`              // column definitions and constraints, as between the parentheses of CREATE TABLE
	Indexes  []string          `json:"indexes,omitempty"`  // column lists, as between the parentheses of CREATE INDEX
	When     map[string]string `json:"when"`               // by event type, one SQL statement
}

// Reaction appends events when an event happens.
type Reaction struct {
	Name  string   `json:"name"`
	After string   `json:"after,omitempty"` // view that must have applied the event; "" for none
	When  []string `json:"when"`            // event types
	// Append is a query of columns type and data (jsonb), and optionally stream,
	// where the type declares none: a row is an event to append.
	Append string `json:"append"`
	From   From   `json:"from"`
}

// From is where in the log a new reaction begins.
type From string

// The beginnings.
const (
	FromEnd       From = "end"       // what happens from now on
	FromBeginning From = "beginning" // the whole history
)

// Placeholders of SQL in definitions. :name is the declared field of that name;
// a field called like one of these is reached through :data.
const (
	ParamID      = "id"      // uuid
	ParamStream  = "stream"  // text
	ParamVersion = "version" // bigint
	ParamType    = "type"    // text
	ParamSchema  = "schema"  // int
	ParamData    = "data"    // jsonb, brought to the newest schema
	ParamMeta    = "meta"    // jsonb
	ParamAt      = "at"      // timestamptz
	ParamPos     = "pos"     // bigint; not in inline views: the position is given after the commit
	ParamState   = "state"   // jsonb; in folds alone
)

// ViewStatus is how a build of a view stands.
type ViewStatus struct {
	Name     string    `json:"name"`
	Build    int64     `json:"build"`
	Mode     ViewMode  `json:"mode"`
	State    string    `json:"state"`              // building, live, retired
	Database string    `json:"database,omitempty"` // host and name, never a password
	Position int64     `json:"position"`
	Lag      int64     `json:"lag"` // events behind the log
	Error    string    `json:"error,omitempty"`
	Event    string    `json:"event,omitempty"` // id of the event at which it stopped
	Since    time.Time `json:"since,omitzero"`
}
