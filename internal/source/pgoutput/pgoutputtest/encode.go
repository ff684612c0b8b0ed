// Package pgoutputtest writes pgoutput messages for tests of their readers.
package pgoutputtest

import (
	"encoding/binary"

	"cdc/internal/cdc"
	"cdc/internal/source/pgoutput"
)

// XLogData wraps a message as a walsender sends it.
func XLogData(start cdc.LSN, msg []byte) []byte {
	b := lsn([]byte{pgoutput.TagXLogData}, start)
	b = lsn(b, start)
	b = i64(b, 0)
	return append(b, msg...)
}

// Keepalive is the server's sign of life.
func Keepalive(k pgoutput.Keepalive) []byte {
	b := i64(lsn([]byte{pgoutput.TagKeepalive}, k.End), 0)
	return flag(b, k.Reply)
}

// Begin encodes m.
func Begin(m pgoutput.Begin) []byte {
	return i32(i64(lsn([]byte{'B'}, m.Final), m.CommitTime), m.XID)
}

// Commit encodes m.
func Commit(m pgoutput.Commit) []byte {
	return i64(lsn(lsn([]byte{'C', 0}, m.LSN), m.End), m.CommitTime)
}

// Origin encodes m.
func Origin(m pgoutput.Origin) []byte { return str(lsn([]byte{'O'}, m.LSN), m.Name) }

// Relation encodes m.
func Relation(m pgoutput.Relation) []byte {
	b := str(str(i32([]byte{'R'}, m.ID), m.Namespace), m.Name)
	b = append(b, byte(m.Identity))
	b = i16(b, len(m.Columns))
	for _, c := range m.Columns {
		b = str(flag(b, c.Identity), c.Name)
		b = i32(i32(b, c.TypeOID), uint32(c.Mod))
	}
	return b
}

// Type encodes m.
func Type(m pgoutput.Type) []byte {
	return str(str(i32([]byte{'Y'}, m.OID), m.Namespace), m.Name)
}

// Insert encodes the new row of m.
func Insert(m pgoutput.Row) []byte {
	return tuple(append(i32([]byte{'I'}, m.Relation), 'N'), m.New)
}

// Update encodes m.
func Update(m pgoutput.Row) []byte {
	b := i32([]byte{'U'}, m.Relation)
	if m.Kind != pgoutput.OldNone {
		b = tuple(append(b, byte(m.Kind)), m.Old)
	}
	return tuple(append(b, 'N'), m.New)
}

// Delete encodes the old row of m.
func Delete(m pgoutput.Row) []byte {
	return tuple(append(i32([]byte{'D'}, m.Relation), byte(m.Kind)), m.Old)
}

// Truncate encodes m.
func Truncate(m pgoutput.Truncate) []byte {
	b := i32([]byte{'T'}, uint32(len(m.Relations)))
	var flags byte
	if m.Cascade {
		flags |= 1
	}
	if m.RestartIdentity {
		flags |= 2
	}
	b = append(b, flags)
	for _, id := range m.Relations {
		b = i32(b, id)
	}
	return b
}

// Logical encodes m.
func Logical(m pgoutput.Logical) []byte {
	b := lsn(flag([]byte{'M'}, m.Transactional), m.LSN)
	b = i32(str(b, m.Prefix), uint32(len(m.Content)))
	return append(b, m.Content...)
}

// Message encodes what d holds for tag.
func Message(tag pgoutput.Tag, d *pgoutput.Decoder) []byte {
	switch tag {
	case pgoutput.TagBegin:
		return Begin(d.Begin)
	case pgoutput.TagCommit:
		return Commit(d.Commit)
	case pgoutput.TagOrigin:
		return Origin(d.Origin)
	case pgoutput.TagRelation:
		return Relation(d.Relation)
	case pgoutput.TagType:
		return Type(d.Type)
	case pgoutput.TagInsert:
		return Insert(d.Row)
	case pgoutput.TagUpdate:
		return Update(d.Row)
	case pgoutput.TagDelete:
		return Delete(d.Row)
	case pgoutput.TagTruncate:
		return Truncate(d.Truncate)
	case pgoutput.TagMessage:
		return Logical(d.Logical)
	}
	return nil
}

// Values makes a row of text values; nil is NULL.
func Values(texts ...any) []cdc.Value {
	vals := make([]cdc.Value, 0, len(texts))
	for _, t := range texts {
		switch t := t.(type) {
		case string:
			vals = append(vals, cdc.Value{Kind: cdc.Text, Data: []byte(t)})
		case cdc.ValueKind:
			vals = append(vals, cdc.Value{Kind: t})
		default:
			vals = append(vals, cdc.Value{Kind: cdc.Null})
		}
	}
	return vals
}

func tuple(b []byte, vals []cdc.Value) []byte {
	b = i16(b, len(vals))
	for _, v := range vals {
		b = append(b, byte(v.Kind))
		if v.Kind == cdc.Text {
			b = append(i32(b, uint32(len(v.Data))), v.Data...)
		}
	}
	return b
}

func i16(b []byte, n int) []byte     { return binary.BigEndian.AppendUint16(b, uint16(n)) }
func i32(b []byte, n uint32) []byte  { return binary.BigEndian.AppendUint32(b, n) }
func i64(b []byte, n int64) []byte   { return binary.BigEndian.AppendUint64(b, uint64(n)) }
func lsn(b []byte, l cdc.LSN) []byte { return binary.BigEndian.AppendUint64(b, uint64(l)) }
func str(b []byte, s []byte) []byte  { return append(append(b, s...), 0) }
func flag(b []byte, on bool) []byte {
	if on {
		return append(b, 1)
	}
	return append(b, 0)
}
