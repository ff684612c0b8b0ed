package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/child"
	"cdc/internal/config"
)

// Options say how a run goes. Start and Out are needed; the zero value of all
// else is a sensible run.
type Options struct {
	Dir          string        // data folder; "": DefaultDir, or one below the temporary directory
	Fresh        bool          // forget what an earlier run left there
	For          time.Duration // how long the workload runs; 0: until ctx ends
	Transactions int           // how many it begins; 0: no limit
	Add          time.Duration // after how long the reaction and the view are added; 0: half-way, or after DefaultAdd where no end is set
	Rate         int           // transactions begun per second; 0: DefaultRate
	Lines        int           // changes shown per second; 0: all
	Seed         uint64        // of everything random
	Programs     string        // folder of PostgreSQL's server programs; "": found or fetched
	Broker       string        // host:port of the embedded broker; "": DefaultBroker, another port where it is taken
	Admin        string        // host:port of health and metrics; "": DefaultAdmin, another port where it is taken
	Color        bool
	Out          io.Writer
	Start        Starter
	// Hook, where set, is called at the Hook… points of a run, so that tests can
	// interfere there.
	Hook func(point string)
}

// The points at which Options.Hook is called.
const (
	HookIdle    = "idle"    // the workload has ended, the pipelines run
	HookStopped = "stopped" // nothing writes any more; topics were not compared yet
)

// Starter builds a daemon from a configuration; its broker listens when it returns.
type Starter func(ctx context.Context, cfg *config.Config, log *slog.Logger) (Daemon, error)

// Daemon is the service, as `cdc run` runs it.
type Daemon interface {
	// Run runs the pipelines and the admin server until ctx ends, or until no
	// pipeline is left; everything has ended when it returns.
	Run(ctx context.Context) error
	// Status tells how the pipelines are; it may be called at any time.
	Status() []cdc.Status
	// Compact compacts every topic now. It blocks, and no record is served meanwhile.
	Compact(ctx context.Context) error
	// Close ends the broker, after Run has returned.
	Close() error
}

// Defaults of a run.
const (
	DefaultAdd    = 20 * time.Second
	DefaultRate   = 30
	DefaultLines  = 12
	DefaultBroker = "127.0.0.1:9092"
	DefaultAdmin  = "127.0.0.1:8083"

	mostRate = 2_000 // what a machine that runs everything else too can follow
)

// Check finds values that no run can have.
func (o *Options) Check() error {
	switch {
	case o.Rate < 0 || o.Rate > mostRate:
		return fmt.Errorf("rate %d: want 1 to %d transactions per second", o.Rate, mostRate)
	case o.Add < 0:
		return fmt.Errorf("addition after %v: want more than 0", o.Add)
	case o.For < 0:
		return fmt.Errorf("duration %v: want more than 0", o.For)
	case o.Lines < 0:
		return fmt.Errorf("lines %d: want 0 (all) or more per second", o.Lines)
	case o.Transactions < 0:
		return fmt.Errorf("transactions %d: want 0 (no limit) or more", o.Transactions)
	case o.Start == nil || o.Out == nil:
		return errors.New("run demo: no daemon to start, or no output")
	}
	return nil
}

// withDefaults fills in what was left out.
func (o Options) withDefaults() Options {
	o.Rate = cmp.Or(o.Rate, DefaultRate)
	if o.Hook == nil {
		o.Hook = func(string) {}
	}
	return o
}

// ends says what ends the run.
func (o *Options) ends() string {
	const compared = "; then every topic and view is compared"
	switch {
	case o.For > 0 && o.Transactions > 0:
		return fmt.Sprintf("after %v or %d transactions%s", o.For, o.Transactions, compared)
	case o.For > 0:
		return fmt.Sprintf("after %v, Ctrl-C ends it sooner%s", o.For, compared)
	case o.Transactions > 0:
		return fmt.Sprintf("after %d transactions%s", o.Transactions, compared)
	}
	return "with Ctrl-C" + compared
}

// addsAfter is when the reaction and the view are added, 0 where half of the
// transactions say it alone.
func (o *Options) addsAfter() time.Duration {
	switch {
	case o.Add > 0:
		return o.Add
	case o.For > 0:
		return o.For / 2
	case o.Transactions > 0:
		return 0
	}
	return DefaultAdd
}

// address is the wanted one; where none was wanted, the usual one or, if that is
// taken, one with a free port.
func address(wanted, usual string) (string, error) {
	if wanted == "" {
		l, err := net.Listen("tcp", usual)
		if err == nil {
			return usual, l.Close()
		}
		wanted = "127.0.0.1:0"
	}
	host, port, err := net.SplitHostPort(wanted)
	if err != nil || port != "0" {
		return wanted, nil // whoever listens there judges it
	}
	n, err := child.FreePort()
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(host, fmt.Sprint(n)), nil
}
