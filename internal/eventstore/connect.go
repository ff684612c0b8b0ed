package eventstore

import (
	"errors"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	applicationName = "cdc"
	// connectTimeout applies where the URL has no connect_timeout: long enough for
	// a cold TLS handshake, short enough that a host that drops packets is reported
	// rather than waited for.
	connectTimeout = 10 * time.Second
	// closeTimeout bounds saying goodbye to a server that may be gone.
	closeTimeout = 2 * time.Second
)

// errURL does not hold the URL: a password may stand in it.
var errURL = errors.New("connection string of Postgres cannot be read; want postgres://user:password@host:5432/database?sslmode=verify-full (user and password percent-encoded)")

// ParseURL reads the URL of a connection. Where it and PGSSLMODE are silent about
// TLS and the host is another machine, sslmode is verify-full: pgx's own default
// falls back to plain text.
func ParseURL(s string) (*pgx.ConnConfig, error) {
	cfg, err := pgx.ParseConfig(verified(s))
	if err != nil {
		return nil, errURL
	}
	settle(cfg)
	return cfg, nil
}

// ParsePoolURL is ParseURL for a pool; it knows the pool's parameters (pool_max_conns).
func ParsePoolURL(s string) (*pgxpool.Config, error) {
	cfg, err := pgxpool.ParseConfig(verified(s))
	if err != nil {
		return nil, errURL
	}
	settle(cfg.ConnConfig)
	return cfg, nil
}

func settle(cfg *pgx.ConnConfig) {
	if cfg.RuntimeParams["application_name"] == "" {
		cfg.RuntimeParams["application_name"] = applicationName
	}
	cfg.RuntimeParams["client_encoding"] = "UTF8"
	cfg.RuntimeParams["timezone"] = "UTC"
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = connectTimeout
	}
}

// verified is the URL with sslmode=verify-full where nobody says anything else.
func verified(s string) string {
	cfg, err := pgx.ParseConfig(s)
	if err != nil || os.Getenv("PGSSLMODE") != "" || strings.Contains(s, "sslmode") || strings.Contains(s, "service=") || isLocal(cfg.Host) {
		return s
	}
	if u, err := url.Parse(s); err == nil && (u.Scheme == "postgres" || u.Scheme == "postgresql") {
		q := u.Query()
		q.Set("sslmode", "verify-full")
		u.RawQuery = q.Encode()
		return u.String()
	}
	return s + " sslmode=verify-full"
}

func isLocal(host string) bool {
	if host == "" || strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") || host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
