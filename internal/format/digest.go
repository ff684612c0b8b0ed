package format

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"

	"cdc/internal/cdc"
)

// Digest stands for the row in a record's value: equal rows have equal digests,
// and two rows that differ have different ones but for a chance of 1 in 2^128. It
// holds inside one process only, whose seeds it depends on.
type Digest [16]byte

// ErrForeignValue says that a record's value is not of the pipeline's format:
// something else writes to the topic, or the pipeline had another format before.
var ErrForeignValue = errors.New("it is not a value of this format: something else writes to the topic, or format: was another one; write the topic again")

// digestSeeds make the two halves of a digest, and the names' part in each.
var digestSeeds = [2]struct{ value, name maphash.Seed }{
	{maphash.MakeSeed(), maphash.MakeSeed()},
	{maphash.MakeSeed(), maphash.MakeSeed()},
}

// Digester says what of a record's value is the row, as the table has its columns
// today. Of a value of the format json that is the object itself, of debezium-json
// the member after. Compared are the bytes of a column's JSON value: the same
// encoder has written both sides, and a document in a column is its own text.
//
//   - The order of the columns does not matter.
//   - A column that is absent and one that is null are equal.
//   - A column that is no column of today is not compared.
//   - Of a member that stands there twice the last one counts, as for every reader
//     of JSON; the encoder writes none.
//   - The placeholder of a value that was not available is a value.
//
// A column that was added with a default is therefore a difference in records
// written before: the table has the value and the topic does not.
//
// A Digester is used by one goroutine. It keeps nothing of what it was given.
type Digester struct {
	debezium bool
	columns  []digestColumn
	byName   map[string]int
	envelope objectScanner
	row      objectScanner
}

type digestColumn struct {
	name string
	hash [2]uint64 // of the name
	raw  [2][]byte // the JSON text of the source, or of the value in hand, and of the target; nil: absent
}

// The sides of a digestColumn.
const (
	sideSource = iota
	sideTarget
)

// NewDigester makes the digester of a table that has these columns today, without
// those that the format leaves out: Encoder.Columns.
func (f *Format) NewDigester(columns []string) *Digester {
	d := &Digester{debezium: f.debezium, columns: make([]digestColumn, len(columns)), byName: make(map[string]int, len(columns))}
	for i, name := range columns {
		c := &d.columns[i]
		c.name = name
		for half := range c.hash {
			c.hash[half] = maphash.String(digestSeeds[half].name, name)
		}
		d.byName[name] = i
	}
	return d
}

// Columns are the names of the columns that the encoder writes.
func (e *Encoder) Columns() []string {
	names := make([]string, 0, len(e.columns))
	for i := range e.columns {
		if e.columns[i].encode != nil {
			names = append(names, e.columns[i].name)
		}
	}
	return names
}

// Digest digests a value. alive says that the record leaves a row: it is neither a
// tombstone, whose value is nil, nor a delete. older says that the value lacks a
// column of today or has one that is no more. The error is ErrForeignValue.
func (d *Digester) Digest(value []byte) (dig Digest, alive bool, older bool, err error) {
	alive, older, err = d.collect(value, sideSource)
	if err != nil || !alive {
		return Digest{}, false, false, err
	}
	var sum [2]uint64
	for i := range d.columns {
		c := &d.columns[i]
		raw := c.raw[sideSource]
		c.raw[sideSource] = nil
		if isNull(raw) {
			continue
		}
		// A sum does not know an order. What is added must therefore depend on the
		// column, and not linearly: values may change places.
		for half := range sum {
			sum[half] += scramble(maphash.Bytes(digestSeeds[half].value, raw) ^ c.hash[half])
		}
	}
	binary.LittleEndian.PutUint64(dig[:8], sum[0])
	binary.LittleEndian.PutUint64(dig[8:], sum[1])
	return dig, true, older, nil
}

// isNull says that a column has no value.
func isNull(raw []byte) bool { return raw == nil || string(raw) == "null" }

// scramble is the finalizer of splitmix64: every bit of x changes half of the result.
func scramble(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// collect points the columns of a side at their values.
func (d *Digester) collect(value []byte, side int) (alive, older bool, err error) {
	for i := range d.columns {
		d.columns[i].raw[side] = nil
	}
	if value == nil {
		return false, false, nil
	}
	row := value
	if d.debezium {
		if row, alive, err = d.after(value); err != nil || !alive {
			return false, false, err
		}
	}
	present, next := 0, 0
	d.row.open(row)
	for name, raw, ok := d.row.next(); ok; name, raw, ok = d.row.next() {
		i := d.column(name, next)
		if i < 0 {
			older = true
			continue
		}
		c := &d.columns[i]
		if c.raw[side] == nil {
			present++
		}
		c.raw[side] = raw
		next = i + 1
	}
	if !d.row.done() {
		return false, false, fmt.Errorf("read a value of %d bytes as a row: at byte %d of it: %w", len(row), d.row.at, ErrForeignValue)
	}
	return true, older || present < len(d.columns), nil
}

// column finds a column, which mostly is the expected one. It is -1 for one that
// is no column of today.
func (d *Digester) column(name []byte, expected int) int {
	if expected < len(d.columns) && string(name) == d.columns[expected].name {
		return expected
	}
	if i, ok := d.byName[string(name)]; ok {
		return i
	}
	return -1
}

// after finds the row of an envelope; none is alive after a delete.
func (d *Digester) after(value []byte) (row []byte, alive bool, err error) {
	var op []byte
	d.envelope.open(value)
	for name, raw, ok := d.envelope.next(); ok; name, raw, ok = d.envelope.next() {
		switch string(name) {
		case "after":
			row = raw
		case "op":
			op = raw
		}
	}
	switch {
	case !d.envelope.done():
		return nil, false, fmt.Errorf("read a value of %d bytes as an envelope: at byte %d: %w", len(value), d.envelope.at, ErrForeignValue)
	case len(op) == 0 || op[0] != '"':
		return nil, false, fmt.Errorf("read a value of %d bytes as an envelope without op: %w", len(value), ErrForeignValue)
	case string(op) == `"d"`:
		return nil, false, nil
	case row == nil:
		return nil, false, fmt.Errorf("read a value of %d bytes as an envelope without after: %w", len(value), ErrForeignValue)
	}
	return row, !isNull(row), nil
}

// Diff names the columns that differ between a row of the table and its record,
// both as values of the format; nil, like a delete, has no columns. The texts are
// cut to what is needed to see the difference.
func (d *Digester) Diff(source, target []byte) ([]cdc.ColumnDiff, error) {
	if _, _, err := d.collect(source, sideSource); err != nil {
		return nil, fmt.Errorf("source: %w", err)
	}
	if _, _, err := d.collect(target, sideTarget); err != nil {
		return nil, fmt.Errorf("target: %w", err)
	}
	var diffs []cdc.ColumnDiff
	for i := range d.columns {
		c := &d.columns[i]
		if diff, differs := diffColumn(c.name, c.raw[sideSource], c.raw[sideTarget]); differs {
			diffs = append(diffs, diff)
		}
		c.raw = [2][]byte{}
	}
	return diffs, nil
}
