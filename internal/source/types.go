package source

import (
	"context"
	"fmt"

	"cdc/internal/cdc"

	"github.com/jackc/pgx/v5"
)

// maxTypeDepth bounds how deep types are followed: each level is one query, and
// Postgres lets none contain itself.
const maxTypeDepth = 64

// builtins maps the OIDs of builtinTypes to finished types.
var builtins = func() map[uint32]*cdc.Type {
	const boxes, boxArrays = 603, 1020 // the only types separated by ';'
	types := make(map[uint32]*cdc.Type, len(builtinTypes))
	for _, b := range builtinTypes {
		t := &cdc.Type{OID: b.oid, Namespace: "pg_catalog", Name: b.name, Kind: b.kind, Mod: -1, Delim: ','}
		if b.oid == boxes || b.oid == boxArrays {
			t.Delim = ';'
		}
		types[b.oid] = t
	}
	for _, b := range builtinTypes {
		if b.elem != 0 {
			types[b.oid].Elem = types[b.elem]
		}
	}
	return types
}()

// typeRow is a type as pg_type and its kin describe it.
type typeRow struct {
	oid                          uint32
	namespace, name, kind, delim string
	array                        bool
	elem, base, subtype, ranges  uint32
	mod                          int32
	class                        uint32 // of a composite type
	fields                       []cdc.Column
}

// typeSet is what was read for one relation, and what was made of it.
type typeSet struct {
	rows map[uint32]*typeRow
	done map[uint32]*cdc.Type
}

// loadTypes reads the types and those they are made of, a level a query.
// Built-in types cost none.
func loadTypes(ctx context.Context, conn *pgx.Conn, oids []uint32, version int) (*typeSet, error) {
	set := &typeSet{rows: map[uint32]*typeRow{}, done: map[uint32]*cdc.Type{}}
	asked := map[uint32]bool{}
	for range maxTypeDepth {
		var next []uint32
		for _, oid := range oids {
			if oid != 0 && builtins[oid] == nil && !asked[oid] {
				asked[oid] = true
				next = append(next, oid)
			}
		}
		if len(next) == 0 {
			return set, nil
		}
		level, err := readTypes(ctx, conn, next, version)
		if err != nil {
			return nil, err
		}
		oids = oids[:0:0]
		for _, t := range level {
			set.rows[t.oid] = t
			oids = append(oids, t.elem, t.base, t.subtype, t.ranges)
			for _, f := range t.fields {
				oids = append(oids, f.TypeOID)
			}
		}
	}
	return set, nil // what lies deeper is written as text
}

func readTypes(ctx context.Context, conn *pgx.Conn, oids []uint32, version int) ([]*typeRow, error) {
	multirange := "0::oid"
	if version >= 140000 {
		multirange = "coalesce((SELECT m.rngtypid FROM pg_range m WHERE m.rngmultitypid = t.oid), 0)"
	}
	rows, err := conn.Query(ctx, `
		SELECT t.oid, n.nspname, t.typname, t.typtype::text, t.typdelim::text, t.typoutput = 'array_out'::regproc,
			t.typelem, t.typbasetype, coalesce(r.rngsubtype, 0), `+multirange+`, t.typtypmod, t.typrelid
		FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_range r ON r.rngtypid = t.oid
		WHERE t.oid = ANY($1::oid[])`, oids)
	if err != nil {
		return nil, fmt.Errorf("read types: %w", err)
	}
	var types []*typeRow
	var composites []uint32
	var t typeRow
	dest := []any{&t.oid, &t.namespace, &t.name, &t.kind, &t.delim, &t.array, &t.elem, &t.base, &t.subtype, &t.ranges, &t.mod, &t.class}
	_, err = pgx.ForEachRow(rows, dest, func() error {
		own := t
		if !own.array {
			own.elem = 0 // point, name and their like can be subscripted and are no arrays
		}
		if own.kind == "c" {
			composites = append(composites, own.class)
		}
		types = append(types, &own)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read types: %w", err)
	}
	if len(composites) == 0 {
		return types, nil
	}
	return types, readFields(ctx, conn, composites, types)
}

func readFields(ctx context.Context, conn *pgx.Conn, classes []uint32, types []*typeRow) error {
	byClass := map[uint32]*typeRow{}
	for _, t := range types {
		byClass[t.class] = t
	}
	rows, err := conn.Query(ctx, `
		SELECT attrelid, attname, atttypid, atttypmod FROM pg_attribute
		WHERE attrelid = ANY($1::oid[]) AND attnum > 0 AND NOT attisdropped ORDER BY attrelid, attnum`, classes)
	if err != nil {
		return fmt.Errorf("read attributes of composite types: %w", err)
	}
	var class uint32
	var f cdc.Column
	_, err = pgx.ForEachRow(rows, []any{&class, &f.Name, &f.TypeOID, &f.Mod}, func() error {
		byClass[class].fields = append(byClass[class].fields, f)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read attributes of composite types: %w", err)
	}
	return nil
}

// build makes the type of an OID, never nil: one that the catalogue does not
// have any more is KindUnknown, under the name the stream gave it.
func (s *typeSet) build(oid uint32, names typeNames) *cdc.Type {
	if t := builtins[oid]; t != nil {
		return t
	}
	if t := s.done[oid]; t != nil {
		return t
	}
	t := &cdc.Type{OID: oid, Namespace: names[oid].namespace, Name: names[oid].name, Kind: cdc.KindUnknown, Mod: -1, Delim: ','}
	s.done[oid] = t // before its parts: a circle ends here
	row := s.rows[oid]
	if row == nil {
		return t
	}
	t.Namespace, t.Name, t.Mod = row.namespace, row.name, row.mod
	if row.delim != "" {
		t.Delim = row.delim[0]
	}
	part := func(kind cdc.TypeKind, oid uint32) { t.Kind, t.Elem = kind, s.build(oid, names) }
	switch {
	case row.kind == "d":
		part(cdc.KindDomain, row.base)
	case row.kind == "e":
		t.Kind = cdc.KindEnum
	case row.kind == "r":
		part(cdc.KindRange, row.subtype)
	case row.kind == "m":
		part(cdc.KindMultirange, row.ranges)
	case row.kind == "c":
		t.Kind = cdc.KindComposite
		for _, f := range row.fields {
			f.Type = s.build(f.TypeOID, names)
			t.Fields = append(t.Fields, f)
		}
	case row.array:
		part(cdc.KindArray, row.elem)
	default:
		t.Kind = cdc.KindBase
	}
	return t
}
