package view

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"cdc/internal/eventstore"
	"cdc/internal/intent"
)

// SwitchOptions says how long a switch may keep others waiting.
type SwitchOptions struct {
	// Databases has the URLs of other Postgres servers that hold views, by
	// intent.View.DatabaseName.
	Databases map[string]string
	// LockTimeout bounds how long one attempt keeps writers and readers waiting: for
	// a lock, and again for what is done under it. 0: DefaultLockTimeout.
	LockTimeout time.Duration
	Attempts    int           // 0: DefaultAttempts
	Pause       time.Duration // between attempts; 0: DefaultPause
	Logger      *slog.Logger  // nil: none
	Progress    func(VerifyProgress)
	hook        func(point string) // of tests
}

// The defaults of SwitchOptions.
const (
	// DefaultLockTimeout is what an application takes for a slow statement, not for
	// an outage.
	DefaultLockTimeout = 2 * time.Second
	// DefaultAttempts and DefaultPause go on for about two minutes: longer than the
	// transactions of an application, shorter than an operator's patience.
	DefaultAttempts = 60
	DefaultPause    = 2 * time.Second
)

// tailLimit is how many positions a switch applies while others wait; more are
// caught up with before it takes its locks. At the rate views are built it is a
// fraction of a second.
const tailLimit = 2000

func (o *SwitchOptions) defaults() {
	if o.LockTimeout <= 0 {
		o.LockTimeout = DefaultLockTimeout
	}
	if o.Attempts <= 0 {
		o.Attempts = DefaultAttempts
	}
	if o.Pause <= 0 {
		o.Pause = DefaultPause
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Progress == nil {
		o.Progress = func(VerifyProgress) {}
	}
	if o.hook == nil {
		o.hook = func(string) {}
	}
}

// BusyError says that a switch found no moment in which nobody held what it needs.
// Nothing was changed.
type BusyError struct {
	View     string
	Attempts int
	Err      error // of the last attempt
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("view %s was not switched in %d attempts: end long transactions that use its table or append events, or try later: %s", e.View, e.Attempts, e.Err)
}

func (e *BusyError) Unwrap() error { return e.Err }

// errBusy wraps what another attempt may not meet.
type errBusy struct{ error }

func (e errBusy) Unwrap() error { return e.error }

// Switch puts the newest build of a view in the place of the live one: from its
// commit on, views.<name> is the new table. A statement that began before reads the
// old one to its end. The old table goes with the switch; the rights on it are
// those on the new one.
//
// First it catches up, which keeps nobody waiting. The rest is one transaction that
// applies the tail, moves the tables and writes the states; while it runs, readers
// of the table wait for it. Where one of the builds is kept by the appends
// themselves, all appends wait too: the lock on es.event waits for those under way
// and holds off new ones, so that the tail has an end. It is numbered meanwhile,
// which takes a running daemon. Every wait is bounded by LockTimeout; an attempt
// that runs into it lets go of everything and is repeated after a pause.
//
// Where another Postgres holds one of the builds, the transaction is one in both
// databases (see commitAll). If they take no prepared transactions, the other
// database is committed first, and a switch that was cut off in between is made
// again to finish it; that goes for async views alone.
//
// Errors: *DependentsError, *BusyError, *FailedError where the build stands still,
// ErrNoBuild, ErrNoView.
func Switch(ctx context.Context, store *eventstore.Store, name string, o SwitchOptions) error {
	o.defaults()
	var last error
	for attempt := range o.Attempts {
		if attempt > 0 {
			o.Logger.Info("view is not switched yet", "view", name, "error", last)
			if err := pause(ctx, o.Pause); err != nil {
				return err
			}
		}
		err := switchOnce(ctx, store, name, o)
		var busy errBusy
		if !errors.As(err, &busy) {
			return err
		}
		last = busy.error
	}
	return &BusyError{name, o.Attempts, last}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func switchOnce(ctx context.Context, store *eventstore.Store, name string, o SwitchOptions) error {
	p, err := findPair(ctx, store.Pool(), name, false)
	if err != nil {
		return err
	}
	s := &switching{store: store, pair: p, options: o}
	defer s.close()
	if s.next, err = decode(p.next.raw); err != nil {
		return err
	}
	if err := s.connect(ctx); err != nil {
		return err
	}
	if err := s.refuseDependents(ctx); err != nil {
		return err
	}
	if err := s.catchUp(ctx); err != nil {
		return err
	}
	err = s.exchange(ctx)
	if err != nil {
		s.undo(ctx)
		return s.judge("switch", err)
	}
	if p.live != nil {
		if err := sweep(ctx, store); err != nil {
			o.Logger.Warn("what is left of a retired build is dropped later", "view", name, "build", p.live.id, "error", err)
		}
	}
	return nil
}

// switching is one attempt. It has connections of its own: the first is the
// store's, the others are to the databases that hold the builds.
type switching struct {
	store   *eventstore.Store
	pair    pair
	next    *code
	options SwitchOptions
	parts   []openTx
	gid     gid
}

// place is the part of the database that holds a build.
func (s *switching) place(b buildRow) openTx {
	if b.database == "" {
		return s.parts[0]
	}
	for _, p := range s.parts[1:] {
		if p.name == b.database {
			return p
		}
	}
	panic("view: a build in a database that is not connected") // connect saw to both
}

func (s *switching) connect(ctx context.Context) error {
	conn, err := pgx.ConnectConfig(ctx, s.store.Pool().Config().ConnConfig)
	if err != nil {
		return fmt.Errorf("connect to the store: %w", err)
	}
	s.parts = []openTx{{conn, "the store"}}
	if err := own(ctx, conn); err != nil {
		return err
	}
	s.gid = gid{id: intent.NewID(), owner: ownerOf(conn)}
	if s.gid.store, err = storeID(ctx, conn); err != nil {
		return err
	}
	if err := s.connectTo(ctx, s.pair.next); err != nil || s.pair.live == nil {
		return err
	}
	return s.connectTo(ctx, *s.pair.live)
}

func (s *switching) connectTo(ctx context.Context, b buildRow) error {
	for _, p := range s.parts[1:] {
		if p.name == b.database {
			return nil
		}
	}
	if b.database == "" {
		return nil
	}
	conn, err := connectThere(ctx, b, s.options.Databases[b.database])
	if err != nil {
		return err
	}
	s.parts = append(s.parts, openTx{conn, b.database})
	return nil
}

func (s *switching) close() {
	for _, p := range s.parts {
		closeConn(p.conn)
	}
}

// undo rolls back what is open; what was prepared is behind commitAll.
func (s *switching) undo(ctx context.Context) { rollbackAll(ctx, s.gid, s.parts, 0) }

// judge says whether an error of an attempt may not come again.
func (s *switching) judge(verb string, err error) error {
	var behind *eventstore.BarrierError
	switch {
	case errors.As(err, &behind) && !behind.Running: // nobody numbers: another attempt waits in vain
	case isLockTimeout(err), hasCode(err, codeStatementLimit), errors.As(err, &behind), errors.Is(err, errInDoubt),
		errors.Is(err, errTail), errors.Is(err, errFeedsChanged), errors.Is(err, context.DeadlineExceeded):
		return errBusy{err}
	}
	return fmt.Errorf("%s view %s: %w", verb, s.name(), err)
}

// exclusive says that appends must wait: one of the builds is, or is to be, kept by
// them.
func (s *switching) exclusive() bool {
	return s.pair.next.mode == intent.Inline || s.pair.live != nil && s.pair.live.mode == intent.Inline
}

// catchUp applies the log to the new build until little is left, beside the runner
// that does the same.
func (s *switching) catchUp(ctx context.Context) error {
	var src source = newLocal(s.store, s.next, s.pair.next, s.options.hook)
	if s.pair.next.database != "" {
		src = newRemote(s.store, s.next, s.pair.next, s.options.Databases[s.pair.next.database], s.options.hook)
	}
	defer src.close()
	began := time.Now()
	var from int64 = -1
	for {
		pos, err := src.position(ctx)
		if err != nil {
			return fmt.Errorf("catch up with build %d of view %s: %w", s.pair.next.id, s.pair.next.name, err)
		}
		head, err := headOf(ctx, s.store.Pool())
		if err != nil {
			return err
		}
		if from < 0 {
			from = pos
		}
		p := VerifyProgress{Position: pos, Head: head}
		if d := time.Since(began).Seconds(); d > 0 {
			p.Rate = float64(pos-from) / d
		}
		s.options.Progress(p)
		if head-pos <= tailLimit/2 {
			return nil
		}
		if _, err := src.step(ctx, pos, head); err != nil {
			return fmt.Errorf("catch up with build %d of view %s: %w", s.pair.next.id, s.pair.next.name, err)
		}
	}
}

func headOf(ctx context.Context, q querier) (pos int64, err error) {
	if err := q.QueryRow(ctx, `select coalesce(max(pos), 0) from es.log`).Scan(&pos); err != nil {
		return 0, fmt.Errorf("read the head of the log: %w", err)
	}
	return pos, nil
}
