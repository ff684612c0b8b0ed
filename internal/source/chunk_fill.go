package source

import (
	"context"
	"fmt"
	"slices"

	"cdc/internal/cdc"

	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// stepRows bounds the rows of one statement of a chunk, and with it what is read
	// in vain where rows are larger than those before.
	stepRows = 2048
	// firstStepRows is the bound while the size of a table's rows is not known, and
	// where keys may be equal: then a chunk ends between two statements only.
	firstStepRows = 256
)

// filler collects the rows of a chunk: their text one behind the other in one
// buffer, cut into values when the last has come, so that a row costs no
// allocation.
type filler struct {
	columns  int
	maxRows  int
	maxBytes int64
	data     []byte
	lengths  []int32 // of the values in data, -1 for NULL; used again for the next chunk
	perRow   int64   // bytes of a row in the newest statement that gave any, at least 1; 0: none did yet
	lastRow  int     // where the last row begins in data
}

func (f *filler) begin(columns, maxRows int, maxBytes int64) {
	f.columns, f.maxRows, f.maxBytes = columns, max(maxRows, 1), max(maxBytes, 1)
	room := f.perRow * int64(f.maxRows)
	f.data, f.lengths, f.lastRow = make([]byte, 0, min(f.maxBytes, room+room/8)+1), f.lengths[:0], 0
}

func (f *filler) count() int {
	if f.columns == 0 {
		return 0
	}
	return len(f.lengths) / f.columns
}

func (f *filler) full() bool {
	return f.count() >= f.maxRows || f.count() > 0 && int64(len(f.data)) >= f.maxBytes
}

// chunk reads rows behind a cursor until there are enough, or none: done.
func (f *filler) chunk(ctx context.Context, conn *pgconn.PgConn, p *chunkPlan, after []string) (done bool, err error) {
	level := 0
	if after != nil {
		level = len(p.order)
	}
	for !f.full() {
		most := stepRows
		if f.perRow == 0 || !p.unique {
			most = firstStepRows
		}
		n := stepSize(f.maxRows-f.count(), f.maxBytes-int64(len(f.data)), f.perRow, most)
		values, types := p.params(after, level)
		got, cut, err := f.take(conn.ExecParams(ctx, p.sql(level, n), values, types, nil, nil), p.unique)
		switch {
		case err != nil:
			return false, err
		case cut:
			return false, nil
		case got >= n:
			after, level = f.cursor(p), len(p.order)
		case level <= 1:
			return true, nil
		default:
			level--
		}
	}
	return false, nil
}

// stepSize is how many rows the next statement asks for: as many as are wanted and
// as their bytes allow, going by the rows before.
func stepSize(wanted int, bytes, perRow int64, most int) int {
	if perRow > 0 {
		most = int(min(int64(most), max(bytes/perRow, 0)+1))
	}
	return max(min(wanted, most), 1)
}

// take adds the rows of a result up to the one that is too much: that one and what
// follows are cut off where that is allowed. Got counts all of them.
func (f *filler) take(result *pgconn.ResultReader, mayCut bool) (got int, cut bool, err error) {
	bytes := int64(0)
	var bad error
	for result.NextRow() {
		row := result.Values()
		size := int64(0)
		for _, v := range row {
			size += int64(len(v))
		}
		got++
		bytes += size
		switch {
		case len(row) != f.columns:
			bad = fmt.Errorf("the answer has %d columns, want %d", len(row), f.columns)
		case cut, mayCut && f.count() > 0 && int64(len(f.data))+size > f.maxBytes:
			cut = true
		default:
			f.add(row)
		}
	}
	if _, err := result.Close(); err != nil {
		return 0, false, err
	}
	if got > 0 {
		f.perRow = max(bytes/int64(got), 1)
	}
	return got, cut, bad
}

func (f *filler) add(row [][]byte) {
	f.lastRow = len(f.data)
	for _, v := range row {
		if v == nil {
			f.lengths = append(f.lengths, -1)
			continue
		}
		f.lengths = append(f.lengths, int32(len(v)))
		f.data = append(f.data, v...)
	}
}

// cursor is that of the last row, nil where there is none.
func (f *filler) cursor(p *chunkPlan) []string {
	if f.count() == 0 {
		return nil
	}
	key := p.table.rel.Key
	cursor := make([]string, len(key)+1)
	cursor[len(key)] = p.name
	at := f.lastRow
	for i, n := range f.lengths[len(f.lengths)-f.columns:] {
		if k := slices.Index(key, i); k >= 0 && n > 0 {
			cursor[k] = string(f.data[at : at+int(n)])
		}
		at += max(int(n), 0)
	}
	return cursor
}

// rows cuts the buffer into rows, which own it from here on.
func (f *filler) rows() ([][]cdc.Value, int64) {
	if f.count() == 0 {
		return nil, 0
	}
	values := make([]cdc.Value, len(f.lengths))
	at := 0
	for i, n := range f.lengths {
		if n < 0 {
			values[i].Kind = cdc.Null
			continue
		}
		end := at + int(n)
		values[i] = cdc.Value{Kind: cdc.Text, Data: f.data[at:end:end]}
		at = end
	}
	rows := make([][]cdc.Value, f.count())
	for i := range rows {
		rows[i] = values[i*f.columns : (i+1)*f.columns : (i+1)*f.columns]
	}
	f.data = nil
	return rows, int64(at)
}
