package cdc

import "time"

// Verdict is the outcome of a Verification.
type Verdict string

// The verdicts.
const (
	VerdictEqual     Verdict = "equal"
	VerdictDifferent Verdict = "different"
	// VerdictUnchecked: nothing can be said, Why says why. It is not "different".
	VerdictUnchecked Verdict = "unchecked"
)

// Verification is what comparing a target with its source has found: a topic with
// its table, or with the event store; a log or a view with the events.
type Verification struct {
	Pipeline string  `json:"pipeline"`
	Subject  string  `json:"subject"`         // schema.table; of mode: events "log", "topic NAME", "view NAME"
	Topic    string  `json:"topic,omitempty"` // of a table
	Verdict  Verdict `json:"verdict"`
	Why      string  `json:"why,omitempty"`  // of VerdictUnchecked; else a remark
	Mend     string  `json:"mend,omitempty"` // the command that mends it, "" where nothing is to be mended

	LSN      LSN           `json:"lsn,omitempty"`      // the table and the topic were compared as of here
	Position int64         `json:"position,omitempty"` // of mode: events: compared up to here
	At       time.Time     `json:"at"`                 // when it ended
	Took     time.Duration `json:"took_ns"`

	Rows      int64 `json:"rows"`      // of the source
	Records   int64 `json:"records"`   // read from the target, superseded ones among them
	Missing   int64 `json:"missing"`   // in the source and not in the target
	Ghosts    int64 `json:"ghosts"`    // alive in the target, gone from the source
	Different int64 `json:"different"` // in both, with other values
	// Superseded keys have records behind LSN and, after compaction, none before
	// it: what stood there at LSN cannot be known and does not matter any more.
	Superseded int64 `json:"superseded,omitempty"`
	// Older rows are equal but for columns that were added or dropped since their
	// record was written.
	Older   int64    `json:"older,omitempty"`
	Samples []Sample `json:"samples,omitempty"` // of the differences, a few
}

// Differences is how many keys differ.
func (v *Verification) Differences() int64 { return v.Missing + v.Ghosts + v.Different }

// Sample is one difference.
type Sample struct {
	Kind    string       `json:"kind"` // missing, ghost, different
	Key     string       `json:"key"`  // as in the topic
	Columns []ColumnDiff `json:"columns,omitempty"`
	// Partition and Offset of the topic's record, -1 where there is none.
	Partition int32 `json:"partition"`
	Offset    int64 `json:"offset"`
}

// ColumnDiff is one column that differs, both sides as JSON values; "" where the
// side does not have the column.
type ColumnDiff struct {
	Column string `json:"column"`
	Source string `json:"source"`
	Target string `json:"target"`
}
