package sqlcheck

import (
	"slices"
	"strings"
)

// The reasons, as they stand behind a name.
const (
	reasonClock    = "tells the clock, and a replay runs at another time: take the event's own time (:at) or a field of its data"
	reasonRandom   = "gives something else each time, and a replay must give the same: take it from the event (:id, or a field of its data)"
	reasonSequence = "takes from a sequence, which a replay does not turn back: take a number of the event (:pos, :version)"
	reasonSession  = "tells who or what is connected, and a replay may be somebody else: take it from the event (:meta)"
	reasonServer   = "tells something about the server or its catalogue, which is not the same where the events are applied again"
	reasonConfig   = "depends on a setting of the server: name the text search configuration, as in to_tsvector('english', …)"
	reasonVolatile = "is volatile: it may give something else each time, and a replay must give the same"
	reasonSetting  = "depends on settings or on the catalogue, and need not be the same where the events are applied again"
	reasonUser     = "is declared volatile, which is the default: if it depends on its arguments alone, mark it immutable (alter function … immutable)"
	reasonReads    = "is declared stable, so it may read tables, which are not the same in a replay: if it depends on its arguments alone, mark it immutable (alter function … immutable)"
)

// judgeFunction is why a function is refused; "" where it is not. Volatility is
// pg_proc.provolatile.
func judgeFunction(name, schema, volatility string) string {
	switch {
	case volatility == "i":
		return ""
	case schema != "pg_catalog" && volatility == "s":
		return reasonReads
	case schema != "pg_catalog":
		return reasonUser
	case volatility == "s" && stableAllowed(name):
		return ""
	}
	if reason := reasonFor(name); volatility != "s" || reason != reasonVolatile {
		return reason
	}
	return reasonSetting
}

// reasonFor is why a function of PostgreSQL that is not allowed is refused.
func reasonFor(name string) string {
	for _, known := range []struct {
		reason string
		names  []string
	}{
		{reasonClock, []string{"now", "clock_timestamp", "statement_timestamp", "transaction_timestamp", "timeofday", "age",
			"current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"}},
		{reasonRandom, []string{"random", "random_normal", "gen_random_uuid", "uuidv4", "uuidv7", "array_sample", "array_shuffle", "setseed"}},
		{reasonSequence, []string{"nextval", "currval", "lastval", "setval"}},
		{reasonSession, []string{"current_user", "current_role", "user", "session_user", "getpgusername", "current_setting", "set_config", "inet_client_addr", "inet_client_port", "pg_backend_pid", "current_query"}},
		{reasonConfig, []string{"to_tsvector", "to_tsquery", "plainto_tsquery", "phraseto_tsquery", "websearch_to_tsquery", "json_to_tsvector", "jsonb_to_tsvector", "ts_headline", "ts_match_tt", "ts_match_tq"}},
		{reasonServer, []string{"version", "current_catalog", "current_database", "current_schema", "current_schemas", "inet_server_addr", "inet_server_port"}},
	} {
		if slices.Contains(known.names, name) {
			return known.reason
		}
	}
	for _, prefix := range []string{"pg_", "txid_", "has_", "to_reg", "reg", "inet_"} {
		if strings.HasPrefix(name, prefix) {
			return reasonServer
		}
	}
	return reasonVolatile
}

// Stable functions of PostgreSQL are allowed by name: those that depend on nothing
// but their arguments and settings that every caller pins. One that a later version
// adds is refused until somebody has looked at it. (Read in pg_proc of 14 to 18.)
var (
	stableNames = []string{
		"anytextcat", "textanycat", "array_in", "array_out", "array_to_json", "array_to_string",
		"concat", "concat_ws", "format", "quote_literal", "quote_nullable",
		"convert", "convert_from", "convert_to", "length", // of bytes in a named encoding
		"date", "date_add", "date_in", "date_out", "date_part", "date_subtract", "date_trunc", "extract", "generate_series",
		"in_range", "interval_in", "interval_out", "interval_pl_timestamptz", "make_timestamptz", "overlaps",
		"time", "time_in", "time_out", "timestamp", "timestamp_in", "timestamp_out", "timestamptz", "timestamptz_in", "timestamptz_out",
		"timestamptz_mi_interval", "timestamptz_pl_interval", "timetz", "timetz_in", "timetz_out", "timezone",
		"domain_in", "enum_first", "enum_in", "enum_last", "enum_out", "enum_range",
		"multirange_in", "multirange_out", "range_in", "range_out", "record_in", "record_out",
		"pg_typeof", "row_to_json", "to_char", "to_date", "to_json", "to_jsonb", "to_number", "to_timestamp",
		"xml", "xml_in",
	}
	// json_agg, jsonb_build_object, … ; comparisons of times of different types.
	stablePrefixes = []string{"json_", "jsonb_", "date_cmp_", "date_eq_", "date_ge_", "date_gt_", "date_le_", "date_lt_", "date_ne_",
		"timestamp_cmp_", "timestamp_eq_", "timestamp_ge_", "timestamp_gt_", "timestamp_le_", "timestamp_lt_", "timestamp_ne_",
		"timestamptz_cmp_", "timestamptz_eq_", "timestamptz_ge_", "timestamptz_gt_", "timestamptz_le_", "timestamptz_lt_", "timestamptz_ne_"}
)

func stableAllowed(name string) bool {
	if name == "json_to_tsvector" || name == "jsonb_to_tsvector" {
		return false // the variant without a configuration
	}
	return slices.Contains(stableNames, name) ||
		slices.ContainsFunc(stablePrefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}
