//go:build unix

package pgserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"cdc/internal/child"
)

// Options says what to start. The zero value starts a cluster of any version in
// a temporary directory that Stop removes.
type Options struct {
	Dir      string            // data directory; "" is a temporary one, removed by Stop and Kill
	Programs string            // directory of the server programs; "" looks for them, then fetches them
	Version  string            // "" for any, or an exact major version from "14" to "18"
	Port     int               // on 127.0.0.1; 0 chooses a free one
	Settings map[string]string // written to the configuration; ALTER SYSTEM still overrides them
	Log      io.Writer         // the server's log; nil discards it
	Notice   io.Writer         // one line when the programs are downloaded; nil discards it
}

// Server is a private PostgreSQL cluster. Its methods may not be called at the
// same time, except URL, Version, Port and Dir.
type Server struct {
	opts     Options
	programs Programs
	id       identity
	dir      string
	remove   bool // dir is ours
	port     int
	proc     *child.Process // nil while stopped
	log      *child.Log
}

const (
	superuser = "postgres"
	// portAttempts bounds how often Start tries again when another process took
	// the port between the look and the bind.
	portAttempts = 5
	// startLimit bounds one start, crash recovery of a demo or a test included.
	startLimit = 120 * time.Second
	// pollEvery is how often postmaster.pid is looked at; pg_ctl does the same.
	pollEvery = 10 * time.Millisecond
)

// Start makes the data directory a cluster if it is empty, and starts its server
// with logical replication on. It returns when the server accepts connections.
// The caller ends it with Stop or Kill.
func Start(ctx context.Context, opts Options) (*Server, error) {
	programs, err := locate(ctx, opts)
	if err != nil {
		return nil, err
	}
	s := &Server{opts: opts, programs: programs, id: serverIdentity(), log: child.NewLog(opts.Log)}
	if err := s.id.reach(filepath.Join(programs.Dir, "postgres")); err != nil {
		return nil, fmt.Errorf("run PostgreSQL from %s: %w", programs.Dir, err)
	}
	if err := s.prepare(ctx); err != nil {
		s.discard()
		return nil, err
	}
	if err := s.launchOnFreePort(ctx); err != nil {
		s.discard()
		return nil, err
	}
	return s, nil
}

// URL is the connection string of a database, for the superuser.
func (s *Server) URL(database string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.User(superuser),
		Host:     "127.0.0.1:" + strconv.Itoa(s.port),
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Version is the server's major version.
func (s *Server) Version() int { return s.programs.Major }

// Port is the server's TCP port; it stays the same over Restart.
func (s *Server) Port() int { return s.port }

// Dir is the data directory.
func (s *Server) Dir() string { return s.dir }

// Stop shuts the server down in one of PostgreSQL's modes: "smart" waits for
// every client, "fast" disconnects them (walsenders still send what is left),
// "immediate" leaves recovery to the next start. It blocks until the server is
// gone; when ctx ends first, the server is killed and ctx's cause returned. On a
// server that is not running it does nothing. A temporary data directory is kept
// for Restart; Close removes it.
func (s *Server) Stop(ctx context.Context, mode string) error {
	signals := map[string]syscall.Signal{"smart": syscall.SIGTERM, "fast": syscall.SIGINT, "immediate": syscall.SIGQUIT}
	sig, ok := signals[mode]
	if !ok {
		return fmt.Errorf("stop PostgreSQL: mode %q, want smart, fast or immediate", mode)
	}
	if s.proc == nil {
		return nil
	}
	if err := s.proc.Signal(sig); err != nil {
		return fmt.Errorf("stop PostgreSQL (pid %d): %w", s.proc.PID, err)
	}
	select {
	case <-s.proc.Done():
		s.proc = nil
		return nil
	case <-ctx.Done():
		s.Kill()
		return fmt.Errorf("stop PostgreSQL in mode %s: killed, because it did not end: %w", mode, context.Cause(ctx))
	}
}

// Kill ends the server and its backends with SIGKILL, as a crash of the machine
// would, and blocks until they are gone.
func (s *Server) Kill() {
	if s.proc == nil {
		return
	}
	s.proc.KillTree()
	s.proc = nil
}

// Done is closed when the running server has ended, asked or not; nil when it is
// not running.
func (s *Server) Done() <-chan struct{} {
	if s.proc == nil {
		return nil
	}
	return s.proc.Done()
}

// Restart starts the server again on the same port and directory, after Stop,
// Kill or a crash; a running one is stopped first (fast).
func (s *Server) Restart(ctx context.Context) error {
	if err := s.Stop(ctx, "fast"); err != nil {
		return err
	}
	return s.launch(ctx)
}

// Close stops the server (immediate: a temporary cluster has no future) and
// removes a temporary data directory.
func (s *Server) Close() {
	s.Kill()
	s.discard()
}

func (s *Server) discard() {
	if s.remove {
		_ = os.RemoveAll(s.dir)
	}
}

// prepare makes the data directory a cluster owned by the server's user.
func (s *Server) prepare(ctx context.Context) error {
	if s.opts.Dir == "" {
		dir, err := os.MkdirTemp("", "cdc-postgres-")
		if err != nil {
			return fmt.Errorf("make a directory for PostgreSQL: %w", err)
		}
		s.dir, s.remove = dir, true
	} else {
		dir, err := filepath.Abs(s.opts.Dir)
		if err != nil {
			return fmt.Errorf("make a directory for PostgreSQL: %w", err)
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make a directory for PostgreSQL: %w", err)
		}
		s.dir = dir
	}
	if err := s.id.reach(s.dir); err != nil {
		return fmt.Errorf("put PostgreSQL's data into %s: %w", s.dir, err)
	}
	version, err := os.ReadFile(filepath.Join(s.dir, "PG_VERSION"))
	switch {
	case errors.Is(err, os.ErrNotExist):
		if err := s.initdb(ctx); err != nil {
			return err
		}
	case err != nil:
		return fmt.Errorf("read PostgreSQL's data directory: %w", err)
	default:
		if got := strings.TrimSpace(string(version)); got != strconv.Itoa(s.programs.Major) {
			return fmt.Errorf("PostgreSQL's data directory %s is of version %s, the programs in %s are %d: choose another directory or programs",
				s.dir, got, s.programs.Dir, s.programs.Major)
		}
	}
	return s.id.own(s.dir)
}

// initdb fills an empty data directory: UTF-8, the C locale (one order of text
// on every machine), trust for loopback.
func (s *Server) initdb(ctx context.Context) error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("read PostgreSQL's data directory: %w", err)
	}
	if len(entries) > 0 {
		return fmt.Errorf("make a PostgreSQL cluster in %s: the directory is not empty and holds no cluster", s.dir)
	}
	if err := s.id.own(s.dir); err != nil {
		return fmt.Errorf("give %s to user %s: %w", s.dir, s.id.name, err)
	}
	args := []string{"-D", s.dir, "-U", superuser, "-E", "UTF8", "--no-locale", "-A", "trust"}
	if s.opts.Settings["fsync"] == "off" {
		args = append(args, "--no-sync")
	}
	var out strings.Builder
	cmd := s.command("initdb", args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	p, err := child.Start(cmd, s.id.user(), syscall.SIGQUIT)
	if err != nil {
		return fmt.Errorf("run initdb: %w", err)
	}
	select {
	case <-p.Done():
	case <-ctx.Done():
		p.KillTree()
		return fmt.Errorf("run initdb: %w", context.Cause(ctx))
	}
	if p.Err() != nil {
		return fmt.Errorf("run initdb in %s: %w\n%s", s.dir, p.Err(), strings.TrimSpace(out.String()))
	}
	conf, err := os.OpenFile(filepath.Join(s.dir, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("configure PostgreSQL: %w", err)
	}
	_, err = fmt.Fprintf(conf, "\ninclude_if_exists '%s'\n", settingsFile)
	if err := errors.Join(err, conf.Close()); err != nil {
		return fmt.Errorf("configure PostgreSQL: %w", err)
	}
	return nil
}

// settingsFile is rewritten at every start, in the data directory.
const settingsFile = "cdc.conf"

// configure writes the settings: ours, then the caller's, then what must hold.
func (s *Server) configure() error {
	settings := map[string]string{"wal_level": "logical", "max_replication_slots": "20", "max_wal_senders": "20"}
	maps.Copy(settings, s.opts.Settings)
	maps.Copy(settings, map[string]string{
		"listen_addresses":        "127.0.0.1",
		"port":                    strconv.Itoa(s.port),
		"unix_socket_directories": "",
	})
	var b strings.Builder
	b.WriteString("# Written by cdc at every start.\n")
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&b, "%s = '%s'\n", name, strings.NewReplacer(`'`, `''`, `\`, `\\`, "\n", " ").Replace(settings[name]))
	}
	path := filepath.Join(s.dir, settingsFile)
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		return fmt.Errorf("configure PostgreSQL: %w", err)
	}
	if err := s.id.own(path); err != nil {
		return fmt.Errorf("give %s to user %s: %w", path, s.id.name, err)
	}
	return nil
}

// command prepares one of the server programs, run as the server's user in its
// data directory with nothing of our environment but what it needs: a stray
// PGDATA or PGPORT changes nothing.
func (s *Server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.programs.Dir, name), args...)
	cmd.Dir = s.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC", "TMPDIR=" + os.TempDir(), "HOME=" + s.dir}
	return cmd
}

// launchOnFreePort launches on the wanted port, or on a free one.
func (s *Server) launchOnFreePort(ctx context.Context) error {
	if s.opts.Port != 0 {
		s.port = s.opts.Port
		return s.launch(ctx)
	}
	var err error
	for range portAttempts {
		if s.port, err = child.FreePort(); err != nil {
			return err
		}
		if err = s.launch(ctx); err == nil || !s.log.Contains("could not bind") {
			return err
		}
	}
	return err
}

// launch starts the postmaster and waits until it accepts connections.
func (s *Server) launch(ctx context.Context) error {
	if err := s.configure(); err != nil {
		return err
	}
	s.log.Reset()
	cmd := s.command("postgres", "-D", s.dir)
	cmd.Stdout, cmd.Stderr = s.log, s.log
	p, err := child.Start(cmd, s.id.user(), syscall.SIGQUIT)
	if err != nil {
		return fmt.Errorf("start PostgreSQL from %s: %w", s.programs.Dir, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("not ready after %v", startLimit))
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for !s.ready(p.PID) {
		select {
		case <-tick.C:
		case <-p.Done():
			return fmt.Errorf("start PostgreSQL in %s: it ended: %v\n%s", s.dir, p.Err(), s.log.Tail())
		case <-ctx.Done():
			p.KillTree()
			return fmt.Errorf("start PostgreSQL in %s: %w\n%s", s.dir, context.Cause(ctx), s.log.Tail())
		}
	}
	s.proc = p
	return nil
}

// ready reads postmaster.pid as pg_ctl does (utils/pidfile.h): line 1 is the
// postmaster, line 8 its state; a hot standby is ready as "standby".
func (s *Server) ready(pid int) bool {
	text, err := os.ReadFile(filepath.Join(s.dir, "postmaster.pid"))
	if err != nil {
		return false
	}
	lines := strings.Split(string(text), "\n")
	if len(lines) < 8 || lines[0] != strconv.Itoa(pid) {
		return false
	}
	state := strings.TrimSpace(lines[7])
	return state == "ready" || state == "standby"
}
