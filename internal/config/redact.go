package config

import (
	"encoding/json"
	"log/slog"
	"strconv"
)

// hidden stands where a secret was.
const hidden = "***"

// A section with a secret answers every way Go has of printing a value, so that
// neither a log line nor a %+v of the whole Config shows it.

func (p Postgres) String() string       { return p.Redacted() }
func (p Postgres) GoString() string     { return "config.Postgres{" + p.Redacted() + "}" }
func (p Postgres) LogValue() slog.Value { return slog.StringValue(p.Redacted()) }
func (p Postgres) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]string{"url": p.Redacted()})
}

// MarshalYAML keeps the password out of a printed configuration.
func (p Postgres) MarshalYAML() (any, error) { return map[string]string{"url": p.Redacted()}, nil }

// The same of a URL that stands alone.

func (u URL) String() string               { return Postgres{URL: string(u)}.Redacted() }
func (u URL) GoString() string             { return strconv.Quote(u.String()) }
func (u URL) LogValue() slog.Value         { return slog.StringValue(u.String()) }
func (u URL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// shown is a SASL section that may be printed: the type has no methods.
func (s SASL) shown() map[string]string {
	m := map[string]string{"mechanism": s.Mechanism, "username": s.Username}
	if s.Password != "" {
		m["password"] = hidden
	}
	return m
}

func (s SASL) String() string               { return s.Mechanism + " " + s.Username + " " + hidden }
func (s SASL) GoString() string             { return "config.SASL{" + s.String() + "}" }
func (s SASL) LogValue() slog.Value         { return slog.StringValue(s.String()) }
func (s SASL) MarshalJSON() ([]byte, error) { return json.Marshal(s.shown()) }

// MarshalYAML keeps the password out of a printed configuration.
func (s SASL) MarshalYAML() (any, error) { return s.shown(), nil }
