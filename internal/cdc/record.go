package cdc

// Header is a Kafka record header. Its value may be nil (a null header value).
type Header struct {
	Key   string
	Value []byte
}

// Record is one Kafka record before it has a partition. A nil Value is a
// tombstone. The sink copies the bytes; they are the caller's again when its
// method returns.
type Record struct {
	Key     []byte
	Value   []byte
	Headers []Header
	Time    int64 // milliseconds since 1970-01-01 UTC
}

// Policy is the law a topic stands under.
type Policy byte

// The two kinds of topic, and the progress record's.
const (
	// PolicyState: compacted, never expiring; folded to its latest record per key it is the table.
	PolicyState Policy = iota + 1
	// PolicyHistory: never compacted, never expiring.
	PolicyHistory
	// PolicyProgress: compacted, one partition, small segments.
	PolicyProgress
)

func (p Policy) String() string {
	switch p {
	case PolicyState:
		return "state"
	case PolicyHistory:
		return "history"
	case PolicyProgress:
		return "progress"
	}
	return "none"
}
