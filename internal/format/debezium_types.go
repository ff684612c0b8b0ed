package format

import (
	"strconv"

	"cdc/internal/cdc"
)

// debeziumVersion is what source.version says: the version whose bytes these are.
const debeziumVersion = "3.6.0.Final"

// unavailable is Debezium's unavailable.value.placeholder.
const unavailable = "__debezium_unavailable_value"

// What Debezium writes for the infinities of date and timestamp (PGStatement's
// DATE_POSITIVE_INFINITY, taken for microseconds).
const (
	infinityDays           = -2147472692
	negativeInfinityDays   = -2147472691
	infinityMicros         = 9223372036825200000
	negativeInfinityMicros = -9223372036832400000
)

// debeziumCodec chooses how debezium-json writes a column; nil leaves it out.
func (f *Format) debeziumCodec(col *cdc.Column) (codec, error) {
	r := resolve(typeOf(col), col.Mod)
	if enc := f.debeziumScalar(r); enc != nil {
		return enc, nil
	}
	// Debezium knows arrays of its scalars, but of no domain, and of none of the
	// types below though it knows them as scalars.
	if r.isArray() && r.Elem.Kind != cdc.KindDomain {
		switch r.Elem.OID {
		case oidMoney, oidName, oidInterval, oidVarbit, oidXML, oidPoint:
		default:
			if elem := f.debeziumScalar(resolve(r.Elem, r.mod)); elem != nil {
				return arrayCodec(r.Elem.Delim, elem), nil
			}
		}
	}
	if f.opts.Unknown == "omit" {
		return nil, nil
	}
	return f.text(), nil
}

// debeziumScalar is the codec of a type that is no array, nil for the types that
// Debezium leaves out.
func (f *Format) debeziumScalar(r resolved) codec {
	switch r.OID {
	case oidBool:
		return appendBool
	case oidInt2, oidInt4, oidInt8, oidOID:
		return appendInteger
	case oidFloat4:
		return appendJavaFloat
	case oidFloat8:
		return appendJavaDouble
	case oidNumeric:
		if r.mod < 4 {
			return appendVariableScale
		}
		return decimalCodec(numericScale(r.mod))
	case oidMoney:
		return appendMoney
	case oidBit, oidVarbit:
		if r.mod == 1 {
			return appendBit
		}
		return appendBits
	case oidBytea:
		return appendBytea
	case oidDate:
		return appendEpochDay
	case oidTime:
		return timeCodec(r.precision())
	case oidTimetz:
		return zonedTime
	case oidTimestamp:
		return epochCodec(r.precision())
	case oidTimestamptz:
		return zonedTimestamp(r.precision())
	case oidInterval:
		return appendMicroDuration
	case oidPoint:
		return appendPoint
	case oidChar, oidName, oidText, oidBpchar, oidVarchar, oidJSON, oidJSONB, oidXML, oidUUID,
		oidInet, oidCIDR, oidMacaddr, oidMacaddr8, oidTsvector,
		oidInt4Range, oidInt8Range, oidNumRange, oidTsRange, oidTstzRange, oidDateRange:
		return f.text()
	}
	if r.Kind == cdc.KindEnum {
		return f.text()
	}
	if r.Kind != cdc.KindBase {
		return nil
	}
	return f.debeziumExtension(r.Name)
}

// debeziumExtension knows extensions' types by name.
func (f *Format) debeziumExtension(name string) codec {
	switch name {
	case "citext", "ltree", "isbn":
		return f.text()
	case "hstore":
		return (&hstore{debezium: true}).append
	case "geometry", "geography":
		return appendGeometry
	case "vector":
		return vectorCodec(appendJavaDouble)
	case "halfvec":
		return vectorCodec(appendJavaFloat)
	case "sparsevec":
		return appendSparseVector
	}
	return nil
}

func appendEpochDay(dst, s []byte) ([]byte, error) {
	t, err := parseDate(s)
	switch {
	case err != nil:
		return dst, err
	case t.infinite > 0:
		return strconv.AppendInt(dst, infinityDays, 10), nil
	case t.infinite < 0:
		return strconv.AppendInt(dst, negativeInfinityDays, 10), nil
	}
	return strconv.AppendInt(dst, t.days(), 10), nil
}

// maxMillisPrecision is the largest declared precision that Debezium's adaptive
// mode writes as milliseconds.
const maxMillisPrecision = 3

func timeCodec(precision int) codec {
	unit := unitOf(precision)
	return func(dst, s []byte) ([]byte, error) {
		p := scanner{s: s}
		micros := p.time()
		if err := p.finish(); err != nil {
			return dst, err
		}
		return strconv.AppendInt(dst, micros/unit, 10), nil
	}
}

func epochCodec(precision int) codec {
	unit := unitOf(precision)
	return func(dst, s []byte) ([]byte, error) {
		t, err := parseTimestamp(s, false)
		v := int64(0)
		switch {
		case err != nil:
			return dst, err
		case t.infinite > 0:
			v = infinityMicros / unit
		case t.infinite < 0:
			v = negativeInfinityMicros / unit
		default:
			if v, err = t.epoch(unit); err != nil {
				return dst, err
			}
		}
		return strconv.AppendInt(dst, v, 10), nil
	}
}

func unitOf(precision int) int64 {
	if precision <= maxMillisPrecision {
		return microsPerMilli
	}
	return 1
}

func appendMicroDuration(dst, s []byte) ([]byte, error) {
	v, err := parseInterval(s)
	if err != nil {
		return dst, err
	}
	return strconv.AppendInt(dst, v.total(), 10), nil
}
