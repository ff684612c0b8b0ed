package pgoutput

import (
	"errors"
	"fmt"

	"cdc/internal/cdc"
)

// What Decode refuses by its tag alone.
var (
	// ErrTwoPhase: the slot was created with two_phase, whose messages come
	// unasked and carry data before it is committed.
	ErrTwoPhase = errors.New("message of a two-phase transaction")
	// ErrStreamed: a part of a transaction that has not committed, which nobody asked for.
	ErrStreamed = errors.New("message of a streamed transaction")
	// ErrUnknownTag: not a message of pgoutput.
	ErrUnknownTag = errors.New("unknown message")
)

// Decoder decodes one message at a time into the field that belongs to its
// tag. The fields are valid until the next Decode, their slices are reused and
// their bytes alias the message. The zero value is ready.
type Decoder struct {
	Begin    Begin
	Commit   Commit
	Origin   Origin
	Relation Relation
	Type     Type
	Row      Row // TagInsert, TagUpdate and TagDelete
	Truncate Truncate
	Logical  Logical
}

// Decode decodes a message and returns its tag. After an error the fields hold
// nothing of use.
func (d *Decoder) Decode(msg []byte) (Tag, error) {
	r := reader{b: msg}
	tag := Tag(r.byte())
	if r.failed() {
		return 0, fmt.Errorf("decode message: %w", r.err)
	}
	switch tag {
	case TagInsert:
		d.insert(&r)
	case TagUpdate:
		d.update(&r)
	case TagDelete:
		d.delete(&r)
	case TagBegin:
		d.Begin = Begin{Final: cdc.LSN(r.uint64()), CommitTime: int64(r.uint64()), XID: r.uint32()}
	case TagCommit:
		d.commit(&r)
	case TagOrigin:
		d.Origin = Origin{LSN: cdc.LSN(r.uint64()), Name: r.string()}
	case TagRelation:
		d.relation(&r)
	case TagType:
		d.Type = Type{OID: r.uint32(), Namespace: r.name(), Name: r.name()}
	case TagTruncate:
		d.truncate(&r)
	case TagMessage:
		d.logical(&r)
	default:
		return tag, tagError(tag)
	}
	if err := r.finish(); err != nil {
		return tag, fmt.Errorf("decode message %q: %w", byte(tag), err)
	}
	return tag, nil
}

func tagError(tag Tag) error {
	switch tag {
	case 'b', 'P', 'K', 'r', 'p':
		return fmt.Errorf("decode message %q: %w", byte(tag), ErrTwoPhase)
	case 'S', 'E', 'c', 'A':
		return fmt.Errorf("decode message %q: %w", byte(tag), ErrStreamed)
	}
	return fmt.Errorf("decode message %q: %w", byte(tag), ErrUnknownTag)
}

func (d *Decoder) commit(r *reader) {
	if flags := r.byte(); flags != 0 {
		r.fail("flags %#x, none are defined", flags)
	}
	d.Commit = Commit{LSN: cdc.LSN(r.uint64()), End: cdc.LSN(r.uint64()), CommitTime: int64(r.uint64())}
}

func (d *Decoder) relation(r *reader) {
	rel := &d.Relation
	rel.ID = r.uint32()
	rel.Namespace = r.name()
	rel.Name = r.name()
	rel.Identity = cdc.ReplicaIdentity(r.byte())
	switch rel.Identity {
	case cdc.IdentityDefault, cdc.IdentityNothing, cdc.IdentityFull, cdc.IdentityIndex:
	default:
		r.fail("replica identity %q", byte(rel.Identity))
	}
	rel.Columns = rel.Columns[:0]
	for n := columnCount(r); n > 0 && !r.failed(); n-- {
		flags := r.byte()
		if flags > 1 {
			r.fail("column flags %#x", flags)
		}
		rel.Columns = append(rel.Columns, Column{
			Identity: flags == 1,
			Name:     r.name(),
			TypeOID:  r.uint32(),
			Mod:      int32(r.uint32()),
		})
	}
}

func (d *Decoder) insert(r *reader) {
	d.Row.Relation, d.Row.Kind, d.Row.Old = r.uint32(), OldNone, d.Row.Old[:0]
	d.newTuple(r, r.byte())
}

func (d *Decoder) update(r *reader) {
	d.Row.Relation, d.Row.Kind, d.Row.Old = r.uint32(), OldNone, d.Row.Old[:0]
	kind := r.byte()
	if OldKind(kind) == OldKey || OldKind(kind) == OldFull {
		d.Row.Kind = OldKind(kind)
		d.Row.Old = tuple(r, d.Row.Old)
		kind = r.byte()
	}
	d.newTuple(r, kind)
}

func (d *Decoder) delete(r *reader) {
	d.Row.Relation, d.Row.New = r.uint32(), d.Row.New[:0]
	d.Row.Kind = OldKind(r.byte())
	if d.Row.Kind != OldKey && d.Row.Kind != OldFull {
		r.fail("kind of old row %q, want 'K' or 'O'", byte(d.Row.Kind))
	}
	d.Row.Old = tuple(r, d.Row.Old[:0])
}

func (d *Decoder) newTuple(r *reader, kind byte) {
	if kind != 'N' {
		r.fail("kind of new row %q, want 'N'", kind)
	}
	d.Row.New = tuple(r, d.Row.New[:0])
}

// tuple reads a row into vals, whose space it uses.
func tuple(r *reader, vals []cdc.Value) []cdc.Value {
	for n := columnCount(r); n > 0; n-- {
		kind := cdc.ValueKind(r.byte())
		var data []byte
		switch kind {
		case cdc.Text:
			data = r.bytes()
		case cdc.Null, cdc.Unchanged:
		default:
			r.fail("kind of value %q at offset %d", byte(kind), r.at-1)
		}
		if r.failed() {
			return vals
		}
		vals = append(vals, cdc.Value{Data: data, Kind: kind})
	}
	return vals
}

// columnCount reads a number of columns, each of which takes at least one byte
// of what remains: a lie costs no memory.
func columnCount(r *reader) int {
	n := int(int16(r.uint16()))
	switch {
	case n < 0 || n > MaxColumns:
		r.fail("%d columns, want 0 to %d", n, MaxColumns)
	case n > r.remaining():
		r.short(n)
	}
	if r.failed() {
		return 0
	}
	return n
}

func (d *Decoder) truncate(r *reader) {
	n := int32(r.uint32())
	flags := r.byte()
	if flags > 3 {
		r.fail("truncate flags %#x", flags)
	}
	if n < 0 || int(n) > r.remaining()/4 {
		r.fail("%w: %d truncated tables, %d bytes there", ErrShort, n, r.remaining())
	}
	t := &d.Truncate
	t.Cascade, t.RestartIdentity = flags&1 != 0, flags&2 != 0
	t.Relations = t.Relations[:0]
	for ; n > 0 && !r.failed(); n-- {
		t.Relations = append(t.Relations, r.uint32())
	}
}

func (d *Decoder) logical(r *reader) {
	flags := r.byte()
	if flags > 1 {
		r.fail("message flags %#x", flags)
	}
	d.Logical = Logical{
		Transactional: flags == 1,
		LSN:           cdc.LSN(r.uint64()),
		Prefix:        r.string(),
		Content:       r.bytes(),
	}
}
