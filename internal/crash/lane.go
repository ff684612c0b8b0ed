package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"time"

	"cdc/internal/cdctest"
	"cdc/internal/child"
)

// startLimit bounds the start of a server, downloads included.
const startLimit = 5 * time.Minute

// postgresSettings are beside those of the kit: deadlocks among the sessions end
// soon, a walsender whose client is gone ends soon, and transactions spill.
var postgresSettings = map[string]string{
	"deadlock_timeout":          "50ms",
	"wal_sender_timeout":        "3s",
	"logical_decoding_work_mem": "64kB",
	"autovacuum":                "off",
	"shared_buffers":            "32MB",
	"max_connections":           "60",
	"max_wal_size":              "64MB",
	"min_wal_size":              "32MB",
	"wal_recycle":               "off", // a segment is a new file: a full disk stops the log
}

// lane is the servers of one job. They live over its seeds, and are started again
// where a fault has ended them.
type lane struct {
	program string // cdc
	pg      *cdctest.PG
	admin   *database // of the server's own database
	pgProxy *cdctest.Proxy
	brokers map[string]*broker
	full    bool // its disks can be filled
	disks   disks
	stops   []func()
}

// broker is one beside cdc, reached through a proxy.
type broker struct {
	*cdctest.StandaloneBroker
	proxy *cdctest.Proxy
	// forgets: after a kill it takes a batch that it has for a new one.
	forgets bool
}

// newLane starts the servers of a lane, on volumes of their own where these can be
// filled.
func newLane(program string, full bool) (*lane, error) {
	l := &lane{program: program, full: full, brokers: map[string]*broker{}}
	dir, err := l.postgresDir()
	if err != nil {
		return nil, err
	}
	if l.pg, err = cdctest.StartPostgres(postgresSettings, dir); err != nil {
		l.close()
		return nil, err
	}
	l.admin = &database{url: l.pg.URL("postgres")}
	l.stops = append(l.stops, l.pg.Close, l.admin.close)
	proxy, stop, err := cdctest.StartProxy(fmt.Sprintf("127.0.0.1:%d", l.pg.Port()))
	if err != nil {
		l.close()
		return nil, err
	}
	l.pgProxy = proxy
	l.stops = append(l.stops, stop)
	return l, nil
}

func (l *lane) close() {
	for i := len(l.stops) - 1; i >= 0; i-- {
		l.stops[i]()
	}
}

// broker is the lane's broker of a kind; nil for the one inside cdc.
func (l *lane) broker(kind string) (*broker, error) {
	if kind == kindEmbedded {
		return nil, nil
	}
	if b := l.brokers[kind]; b != nil {
		return b, nil
	}
	proxy, stop, err := cdctest.StartProxy("")
	if err != nil {
		return nil, err
	}
	l.stops = append(l.stops, stop)
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	dir, err := l.brokerDir()
	if err != nil {
		return nil, err
	}
	s, err := cdctest.StartBroker(ctx, kind, proxy.Addr, dir)
	if err != nil {
		return nil, err
	}
	l.stops = append(l.stops, s.Close)
	proxy.SetTarget(s.Addr())
	b := &broker{StandaloneBroker: s, proxy: proxy, forgets: kind == cdctest.FakeBroker}
	l.brokers[kind] = b
	return b, nil
}

// proxied is the address of a database by way of the proxy.
func (l *lane) proxied(database string) (string, error) {
	u, err := url.Parse(l.pg.URL(database))
	if err != nil {
		return "", err
	}
	u.Host = l.pgProxy.Addr
	return u.String(), nil
}

// awaitPostgres brings the server back where a fault left it down, and waits until
// it has recovered from what was done to one of its processes.
func (l *lane) awaitPostgres(ctx context.Context) error {
	down := l.pg.Done() == nil
	if !down {
		select {
		case <-l.pg.Done():
			l.pg.Kill()
			down = true
		default:
		}
	}
	if down {
		if err := l.pg.Restart(ctx); err != nil {
			return err
		}
	}
	_, err := l.admin.query(ctx, "SELECT 1")
	return err
}

// listener is where the broker inside cdc listens.
func listener() (string, error) {
	port, err := child.FreePort()
	return fmt.Sprintf("127.0.0.1:%d", port), err
}

// scratch is a directory for one seed.
func scratch() (dir string, remove func(), err error) {
	dir, err = os.MkdirTemp("", "cdc-crash-")
	return dir, func() { _ = os.RemoveAll(dir) }, err
}
