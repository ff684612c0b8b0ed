package cdc

import "time"

// State is what a pipeline is doing.
type State string

// The states of a pipeline.
const (
	StateStarting   State = "starting"
	StateWaiting    State = "waiting"   // another instance holds the slot, or Postgres or Kafka is not ready
	StateSnapshot   State = "snapshot"  // copying existing rows
	StateReplaying  State = "replaying" // catching up behind the progress record after a start
	StateStreaming  State = "streaming"
	StateBackingOff State = "backing-off" // an error that can pass; Error says which, RetryAt when it is tried again
	StateFailed     State = "failed"      // terminal: Error, Reason and Mend say what to do
	StateStopped    State = "stopped"
	StateDone       State = "done" // snapshot: only, finished
)

// Status is a pipeline's state as /v1/status, `cdc status` and the metrics show it.
type Status struct {
	Name        string    `json:"name"`
	Mode        string    `json:"mode"`
	State       State     `json:"state"`
	Ready       bool      `json:"ready"`             // running and not stalled
	Stalled     string    `json:"stalled,omitempty"` // why not ready though running
	Error       string    `json:"error,omitempty"`
	Reason      string    `json:"reason,omitempty"` // of a terminal error
	Mend        string    `json:"mend,omitempty"`
	RetryAt     time.Time `json:"retry_at,omitzero"`
	Since       time.Time `json:"since"` // of State
	Slot        string    `json:"slot"`
	Publication string    `json:"publication"`
	Tables      int       `json:"tables"`

	Received  LSN `json:"received_lsn"`  // end of the last transaction read
	Acked     LSN `json:"acked_lsn"`     // acknowledged by every partition
	Confirmed LSN `json:"confirmed_lsn"` // recorded in the progress topic and told to the slot
	ServerEnd LSN `json:"server_lsn"`    // end of the server's WAL when last asked

	LagBytes   int64   `json:"lag_bytes"`   // ServerEnd − Acked
	LagSeconds float64 `json:"lag_seconds"` // age of the oldest commit not yet acknowledged, 0 when caught up
	SlotBytes  int64   `json:"slot_retained_bytes"`
	SlotSafe   int64   `json:"slot_safe_bytes"` // until the slot may be lost, -1 no limit
	SlotStatus string  `json:"slot_wal_status,omitempty"`

	Transactions uint64 `json:"transactions"`
	Changes      uint64 `json:"changes"`
	Records      uint64 `json:"records"`
	Bytes        uint64 `json:"bytes"` // of record batches appended, before compression
	Skipped      uint64 `json:"skipped"`
	DeadLetters  uint64 `json:"dead_letters"`
	TakeOvers    uint64 `json:"take_overs"`
	Restarts     uint64 `json:"restarts"`
	Rereads      uint64 `json:"toast_rereads"`

	BufferedBytes int64         `json:"buffered_bytes"`
	AckLatency    time.Duration `json:"ack_latency_ns"` // of the newest acknowledged request
	Acks          Latency       `json:"-"`              // histogram of acknowledgement latencies

	Snapshot []TableProgress `json:"snapshot,omitempty"`
	// Verified is the newest result per table (or log, topic, view) of verify:.
	Verified []Verification `json:"verified,omitempty"`

	Log *LogStatus `json:"log,omitempty"` // of a pipeline of mode: events
}

// LogStatus is how a pipeline of mode: events stands.
type LogStatus struct {
	Head      int64        `json:"head"`      // position of the newest numbered event
	Published int64        `json:"published"` // every event up to it is acknowledged in its topic
	Alarms    int          `json:"alarms"`    // changes of stored events seen in the WAL, not yet acknowledged
	Parts     []PartStatus `json:"parts"`     // what runs: numbering, publication, each view, each reaction
}

// PartStatus is one part of a pipeline of mode: events. Parts fail alone: an
// outage of Kafka stops the publication and nothing else.
type PartStatus struct {
	Name     string    `json:"name"` // numbering, publication, view NAME, reaction NAME, recovery
	State    State     `json:"state"`
	Position int64     `json:"position"`
	Error    string    `json:"error,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	Mend     string    `json:"mend,omitempty"`
	RetryAt  time.Time `json:"retry_at,omitzero"`
	Restarts uint64    `json:"restarts"`
}

// LatencyBuckets are the upper bounds, in seconds, of a Latency's buckets; one
// more bucket counts what is above the last.
var LatencyBuckets = [...]float64{.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 30}

// Latency is a histogram of durations.
type Latency struct {
	Counts [len(LatencyBuckets) + 1]uint64 // per bucket, not cumulative
	Sum    float64                         // seconds
}

// Observe counts one duration.
func (l *Latency) Observe(d time.Duration) {
	s := d.Seconds()
	i := 0
	for i < len(LatencyBuckets) && s > LatencyBuckets[i] {
		i++
	}
	l.Counts[i]++
	l.Sum += s
}
