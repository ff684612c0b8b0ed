package cdc

// System identifies a Postgres server and database (IDENTIFY_SYSTEM and server_version_num).
type System struct {
	ID       string // system identifier, decimal
	Timeline uint32
	End      LSN // end of the WAL that is flushed
	Database string
	Version  int // server_version_num, 150018
}

// Slot is a replication slot as pg_replication_slots shows it; columns that the
// server version lacks are zero.
type Slot struct {
	Name         string
	Plugin       string
	Database     string
	Active       bool
	ActivePID    int
	Temporary    bool
	TwoPhase     bool
	Failover     bool
	Confirmed    LSN    // confirmed_flush_lsn
	Restart      LSN    // restart_lsn
	WALStatus    string // reserved, extended, unreserved, lost
	Invalidation string // invalidation_reason, "" while valid
	Retained     int64  // bytes of WAL the slot holds back
	Safe         int64  // safe_wal_size: bytes until the slot may be lost, -1 no limit
}

// TableProgress tells how far the snapshot of a table has come.
type TableProgress struct {
	Table     string `json:"table"`
	Rows      int64  `json:"rows"`                 // read so far
	RowsTotal int64  `json:"rows_total,omitempty"` // planner's estimate, 0 unknown
	Bytes     int64  `json:"bytes"`                // read so far, in COPY's text form
	Done      bool   `json:"done"`
	// State and Error are of a copy by chunks: active, paused, or failed until it is
	// asked for again.
	State string `json:"state,omitempty"`
	Error string `json:"error,omitempty"`
}
