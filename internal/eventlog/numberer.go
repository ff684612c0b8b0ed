package eventlog

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/eventstore"
	"cdc/internal/source"
)

const (
	// Table is the table whose rows are numbered.
	Table = "es.event"
	// columnLists is the first server_version_num whose publications have them.
	columnLists = 150000

	// batchEvents is the size at which a batch ends at the next end of a
	// transaction: large enough that commits do not count, small enough that readers
	// of the log see it move.
	batchEvents = 10_000
	// defaultIdle is how often es.reader is written while no events come. The write
	// is itself WAL, so it must be rare.
	defaultIdle = 10 * time.Second
	// holderPoll is how often a waiting instance looks whether it may begin.
	holderPoll = time.Second
	// lookEvery is how often the slot is looked at from outside, for Status.
	lookEvery = 5 * time.Second
	// auditPatience bounds one wait for the log to catch up with what was counted.
	auditPatience = 10 * time.Minute
	// visibleAtOnce is how long a batch waits in place for a commit to become
	// visible: usually its process is a few instructions away. Beyond it the stream
	// goes on being answered.
	visibleAtOnce = 50 * time.Millisecond
	// stopWithin bounds what a life still does when it is told to stop.
	stopWithin = 5 * time.Second
)

// Config says which store is numbered, and through which slot.
type Config struct {
	// Source is the database as the daemon's login reaches it, slot and
	// publication. The tables, columns and messages are chosen here.
	Source source.Config
	Store  *eventstore.Store
	Head   *eventstore.Head // told the head of the log after each commit
	Logger *slog.Logger     // default: discarded
	Idle   time.Duration    // how often es.reader moves while no events come; default 10 s
	// Hook is called at the points where a kill could show a fault; nil outside
	// tests. In the order of a life: locked, publish; drop-slot, adopt,
	// adopt-snapshot, adopt-rows, adopt-commit, adopt-committed, adopt-slot; stream;
	// rows, commit, committed, confirm, idle, stop.
	Hook func(point string)
}

// Status is how numbering stands.
type Status struct {
	State     cdc.State
	Waiting   string    // what it waits for, in StateWaiting and StateSnapshot
	Since     time.Time // of State
	Head      int64     // position of the newest numbered event
	Received  cdc.LSN   // everything before it was read
	Numbered  cdc.LSN   // es.reader.lsn: every commit before it is numbered
	Confirmed cdc.LSN   // told to the slot
	ServerEnd cdc.LSN   // end of the server's WAL when last asked
	LagBytes  int64     // ServerEnd − Numbered
	Slot      *cdc.Slot // as last looked at, nil where it is not known
	Alarms    int       // changes of stored events that nobody has acknowledged

	Transactions uint64 // of the source, numbered
	Events       uint64 // numbered by this process
	Batches      uint64 // transactions that wrote es.log
}

// Numberer gives events their positions.
type Numberer struct {
	cfg Config
	log *slog.Logger

	mu     sync.Mutex
	status Status
	adopt  string // why the next life must adopt although es.reader looks right
	whole  bool   // the log was compared with the store once
}

// New makes a Numberer. It does nothing until Run.
func New(cfg Config) *Numberer {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Idle == 0 {
		cfg.Idle = defaultIdle
	}
	if cfg.Head == nil {
		cfg.Head = eventstore.NewHead()
	}
	cfg.Source = SourceConfig(cfg.Source)
	if cfg.Source.Logger == nil {
		cfg.Source.Logger = cfg.Logger
	}
	return &Numberer{cfg: cfg, log: cfg.Logger.With("slot", cfg.Source.Slot), status: Status{State: cdc.StateStopped, Since: time.Now()}}
}

// SourceConfig is how a Numberer reads a database: the events, and the messages of
// barriers.
func SourceConfig(c source.Config) source.Config {
	c.Include, c.Exclude, c.Key = []string{Table}, nil, nil
	c.Messages = []string{eventstore.BarrierPrefix}
	return c
}

// Run is one life: it waits for the slot, numbers what is missing and follows the
// stream until ctx ends (nil) or something breaks. Terminal errors (cdc.IsTerminal)
// need somebody to act; after others, call it again after a while. It blocks until
// everything it started is gone.
func (n *Numberer) Run(ctx context.Context) error {
	defer n.enter(cdc.StateStopped, "")
	for {
		err := n.live(ctx)
		if ctx.Err() != nil {
			return nil
		}
		held, active := errors.Is(err, eventstore.ErrLogHeld), new(source.ErrSlotActive)
		if !held && !errors.As(err, &active) {
			return err
		}
		n.wait(err.Error())
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(holderPoll):
		}
	}
}

// Status tells how numbering stands. It does not block and may be called from
// anywhere.
func (n *Numberer) Status() Status {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.status
	s.LagBytes = max(0, int64(s.ServerEnd)-int64(s.Numbered))
	return s
}

func (n *Numberer) show(change func(*Status)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change(&n.status)
}

// enter notes what is being done; info goes with the state.
func (n *Numberer) enter(state cdc.State, waiting string) {
	n.show(func(s *Status) {
		if s.State != state {
			s.State, s.Since = state, time.Now()
		}
		s.Waiting = waiting
	})
}

// wait is StateWaiting, said once in the log however often it is found again.
func (n *Numberer) wait(why string) {
	if n.Status().State != cdc.StateWaiting {
		n.log.Info("waiting: another instance numbers the events", "reason", why)
	}
	n.enter(cdc.StateWaiting, why)
}

func (n *Numberer) hook(point string) {
	if n.cfg.Hook != nil {
		n.cfg.Hook(point)
	}
}

// distrust has the next life look at every event, whatever es.reader says.
func (n *Numberer) distrust(why string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.adopt = why
}

func (n *Numberer) distrusted() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.adopt
}
