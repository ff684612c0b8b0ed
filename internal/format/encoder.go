package format

import (
	"bytes"
	"fmt"
	"time"

	"cdc/internal/cdc"
)

// codec appends the JSON form of one value in Postgres' text form.
type codec func(dst, text []byte) ([]byte, error)

// column is a column of the relation, compiled.
type column struct {
	name        string
	typeName    string
	prefix      []byte // `"name":`
	encode      codec  // nil: left out of the row
	null        []byte // what NULL becomes: null, or the default (debezium-json)
	missing     []byte // what an unknown value of a partial `before` becomes (debezium-json)
	placeholder []byte // what Unchanged becomes; nil: the column is left out
	identity    bool
}

// keyColumn is a column of the message key, compiled.
type keyColumn struct {
	ordinal int
	prefix  []byte
	encode  codec
	// Kafka Connect's string form, for the headers of a key change (debezium-json).
	label  []byte // `"name":`
	header codec
}

// Encoder writes the records of one version of a relation. It is used by one
// goroutine; everything it hands out is valid until its next method call.
type Encoder struct {
	f        *Format
	rel      *cdc.Relation
	columns  []column
	key      []keyColumn
	shape    shape
	inside   bool      // every key column is part of the replica identity
	now      time.Time // of the change in hand
	record   cdc.Record
	newKey   []byte
	oldKey   []byte
	first    []byte // value of the upsert
	second   []byte // value of the delete
	absent   []byte // header incomplete of the upsert
	absent2  []byte // header incomplete of the delete
	keyLabel []byte // key in a header
	oldLabel []byte
	headers  []cdc.Header
}

// shape is what the two formats do differently.
type shape interface {
	// value appends the value of a record; old is nil where there is none. It
	// appends the names of left-out columns to absent, as the elements of a JSON array.
	value(dst, absent []byte, e *Encoder, c *cdc.Change, op cdc.Op, old, row []cdc.Value) (value, left []byte, err error)
	// headers appends the headers of a record.
	headers(dst []cdc.Header, c *cdc.Change, op cdc.Op) []cdc.Header
	// keepsDeletes says that a delete is a record of its own before the tombstone.
	keepsDeletes() bool
}

// Compile makes the encoder of a relation. It refuses a relation without a
// usable message key and a key outside the replica identity, whose deletes would
// name no row.
func (f *Format) Compile(rel *cdc.Relation) (*Encoder, error) {
	if len(rel.Key) == 0 {
		return nil, cdc.Terminal("unkeyed-table", "add a primary key to the table or set key: in the pipeline's configuration",
			"table %s has no key for its records", rel.FullName())
	}
	e := &Encoder{f: f, rel: rel, columns: make([]column, len(rel.Columns)), inside: true}
	identity := false
	for i := range rel.Columns {
		identity = identity || rel.Columns[i].Identity
	}
	for _, k := range rel.Key {
		if k < 0 || k >= len(rel.Columns) {
			return nil, fmt.Errorf("compile table %s: key column %d of %d does not exist", rel.FullName(), k, len(rel.Columns))
		}
		e.inside = e.inside && rel.Columns[k].Identity
	}
	if identity && !e.inside {
		return nil, cdc.Terminal("key-outside-identity",
			fmt.Sprintf("ALTER TABLE %s REPLICA IDENTITY FULL; -- or a key: inside the replica identity", rel.FullName()),
			"table %s: the key of its records is not inside the replica identity, so a delete would not say which row went", rel.FullName())
	}
	for i := range rel.Columns {
		if err := f.compileColumn(&e.columns[i], &rel.Columns[i]); err != nil {
			return nil, fmt.Errorf("compile column %s.%s: %w", rel.FullName(), rel.Columns[i].Name, err)
		}
	}
	if err := e.compileKey(); err != nil {
		return nil, err
	}
	shape, err := f.newShape(rel)
	if err != nil {
		return nil, fmt.Errorf("compile table %s: %w", rel.FullName(), err)
	}
	e.shape = shape
	return e, nil
}

func (e *Encoder) compileKey() error {
	for _, k := range e.rel.Key {
		col := &e.rel.Columns[k]
		enc, _ := e.f.columnCodec(col)
		if enc == nil { // a type that is left out of rows still names them
			enc = e.f.text()
		}
		label, err := appendConnectString(nil, []byte(col.Name))
		if err != nil {
			return fmt.Errorf("compile column %s.%s: name: %w", e.rel.FullName(), col.Name, err)
		}
		e.key = append(e.key, keyColumn{
			ordinal: k, prefix: e.columns[k].prefix, encode: enc,
			label: append(label, ':'), header: connectCodec(col, enc),
		})
	}
	return nil
}

// AppendKey appends the key bytes of a row.
func (e *Encoder) AppendKey(dst []byte, row []cdc.Value) ([]byte, error) {
	return e.appendKey(dst, row, nil, false)
}

// appendKey takes a value that row lacks from other.
func (e *Encoder) appendKey(dst []byte, row, other []cdc.Value, header bool) ([]byte, error) {
	if len(row) != len(e.columns) || other != nil && len(other) != len(e.columns) {
		return dst, fmt.Errorf("encode key of %s: %w", e.rel.FullName(), ErrTupleMismatch)
	}
	dst = append(dst, '{')
	for i := range e.key {
		k := &e.key[i]
		v := row[k.ordinal]
		if v.Kind == cdc.Unchanged && other != nil {
			v = other[k.ordinal]
		}
		if i > 0 {
			dst = append(dst, ',')
		}
		if header {
			dst = append(dst, k.label...)
		} else {
			dst = append(dst, k.prefix...)
		}
		err := error(nil)
		switch {
		case v.Kind == cdc.Unchanged:
			err = ErrUnknownKey
		case v.Kind != cdc.Text:
			err = ErrNullKey
		case header:
			dst, err = k.header(dst, v.Data)
		default:
			dst, err = k.encode(dst, v.Data)
		}
		if err != nil {
			return dst, e.fault(k.ordinal, err)
		}
	}
	return append(dst, '}'), nil
}

// Encode emits the records of a change, one to three, in order. Everything is
// encoded before the first is emitted, so a value that cannot be written leaves
// no half of a change behind.
//
//   - insert, snapshot row, update: one upsert.
//   - update of the key: json: tombstone of the old key, upsert of the new;
//     debezium-json: delete and tombstone of the old key, create of the new.
//   - delete: json: tombstone; debezium-json: delete, tombstone.
func (e *Encoder) Encode(c *cdc.Change, out Emitter) error {
	e.now = e.f.now()
	switch c.Op {
	case cdc.OpInsert, cdc.OpRead:
		return e.upsert(c, out, c.Op)
	case cdc.OpUpdate:
		return e.update(c, out)
	case cdc.OpDelete:
		return e.remove(c, out)
	}
	return fmt.Errorf("encode a change of %s: operation %q is not a row", e.rel.FullName(), c.Op)
}

func (e *Encoder) upsert(c *cdc.Change, out Emitter, op cdc.Op) (err error) {
	if e.newKey, err = e.appendKey(e.newKey[:0], c.New, c.Old, false); err != nil {
		return err
	}
	if e.first, e.absent, err = e.shape.value(e.first[:0], e.absent[:0], e, c, op, c.Old, c.New); err != nil {
		return err
	}
	e.headers = refilled(e.shape.headers(e.headers[:0], c, op), c)
	return e.emit(out, e.newKey, e.first, e.absent)
}

// refilled says of a row that some of its values may be newer than the change.
func refilled(headers []cdc.Header, c *cdc.Change) []cdc.Header {
	if !c.Refilled {
		return headers
	}
	return append(headers, cdc.Header{Key: HeaderRefilled, Value: headerTrue})
}

var headerTrue = []byte("true")

func (e *Encoder) update(c *cdc.Change, out Emitter) (err error) {
	if c.Old == nil {
		return e.upsert(c, out, cdc.OpUpdate)
	}
	if e.newKey, err = e.appendKey(e.newKey[:0], c.New, c.Old, false); err != nil {
		return err
	}
	if e.oldKey, err = e.appendKey(e.oldKey[:0], c.Old, nil, false); err != nil {
		return err
	}
	// The old tuple is there also where the key did not change: under FULL always,
	// else for a key that is stored out of line (postgres-replication 2.4).
	if bytes.Equal(e.oldKey, e.newKey) {
		return e.upsert(c, out, cdc.OpUpdate)
	}
	return e.rekey(c, out)
}

// rekey is an update that gives a row another key: the old one goes, the new one comes.
func (e *Encoder) rekey(c *cdc.Change, out Emitter) (err error) {
	e.first, e.absent, err = e.shape.value(e.first[:0], e.absent[:0], e, c, cdc.OpInsert, nil, c.New)
	if err != nil {
		return err
	}
	e.headers = e.headers[:0]
	if e.shape.keepsDeletes() {
		e.second, e.absent2, err = e.shape.value(e.second[:0], e.absent2[:0], e, c, cdc.OpDelete, c.Old, nil)
		if err != nil {
			return err
		}
		if e.keyLabel, err = e.appendKey(e.keyLabel[:0], c.New, c.Old, true); err != nil {
			return err
		}
		if e.oldLabel, err = e.appendKey(e.oldLabel[:0], c.Old, nil, true); err != nil {
			return err
		}
		e.headers = append(e.headers, cdc.Header{Key: headerNewKey, Value: e.keyLabel})
	}
	e.headers = e.shape.headers(e.headers, c, cdc.OpDelete)
	if e.shape.keepsDeletes() {
		if err := e.emit(out, e.oldKey, e.second, e.absent2); err != nil {
			return err
		}
	}
	if err := e.emit(out, e.oldKey, nil, nil); err != nil {
		return err
	}
	e.headers = e.headers[:0]
	if e.shape.keepsDeletes() {
		e.headers = append(e.headers, cdc.Header{Key: headerOldKey, Value: e.oldLabel})
	}
	e.headers = refilled(e.shape.headers(e.headers, c, cdc.OpInsert), c)
	return e.emit(out, e.newKey, e.first, e.absent)
}

func (e *Encoder) remove(c *cdc.Change, out Emitter) (err error) {
	if e.oldKey, err = e.appendKey(e.oldKey[:0], c.Old, nil, false); err != nil {
		return err
	}
	if e.shape.keepsDeletes() {
		e.second, e.absent2, err = e.shape.value(e.second[:0], e.absent2[:0], e, c, cdc.OpDelete, c.Old, nil)
		if err != nil {
			return err
		}
	}
	e.headers = e.shape.headers(e.headers[:0], c, cdc.OpDelete)
	if e.shape.keepsDeletes() {
		if err := e.emit(out, e.oldKey, e.second, e.absent2); err != nil {
			return err
		}
	}
	return e.emit(out, e.oldKey, nil, nil)
}

// Tombstone emits the removal of a key: for a TRUNCATE, whose change is c, and
// for a ghost, where c is nil.
func (e *Encoder) Tombstone(key []byte, c *cdc.Change, out Emitter) error {
	e.now = e.f.now()
	op := cdc.OpDelete
	if c != nil {
		op = c.Op
	}
	e.headers = e.shape.headers(e.headers[:0], c, op)
	return e.emit(out, key, nil, nil)
}

// emit hands one record out. Its time is the wall clock's, not the commit's:
// min.compaction.lag.ms counts from it, and a backlog must not look old.
func (e *Encoder) emit(out Emitter, key, value, absent []byte) error {
	e.record.Key, e.record.Value, e.record.Headers = key, value, e.headers
	if len(absent) > 0 {
		absent = append(absent, ']')
		e.record.Headers = append(e.headers, cdc.Header{Key: HeaderIncomplete, Value: absent})
		e.headers = e.record.Headers[:len(e.headers)]
	}
	e.record.Time = e.now.UnixMilli()
	return out.Emit(&e.record)
}

func (e *Encoder) fault(ordinal int, err error) error {
	return &ValueError{
		Table: e.rel.FullName(), Column: e.columns[ordinal].name, Type: e.columns[ordinal].typeName, Err: err,
	}
}
