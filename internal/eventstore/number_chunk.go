package eventstore

import (
	"encoding/binary"

	"cdc/internal/cdc"
	"cdc/internal/intent"

	"github.com/jackc/pgx/v5/pgtype"
)

// chunk holds the arguments of one statement: arrays in Postgres' binary form
// (array_recv), written as the events come, so that an event costs a few bytes here
// and no allocation.
type chunk struct {
	n    int
	ids  array
	lsns array
	txs  array
	seen array // distinct transactions, in order: those of one follow each other
	last uint32

	start   [8]byte
	formats []int16
	params  [][]byte
}

func (c *chunk) add(id intent.ID, lsn cdc.LSN, tx uint32) {
	if c.n == 0 {
		c.formats = []int16{1, 1, 1, 1, 1}
		c.ids.begin(pgtype.UUIDOID)
		c.lsns.begin(pgLSNOID)
		c.txs.begin(pgtype.Int8OID)
		c.seen.begin(pgtype.Int8OID)
	}
	c.ids.element(id[:])
	c.lsns.number(uint64(lsn))
	c.txs.number(uint64(tx))
	if c.n == 0 || tx != c.last {
		c.seen.number(uint64(tx))
		c.last = tx
	}
	c.n++
}

// pgLSNOID is the OID of pg_lsn (pg_type.dat).
const pgLSNOID = 3220

// parameters are those of es_number, for positions behind head. They are valid
// until the next add or reset.
func (c *chunk) parameters(head int64) [][]byte {
	binary.BigEndian.PutUint64(c.start[:], uint64(head))
	c.params = append(c.params[:0], c.start[:], c.ids.bytes(), c.lsns.bytes(), c.txs.bytes(), c.seen.bytes())
	return c.params
}

func (c *chunk) reset() { c.n = 0 }

// array is a one-dimensional array in its binary form: dimensions, a flag for
// nulls, type, length, lower bound, then each element behind its own length.
type array struct {
	buf []byte
	n   uint32
}

const arrayLengthAt = 12 // bytes before the length

func (a *array) begin(oid uint32) {
	a.n = 0
	a.buf = binary.BigEndian.AppendUint32(a.buf[:0], 1)
	a.buf = binary.BigEndian.AppendUint32(a.buf, 0)
	a.buf = binary.BigEndian.AppendUint32(a.buf, oid)
	a.buf = binary.BigEndian.AppendUint32(a.buf, 0)
	a.buf = binary.BigEndian.AppendUint32(a.buf, 1)
}

func (a *array) element(b []byte) {
	a.buf = binary.BigEndian.AppendUint32(a.buf, uint32(len(b)))
	a.buf = append(a.buf, b...)
	a.n++
}

func (a *array) number(v uint64) {
	a.buf = binary.BigEndian.AppendUint32(a.buf, 8)
	a.buf = binary.BigEndian.AppendUint64(a.buf, v)
	a.n++
}

func (a *array) bytes() []byte {
	binary.BigEndian.PutUint32(a.buf[arrayLengthAt:], a.n)
	return a.buf
}
