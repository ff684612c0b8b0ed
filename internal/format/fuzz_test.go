package format

import (
	"bytes"
	"encoding/json"
	"math/big"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"cdc/internal/cdc"
)

// checkJSON fails when a codec accepted text but did not write valid JSON, or
// changed what was in the buffer before.
func checkJSON(t *testing.T, enc codec, text []byte) (string, bool) {
	t.Helper()
	before := []byte("before")
	out, err := enc(before, text)
	if err != nil {
		return "", false
	}
	if !bytes.HasPrefix(out, []byte("before")) {
		t.Fatalf("%q: the buffer was overwritten: %q", text, out)
	}
	out = out[len("before"):]
	if !json.Valid(out) || !utf8.Valid(out) {
		t.Fatalf("%q: got %q, not JSON", text, out)
	}
	return string(out), true
}

func FuzzString(f *testing.F) {
	f.Add([]byte("a\"\\\n\x00\x1f\x7fä\u2028😀\ufffd"))
	f.Add([]byte("\xff\xed\xa0\x80"))
	f.Fuzz(func(t *testing.T, s []byte) {
		for _, surrogates := range []bool{false, true} {
			out, err := appendString(nil, s, surrogates)
			if (err == nil) != utf8.Valid(s) {
				t.Fatalf("%q: error %v, valid UTF-8: %v", s, err, utf8.Valid(s))
			}
			if err != nil {
				continue
			}
			var back string
			if err := json.Unmarshal(out, &back); err != nil || back != string(s) {
				t.Fatalf("%q: wrote %q, reads back as %q (%v)", s, out, back, err)
			}
		}
	})
}

// quoteArray writes an array as array_out does, every element in quotes.
func quoteArray(elems []string) string {
	var b strings.Builder
	b.WriteByte('{')
	for i, e := range elems {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(`"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(e) + `"`)
	}
	return b.String() + "}"
}

func FuzzArray(f *testing.F) {
	f.Add([]byte(`{a,"b c",NULL,{x}}`), "a,\x00b\\\"")
	f.Add([]byte(`[1:2][-1:0]={{1,2},{3,NULL}}`), "")
	f.Fuzz(func(t *testing.T, text []byte, elems string) {
		enc := arrayCodec(',', (&Format{}).text())
		checkJSON(t, enc, text)
		if !utf8.ValidString(elems) {
			return
		}
		want := strings.Split(elems, "\x00")
		out, ok := checkJSON(t, enc, []byte(quoteArray(want)))
		var got []string
		if !ok || json.Unmarshal([]byte(out), &got) != nil || strings.Join(got, "\x00") != elems || len(got) != len(want) {
			t.Fatalf("%q: wrote %s", want, out)
		}
	})
}

func FuzzComposite(f *testing.F) {
	f.Add([]byte(`(1,"a ""b"" \\",)`), "a\"b\\,()")
	f.Add([]byte(`()`), "")
	f.Fuzz(func(t *testing.T, text []byte, value string) {
		plain := &Format{}
		enc, err := plain.leanComposite([]cdc.Column{{Name: "x", Type: typeText, Mod: -1}, {Name: "y", Type: arrayOf(typeText), Mod: -1}, {Name: "z", Type: typeText, Mod: -1}}, 0)
		if err != nil {
			t.Fatal(err)
		}
		checkJSON(t, enc, text)
		if !utf8.ValidString(value) {
			return
		}
		escape := strings.NewReplacer(`"`, `""`, `\`, `\\`).Replace
		tuple := `(,"` + escape(quoteArray([]string{value})) + `","` + escape(value) + `")`
		out, ok := checkJSON(t, enc, []byte(tuple))
		var got struct {
			X *string
			Y []string
			Z string
		}
		if !ok || json.Unmarshal([]byte(out), &got) != nil || got.X != nil || got.Z != value || len(got.Y) != 1 || got.Y[0] != value {
			t.Fatalf("%q: wrote %s", tuple, out)
		}
	})
}

func FuzzHstore(f *testing.F) {
	f.Add([]byte(`"k2"=>NULL, "key 1"=>"val\"1"`), "a=>\"b\\")
	f.Add([]byte(``), "")
	f.Fuzz(func(t *testing.T, text []byte, value string) {
		for _, h := range []*hstore{{}, {debezium: true}} {
			checkJSON(t, h.append, text)
			if !utf8.ValidString(value) {
				return
			}
			q := `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(value) + `"`
			out, ok := checkJSON(t, h.append, []byte(`"k"=>`+q+`, `+`"n"=>NULL`))
			object := out
			if h.debezium && json.Unmarshal([]byte(out), &object) != nil {
				t.Fatalf("%q: wrote %s", value, out)
			}
			var got map[string]*string
			if !ok || json.Unmarshal([]byte(object), &got) != nil || len(got) != 2 || got["n"] != nil || got["k"] == nil || *got["k"] != value {
				t.Fatalf("%q: wrote %s", value, out)
			}
		}
	})
}

// The oracle of timestamps is Go's time package, which knows the same calendar.
func FuzzTimestamp(f *testing.F) {
	f.Add([]byte("2016-11-04 13:51:30.123456+02:30:15"), int64(1478267490), int64(123456))
	f.Add([]byte("0044-03-15 12:00:00 BC"), int64(-63517780800), int64(0))
	f.Add([]byte("294276-12-31 23:59:59.999999"), int64(9224318015999), int64(1))
	f.Fuzz(func(t *testing.T, text []byte, seconds, micros int64) {
		for _, enc := range []codec{appendLeanDate, appendLeanTimestamp, zonedTimestamp(shortFraction), zonedTimestamp(6), zonedTime,
			appendEpochDay, epochCodec(6), epochCodec(3), timeCodec(6), timeCodec(0)} {
			checkJSON(t, enc, text)
		}
		const first, last = -210866803200, 9223372036854 // 4714-11-24 BC to the end of 64 bits of microseconds
		if seconds < first || seconds >= last || micros < 0 || micros >= 1_000_000 {
			return
		}
		at := time.Unix(seconds, micros*1000).UTC()
		year, era := at.Year(), ""
		if year < 1 {
			year, era = 1-year, " BC"
		}
		pg := time.Date(2000, at.Month(), at.Day(), 0, 0, 0, 0, time.UTC).Format("-01-02") + at.Format(" 15:04:05.999999")
		if at.Month() == 2 && at.Day() == 29 {
			pg = "-02-29" + at.Format(" 15:04:05.999999")
		}
		pg = string(appendPadded(nil, year, 4)) + pg
		got, err := epochCodec(6)(nil, []byte(pg+era))
		if want := new(big.Int).SetInt64(at.UnixMicro()).String(); err != nil || string(got) != want {
			t.Fatalf("%s%s: got %s (%v), want %s", pg, era, got, err, want)
		}
		zoned, err := zonedTimestamp(6)(nil, []byte(pg+"-01:30"+era))
		later := at.Add(90 * time.Minute)
		want := `"` + string(appendISODate(nil, date{later.Year(), int(later.Month()), later.Day()})) + later.Format("T15:04:05.000000Z") + `"`
		if err != nil || string(zoned) != want {
			t.Fatalf("%s-01:30%s: got %s (%v), want %s", pg, era, zoned, err, want)
		}
	})
}

func FuzzInterval(f *testing.F) {
	f.Add([]byte("1 year -2 mons +3 days -04:05:06.78"), int32(14), int32(-3), int64(-14706780000))
	f.Add([]byte("-2562047788:00:54.775808"), int32(-2147483648), int32(2147483647), int64(9223372036854775807))
	f.Fuzz(func(t *testing.T, text []byte, months, days int32, micros int64) {
		checkJSON(t, appendMicroDuration, text)
		pg := intervalOut(months, days, micros)
		v, err := parseInterval([]byte(pg))
		if err != nil || v != (interval{int64(months), int64(days), micros}) {
			t.Fatalf("%s: got %+v (%v), want %d months %d days %d", pg, v, err, months, days, micros)
		}
		want := new(big.Int).Mul(big.NewInt(int64(months)), big.NewInt(microsPerMonth))
		want.Add(want, new(big.Int).Mul(big.NewInt(int64(days)), big.NewInt(microsPerDay)))
		want.Add(want, big.NewInt(micros))
		switch {
		case want.IsInt64():
		case want.Sign() < 0:
			want.SetInt64(-1 << 63)
		default:
			want.SetInt64(1<<63 - 1)
		}
		if got := v.total(); got != want.Int64() {
			t.Fatalf("%s: got %d, want %s", pg, got, want)
		}
	})
}

// intervalOut writes an interval as Postgres does under intervalstyle postgres
// (EncodeInterval in datetime.c).
func intervalOut(months, days int32, micros int64) string {
	var parts []string
	negativeBefore := false
	part := func(n int64, unit string) {
		if n == 0 {
			return
		}
		sign := ""
		if negativeBefore && n > 0 {
			sign = "+"
		}
		plural := "s"
		if n == 1 {
			plural = ""
		}
		parts = append(parts, sign+big.NewInt(n).String()+" "+unit+plural)
		negativeBefore = n < 0
	}
	part(int64(months/12), "year")
	part(int64(months%12), "mon")
	part(int64(days), "day")
	if len(parts) == 0 || micros != 0 {
		sign := ""
		if micros < 0 {
			sign = "-"
		} else if negativeBefore {
			sign = "+"
		}
		abs := new(big.Int).Abs(big.NewInt(micros))
		var us, sec, min, hour big.Int
		hour.DivMod(abs, big.NewInt(3600_000_000), &min)
		min.DivMod(&min, big.NewInt(60_000_000), &sec)
		sec.DivMod(&sec, big.NewInt(1_000_000), &us)
		clock := sign + string(appendPadded(nil, int(hour.Int64()), 2)) + ":" + string(appendPadded(nil, int(min.Int64()), 2)) + ":" + string(appendPadded(nil, int(sec.Int64()), 2))
		if us.Sign() != 0 {
			clock += "." + strings.TrimRight(string(appendPadded(nil, int(us.Int64()), 6)), "0")
		}
		parts = append(parts, clock)
	}
	return strings.Join(parts, " ")
}

// The oracle of decimals is big.Int.
func FuzzDecimal(f *testing.F) {
	f.Add([]byte("-12345678901234567890.123456789"), 9)
	f.Add([]byte("99999999999999999999999999999999999999"), 0)
	f.Add([]byte("999999999999999999999999999999999999999"), 0) // one digit more than surely fits into 127 bits
	f.Add([]byte("-170141183460469231731687303715884105728"), 0)
	f.Add([]byte("0.00"), 2)
	f.Fuzz(func(t *testing.T, text []byte, scale int) {
		for _, enc := range []codec{appendNumber, appendVariableScale, appendMoney, appendJavaDouble, appendJavaFloat, appendInteger, appendPoint} {
			checkJSON(t, enc, text)
		}
		if scale < -1000 || scale > 16383 {
			return
		}
		out, ok := checkJSON(t, decimalCodec(scale), text)
		if !ok {
			return
		}
		var raw []byte
		if err := json.Unmarshal([]byte(out), &raw); err != nil || len(raw) == 0 {
			t.Fatalf("%s: %s is not base64 (%v)", text, out, err)
		}
		if len(raw) > 1 && (raw[0] == 0 && raw[1] < 0x80 || raw[0] == 0xff && raw[1] >= 0x80) {
			t.Fatalf("%s: % x is not minimal", text, raw)
		}
		got := new(big.Int).SetBytes(raw)
		if raw[0] >= 0x80 {
			got.Sub(got, new(big.Int).Lsh(big.NewInt(1), uint(8*len(raw))))
		}
		unit := new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(max(scale, -scale))), nil))
		want, valid := new(big.Rat).SetString(string(text))
		if !valid {
			t.Fatalf("%s was accepted", text)
		}
		if scale < 0 {
			want.Quo(want, unit)
		} else {
			want.Mul(want, unit)
		}
		if !want.IsInt() || want.Num().Cmp(got) != 0 {
			t.Fatalf("%s at scale %d: got %s, want %s", text, scale, got, want)
		}
	})
}

func FuzzBytes(f *testing.F) {
	f.Add([]byte(`\x00ff`), []byte{0, 255, 1})
	f.Add([]byte("0101000020E6100000"), []byte{})
	f.Fuzz(func(t *testing.T, text, value []byte) {
		for _, enc := range []codec{appendBytea, appendBits, appendBit, appendGeometry, appendBool, vectorCodec(appendJavaFloat), appendSparseVector} {
			checkJSON(t, enc, text)
		}
		hexed := []byte(`\x`)
		var bits []byte
		for i, b := range value {
			hexed = append(hexed, "0123456789abcdef"[b>>4], "0123456789abcdef"[b&15])
			for bit := range 8 {
				bits = append(bits, '0'+value[len(value)-1-i]>>(7-bit)&1)
			}
		}
		var got []byte
		out, ok := checkJSON(t, appendBytea, hexed)
		if !ok || json.Unmarshal([]byte(out), &got) != nil || !bytes.Equal(got, value) {
			t.Fatalf("% x: wrote %s", value, out)
		}
		out, ok = checkJSON(t, appendBits, bits)
		if !ok || json.Unmarshal([]byte(out), &got) != nil || !bytes.Equal(got, bytes.TrimRight(value, "\x00")) {
			t.Fatalf("bits %s: wrote %s, want % x", bits, out, value)
		}
	})
}
