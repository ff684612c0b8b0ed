package cdctest

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"github.com/twmb/franz-go/pkg/kfake"

	"cdc/internal/child"
)

// fake is kfake in this process: shared, up in a millisecond, data in memory.
type fake struct{ cluster *kfake.Cluster }

// fakeOptions are those of every kfake of the kit: one broker, and no topic made
// by accident.
func fakeOptions(port int) []kfake.Opt {
	return []kfake.Opt{kfake.NumBrokers(1), kfake.Ports(port), kfake.ClusterID("cdctest")}
}

func startFake() (node, error) {
	c, err := kfake.NewCluster(fakeOptions(0)...) // it never comes back: any port will do
	if err != nil {
		return nil, fmt.Errorf("start kfake: %w", err)
	}
	return &fake{cluster: c}, nil
}

func (f *fake) addr() string { return f.cluster.ListenAddrs()[0] }

func (f *fake) start(context.Context) error { return nil }

func (f *fake) kill() {}

func (f *fake) ended() <-chan struct{} { return nil }

func (f *fake) close() { f.cluster.Close() }

// The variables that make a test binary a broker instead; see Main.
const (
	fakePortVariable = "CDCTEST_KFAKE_PORT"
	fakeDirVariable  = "CDCTEST_KFAKE_DIR"
	fakeAddrVariable = "CDCTEST_KFAKE_ADVERTISE"
)

// fakeProcess is kfake in a process of its own with its data on disk: the test
// binary, run again.
type fakeProcess struct {
	port      int
	dir       string
	advertise string // address that clients are told to use, if not our own
	log       *child.Log
	proc      *child.Process
}

func startFakeProcess(ctx context.Context, advertise, under string) (node, error) {
	dir, err := os.MkdirTemp(under, "cdc-kfake-")
	if err != nil {
		return nil, fmt.Errorf("make a directory for kfake: %w", err)
	}
	f := &fakeProcess{dir: dir, advertise: advertise, log: child.NewLog(nil)}
	if f.port, err = child.FreePort(); err == nil {
		err = f.start(ctx)
	}
	if err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

func (f *fakeProcess) addr() string { return "127.0.0.1:" + strconv.Itoa(f.port) }

func (f *fakeProcess) start(ctx context.Context) error {
	if f.proc != nil {
		return fmt.Errorf("start kfake: it is running (pid %d)", f.proc.PID)
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("start kfake: find the test binary: %w", err)
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), fakePortVariable+"="+strconv.Itoa(f.port), fakeDirVariable+"="+f.dir, fakeAddrVariable+"="+f.advertise)
	cmd.Stdout, cmd.Stderr = f.log, f.log
	if f.proc, err = child.Start(cmd, child.User{}, syscall.SIGKILL); err != nil {
		return fmt.Errorf("start kfake: %w", err)
	}
	if err := awaitBroker(ctx, f.addr(), f.proc.Done()); err != nil {
		return fmt.Errorf("%w\n%s", err, f.log.Tail())
	}
	return nil
}

func (f *fakeProcess) kill() {
	if f.proc != nil {
		f.proc.KillTree()
		f.proc = nil
	}
}

func (f *fakeProcess) ended() <-chan struct{} { return f.proc.Done() }

func (f *fakeProcess) close() {
	f.kill()
	_ = os.RemoveAll(f.dir)
}

// serveFake runs in the child process, until it is killed.
func serveFake() int {
	port, err := strconv.Atoi(os.Getenv(fakePortVariable))
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", fakePortVariable, err)
		return 2
	}
	opts := append(fakeOptions(port), kfake.DataDir(os.Getenv(fakeDirVariable)),
		kfake.WithLogger(haltUnwritten{}))
	if addr := os.Getenv(fakeAddrVariable); addr != "" {
		opts = append(opts, kfake.ListenFn(func(network, address string) (net.Listener, error) {
			l, err := net.Listen(network, address)
			if err != nil {
				return nil, err
			}
			return advertised{Listener: l, addr: addr}, nil
		}))
	}
	c, err := kfake.NewCluster(opts...)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	compactWhenAsked(c)
	return 0
}

// haltUnwritten ends the process where kfake could not write, as Apache Kafka
// ends without its log directory: kfake itself would go on, and acknowledge the
// batch that is lost when it is sent again.
type haltUnwritten struct{}

// Logf implements kfake.Logger.
func (haltUnwritten) Logf(_ kfake.LogLevel, format string, args ...any) {
	if strings.HasPrefix(format, "persist ") {
		fmt.Fprintf(os.Stderr, "kfake ends: "+format+"\n", args...)
		os.Exit(1)
	}
}

// advertised is a listener that names another address: kfake tells it to clients.
type advertised struct {
	net.Listener
	addr string
}

func (a advertised) Addr() net.Addr { return named(a.addr) }

// named is an address that may be a name.
type named string

func (n named) Network() string { return "tcp" }
func (n named) String() string  { return string(n) }
