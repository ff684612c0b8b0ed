package pgoutput

import "cdc/internal/cdc"

// Tag is the first byte of a message.
type Tag byte

// The messages of protocol version 1.
const (
	TagBegin    Tag = 'B'
	TagCommit   Tag = 'C'
	TagOrigin   Tag = 'O'
	TagRelation Tag = 'R'
	TagType     Tag = 'Y'
	TagInsert   Tag = 'I'
	TagUpdate   Tag = 'U'
	TagDelete   Tag = 'D'
	TagTruncate Tag = 'T'
	TagMessage  Tag = 'M'
)

// MaxColumns is MaxHeapAttributeNumber, the most columns a table can have.
const MaxColumns = 1600

// Begin opens a transaction.
type Begin struct {
	Final      cdc.LSN // start of the commit record
	CommitTime int64   // microseconds since 2000-01-01 UTC, see UnixMicro
	XID        uint32
}

// Commit closes a transaction.
type Commit struct {
	LSN        cdc.LSN // start of the commit record, Begin.Final
	End        cdc.LSN // end of it
	CommitTime int64
}

// Origin says that the transaction came from another server.
type Origin struct {
	LSN  cdc.LSN
	Name []byte
}

// Relation describes a table; it comes before the first change of the table on
// a connection and again whenever the server looked at the table anew.
type Relation struct {
	ID        uint32
	Namespace []byte // "" is pg_catalog
	Name      []byte
	Identity  cdc.ReplicaIdentity
	Columns   []Column
}

// Column is a column of a Relation.
type Column struct {
	Name     []byte
	TypeOID  uint32
	Mod      int32
	Identity bool // part of the replica identity
}

// Type names a type that is not built in; it comes before the Relation that uses it.
type Type struct {
	OID       uint32
	Namespace []byte
	Name      []byte // of a domain: the name of its base type
}

// OldKind tells what an old row holds.
type OldKind byte

// The kinds of old row.
const (
	OldNone OldKind = 0
	OldKey  OldKind = 'K' // identity columns; the others are null and mean "unknown"
	OldFull OldKind = 'O' // every column
)

// Row is an insert, update or delete. Old and New hold one value a column and
// alias the message.
type Row struct {
	Relation uint32
	Kind     OldKind
	Old      []cdc.Value // empty where Kind is OldNone
	New      []cdc.Value // empty for a delete
}

// Truncate names the tables emptied by one command.
type Truncate struct {
	Cascade         bool
	RestartIdentity bool
	Relations       []uint32
}

// Logical is a message of pg_logical_emit_message.
type Logical struct {
	Transactional bool
	LSN           cdc.LSN // end of the message's record
	Prefix        []byte
	Content       []byte
}
