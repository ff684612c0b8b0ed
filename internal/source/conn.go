package source

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

const (
	applicationName = "cdc" // pg_stat_activity and the take-over of a slot recognise us by it
	// connectTimeout applies where the connection string has no connect_timeout:
	// long enough for a cold TLS handshake, short enough that a host that drops
	// packets is reported rather than waited for.
	connectTimeout = 10 * time.Second
	// closeTimeout bounds saying goodbye to a server that may be gone.
	closeTimeout = 2 * time.Second
	// socketKeepAlive finds a dead peer on a connection that is only waited upon.
	socketKeepAlive = 15 * time.Second
)

// pinned are the settings on which the text form of a value, the rows a
// statement sees or the life of a session depend. Defaults set on the role or
// the database leak into every session, the walsender's included; startup
// parameters override them. They are the same for stream, snapshot and
// catalogue, so that a value has one text wherever it was read.
var pinned = map[string]string{
	"application_name":                    applicationName,
	"client_encoding":                     "UTF8",
	"datestyle":                           "ISO, MDY",
	"intervalstyle":                       "postgres",
	"timezone":                            "UTC",
	"extra_float_digits":                  "3",
	"bytea_output":                        "hex",
	"lc_monetary":                         "C",
	"xmloption":                           "content",
	"search_path":                         "pg_catalog", // regclass and its kin print names from elsewhere in full
	"quote_all_identifiers":               "off",
	"row_security":                        "off", // a filtered snapshot is an error, not a smaller one
	"statement_timeout":                   "0",
	"lock_timeout":                        "0",
	"idle_in_transaction_session_timeout": "0",
}

// pinNewer pins what older servers lack: idle_session_timeout (14) and
// transaction_timeout (17) are unknown startup parameters there, and fatal.
const pinNewer = `SELECT set_config(name, '0', false) FROM pg_settings
	WHERE name IN ('idle_session_timeout', 'transaction_timeout')`

// parseURL reads a connection string and pins the session's settings. Where the
// string and PGSSLMODE are silent about TLS and the host is another machine,
// sslmode is verify-full: pgx's own default falls back to plain text.
func parseURL(connString string) (*pgx.ConnConfig, error) {
	cfg, err := pgx.ParseConfig(connString)
	if err == nil && os.Getenv("PGSSLMODE") == "" && !mentionsTLS(connString) && !isLocal(cfg.Host) {
		cfg, err = pgx.ParseConfig(withVerifiedTLS(connString))
	}
	if err != nil {
		// The error's text holds the string, and with it perhaps a password.
		return nil, errors.New("connection string of Postgres cannot be read; want postgres://user:password@host:5432/database?sslmode=verify-full (user and password percent-encoded)")
	}
	if cfg.RuntimeParams == nil {
		cfg.RuntimeParams = map[string]string{}
	}
	for name := range cfg.RuntimeParams { // names are case-insensitive at the server: ours must be the only one
		if _, ok := pinned[strings.ToLower(name)]; ok {
			delete(cfg.RuntimeParams, name)
		}
	}
	for name, value := range pinned {
		cfg.RuntimeParams[name] = value
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = connectTimeout
	}
	cfg.DialFunc = (&net.Dialer{Timeout: cfg.ConnectTimeout, KeepAlive: socketKeepAlive}).DialContext
	// Tables change under us: a cached plan would answer with the old columns.
	cfg.DefaultQueryExecMode = pgx.QueryExecModeDescribeExec
	return cfg, nil
}

func mentionsTLS(connString string) bool {
	return strings.Contains(connString, "sslmode") || strings.Contains(connString, "service=")
}

func isLocal(host string) bool {
	if host == "" || strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") || host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func withVerifiedTLS(connString string) string {
	if u, err := url.Parse(connString); err == nil && (u.Scheme == "postgres" || u.Scheme == "postgresql") {
		q := u.Query()
		q.Set("sslmode", "verify-full")
		u.RawQuery = q.Encode()
		return u.String()
	}
	return connString + " sslmode=verify-full"
}

// targetOf names the database of a connection string without its secrets.
func targetOf(connString string) (string, error) {
	cfg, err := parseURL(connString)
	if err != nil {
		return "", err
	}
	return target(cfg), nil
}

func target(cfg *pgx.ConnConfig) string {
	return fmt.Sprintf("%s:%d/%s", cfg.Host, cfg.Port, cfg.Database)
}

// connectSQL opens an ordinary connection with every setting pinned.
func connectSQL(ctx context.Context, connString string) (*pgx.Conn, error) {
	cfg, err := parseURL(connString)
	if err != nil {
		return nil, err
	}
	c, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, connectError("connect to Postgres", target(cfg), err)
	}
	if err := pin(ctx, c.PgConn()); err != nil {
		closeConn(c.PgConn())
		return nil, fmt.Errorf("pin session settings at %s: %w", target(cfg), err)
	}
	return c, nil
}

// replicationOptions are what a replication connection may want beyond the
// pinned settings. The zero value wants nothing.
type replicationOptions struct {
	wrap     func(net.Conn) net.Conn // the socket, below TLS
	buffer   int                     // size of the read buffer in bytes, 0: pgx's own
	onNotice func(*pgconn.Notice)
}

// connectReplication opens a walsender connection to the database
// (replication=database) with every setting pinned. It takes replication
// commands and simple queries.
func connectReplication(ctx context.Context, connString string, opts replicationOptions) (*pgconn.PgConn, error) {
	full, err := parseURL(connString)
	if err != nil {
		return nil, err
	}
	cfg := &full.Config
	cfg.RuntimeParams["replication"] = "database"
	if opts.wrap != nil {
		dial := cfg.DialFunc
		cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return opts.wrap(c), nil
		}
	}
	if opts.buffer > 0 {
		cfg.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
			return pgproto3.NewFrontend(bufio.NewReaderSize(r, opts.buffer), w)
		}
	}
	if opts.onNotice != nil {
		cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { opts.onNotice(n) }
	}
	c, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, connectError("open replication connection to Postgres", target(full), err)
	}
	if err := pin(ctx, c); err != nil {
		closeConn(c)
		return nil, fmt.Errorf("pin session settings at %s: %w", target(full), err)
	}
	return c, nil
}

func pin(ctx context.Context, c *pgconn.PgConn) error {
	return c.Exec(ctx, pinNewer).Close()
}

// closeConn says goodbye within closeTimeout; the caller is done with the
// connection, so a failure to do so changes nothing.
func closeConn(c *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = c.Close(ctx)
}
