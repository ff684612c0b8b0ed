package format

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"cdc/internal/cdc"
)

// capture keeps copies of the records it is given.
type capture struct{ records []cdc.Record }

func (c *capture) Emit(r *cdc.Record) error {
	kept := cdc.Record{Key: slices.Clone(r.Key), Value: slices.Clone(r.Value), Time: r.Time}
	for _, h := range r.Headers {
		kept.Headers = append(kept.Headers, cdc.Header{Key: h.Key, Value: slices.Clone(h.Value)})
	}
	c.records = append(c.records, kept)
	return nil
}

// lines shows records as key | value | headers.
func (c *capture) lines() []string {
	var lines []string
	for _, r := range c.records {
		value := "tombstone"
		if r.Value != nil {
			value = string(r.Value)
		}
		var headers []string
		for _, h := range r.Headers {
			headers = append(headers, h.Key+"="+string(h.Value))
		}
		lines = append(lines, string(r.Key)+" | "+value+" | "+strings.Join(headers, " "))
	}
	return lines
}

// clock is the wall clock of the tests: 2026-11-22T14:00:00.123456789Z.
func clock() time.Time { return time.Date(2026, 11, 22, 14, 0, 0, 123456789, time.UTC) }

func testFormat(t testing.TB, o Options) *Format {
	t.Helper()
	o.Server, o.Database, o.Now = "srv", "db", clock
	f, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// people is a table (id int primary key, name text not null, note text, n int default 5).
func people(full bool) *cdc.Relation {
	five := "5"
	r := &cdc.Relation{ID: 1, Namespace: "public", Name: "people", Identity: cdc.IdentityDefault, Key: []int{0}, Columns: []cdc.Column{
		{Name: "id", TypeOID: oidInt4, Type: typeInt4, Mod: -1, NotNull: true, Identity: true},
		{Name: "name", TypeOID: oidText, Type: typeText, Mod: -1, NotNull: true},
		{Name: "note", TypeOID: oidText, Type: typeText, Mod: -1},
		{Name: "n", TypeOID: oidInt4, Type: typeInt4, Mod: -1, Default: &five},
	}}
	if full {
		r.Identity = cdc.IdentityFull
		for i := range r.Columns {
			r.Columns[i].Identity = true
		}
	}
	return r
}

// row makes values; "\x00" is NULL, "\x01" Unchanged.
func row(texts ...string) []cdc.Value {
	values := make([]cdc.Value, len(texts))
	for i, s := range texts {
		switch s {
		case "\x00":
			values[i].Kind = cdc.Null
		case "\x01":
			values[i].Kind = cdc.Unchanged
		default:
			values[i] = cdc.Value{Kind: cdc.Text, Data: []byte(s)}
		}
	}
	return values
}

const (
	null      = "\x00"
	unchanged = "\x01"
)

func testTx() *cdc.Tx {
	return &cdc.Tx{XID: 555, Final: 0x16B374D848, PrevEnd: 24023119, CommitTime: 1559033904863123}
}

func testSource(mark, seq string) string {
	return `"source":{"version":"3.6.0.Final","connector":"postgresql","name":"srv","ts_ms":1559033904863,"snapshot":"` + mark +
		`","db":"db","sequence":"` + seq + `","ts_us":1559033904863123,"ts_ns":1559033904863123000,"schema":"public","table":"people",` +
		`"txId":555,"lsn":24023128,"xmin":null,"origin":null,"origin_lsn":null}`
}

func testEnvelope(op, before, after string) string {
	src := testSource("false", `[\"24023119\",\"24023128\"]`)
	return `{"before":` + before + `,"after":` + after + `,` + src + `,"transaction":null,"op":"` + op +
		`","ts_ms":1795356000123,"ts_us":1795356000123456,"ts_ns":1795356000123456789}`
}

func contextHeaders(f *Format) string {
	return "__debezium.context.connectorLogicalName=srv __debezium.context.taskId=0 __debezium.context.connectorName=postgresql __debezium.context.runId=" + string(f.runID)
}

func TestEncode(t *testing.T) {
	lean := func(op string) string {
		return "op=" + op + " lsn=16/B374D848 seq=3 tx=555 ts=2019-05-28T08:58:24.863123Z"
	}
	full := `{"id":1,"name":"a","note":null,"n":5}`
	tests := []struct {
		name     string
		full     bool
		toast    string
		change   cdc.Change
		json     []string
		debezium []string // CTX stands for the context headers
	}{
		{name: "insert", change: cdc.Change{Op: cdc.OpInsert, New: row("1", "a", null, "7")},
			json:     []string{`{"id":1} | {"id":1,"name":"a","note":null,"n":7} | ` + lean("c")},
			debezium: []string{`{"id":1} | ` + testEnvelope("c", "null", `{"id":1,"name":"a","note":null,"n":7}`) + ` | CTX`}},
		{name: "null in a column with a default", change: cdc.Change{Op: cdc.OpInsert, New: row("1", "a", null, null)},
			json:     []string{`{"id":1} | {"id":1,"name":"a","note":null,"n":null} | ` + lean("c")},
			debezium: []string{`{"id":1} | ` + testEnvelope("c", "null", full) + ` | CTX`}},
		{name: "update", change: cdc.Change{Op: cdc.OpUpdate, New: row("1", "a", null, "5")},
			json:     []string{`{"id":1} | ` + full + ` | ` + lean("u")},
			debezium: []string{`{"id":1} | ` + testEnvelope("u", "null", full) + ` | CTX`}},
		{name: "update of the same key with an old tuple", full: true,
			change:   cdc.Change{Op: cdc.OpUpdate, Old: row("1", "b", "x", "5"), OldFull: true, New: row("1", "a", null, "5")},
			json:     []string{`{"id":1} | ` + full + ` | ` + lean("u")},
			debezium: []string{`{"id":1} | ` + testEnvelope("u", `{"id":1,"name":"b","note":"x","n":5}`, full) + ` | CTX`}},
		{name: "key change", change: cdc.Change{Op: cdc.OpUpdate, Old: row("1", null, null, null), New: row("2", "a", null, "5")},
			json: []string{
				`{"id":1} | tombstone | ` + lean("d"),
				`{"id":2} | {"id":2,"name":"a","note":null,"n":5} | ` + lean("c")},
			debezium: []string{
				`{"id":1} | ` + testEnvelope("d", `{"id":1,"name":"","note":null,"n":5}`, "null") + ` | __debezium.newkey={"id":2} CTX`,
				`{"id":1} | tombstone | __debezium.newkey={"id":2} CTX`,
				`{"id":2} | ` + testEnvelope("c", "null", `{"id":2,"name":"a","note":null,"n":5}`) + ` | __debezium.oldkey={"id":1} CTX`}},
		{name: "delete", change: cdc.Change{Op: cdc.OpDelete, Old: row("1", null, null, null)},
			json: []string{`{"id":1} | tombstone | ` + lean("d")},
			debezium: []string{
				`{"id":1} | ` + testEnvelope("d", `{"id":1,"name":"","note":null,"n":5}`, "null") + ` | CTX`,
				`{"id":1} | tombstone | CTX`}},
		{name: "delete under full identity", full: true, change: cdc.Change{Op: cdc.OpDelete, Old: row("1", "a", null, "6"), OldFull: true},
			json: []string{`{"id":1} | tombstone | ` + lean("d")},
			debezium: []string{
				`{"id":1} | ` + testEnvelope("d", `{"id":1,"name":"a","note":null,"n":6}`, "null") + ` | CTX`,
				`{"id":1} | tombstone | CTX`}},
		{name: "unchanged value that could not be filled in", change: cdc.Change{Op: cdc.OpUpdate, New: row("1", unchanged, unchanged, "5")},
			json:     []string{`{"id":1} | {"id":1,"n":5} | ` + lean("u") + ` incomplete=["name","note"]`},
			debezium: []string{`{"id":1} | ` + testEnvelope("u", "null", `{"id":1,"n":5}`) + ` | CTX incomplete=["name","note"]`}},
		{name: "unchanged value as a placeholder", toast: "placeholder", change: cdc.Change{Op: cdc.OpUpdate, New: row("1", unchanged, null, "5")},
			json:     []string{`{"id":1} | {"id":1,"note":null,"n":5} | ` + lean("u") + ` incomplete=["name"]`},
			debezium: []string{`{"id":1} | ` + testEnvelope("u", "null", `{"id":1,"name":"__debezium_unavailable_value","note":null,"n":5}`) + ` | CTX`}},
		{name: "toasted key is taken from the old tuple", change: cdc.Change{Op: cdc.OpUpdate, Old: row("1", null, null, null), New: row(unchanged, "a", null, "5")},
			json:     []string{`{"id":1} | {"id":1,"name":"a","note":null,"n":5} | ` + lean("u")},
			debezium: []string{`{"id":1} | ` + testEnvelope("u", `{"id":1,"name":"","note":null,"n":5}`, full) + ` | CTX`}},
	}
	for _, tt := range tests {
		for _, name := range []string{JSON, DebeziumJSON} {
			t.Run(tt.name+"/"+name, func(t *testing.T) {
				f := testFormat(t, Options{Format: name, Toast: tt.toast})
				e, err := f.Compile(people(tt.full))
				if err != nil {
					t.Fatal(err)
				}
				c := tt.change
				c.Tx, c.LSN, c.Index = testTx(), 24023128, 3
				want := tt.json
				if name == DebeziumJSON {
					want = slices.Clone(tt.debezium)
					for i := range want {
						want[i] = strings.ReplaceAll(want[i], "CTX", contextHeaders(f))
					}
				}
				for range 2 { // the second time with used buffers
					out := &capture{}
					if err := e.Encode(&c, out); err != nil {
						t.Fatal(err)
					}
					if got := out.lines(); !slices.Equal(got, want) {
						t.Errorf("\n got %s\nwant %s", strings.Join(got, "\n     "), strings.Join(want, "\n     "))
					}
					for _, r := range out.records {
						if r.Time != clock().UnixMilli() {
							t.Errorf("record time %d, want the clock's %d", r.Time, clock().UnixMilli())
						}
					}
				}
			})
		}
	}
}

func TestSnapshotRow(t *testing.T) {
	marks := map[cdc.SnapshotMark]string{
		cdc.MarkTrue: "true", cdc.MarkFirst: "first", cdc.MarkLast: "last",
		cdc.MarkFirstInTable: "first_in_data_collection", cdc.MarkLastInTable: "last_in_data_collection",
	}
	for mark, text := range marks {
		f := testFormat(t, Options{Format: DebeziumJSON})
		e, err := f.Compile(people(false))
		if err != nil {
			t.Fatal(err)
		}
		out := &capture{}
		c := cdc.Change{Op: cdc.OpRead, Tx: testTx(), LSN: 24023128, Mark: mark, New: row("1", "a", null, "7")}
		if err := e.Encode(&c, out); err != nil {
			t.Fatal(err)
		}
		want := `{"before":null,"after":{"id":1,"name":"a","note":null,"n":7},` + testSource(text, `[null,\"24023128\"]`) +
			`,"transaction":null,"op":"r","ts_ms":1795356000123,"ts_us":1795356000123456,"ts_ns":1795356000123456789}`
		if got := string(out.records[0].Value); got != want {
			t.Errorf("mark %d\n got %s\nwant %s", mark, got, want)
		}
	}
	f := testFormat(t, Options{Format: JSON})
	e, err := f.Compile(people(false))
	if err != nil {
		t.Fatal(err)
	}
	out := &capture{}
	c := cdc.Change{Op: cdc.OpRead, Tx: testTx(), LSN: 0x100, Mark: cdc.MarkTrue, New: row("1", "a", null, "7")}
	if err := e.Encode(&c, out); err != nil {
		t.Fatal(err)
	}
	want := `{"id":1} | {"id":1,"name":"a","note":null,"n":7} | op=r lsn=0/100 tx=555 ts=2019-05-28T08:58:24.863123Z`
	if got := out.lines()[0]; got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
}

func TestOriginDoesNotLeak(t *testing.T) {
	f := testFormat(t, Options{Format: DebeziumJSON})
	e, err := f.Compile(people(false))
	if err != nil {
		t.Fatal(err)
	}
	tx := testTx()
	tx.Origin, tx.OriginLSN = "node_a", 43981
	for _, want := range []string{`"origin":"node_a","origin_lsn":43981}`, `"origin":null,"origin_lsn":null}`} {
		out := &capture{}
		if err := e.Encode(&cdc.Change{Op: cdc.OpInsert, Tx: tx, New: row("1", "a", null, "7")}, out); err != nil {
			t.Fatal(err)
		}
		if got := string(out.records[0].Value); !strings.Contains(got, want) {
			t.Errorf("got %s, want %s in it", got, want)
		}
		tx = testTx()
	}
}

// The headers of the lean format are those of the row's own transaction, though
// they are kept from row to row.
func TestHeadersFollowTransaction(t *testing.T) {
	e, err := testFormat(t, Options{Format: JSON}).Compile(people(false))
	if err != nil {
		t.Fatal(err)
	}
	edits := []struct {
		edit func(*cdc.Tx)
		want string
	}{
		{func(*cdc.Tx) {}, "lsn=16/B374D848 seq=0 tx=555 ts=2019-05-28T08:58:24.863123Z"},
		{func(tx *cdc.Tx) { tx.Final = 8 }, "lsn=0/8 seq=0 tx=555 ts=2019-05-28T08:58:24.863123Z"},
		{func(tx *cdc.Tx) { tx.XID = 7 }, "lsn=16/B374D848 seq=0 tx=7 ts=2019-05-28T08:58:24.863123Z"},
		{func(*cdc.Tx) {}, "lsn=16/B374D848 seq=0 tx=555 ts=2019-05-28T08:58:24.863123Z"},
		{func(tx *cdc.Tx) { tx.CommitTime = 0 }, "lsn=16/B374D848 seq=0 tx=555 ts=1970-01-01T00:00:00.000000Z"},
	}
	for i, tt := range edits {
		tx, out := testTx(), &capture{}
		tt.edit(tx)
		if err := e.Encode(&cdc.Change{Op: cdc.OpInsert, Tx: tx, New: row("1", "a", null, "7")}, out); err != nil {
			t.Fatal(err)
		}
		if got := out.lines()[0]; !strings.HasSuffix(got, "op=c "+tt.want) {
			t.Errorf("row %d\n got %s\nwant … %s", i, got, tt.want)
		}
	}
}

func TestTombstone(t *testing.T) {
	tests := []struct {
		name, format string
		change       *cdc.Change
		want         string
	}{
		{"truncate", JSON, &cdc.Change{Op: cdc.OpTruncate, Tx: testTx(), Index: 2}, `{"id":9} | tombstone | op=t lsn=16/B374D848 seq=2 tx=555 ts=2019-05-28T08:58:24.863123Z`},
		{"ghost", JSON, nil, `{"id":9} | tombstone | op=d`},
		{"truncate", DebeziumJSON, &cdc.Change{Op: cdc.OpTruncate, Tx: testTx()}, `{"id":9} | tombstone | CTX`},
		{"ghost", DebeziumJSON, nil, `{"id":9} | tombstone | CTX`},
	}
	for _, tt := range tests {
		t.Run(tt.name+"/"+tt.format, func(t *testing.T) {
			f := testFormat(t, Options{Format: tt.format})
			e, err := f.Compile(people(false))
			if err != nil {
				t.Fatal(err)
			}
			out := &capture{}
			if err := e.Tombstone([]byte(`{"id":9}`), tt.change, out); err != nil {
				t.Fatal(err)
			}
			want := strings.ReplaceAll(tt.want, "CTX", contextHeaders(f))
			if got := out.lines()[0]; got != want {
				t.Errorf("\n got %s\nwant %s", got, want)
			}
		})
	}
}

func TestEncodeMessage(t *testing.T) {
	c := cdc.Change{Op: cdc.OpMessage, Tx: testTx(), LSN: 24023128, Index: 1, Prefix: "p\"fx", Content: []byte("\x00\xff"), Transactional: true}
	src := strings.Replace(testSource("false", `[\"24023119\",\"24023128\"]`), `"public","table":"people"`, `"","table":""`, 1)
	tests := []struct {
		name, format string
		edit         func(*cdc.Change)
		want         string
	}{
		{"transactional", DebeziumJSON, func(*cdc.Change) {},
			`{"prefix":"p\"fx"} | {"op":"m","ts_ms":1795356000123,` + src + `,"transaction":null,"message":{"prefix":"p\"fx","content":"AP8="}} | `},
		{"not transactional", DebeziumJSON, func(c *cdc.Change) { c.Transactional = false },
			`{"prefix":"p\"fx"} | {"op":"m","ts_ms":1795356000123,` + strings.Replace(src, `"txId":555`, `"txId":null`, 1) + `,"transaction":null,"message":{"prefix":"p\"fx","content":"AP8="}} | `},
		{"transactional", JSON, func(*cdc.Change) {},
			`{"prefix":"p\"fx"} | {"prefix":"p\"fx","content":"AP8="} | op=m lsn=16/B374D848 seq=1 tx=555 ts=2019-05-28T08:58:24.863123Z`},
		{"without a transaction", JSON, func(c *cdc.Change) { c.Tx = nil },
			`{"prefix":"p\"fx"} | {"prefix":"p\"fx","content":"AP8="} | op=m lsn=0/16E9058`},
	}
	for _, tt := range tests {
		t.Run(tt.name+"/"+tt.format, func(t *testing.T) {
			c := c
			tt.edit(&c)
			out := &capture{}
			if err := testFormat(t, Options{Format: tt.format}).EncodeMessage(&c, out); err != nil {
				t.Fatal(err)
			}
			if got := out.lines()[0]; got != tt.want {
				t.Errorf("\n got %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestEncodeRefuses(t *testing.T) {
	tests := []struct {
		name   string
		change cdc.Change
		want   error
	}{
		{"invalid UTF-8", cdc.Change{Op: cdc.OpInsert, New: row("1", "\xff", null, "7")}, ErrInvalidUTF8},
		{"invalid UTF-8 in the new row of a key change", cdc.Change{Op: cdc.OpUpdate, Old: row("1", null, null, null), New: row("2", "\xff", null, "7")}, ErrInvalidUTF8},
		{"null key", cdc.Change{Op: cdc.OpInsert, New: row(null, "a", null, "7")}, ErrNullKey},
		{"unknown key", cdc.Change{Op: cdc.OpInsert, New: row(unchanged, "a", null, "7")}, ErrUnknownKey},
		{"too few columns", cdc.Change{Op: cdc.OpInsert, New: row("1")}, ErrTupleMismatch},
		{"delete without an old row", cdc.Change{Op: cdc.OpDelete}, ErrTupleMismatch},
	}
	for _, tt := range tests {
		for _, name := range []string{JSON, DebeziumJSON} {
			t.Run(tt.name+"/"+name, func(t *testing.T) {
				e, err := testFormat(t, Options{Format: name}).Compile(people(false))
				if err != nil {
					t.Fatal(err)
				}
				out := &capture{}
				tt.change.Tx = testTx()
				err = e.Encode(&tt.change, out)
				if !errors.Is(err, tt.want) {
					t.Errorf("got error %v, want %v", err, tt.want)
				}
				if len(out.records) > 0 {
					t.Errorf("emitted %d records of a change that fails", len(out.records))
				}
				var v *ValueError
				if errors.As(err, &v) && (v.Table != "public.people" || v.Column == "" || !strings.Contains(err.Error(), "public.people."+v.Column)) {
					t.Errorf("error %q does not name the column", err)
				}
			})
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	outside := people(false)
	outside.Columns[0].Identity, outside.Columns[1].Identity, outside.Identity = false, true, cdc.IdentityIndex
	unkeyed := people(false)
	unkeyed.Key = nil
	beyond := people(false)
	beyond.Key = []int{7}
	for name, rel := range map[string]*cdc.Relation{"key outside the identity": outside, "no key": unkeyed, "key beyond the columns": beyond} {
		if _, err := testFormat(t, Options{Format: JSON}).Compile(rel); err == nil {
			t.Errorf("%s: compiled, want an error", name)
		} else if name != "key beyond the columns" && !cdc.IsTerminal(err) {
			t.Errorf("%s: error %v is not terminal", name, err)
		}
	}
	for _, o := range []Options{{Format: "avro"}, {Format: JSON, Toast: "keep"}, {Format: JSON, Unknown: "null"}} {
		if _, err := New(o); err == nil {
			t.Errorf("New(%+v) succeeded, want an error", o)
		}
	}
}

func TestKeyOrderAndHeaderForm(t *testing.T) {
	rel := &cdc.Relation{Namespace: "public", Name: "k", Key: []int{2, 0, 1}, Columns: []cdc.Column{
		{Name: "n", Type: typeNumeric, Mod: mod(10, 8), Identity: true},
		{Name: "t", Type: typeText, Mod: -1, Identity: true},
		{Name: "q\"\\\n😀", Type: typeFloat8, Mod: -1, Identity: true},
	}}
	e, err := testFormat(t, Options{Format: DebeziumJSON}).Compile(rel)
	if err != nil {
		t.Fatal(err)
	}
	r := row("0.00000012", "a\"\\\n", "1e+22")
	key, err := e.AppendKey([]byte("x"), r)
	if want := `x{"q\"\\\n\uD83D\uDE00":1.0E22,"n":"DA==","t":"a\"\\\n"}`; err != nil || string(key) != want {
		t.Errorf("key\n got %s (%v)\nwant %s", key, err, want)
	}
	label, err := e.appendKey(nil, r, nil, true)
	// As Kafka Connect's SimpleHeaderConverter printed it.
	if want := "{\"q\\\"\\\\\n😀\":1.0E22,\"n\":1.2E-7,\"t\":\"a\\\"\\\\\n\"}"; err != nil || string(label) != want {
		t.Errorf("header\n got %s (%v)\nwant %s", label, err, want)
	}
}

func TestConnectDecimal(t *testing.T) { // BigDecimal.toString
	tests := []struct {
		scale      int
		text, want string
	}{
		{2, "1.10", "1.10"}, {2, "-0.05", "-0.05"}, {0, "100", "100"}, {8, "0.00000012", "1.2E-7"},
		{7, "0.0000001", "1E-7"}, {6, "0.000001", "0.000001"}, {-3, "12000", "1.2E+4"}, {10, "0.0000000000", "0E-10"}, {2, "0.00", "0.00"},
	}
	for _, tt := range tests {
		got, err := connectDecimal(tt.scale)(nil, []byte(tt.text))
		if err != nil || string(got) != tt.want {
			t.Errorf("scale %d of %s: got %s (%v), want %s", tt.scale, tt.text, got, err, tt.want)
		}
	}
}

// What Debezium makes of defaults and NOT NULL where a value is not there.
func TestFallbacks(t *testing.T) {
	text := func(s string) *string { return &s }
	tests := []struct {
		name          string
		col           cdc.Column
		null, missing string
	}{
		{"nullable", cdc.Column{Type: typeInt4}, "null", "null"},
		{"not null", cdc.Column{Type: typeInt4, NotNull: true}, "null", "0"},
		{"constant", cdc.Column{Type: typeInt4, Default: text("5")}, "5", "5"},
		{"constant numeric", cdc.Column{Type: typeNumeric, Mod: mod(5, 2), Default: text("1.10")}, `"bg=="`, `"bg=="`},
		{"a struct is no default", cdc.Column{Type: typeNumeric, Mod: -1, Default: text("1"), NotNull: true}, "null", `{"scale":0,"value":"AA=="}`},
		{"bpchar is not padded", cdc.Column{Type: base(oidBpchar, "bpchar"), Mod: 9, Default: text("ab   ")}, `"ab"`, `"ab"`},
		{"enum", cdc.Column{Type: typeEnum, Default: text("red")}, `"red"`, `"red"`},
		{"bytea has none", cdc.Column{Type: typeBytea, Default: text(`\x01`)}, "null", "null"},
		{"array has none", cdc.Column{Type: arrayOf(typeInt4), Default: text(`{1}`), NotNull: true}, "null", "[]"},
		{"domain has none", cdc.Column{Type: domainOver(typeInt4, -1), Mod: -1, Default: text("5")}, "null", "null"},
		{"default that cannot be said", cdc.Column{Type: typeNumeric, Mod: mod(5, 2), Default: text("NaN")}, "null", "null"},
		{"expression", cdc.Column{Type: typeTimestamptz, Mod: -1, DefaultExpr: true}, "null", `"1970-01-01T00:00:00.000000Z"`},
		{"expression, not null", cdc.Column{Type: base(oidUUID, "uuid"), DefaultExpr: true, NotNull: true}, "null", `"00000000-0000-0000-0000-000000000000"`},
		{"timestamptz not null", cdc.Column{Type: typeTimestamptz, Mod: -1, NotNull: true}, "null", `"1970-01-01T00:00:00Z"`},
		{"timetz not null", cdc.Column{Type: typeTimetz, Mod: -1, NotNull: true}, "null", `"00:00:00Z"`},
		{"point not null", cdc.Column{Type: typePoint, NotNull: true}, "null", `{"x":0.0,"y":0.0,"wkb":"AQEAAAAAAAAAAAAAAAAAAAAAAAAA","srid":null}`},
		{"hstore not null", cdc.Column{Type: typeHstore, NotNull: true}, "null", `"{}"`},
		{"bits not null", cdc.Column{Type: typeBit, Mod: 1, NotNull: true}, "null", "false"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var c column
			if err := testFormat(t, Options{Format: DebeziumJSON}).compileColumn(&c, &tt.col); err != nil {
				t.Fatal(err)
			}
			if string(c.null) != tt.null || string(c.missing) != tt.missing {
				t.Errorf("got NULL %s, missing %s; want %s, %s", c.null, c.missing, tt.null, tt.missing)
			}
		})
	}
}

func TestPlaceholders(t *testing.T) {
	bytesOf := func(s string) string {
		var n []string
		for _, b := range []byte(s) {
			n = append(n, fmt.Sprint(b))
		}
		return "[" + strings.Join(n, ",") + "]"
	}
	tests := []struct {
		typ  *cdc.Type
		want string
	}{
		{typeText, `"__debezium_unavailable_value"`},
		{typeBytea, `"X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ=="`},
		{typeHstore, `"__debezium_unavailable_value"`},
		{arrayOf(typeText), `["__debezium_unavailable_value"]`},
		{arrayOf(base(oidInt8, "int8")), bytesOf("__debezium_unavailable_value")},
		{arrayOf(typeBytea), `["X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ=="]`},
	}
	for _, tt := range tests {
		if got := string(placeholder(resolve(tt.typ, -1))); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.typ.Name, got, tt.want)
		}
	}
}
