package format

import (
	"encoding/base64"
	"strconv"
	"time"

	"cdc/internal/cdc"
)

// The headers of the lean format. The last two belong to both formats.
// HeaderIncomplete is a JSON array of the names of columns left out, because the
// stream did not send their unchanged value and it could not be read back.
// HeaderRefilled ("true") says that values the stream did not send were read back
// from a version of the row that may be newer than the change.
const (
	HeaderOp         = "op"  // c, u, d, r, t or m
	HeaderLSN        = "lsn" // start of the transaction's commit record, 16/B374D848; of a snapshot row the snapshot's LSN
	HeaderSeq        = "seq" // number of the change in its transaction, from 1; (lsn, seq) is the order of the stream
	HeaderTx         = "tx"  // the low 32 bits of the transaction id
	HeaderTs         = "ts"  // commit time, ISO 8601 UTC with microseconds
	HeaderIncomplete = "incomplete"
	HeaderRefilled   = "refilled"
)

// leanCodec chooses how the lean format writes a type.
func (f *Format) leanCodec(t *cdc.Type, mod int32) (codec, error) {
	return f.leanType(t, mod, 0)
}

func (f *Format) leanType(t *cdc.Type, mod int32, depth int) (codec, error) {
	if depth > maxTypeDepth {
		return nil, ErrMalformed
	}
	r := resolve(t, mod)
	switch r.OID {
	case oidBool:
		return appendBool, nil
	case oidInt2, oidInt4, oidInt8, oidOID:
		return appendInteger, nil
	case oidFloat4, oidFloat8, oidNumeric:
		return appendNumber, nil
	case oidJSON, oidJSONB:
		return appendDocument, nil
	case oidBytea:
		return appendBytea, nil
	case oidDate:
		return appendLeanDate, nil
	case oidTimestamp:
		return appendLeanTimestamp, nil
	case oidTimestamptz:
		return zonedTimestamp(shortFraction), nil
	}
	switch {
	case r.isArray():
		elem, err := f.leanType(r.Elem, r.mod, depth+1)
		if err != nil {
			return nil, err
		}
		return arrayCodec(r.Elem.Delim, elem), nil
	case r.Kind == cdc.KindComposite && len(r.Fields) > 0:
		return f.leanComposite(r.Fields, depth)
	case r.extension("hstore"):
		return (&hstore{}).append, nil
	}
	return f.text(), nil
}

func (f *Format) leanComposite(attrs []cdc.Column, depth int) (codec, error) {
	prefixes, fields := make([][]byte, len(attrs)), make([]codec, len(attrs))
	for i := range attrs {
		p := []byte{','}
		if i == 0 {
			p[0] = '{'
		}
		p, err := appendString(p, []byte(attrs[i].Name), false)
		if err != nil {
			return nil, err
		}
		prefixes[i] = append(p, ':')
		if fields[i], err = f.leanType(typeOf(&attrs[i]), attrs[i].Mod, depth+1); err != nil {
			return nil, err
		}
	}
	return compositeCodec(prefixes, fields, f.text()), nil
}

// appendLeanDate writes a date as Postgres does, but years before 1 and after
// 9999 in ISO 8601's expanded form.
func appendLeanDate(dst, s []byte) ([]byte, error) {
	t, err := parseDate(s)
	if err != nil {
		return dst, err
	}
	if t.infinite != 0 {
		return appendInfinity(dst, t.infinite), nil
	}
	dst = append(dst, '"')
	dst = appendISODate(dst, t.date)
	return append(dst, '"'), nil
}

// appendLeanTimestamp writes a timestamp in ISO 8601 without a zone, with as
// many fractional digits as it has.
func appendLeanTimestamp(dst, s []byte) ([]byte, error) {
	t, err := parseTimestamp(s, false)
	if err != nil {
		return dst, err
	}
	if t.infinite != 0 {
		return appendInfinity(dst, t.infinite), nil
	}
	dst = append(dst, '"')
	dst = appendISODate(dst, t.date)
	dst = append(dst, 'T')
	dst = appendClock(dst, t.micros, shortFraction)
	return append(dst, '"'), nil
}

// lean is the shape of the format json: the row as one flat object, a delete as
// a tombstone, everything else in headers. The header values of a transaction
// are kept until another one comes.
type lean struct {
	tx    cdc.Tx
	known bool
	lsn   []byte
	xid   []byte
	time  []byte
	own   []byte // lsn of a row outside a transaction
	seq   []byte
	ops   [256][]byte
}

func newLean() *lean {
	l := &lean{}
	for _, op := range []cdc.Op{cdc.OpInsert, cdc.OpUpdate, cdc.OpDelete, cdc.OpRead, cdc.OpTruncate, cdc.OpMessage} {
		l.ops[op] = []byte{byte(op)}
	}
	return l
}

func (l *lean) keepsDeletes() bool { return false }

func (l *lean) value(dst, absent []byte, e *Encoder, c *cdc.Change, _ cdc.Op, _, row []cdc.Value) ([]byte, []byte, error) {
	return e.appendRow(dst, absent, row, c.Old, false)
}

func (l *lean) headers(dst []cdc.Header, c *cdc.Change, op cdc.Op) []cdc.Header {
	dst = append(dst, cdc.Header{Key: HeaderOp, Value: l.ops[op]})
	if c == nil {
		return dst
	}
	outside := c.Op == cdc.OpRead || c.Tx == nil // of every transaction of the stream
	if c.Tx != nil && (!l.known || c.Tx.Final != l.tx.Final || c.Tx.XID != l.tx.XID || c.Tx.CommitTime != l.tx.CommitTime) {
		l.remember(c.Tx)
	}
	if outside {
		l.own = appendLSN(l.own[:0], c.LSN)
		dst = append(dst, cdc.Header{Key: HeaderLSN, Value: l.own})
	} else {
		l.seq = strconv.AppendUint(l.seq[:0], uint64(c.Index), 10)
		dst = append(dst, cdc.Header{Key: HeaderLSN, Value: l.lsn}, cdc.Header{Key: HeaderSeq, Value: l.seq})
	}
	if c.Tx == nil {
		return dst
	}
	return append(dst, cdc.Header{Key: HeaderTx, Value: l.xid}, cdc.Header{Key: HeaderTs, Value: l.time})
}

func (l *lean) remember(tx *cdc.Tx) {
	l.tx, l.known = *tx, true
	l.lsn = appendLSN(l.lsn[:0], tx.Final)
	l.xid = strconv.AppendUint(l.xid[:0], uint64(tx.XID), 10)
	l.time = time.UnixMicro(tx.CommitTime).UTC().AppendFormat(l.time[:0], "2006-01-02T15:04:05.000000Z")
}

func appendLSN(dst []byte, l cdc.LSN) []byte {
	dst = appendUpperHex(dst, uint32(l>>32))
	dst = append(dst, '/')
	return appendUpperHex(dst, uint32(l))
}

func appendUpperHex(dst []byte, v uint32) []byte {
	shift := 28
	for shift > 0 && v>>shift == 0 {
		shift -= 4
	}
	for ; shift >= 0; shift -= 4 {
		dst = append(dst, hexUpper[v>>shift&15])
	}
	return dst
}

// leanMessage is a logical message: its prefix and, in base64, its bytes.
func leanMessage(dst, prefix, content []byte) ([]byte, error) {
	dst = append(dst, `{"prefix":`...)
	dst, err := appendString(dst, prefix, false)
	dst = append(dst, `,"content":"`...)
	dst = base64.StdEncoding.AppendEncode(dst, content)
	return append(dst, `"}`...), err
}
