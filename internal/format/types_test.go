package format

import (
	"errors"
	"testing"

	"cdc/internal/cdc"
)

func base(oid uint32, name string) *cdc.Type {
	return &cdc.Type{OID: oid, Namespace: "pg_catalog", Name: name, Mod: -1, Delim: ','}
}

func arrayOf(elem *cdc.Type) *cdc.Type {
	return &cdc.Type{OID: 99999, Name: "_" + elem.Name, Kind: cdc.KindArray, Elem: elem, Mod: -1, Delim: ','}
}

func domainOver(t *cdc.Type, mod int32) *cdc.Type {
	return &cdc.Type{OID: 88888, Name: "d_" + t.Name, Kind: cdc.KindDomain, Elem: t, Mod: mod}
}

var (
	typeInt4        = base(oidInt4, "int4")
	typeText        = base(oidText, "text")
	typeNumeric     = base(oidNumeric, "numeric")
	typeFloat4      = base(oidFloat4, "float4")
	typeFloat8      = base(oidFloat8, "float8")
	typeMoney       = base(oidMoney, "money")
	typeBit         = base(oidBit, "bit")
	typeVarbit      = base(oidVarbit, "varbit")
	typeDate        = base(oidDate, "date")
	typeTime        = base(oidTime, "time")
	typeTimetz      = base(oidTimetz, "timetz")
	typeTimestamp   = base(oidTimestamp, "timestamp")
	typeTimestamptz = base(oidTimestamptz, "timestamptz")
	typeInterval    = base(oidInterval, "interval")
	typeBytea       = base(oidBytea, "bytea")
	typeJSON        = base(oidJSON, "json")
	typePoint       = base(oidPoint, "point")
	typeHstore      = base(70001, "hstore")
	typeEnum        = &cdc.Type{OID: 70002, Name: "colour", Kind: cdc.KindEnum, Mod: -1, Delim: ','}
	typeComposite   = &cdc.Type{OID: 70003, Name: "point3", Kind: cdc.KindComposite, Mod: -1, Delim: ',', Fields: []cdc.Column{
		{Name: "x", Type: typeInt4, Mod: -1}, {Name: "y", Type: typeText, Mod: -1}, {Name: "z", Type: typeNumeric, Mod: mod(5, 2)},
	}}
)

func mod(precision, scale int32) int32 { return precision<<16 | scale&0x7ff + 4 }

// encodeValue writes one value of a type; an empty Unknown is "text".
func encodeValue(t testing.TB, format, unknown string, typ *cdc.Type, mod int32, text string) (string, error) {
	t.Helper()
	f, err := New(Options{Format: format, Server: "srv", Unknown: unknown})
	if err != nil {
		t.Fatal(err)
	}
	enc, err := f.columnCodec(&cdc.Column{Name: "c", Type: typ, TypeOID: typ.OID, Mod: mod})
	if err != nil {
		t.Fatal(err)
	}
	if enc == nil {
		return "(left out)", nil
	}
	out, err := enc(nil, []byte(text))
	return string(out), err
}

func TestValues(t *testing.T) {
	const variable = -1
	tests := []struct {
		name     string
		typ      *cdc.Type
		mod      int32
		text     string
		lean     string // "" like debezium
		debezium string
	}{
		{"bool true", base(oidBool, "bool"), -1, "t", "", "true"},
		{"bool false", base(oidBool, "bool"), -1, "f", "", "false"},
		{"int8 least", base(oidInt8, "int8"), -1, "-9223372036854775808", "", "-9223372036854775808"},
		{"oid beyond int4", base(oidOID, "oid"), -1, "4294967295", "", "4294967295"},

		{"float8", typeFloat8, -1, "4.44", "", "4.44"},
		{"float8 integral", typeFloat8, -1, "1", "1", "1.0"},
		{"float8 1e10", typeFloat8, -1, "10000000000", "10000000000", "1.0E10"},
		{"float8 1e-4", typeFloat8, -1, "0.0001", "0.0001", "1.0E-4"},
		{"float8 1e-3 is plain", typeFloat8, -1, "0.001", "0.001", "0.001"},
		{"float8 1e7", typeFloat8, -1, "10000000", "10000000", "1.0E7"},
		{"float8 below 1e7", typeFloat8, -1, "9999999.5", "9999999.5", "9999999.5"},
		{"float8 exponent", typeFloat8, -1, "1e+100", "1e+100", "1.0E100"},
		{"float8 -0", typeFloat8, -1, "-0", "-0", "-0.0"},
		{"float8 largest", typeFloat8, -1, "1.7976931348623157e+308", "1.7976931348623157e+308", "1.7976931348623157E308"},
		{"float8 smallest has two digits in Java", typeFloat8, -1, "5e-324", "5e-324", "4.9E-324"},
		{"float8 subnormal", typeFloat8, -1, "1e-320", "1e-320", "1.0E-320"},
		{"float8 2e23", typeFloat8, -1, "2e+23", "2e+23", "2.0E23"},
		{"float8 NaN", typeFloat8, -1, "NaN", "", `"NaN"`},
		{"float8 -Infinity", typeFloat8, -1, "-Infinity", "", `"-Infinity"`},
		{"float4", typeFloat4, -1, "3.3", "", "3.3"},
		{"float4 2^24", typeFloat4, -1, "1.6777216e+07", "1.6777216e+07", "1.6777216E7"},
		{"float4 largest", typeFloat4, -1, "3.4028235e+38", "3.4028235e+38", "3.4028235E38"},
		{"float4 smallest", typeFloat4, -1, "1e-45", "1e-45", "1.4E-45"},

		{"numeric variable", typeNumeric, variable, "10.1111", "10.1111", `{"scale":4,"value":"AYr3"}`},
		{"numeric zero", typeNumeric, variable, "0", "0", `{"scale":0,"value":"AA=="}`},
		{"numeric trailing zeros", typeNumeric, variable, "1.50", "1.50", `{"scale":1,"value":"Dw=="}`},
		{"numeric whole zeros stay", typeNumeric, variable, "100", "100", `{"scale":0,"value":"ZA=="}`},
		{"numeric 29 digits", typeNumeric, variable, "12345678901234567890.123456789", "12345678901234567890.123456789", `{"scale":9,"value":"J+QbMka+ybFuOYEV"}`},
		{"numeric negative", typeNumeric, variable, "-12345678901234567890", "-12345678901234567890", `{"scale":0,"value":"/1SrVnMU4PUu"}`},
		{"numeric(3,2)", typeNumeric, mod(3, 2), "1.10", "1.10", `"bg=="`},
		{"numeric(3,2) 128", typeNumeric, mod(3, 2), "1.28", "1.28", `"AIA="`},
		{"numeric(3,2) -128", typeNumeric, mod(3, 2), "-1.28", "-1.28", `"gA=="`},
		{"numeric(3,2) -129", typeNumeric, mod(3, 2), "-1.29", "-1.29", `"/38="`},
		{"numeric(10,0) 255", typeNumeric, mod(10, 0), "255", "255", `"AP8="`},
		{"numeric(38,10)", typeNumeric, mod(38, 10), "9999999999999999999999999999.9999999999", "9999999999999999999999999999.9999999999", `"SztMqFqGxHoJiiI//////w=="`},
		{"numeric(38,10) -1", typeNumeric, mod(38, 10), "-0.0000000001", "-0.0000000001", `"/w=="`},
		{"numeric negative scale", typeNumeric, mod(2, -3), "12000", "12000", `"DA=="`},
		{"money", typeMoney, -1, "$1,234.11", `"$1,234.11"`, `"AeIT"`},
		{"money negative", typeMoney, -1, "-$1,234.11", `"-$1,234.11"`, `"/h3t"`},
		{"money largest", typeMoney, -1, "$92,233,720,368,547,758.07", `"$92,233,720,368,547,758.07"`, `"f/////////8="`},

		{"bit(1)", typeBit, 1, "1", `"1"`, "true"},
		{"bit(2)", typeBit, 2, "11", `"11"`, `"Aw=="`},
		{"bit(2) zero", typeBit, 2, "00", `"00"`, `""`},
		{"bit(24)", typeBit, 24, "000000110000001000000001", `"000000110000001000000001"`, `"AQID"`},
		{"bit(24) highest", typeBit, 24, "100000000000000000000000", `"100000000000000000000000"`, `"AACA"`},
		{"varbit", typeVarbit, -1, "101", `"101"`, `"BQ=="`},
		{"varbit empty", typeVarbit, -1, "", `""`, `""`},
		{"varbit(10)", typeVarbit, 10, "1111111111", `"1111111111"`, `"/wM="`},

		{"text", typeText, -1, "plain", "", `"plain"`},
		{"text escapes", typeText, -1, "q\" b\\ s/ \t\n\r\b\f\x01\x1f\x7f<&>", "", `"q\" b\\ s/ \t\n\r\b\f\u0001\u001F` + "\x7f" + `<&>"`},
		{"text separators stay raw", typeText, -1, "\u2028\u2029ä日", "", "\"\u2028\u2029ä日\""},
		{"text beyond the basic plane", typeText, -1, "a😀b", `"a😀b"`, `"a\uD83D\uDE00b"`},
		{"name", base(oidName, "name"), -1, "nm", "", `"nm"`},
		{"enum", typeEnum, -1, "very happy", "", `"very happy"`},
		{"uuid", base(oidUUID, "uuid"), -1, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "", `"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"`},
		{"json verbatim", typeJSON, -1, `{"a" : 1,  "a":[1,2]}`, `{"a" : 1,  "a":[1,2]}`, `"{\"a\" : 1,  \"a\":[1,2]}"`},
		{"bytea", typeBytea, -1, `\x010203`, "", `"AQID"`},
		{"bytea empty", typeBytea, -1, `\x`, "", `""`},
		{"domain", domainOver(domainOver(typeNumeric, mod(5, 2)), -1), -1, "1.50", "1.50", `"AJY="`},
		{"domain over enum", domainOver(typeEnum, -1), -1, "red", "", `"red"`},

		{"date", typeDate, -1, "2016-11-04", `"2016-11-04"`, "17109"},
		{"date infinity", typeDate, -1, "infinity", `"infinity"`, "-2147472692"},
		{"date -infinity", typeDate, -1, "-infinity", `"-infinity"`, "-2147472691"},
		{"date BC", typeDate, -1, "0044-03-15 BC", `"-0043-03-15"`, "-735160"},
		{"date first", typeDate, -1, "4714-11-24 BC", `"-4713-11-24"`, "-2440588"},
		{"date last", typeDate, -1, "5874897-12-31", `"+5874897-12-31"`, "2145042905"},
		{"date 1 BC is year 0", typeDate, -1, "0001-02-29 BC", `"0000-02-29"`, "-719469"},
		{"time", typeTime, -1, "13:51:30.123789", `"13:51:30.123789"`, "49890123789"},
		{"time(3)", typeTime, 3, "13:51:30.123", `"13:51:30.123"`, "49890123"},
		{"time 24", typeTime, -1, "24:00:00", `"24:00:00"`, "86400000000"},
		{"timetz", typeTimetz, -1, "13:51:30.123789+02", `"13:51:30.123789+02"`, `"11:51:30.123789Z"`},
		{"timetz minutes", typeTimetz, -1, "13:51:30.1+05:30", `"13:51:30.1+05:30"`, `"08:21:30.1Z"`},
		{"timetz wraps", typeTimetz, -1, "23:59:59.999999-12", `"23:59:59.999999-12"`, `"11:59:59.999999Z"`},
		{"timetz zone seconds", typeTimetz, -1, "12:00:00+15:59:59", `"12:00:00+15:59:59"`, `"20:00:01Z"`},
		{"timestamp", typeTimestamp, -1, "2016-11-04 13:51:30.123456", `"2016-11-04T13:51:30.123456"`, "1478267490123456"},
		{"timestamp(3)", typeTimestamp, 3, "1969-12-31 23:59:59.999", `"1969-12-31T23:59:59.999"`, "-1"},
		{"timestamp before the epoch", typeTimestamp, -1, "1969-12-31 23:59:59.999999", `"1969-12-31T23:59:59.999999"`, "-1"},
		{"timestamp BC", typeTimestamp, -1, "0044-03-15 12:00:00 BC", `"-0043-03-15T12:00:00"`, "-63517780800000000"},
		{"timestamp(3) last", typeTimestamp, 3, "294276-12-31 23:59:59.999", `"+294276-12-31T23:59:59.999"`, "9224318015999999"},
		{"timestamp last in 64 bits", typeTimestamp, -1, "294247-01-10 04:00:54.775807", `"+294247-01-10T04:00:54.775807"`, "9223372036854775807"},
		{"timestamp first", typeTimestamp, -1, "4714-11-24 00:00:00 BC", `"-4713-11-24T00:00:00"`, "-210866803200000000"},
		{"timestamp infinity", typeTimestamp, -1, "infinity", `"infinity"`, "9223372036825200000"},
		{"timestamp -infinity", typeTimestamp, -1, "-infinity", `"-infinity"`, "-9223372036832400000"},
		{"timestamptz", typeTimestamptz, -1, "2016-11-04 11:51:30.123456+00", `"2016-11-04T11:51:30.123456Z"`, `"2016-11-04T11:51:30.123456Z"`},
		{"timestamptz pads", typeTimestamptz, -1, "21016-11-04 12:00:00.5+00", `"+21016-11-04T12:00:00.5Z"`, `"+21016-11-04T12:00:00.500000Z"`},
		{"timestamptz(0)", typeTimestamptz, 0, "0044-03-15 12:00:00+00 BC", `"-0043-03-15T12:00:00Z"`, `"-0043-03-15T12:00:00Z"`},
		{"timestamptz of another zone", typeTimestamptz, 3, "2016-11-04 23:51:30.123-02", `"2016-11-05T01:51:30.123Z"`, `"2016-11-05T01:51:30.123Z"`},
		{"timestamptz infinity", typeTimestamptz, -1, "infinity", `"infinity"`, `"infinity"`},
		{"interval", typeInterval, -1, "1 year 2 mons 3 days 04:05:06.78", `"1 year 2 mons 3 days 04:05:06.78"`, "37091106780000"},
		{"interval mixed signs", typeInterval, -1, "-1 years -2 mons +3 days -04:05:06", `"-1 years -2 mons +3 days -04:05:06"`, "-36572706000000"},
		{"interval zero", typeInterval, -1, "00:00:00", `"00:00:00"`, "0"},
		{"interval saturates", typeInterval, -1, "-178000000 years", `"-178000000 years"`, "-9223372036854775808"},
		{"interval infinity of PostgreSQL 17", typeInterval, -1, "infinity", `"infinity"`, "9223372036854775807"},
		{"interval month", typeInterval, -1, "1 mon", `"1 mon"`, "2629800000000"},
		{"interval day less a second", typeInterval, -1, "1 day -00:00:01", `"1 day -00:00:01"`, "86399000000"},

		{"int array", arrayOf(typeInt4), -1, "{1,2,NULL}", "", "[1,2,null]"},
		{"array empty", arrayOf(typeInt4), -1, "{}", "", "[]"},
		{"array bounds", arrayOf(typeInt4), -1, "[5:7]={1,2,3}", "", "[1,2,3]"},
		{"array negative bounds", arrayOf(typeInt4), -1, "[-2:-1][3:4]={{1,2},{3,4}}", "", "[[1,2],[3,4]]"},
		{"array of three dimensions", arrayOf(typeInt4), -1, "{{{1},{2}},{{3},{NULL}}}", "", "[[[1],[2]],[[3],[null]]]"},
		{"text array", arrayOf(typeText), -1, `{a,"b c",NULL,"quo\"te","NULL","","a\\b","{,}"}`, "", `["a","b c",null,"quo\"te","NULL","","a\\b","{,}"]`},
		{"numeric array", arrayOf(typeNumeric), mod(5, 2), "{1.10,2.25}", "[1.10,2.25]", `["bg==","AOE="]`},
		{"float array", arrayOf(typeFloat8), -1, "{1.5,NaN}", "", `[1.5,"NaN"]`},
		{"timestamp array", arrayOf(typeTimestamp), -1, `{"2016-11-04 13:51:30.123456"}`, `["2016-11-04T13:51:30.123456"]`, "[1478267490123456]"},
		{"json array", arrayOf(typeJSON), -1, `{"{\"a\": 1}"}`, `[{"a": 1}]`, `["{\"a\": 1}"]`},
		{"bytea array", arrayOf(typeBytea), -1, `{"\\x0102"}`, "", `["AQI="]`},
		{"enum array", arrayOf(typeEnum), -1, `{red,"very happy",NULL}`, "", `["red","very happy",null]`},
		{"domain over array", domainOver(arrayOf(typeInt4), -1), -1, "{1,2}", "", "[1,2]"},

		{"hstore", typeHstore, -1, `"k2"=>NULL, "key 1"=>"val\"1"`, `{"k2":null,"key 1":"val\"1"}`, `"{\"key 1\":\"val\\\"1\",\"k2\":null}"`},
		{"hstore empty", typeHstore, -1, "", "{}", `"{}"`},
		{"citext", base(70004, "citext"), -1, "CiText", "", `"CiText"`},
		{"ltree", base(70005, "ltree"), -1, "a.b", "", `"a.b"`},
		{"geometry", base(70006, "geometry"), -1, "0101000020E6100000000000000000F03F0000000000000040", `"0101000020E6100000000000000000F03F0000000000000040"`, `{"wkb":"AQEAACDmEAAAAAAAAAAA8D8AAAAAAAAAQA==","srid":4326}`},
		{"geometry without srid", base(70006, "geometry"), -1, "0101000000000000000000F03F0000000000000040", `"0101000000000000000000F03F0000000000000040"`, `{"wkb":"AQEAAAAAAAAAAADwPwAAAAAAAABA","srid":null}`},
		{"vector", base(70007, "vector"), -1, "[1,2.5]", `"[1,2.5]"`, "[1.0,2.5]"},
		{"sparsevec", base(70008, "sparsevec"), -1, "{1:1.5,3:2}/5", `"{1:1.5,3:2}/5"`, `{"dimensions":5,"vector":[[1,1.5],[3,2.0]]}`},
		{"sparsevec empty", base(70008, "sparsevec"), -1, "{}/5", `"{}/5"`, `{"dimensions":5,"vector":[]}`},
		{"point", typePoint, -1, "(1,2)", `"(1,2)"`, `{"x":1.0,"y":2.0,"wkb":"AQEAAAAAAAAAAADwPwAAAAAAAABA","srid":null}`},
		{"point exponent", typePoint, -1, "(-1.5,10000000000)", `"(-1.5,10000000000)"`, `{"x":-1.5,"y":1.0E10,"wkb":"AQEAAAAAAAAAAAD4vwAAACBfoAJC","srid":null}`},
		{"range", base(oidInt4Range, "int4range"), -1, "[1,10)", "", `"[1,10)"`},
		{"tstzrange", base(oidTstzRange, "tstzrange"), -1, `["2016-01-01 00:00:00+00",)`, "", `"[\"2016-01-01 00:00:00+00\",)"`},
		{"composite", typeComposite, -1, `(1,"a ""b"" \\ (c),",1.50)`, `{"x":1,"y":"a \"b\" \\ (c),","z":1.50}`, `"(1,\"a \"\"b\"\" \\\\ (c),\",1.50)"`},
		{"composite nulls", typeComposite, -1, `(,"",)`, `{"x":null,"y":"","z":null}`, `"(,\"\",)"`},
		{"composite of a newer version", typeComposite, -1, `(1,a,1.50,more)`, `"(1,a,1.50,more)"`, `"(1,a,1.50,more)"`},
		{"composite array", arrayOf(typeComposite), -1, `{"(1,\"a b\",1.50)",NULL}`, `[{"x":1,"y":"a b","z":1.50},null]`, `"{\"(1,\\\"a b\\\",1.50)\",NULL}"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			lean := tt.lean
			if lean == "" {
				lean = tt.debezium
			}
			for _, w := range []struct{ format, want string }{{JSON, lean}, {DebeziumJSON, tt.debezium}} {
				got, err := encodeValue(t, w.format, "", tt.typ, tt.mod, tt.text)
				if err != nil || got != w.want {
					t.Errorf("%s of %q\n got %s (%v)\nwant %s", w.format, tt.text, got, err, w.want)
				}
			}
		})
	}
}

func TestMalformedValues(t *testing.T) {
	tests := []struct {
		name   string
		typ    *cdc.Type
		format string
		text   string
		want   error
	}{
		{"bool", base(oidBool, "bool"), JSON, "true", ErrMalformed},
		{"integer", typeInt4, JSON, "1 ", ErrMalformed},
		{"integer empty", typeInt4, JSON, "", ErrMalformed},
		{"integer octal", typeInt4, JSON, "01", ErrMalformed},
		{"float", typeFloat8, JSON, "1,5", ErrMalformed},
		{"float nan", typeFloat8, DebeziumJSON, "nan", ErrMalformed},
		{"float4 beyond", typeFloat4, DebeziumJSON, "1e39", ErrOutOfRange},
		{"numeric NaN has no decimal", typeNumeric, DebeziumJSON, "NaN", ErrNotSayable},
		{"numeric Infinity has no decimal", typeNumeric, DebeziumJSON, "-Infinity", ErrNotSayable},
		{"utf-8", typeText, JSON, "a\xffb", ErrInvalidUTF8},
		{"utf-8 surrogate", typeText, DebeziumJSON, "\xed\xa0\x80", ErrInvalidUTF8},
		{"utf-8 in json", typeJSON, JSON, "\"\xff\"", ErrInvalidUTF8},
		{"bytea escape format", typeBytea, JSON, `\000a`, ErrMalformed},
		{"bytea odd", typeBytea, JSON, `\x012`, ErrMalformed},
		{"date of another style", typeDate, JSON, "04/11/2016", ErrMalformed},
		{"timestamp trailing", typeTimestamp, JSON, "2016-11-04 13:51:30 x", ErrMalformed},
		{"timestamp beyond 64 bits", typeTimestamp, DebeziumJSON, "294247-01-10 04:00:54.775808", ErrOutOfRange},
		{"timestamptz without zone", typeTimestamptz, JSON, "2016-11-04 13:51:30", ErrMalformed},
		{"interval iso", typeInterval, DebeziumJSON, "P1Y", ErrMalformed},
		{"interval verbose", typeInterval, DebeziumJSON, "@ 1 year", ErrMalformed},
		{"array unclosed", arrayOf(typeInt4), JSON, "{1,2", ErrMalformed},
		{"array trailing", arrayOf(typeInt4), JSON, "{1}}", ErrMalformed},
		{"array empty element", arrayOf(typeInt4), JSON, "{1,,2}", ErrMalformed},
		{"array trailing comma", arrayOf(typeInt4), JSON, "{1,}", ErrMalformed},
		{"array too deep", arrayOf(typeInt4), JSON, "{{{{{{{1}}}}}}}", ErrMalformed},
		{"composite unclosed", typeComposite, JSON, `(1,"a`, ErrMalformed},
		{"hstore", typeHstore, JSON, `"a"=>`, ErrMalformed},
		{"money of another locale", typeMoney, DebeziumJSON, "1.234,11 €", ErrMalformed},
		{"point", typePoint, DebeziumJSON, "(1)", ErrMalformed},
		{"bits", typeVarbit, DebeziumJSON, "012", ErrMalformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := encodeValue(t, tt.format, "", tt.typ, -1, tt.text)
			if !errors.Is(err, tt.want) {
				t.Errorf("%q: got %q, error %v, want %v", tt.text, got, err, tt.want)
			}
		})
	}
}
