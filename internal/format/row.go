package format

import (
	"fmt"

	"cdc/internal/cdc"
)

// compileColumn makes every decision about a column that does not need a value.
func (f *Format) compileColumn(c *column, col *cdc.Column) (err error) {
	c.name, c.identity = col.Name, col.Identity
	c.typeName = typeOf(col).Name
	if c.prefix, err = appendString(nil, []byte(col.Name), f.debezium); err != nil {
		return fmt.Errorf("name: %w", err)
	}
	c.prefix = append(c.prefix, ':')
	c.null = []byte("null")
	if c.encode, err = f.columnCodec(col); err != nil {
		return err
	}
	if f.debezium && c.encode != nil {
		f.compileFallbacks(c, col)
	}
	return nil
}

// columnCodec is the codec of a column, nil where the column is left out.
func (f *Format) columnCodec(col *cdc.Column) (codec, error) {
	if f.debezium {
		return f.debeziumCodec(col)
	}
	return f.leanCodec(typeOf(col), col.Mod)
}

// typeOf is the type of a column or attribute; one that the catalogue does not
// know any more is written as text.
func typeOf(col *cdc.Column) *cdc.Type {
	if col.Type != nil {
		return col.Type
	}
	return &cdc.Type{OID: col.TypeOID, Kind: cdc.KindUnknown, Mod: -1}
}

// appendRow appends a row as an object. Where partial is set only the columns of
// the replica identity are known. A value that row lacks and old has, which is how
// a key stored out of line comes, is taken from there.
func (e *Encoder) appendRow(dst, absent []byte, row, old []cdc.Value, partial bool) (_, _ []byte, err error) {
	if len(row) != len(e.columns) || old != nil && len(old) != len(e.columns) {
		return dst, absent, fmt.Errorf("encode row of %s: %w", e.rel.FullName(), ErrTupleMismatch)
	}
	separator := byte('{')
	for i := range e.columns {
		c, v := &e.columns[i], &row[i]
		if c.encode == nil {
			continue
		}
		if v.Kind == cdc.Unchanged && old != nil && old[i].Kind == cdc.Text {
			v = &old[i]
		}
		unknown := partial && !c.identity
		if !unknown && v.Kind == cdc.Unchanged && c.placeholder == nil {
			absent = e.leaveOut(absent, c)
			continue
		}
		dst = append(dst, separator)
		separator = ','
		dst = append(dst, c.prefix...)
		switch {
		case unknown:
			dst = append(dst, c.missing...)
		case v.Kind == cdc.Text:
			if dst, err = c.encode(dst, v.Data); err != nil {
				return dst, absent, e.fault(i, err)
			}
		case v.Kind == cdc.Unchanged:
			dst = append(dst, c.placeholder...)
		default:
			dst = append(dst, c.null...)
		}
	}
	if separator == '{' {
		dst = append(dst, '{')
	}
	return append(dst, '}'), absent, nil
}

// leaveOut adds a column's name to the JSON array of what is missing.
func (e *Encoder) leaveOut(absent []byte, c *column) []byte {
	if len(absent) == 0 {
		absent = append(absent, '[')
	} else {
		absent = append(absent, ',')
	}
	return append(absent, c.prefix[:len(c.prefix)-1]...)
}
