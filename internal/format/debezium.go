package format

import (
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"strconv"

	"cdc/internal/cdc"
)

// The headers of the records of a key change, in Kafka Connect's string form.
const (
	headerNewKey = "__debezium.newkey"
	headerOldKey = "__debezium.oldkey"
)

// unavailableUUID is UUID.nameUUIDFromBytes of the placeholder: version 3.
var unavailableUUID = func() string {
	id := md5.Sum([]byte(unavailable))
	id[6] = id[6]&0x0f | 0x30
	id[8] = id[8]&0x3f | 0x80
	h := hex.EncodeToString(id[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}()

// envelope is the shape of debezium-json. What does not change from row to row
// of a relation is made once.
type envelope struct {
	f       *Format
	version []byte // `{"version":…,"name":"srv","ts_ms":`
	db      []byte // `,"db":"db","sequence":"[`
	table   []byte // `,"schema":"public","table":"t","txId":`
	block   block  // of the newest row
}

func (f *Format) newEnvelope(schema, table string) (*envelope, error) {
	v := &envelope{f: f}
	var err error
	str := func(dst []byte, s string) []byte {
		out, e := appendString(dst, []byte(s), true)
		if err == nil {
			err = e
		}
		return out
	}
	v.version = str([]byte(`{"version":"`+debeziumVersion+`","connector":"postgresql","name":`), f.opts.Server)
	v.version = append(v.version, `,"ts_ms":`...)
	v.db = append(str([]byte(`,"db":`), f.opts.Database), `,"sequence":"[`...)
	v.table = append(str(append(str([]byte(`,"schema":`), schema), `,"table":`...), table), `,"txId":`...)
	return v, err
}

func (f *Format) newShape(rel *cdc.Relation) (shape, error) {
	if f.debezium {
		return f.newEnvelope(rel.Namespace, rel.Name)
	}
	return newLean(), nil
}

func (v *envelope) keepsDeletes() bool { return true }

func (v *envelope) headers(dst []cdc.Header, _ *cdc.Change, _ cdc.Op) []cdc.Header {
	return append(dst, v.f.context...)
}

func (v *envelope) value(dst, absent []byte, e *Encoder, c *cdc.Change, op cdc.Op, old, row []cdc.Value) (_, _ []byte, err error) {
	dst = append(dst, `{"before":`...)
	if old == nil {
		dst = append(dst, "null"...)
	} else if dst, absent, err = e.appendRow(dst, absent, old, nil, !c.OldFull); err != nil {
		return dst, absent, err
	}
	dst = append(dst, `,"after":`...)
	if row == nil {
		dst = append(dst, "null"...)
	} else if dst, absent, err = e.appendRow(dst, absent, row, c.Old, false); err != nil {
		return dst, absent, err
	}
	dst = append(dst, `,"source":`...)
	now := e.now
	dst = v.source(dst, c, now.UnixMicro())
	dst = append(dst, `,"transaction":null,"op":"`...)
	dst = append(dst, byte(op), '"')
	dst = append(dst, `,"ts_ms":`...)
	dst = strconv.AppendInt(dst, now.UnixMilli(), 10)
	dst = append(dst, `,"ts_us":`...)
	dst = strconv.AppendInt(dst, now.UnixMicro(), 10)
	dst = append(dst, `,"ts_ns":`...)
	dst = strconv.AppendInt(dst, now.UnixNano(), 10)
	return append(dst, '}'), absent, nil
}

// marks are the texts of source.snapshot.
var marks = [...]string{
	cdc.MarkNone: "false", cdc.MarkTrue: "true",
	cdc.MarkFirstInTable: "first_in_data_collection", cdc.MarkLastInTable: "last_in_data_collection",
	cdc.MarkFirst: "first", cdc.MarkLast: "last",
	cdc.MarkIncremental: "incremental",
}

// source appends the source block. Its times are those of the commit, or of
// the snapshot; where there is neither (a message outside a transaction), now.
// What is the same for all rows of a transaction is made once.
func (v *envelope) source(dst []byte, c *cdc.Change, now int64) []byte {
	b := &v.block
	if c.Tx == nil || c.Tx.CommitTime == 0 || c.Op == cdc.OpMessage {
		b.of = blockOf{}
		v.fill(b, c, now)
	} else if of := (blockOf{*c.Tx, c.Mark, c.Op == cdc.OpRead}); b.of != of {
		b.of = of
		v.fill(b, c, now)
	}
	dst = append(dst, b.head...)
	at := len(dst)
	dst = strconv.AppendUint(dst, uint64(c.LSN), 10)
	end := len(dst)
	dst = append(dst, b.middle...)
	dst = append(dst, dst[at:end]...)
	return append(dst, b.tail...)
}

// block is a source block without the LSN, which stands in it twice.
type block struct {
	of                 blockOf // what it belongs to; zero: nothing
	head, middle, tail []byte
}

// blockOf is everything a block is made of that may change from row to row.
type blockOf struct {
	tx   cdc.Tx
	mark cdc.SnapshotMark
	read bool
}

func (v *envelope) fill(b *block, c *cdc.Change, now int64) {
	micros := now
	if c.Tx != nil && c.Tx.CommitTime != 0 {
		micros = c.Tx.CommitTime
	}
	dst := append(b.head[:0], v.version...)
	dst = strconv.AppendInt(dst, floorDiv(micros, microsPerMilli), 10)
	dst = append(dst, `,"snapshot":"`...)
	dst = append(dst, snapshotMark(c)...)
	dst = append(dst, '"')
	dst = append(dst, v.db...)
	b.head = appendSequence(dst, c)

	dst = append(b.middle[:0], `\"]","ts_us":`...)
	dst = strconv.AppendInt(dst, micros, 10)
	dst = append(dst, `,"ts_ns":`...)
	dst = strconv.AppendInt(dst, micros*1000, 10)
	dst = append(dst, v.table...)
	if c.Tx == nil || c.Tx.XID == 0 || c.Op == cdc.OpMessage && !c.Transactional {
		dst = append(dst, "null"...)
	} else {
		dst = strconv.AppendUint(dst, uint64(c.Tx.XID), 10)
	}
	b.middle = append(dst, `,"lsn":`...)

	dst = append(b.tail[:0], `,"xmin":null,"origin":`...)
	if c.Tx == nil || c.Tx.Origin == "" {
		b.tail = append(dst, `null,"origin_lsn":null}`...)
		return
	}
	// An origin's name is at most 512 bytes of the server's encoding; one that is
	// not valid UTF-8 is cut, it is no data of the row.
	dst, _ = appendString(dst, []byte(c.Tx.Origin), true)
	dst = append(dst, `,"origin_lsn":`...)
	dst = strconv.AppendUint(dst, uint64(c.Tx.OriginLSN), 10)
	b.tail = append(dst, '}')
}

func snapshotMark(c *cdc.Change) string {
	if int(c.Mark) < len(marks) {
		return marks[c.Mark]
	}
	return marks[cdc.MarkNone]
}

// appendSequence appends what stands between [ and the row's LSN in
// source.sequence: the end of the transaction before, if one was seen. It is JSON
// inside JSON.
func appendSequence(dst []byte, c *cdc.Change) []byte {
	if c.Op == cdc.OpRead || c.Tx == nil || c.Tx.PrevEnd == 0 {
		dst = append(dst, "null"...)
	} else {
		dst = append(dst, `\"`...)
		dst = strconv.AppendUint(dst, uint64(c.Tx.PrevEnd), 10)
		dst = append(dst, `\"`...)
	}
	return append(dst, `,\"`...)
}

// debeziumMessage is the value of a logical message (op m).
func (v *envelope) message(dst, key []byte, c *cdc.Change) []byte {
	now := v.f.now()
	dst = append(dst, `{"op":"m","ts_ms":`...)
	dst = strconv.AppendInt(dst, now.UnixMilli(), 10)
	dst = append(dst, `,"source":`...)
	dst = v.source(dst, c, now.UnixMicro())
	dst = append(dst, `,"transaction":null,"message":`...)
	dst = append(dst, key[:len(key)-1]...) // {"prefix":"…" of the key
	dst = append(dst, `,"content":"`...)
	dst = base64.StdEncoding.AppendEncode(dst, c.Content)
	return append(dst, `"}}`...)
}
