package format

import (
	"bytes"
	"encoding/base64"
	"strconv"

	"cdc/internal/cdc"
)

// compileFallbacks prepares what debezium-json writes in place of a value that is
// not there:
//
//   - NULL in a column with a constant default is the default, as Connect's
//     converter writes it (replace.null.with.default);
//   - what a partial `before` does not know is the default, for an expression a
//     zero of its own, else a zero where the column is NOT NULL, else null;
//   - a value that the stream left out is the placeholder, where it is asked for.
//
// Unlike Debezium, a NULL in a column whose default is an expression stays null.
func (f *Format) compileFallbacks(c *column, col *cdc.Column) {
	r := resolve(typeOf(col), col.Mod)
	if f.opts.Toast == "placeholder" {
		c.placeholder = placeholder(r)
	}
	c.missing = c.null
	switch {
	case !hasDefaults(r):
	case col.Default != nil:
		if def, err := c.encode(nil, defaultText(r, *col.Default)); err == nil {
			c.null, c.missing = def, def
			return
		}
	case col.DefaultExpr:
		c.missing = expressionZero(r)
		return
	}
	if col.NotNull {
		c.missing = zero(r)
	}
}

// hasDefaults says that Debezium reads the defaults of a type; those of other
// types and of domains it does not know. A VariableScaleDecimal, being a struct,
// cannot be one (KAFKA-12694).
func hasDefaults(r resolved) bool {
	switch r.OID {
	case oidBool, oidInt2, oidInt4, oidInt8, oidFloat4, oidFloat8, oidBit, oidVarbit,
		oidText, oidVarchar, oidBpchar, oidJSON, oidJSONB, oidXML, oidUUID,
		oidDate, oidTime, oidTimestamp, oidTimestamptz, oidInterval:
		return !r.inner
	case oidNumeric:
		return !r.inner && r.mod >= 4
	}
	return !r.inner && r.Kind == cdc.KindEnum
}

// defaultText is a default as Debezium reads it: from the expression, in which
// char(n) is not padded.
func defaultText(r resolved, text string) []byte {
	if r.OID == oidBpchar {
		return bytes.TrimRight([]byte(text), " ")
	}
	return []byte(text)
}

// expressionZero is what Debezium takes for a default that it cannot evaluate.
func expressionZero(r resolved) []byte {
	switch r.OID {
	case oidJSON, oidJSONB:
		return quoted("{}")
	case oidUUID:
		return quoted("00000000-0000-0000-0000-000000000000")
	case oidTimestamptz:
		epoch, _ := zonedTimestamp(r.precision())(nil, []byte("1970-01-01 00:00:00+00"))
		return epoch
	}
	return zero(r)
}

// zero is what Debezium writes for a value of a NOT NULL column that it does not know.
func zero(r resolved) []byte {
	if r.isArray() || r.extension("vector") || r.extension("halfvec") {
		return []byte("[]")
	}
	switch r.OID {
	case oidBool:
		return []byte("false")
	case oidInt2, oidInt4, oidInt8, oidOID, oidDate, oidTime, oidTimestamp, oidInterval:
		return []byte("0")
	case oidFloat4, oidFloat8:
		return []byte("0.0")
	case oidNumeric:
		if r.mod < 4 {
			return []byte(`{"scale":0,"value":"AA=="}`)
		}
		return []byte(`"AA=="`)
	case oidMoney:
		return []byte(`"AA=="`)
	case oidBit, oidVarbit:
		if r.mod == 1 {
			return []byte("false")
		}
	case oidTimetz:
		return []byte(`"00:00:00Z"`)
	case oidTimestamptz:
		return []byte(`"1970-01-01T00:00:00Z"`)
	case oidPoint:
		p, _ := appendPoint(nil, []byte("(0,0)"))
		return p
	}
	if r.extension("hstore") {
		return []byte(`"{}"`)
	}
	return []byte(`""`)
}

// placeholder is what Debezium writes for a value that the stream left out.
func placeholder(r resolved) []byte {
	if r.OID == oidBytea {
		return quoted(base64.StdEncoding.EncodeToString([]byte(unavailable)))
	}
	if !r.isArray() {
		return quoted(unavailable)
	}
	switch r.Elem.OID {
	case oidBytea:
		return inBrackets(quoted(base64.StdEncoding.EncodeToString([]byte(unavailable))))
	case oidInt4, oidInt8, oidDate:
		var list []byte
		for i, b := range []byte(unavailable) {
			if i > 0 {
				list = append(list, ',')
			}
			list = strconv.AppendInt(list, int64(b), 10)
		}
		return inBrackets(list)
	case oidUUID:
		return inBrackets(quoted(unavailableUUID))
	}
	return inBrackets(quoted(unavailable))
}

func quoted(s string) []byte { return []byte(`"` + s + `"`) }

func inBrackets(b []byte) []byte { return append(append([]byte{'['}, b...), ']') }
