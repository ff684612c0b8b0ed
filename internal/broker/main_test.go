package broker_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"cdc/internal/broker"
)

// Where childDir is set this program is no test run but a broker in that
// directory, started by a test that is going to kill it.
const (
	childDir     = "CDC_TEST_BROKER_DIR"
	childNoSync  = "CDC_TEST_BROKER_NOSYNC"
	childCompact = "CDC_TEST_BROKER_COMPACT" // compact again and again
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		beChild(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

func beChild(dir string) {
	b, err := broker.Start(context.Background(), broker.Config{Dir: dir, Listen: "127.0.0.1:0", NoSync: os.Getenv(childNoSync) != ""})
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	fmt.Println("listening", b.Addr())
	go func() {
		<-b.Failed()
		fmt.Println("error:", broker.ErrFailed, b.Close())
		os.Exit(1)
	}()
	for os.Getenv(childCompact) != "" {
		if err := b.Compact(context.Background()); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		time.Sleep(20 * time.Millisecond) // clients get their turn
	}
	select {}
}

// child is a broker in a process of its own.
type child struct {
	cmd  *exec.Cmd
	addr string
}

func startChild(t *testing.T, dir string, env ...string) *child {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), childDir+"="+dir), env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &child{cmd: cmd}
	t.Cleanup(c.kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	addr, ok := strings.CutPrefix(strings.TrimSpace(line), "listening ")
	if err != nil || !ok {
		t.Fatalf("child broker said %q (%v), want its address", line, err)
	}
	c.addr = addr
	return c
}

// kill ends the process as a crash does: SIGKILL, nothing is flushed.
func (c *child) kill() {
	if c.cmd.ProcessState == nil {
		c.cmd.Process.Kill()
		c.cmd.Wait()
	}
}

func start(t *testing.T, dir string) *broker.Broker {
	t.Helper()
	b, err := broker.Start(t.Context(), broker.Config{Dir: dir, Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return b
}

func client(t *testing.T, addr string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(addr), kgo.RecordPartitioner(kgo.ManualPartitioner())}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// patience bounds every wait of these tests; nothing is asserted about time.
const patience = time.Minute

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}
