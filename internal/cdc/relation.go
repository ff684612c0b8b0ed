package cdc

// Relation is a table as the replication stream describes it at one moment,
// completed from the catalogue. It is immutable: a change of the table gives a
// new Relation, so what was compiled for it can be kept by pointer.
type Relation struct {
	ID        uint32
	Namespace string // schema
	Name      string
	Identity  ReplicaIdentity
	Columns   []Column
	// Key holds the ordinals in Columns of the message key, in key order (the
	// primary key's own order, or the configured one). Empty: no usable key.
	Key []int
}

// FullName is schema.table, unquoted.
func (r *Relation) FullName() string { return r.Namespace + "." + r.Name }

// ReplicaIdentity is pg_class.relreplident.
type ReplicaIdentity byte

// The replica identities of Postgres.
const (
	IdentityDefault ReplicaIdentity = 'd'
	IdentityNothing ReplicaIdentity = 'n'
	IdentityFull    ReplicaIdentity = 'f'
	IdentityIndex   ReplicaIdentity = 'i'
)

// Column is one column of a Relation.
type Column struct {
	Name     string
	TypeOID  uint32
	Mod      int32 // type modifier, -1 for none
	Identity bool  // part of the replica identity
	Type     *Type // never nil once the source has completed the relation
	NotNull  bool
	// Default is the text (in Postgres' output form) of a constant default, nil
	// for none and for one that must be evaluated (nextval, now(), …).
	Default *string
	// Generated or serial defaults exist but have no constant value.
	DefaultExpr bool
}

// TypeKind says what a Type is made of.
type TypeKind byte

// The kinds of type.
const (
	KindBase TypeKind = iota
	KindEnum
	KindDomain
	KindComposite
	KindArray
	KindRange
	KindMultirange
	KindUnknown // gone from the catalogue: written as text
)

// Type is a Postgres data type. Built-in types have their fixed OID;
// extensions' types are known by Name.
type Type struct {
	OID       uint32
	Namespace string
	Name      string
	Kind      TypeKind
	// Elem is the element of an array, the base of a domain, the subtype of a
	// range, the range of a multirange; nil otherwise.
	Elem *Type
	// Mod is the type modifier a domain gives its base, -1 for none.
	Mod int32
	// Delim separates the elements of an array of this type (',' or, for box, ';').
	Delim byte
	// Fields are the attributes of a composite type.
	Fields []Column
}

// Table is a captured table as the catalogue has it before streaming starts.
type Table struct {
	OID       uint32
	Namespace string
	Name      string
	Identity  ReplicaIdentity
	Columns   []string // published columns, in table order
	Key       []string // message key, in key order
	Partition bool     // partitioned: captured through its root
	Rows      int64    // planner's estimate, -1 unknown
	Bytes     int64    // size on disk, partitions included
}

// FullName is schema.table, unquoted.
func (t Table) FullName() string { return t.Namespace + "." + t.Name }
