package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"cdc/internal/cdc"
)

// Source is what the server shows. Both methods return at once and may be called
// from several goroutines; the answer is the caller's.
type Source interface {
	Status() []cdc.Status
	Version() string
}

// The limits keep a slow or hostile client of the loopback address from holding
// the daemon's memory or its end.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second // no request has a body worth waiting for
	writeTimeout      = 30 * time.Second // a scrape over a slow tunnel
	idleTimeout       = 2 * time.Minute  // longer than the usual scrape interval, so that it keeps its connection
	maxHeaderBytes    = 16 << 10
	maxConnections    = 256             // more than any set of probes and scrapers keeps open beside those who follow the log (internal/api)
	shutdownTimeout   = 3 * time.Second // of the ten the daemon has to stop
)

// Server answers HTTP requests about a Source.
type Server struct {
	source   Source
	log      *slog.Logger
	registry *prometheus.Registry
	mounts   []mount // set before Run

	mu    sync.Mutex
	addr  string
	bound chan struct{} // closed once addr is set, or Run has failed to
	ran   bool
}

// New makes a server; Run starts it.
func New(source Source, log *slog.Logger) *Server {
	return &Server{source: source, log: log, registry: newRegistry(source), bound: make(chan struct{})}
}

// mount is a handler of others and the patterns it answers.
type mount struct {
	patterns []string
	handler  http.Handler
}

// Mount has h answer these patterns of http.ServeMux, all methods of them. It is
// called before Run. The server's limits hold for h too, unless it moves the
// deadlines of a request with http.ResponseController.
func (s *Server) Mount(h http.Handler, patterns ...string) {
	s.mounts = append(s.mounts, mount{patterns, h})
}

// errStopped is the cause of the end of requests that outlive the server.
var errStopped = errors.New("the daemon is stopping")

// Run listens on a loopback host:port and serves until ctx ends; it then waits
// for the requests being answered, no longer than shutdownTimeout, and returns
// nil. It returns an error only where it cannot listen or serve. It may be called
// once.
func (s *Server) Run(ctx context.Context, listen string) error {
	l, err := s.bind(ctx, listen)
	if err != nil {
		return err
	}
	// Requests outlive ctx: those being answered when the daemon stops are finished.
	base, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(errStopped)
	srv := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		BaseContext:       func(net.Listener) context.Context { return base },
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(newLimited(l, maxConnections)) }()
	s.log.Info("admin server listens", "addr", l.Addr().String())

	select {
	case err := <-served:
		srv.Close()
		return fmt.Errorf("serve admin requests on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	stop, done := context.WithTimeout(base, shutdownTimeout)
	defer done()
	if srv.Shutdown(stop) != nil {
		srv.Close() // a client that reads too slowly: its connection is cut
	}
	<-served
	return nil
}

// bind opens the listener and publishes its address.
func (s *Server) bind(ctx context.Context, listen string) (net.Listener, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ran {
		return nil, errors.New("admin server: Run was called before")
	}
	s.ran = true
	defer close(s.bound)
	if err := loopback(ctx, listen); err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", listen)
	if err != nil {
		return nil, fmt.Errorf("listen for admin requests on %q: %w", listen, err)
	}
	s.addr = l.Addr().String()
	return l, nil
}

// Bound is closed once Run listens, or has failed to.
func (s *Server) Bound() <-chan struct{} { return s.bound }

// Addr is the host:port the server listens on, with the port it really has; ""
// before Bound is closed, and where listening failed.
func (s *Server) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addr
}

// loopback refuses an address that others could reach: the server has no login.
func loopback(ctx context.Context, listen string) error {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return fmt.Errorf("admin.listen %q: %w; write host:port, as in 127.0.0.1:8083", listen, err)
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", cmp.Or(host, "0.0.0.0"))
	if err != nil {
		return fmt.Errorf("admin.listen %q: %w", listen, err)
	}
	for _, a := range addrs {
		if !a.Unmap().IsLoopback() {
			return fmt.Errorf("admin.listen %q: %s is not a loopback address, and the server has no login; write 127.0.0.1:port and put a proxy with one before it", listen, a)
		}
	}
	return nil
}
