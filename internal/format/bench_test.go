package format

import (
	"testing"

	"cdc/internal/cdc"
)

// discard counts the bytes it is given.
type discard struct{ bytes int64 }

func (d *discard) Emit(r *cdc.Record) error {
	d.bytes += int64(len(r.Key) + len(r.Value))
	return nil
}

// orders is a table with the types of everyday life, structured ones included.
func orders() (*cdc.Relation, []cdc.Value) {
	r := &cdc.Relation{Namespace: "public", Name: "orders", Key: []int{0}, Columns: []cdc.Column{
		{Name: "id", Type: base(oidInt8, "int8"), Mod: -1, Identity: true, NotNull: true},
		{Name: "customer", Type: base(oidInt8, "int8"), Mod: -1},
		{Name: "state", Type: typeText, Mod: -1},
		{Name: "total", Type: typeNumeric, Mod: mod(12, 2)},
		{Name: "note", Type: typeText, Mod: -1},
		{Name: "at", Type: typeTimestamptz, Mod: -1},
		{Name: "meta", Type: base(oidJSONB, "jsonb"), Mod: -1},
		{Name: "weight", Type: typeFloat8, Mod: -1},
		{Name: "any", Type: typeNumeric, Mod: -1},
		{Name: "tags", Type: arrayOf(typeText), Mod: -1},
		{Name: "h", Type: typeHstore, Mod: -1},
		{Name: "raw", Type: typeBytea, Mod: -1},
		{Name: "place", Type: typeComposite, Mod: -1},
		{Name: "due", Type: typeDate, Mod: -1},
		{Name: "span", Type: typeInterval, Mod: -1},
		{Name: "day", Type: typeTimestamp, Mod: -1},
	}}
	return r, row("42", "1234567", "open", "1234.50",
		"eighty characters of text, as an application writes them: nothing to escape in it",
		"2026-11-22 14:00:00.123456+00", `{"a": 1, "b": [1, 2, 3]}`, "3.25", "12345678901234567890.12345",
		`{a,"b c",NULL}`, `"k"=>"v", "k2"=>NULL`, `\xdeadbeef`, `(1,"a b",1.50)`, "2026-11-22", "1 day 02:03:04", "2026-11-22 14:00:00.5")
}

func BenchmarkEncode(b *testing.B) {
	rel, all := orders()
	seven := *rel
	seven.Columns = rel.Columns[:7] // the table of the performance probe
	for _, name := range []string{JSON, DebeziumJSON} {
		for _, shape := range []struct {
			name string
			rel  *cdc.Relation
			row  []cdc.Value
		}{{"seven columns", &seven, all[:7]}, {"all types", rel, all}} {
			b.Run(name+"/"+shape.name, func(b *testing.B) {
				f, err := New(Options{Format: name, Server: "srv", Database: "db"})
				if err != nil {
					b.Fatal(err)
				}
				e, err := f.Compile(shape.rel)
				if err != nil {
					b.Fatal(err)
				}
				c := &cdc.Change{Op: cdc.OpInsert, Relation: shape.rel, Tx: testTx(), LSN: 24023128, Index: 1, New: shape.row}
				out := &discard{}
				b.ReportAllocs()
				for b.Loop() {
					c.Index++
					if err := e.Encode(c, out); err != nil {
						b.Fatal(err)
					}
				}
				b.SetBytes(out.bytes / int64(b.N))
			})
		}
	}
}

// A row costs no allocation, whatever its types and whatever happens to it.
func TestEncodeDoesNotAllocate(t *testing.T) {
	rel, values := orders()
	full := *rel
	full.Columns = append([]cdc.Column{}, rel.Columns...)
	for i := range full.Columns {
		full.Columns[i].Identity = true
	}
	other := append([]cdc.Value{}, values...)
	other[0] = row("43")[0]
	missing := append([]cdc.Value{}, values...)
	missing[4].Kind = cdc.Unchanged
	keyOnly := make([]cdc.Value, len(values))
	for i := range keyOnly {
		keyOnly[i].Kind = cdc.Null
	}
	keyOnly[0] = values[0]
	tests := []struct {
		name   string
		rel    *cdc.Relation
		change cdc.Change
	}{
		{"insert", rel, cdc.Change{Op: cdc.OpInsert, New: values}},
		{"update", rel, cdc.Change{Op: cdc.OpUpdate, New: values}},
		{"update with a value left out", rel, cdc.Change{Op: cdc.OpUpdate, New: missing}},
		{"update under full identity", &full, cdc.Change{Op: cdc.OpUpdate, Old: values, OldFull: true, New: values}},
		{"key change", &full, cdc.Change{Op: cdc.OpUpdate, Old: values, OldFull: true, New: other}},
		{"delete", rel, cdc.Change{Op: cdc.OpDelete, Old: keyOnly}},
		{"snapshot row", rel, cdc.Change{Op: cdc.OpRead, New: values, Mark: cdc.MarkTrue}},
	}
	for _, name := range []string{JSON, DebeziumJSON} {
		for _, tt := range tests {
			t.Run(name+"/"+tt.name, func(t *testing.T) {
				e, err := testFormat(t, Options{Format: name}).Compile(tt.rel)
				if err != nil {
					t.Fatal(err)
				}
				c, out := tt.change, &discard{}
				c.Tx = testTx()
				n := testing.AllocsPerRun(100, func() {
					if err := e.Encode(&c, out); err != nil {
						t.Fatal(err)
					}
				})
				if n != 0 {
					t.Errorf("got %v allocations, want none", n)
				}
			})
		}
	}
}
