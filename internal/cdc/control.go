package cdc

// CopyAction is what is asked about the copy of tables by chunks.
type CopyAction string

// The actions.
const (
	CopyStart  CopyAction = "start" // from the first row, also where a copy is under way
	CopyPause  CopyAction = "pause"
	CopyResume CopyAction = "resume"
	CopyCancel CopyAction = "cancel"
)

// CopyRequest is the body of POST /v1/pipelines/{pipeline}/snapshot.
type CopyRequest struct {
	Action CopyAction `json:"action"`
	Tables []string   `json:"tables"` // schema.table, each captured
}

// MaxRepairKeys bounds Keys and Ghosts of a RepairRequest together.
const MaxRepairKeys = 1000

// RepairRequest is the body of POST /v1/pipelines/{pipeline}/repair: what a
// comparison of one table with its topic has found, to be written right.
type RepairRequest struct {
	Table string `json:"table"` // schema.table
	// Keys of rows that are missing from the topic or different there: the text of
	// their key columns. The rows are read afresh.
	Keys [][]string `json:"keys,omitempty"`
	// Ghosts are keys alive in the topic and gone from the table.
	Ghosts []GhostKey `json:"ghosts,omitempty"`
	// Ends are, by partition, the offsets the comparison has read up to. A ghost
	// that has a record from there on is left alone: the stream knows better.
	Ends map[int32]int64 `json:"ends,omitempty"`
}

// GhostKey is a key as it stands in a partition of a topic.
type GhostKey struct {
	Partition int32  `json:"partition"`
	Key       []byte `json:"key"` // base64 in JSON
}

// RepairResult says what a repair has written; all of it is acknowledged.
type RepairResult struct {
	Upserts    int64 `json:"upserts"`
	Tombstones int64 `json:"tombstones"`
	Left       int64 `json:"left"` // a newer record of the key was there, or the row is gone
}
