package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"cdc/internal/child"
)

// logKept is how much of the output of one instance is kept.
const logKept = 32 << 10

// instance is one process of cdc.
type instance struct {
	number int
	proc   *child.Process
	log    *tailWriter
	admin  string
	point  string // CDC_FAILPOINT
	ended  chan struct{}

	mu      sync.Mutex
	asked   bool // it was killed or stopped by us: its end is no news
	rivals  bool // it ran beside another one: it may find itself fenced
	leaving bool // SIGTERM was sent, and it may be hit at a fail point on its way
	memory  int  // kB, the most seen
}

// crew starts instances of cdc and watches how they end.
type crew struct {
	program string
	dir     string
	clock   clock
	yaml    func(admin string) string

	mu       sync.Mutex
	all      []*instance
	main     *instance // the one that is there between faults
	held     bool      // two of them are at it: none is replaced meanwhile
	over     map[*instance]bool
	closing  bool
	failures []string // instances that ended by themselves
	hits     int      // fail points that killed
	fenced   int      // instances that found themselves replaced, and went
	full     bool     // the disk of the broker inside cdc is
	fullTo   int      // instances before this number have seen it full
	ranOut   int      // those that ended of that
}

// start starts the main instance, hit at a fail point unless that is "".
func (c *crew) start(point string) (*instance, error) {
	i, err := c.spawn(point)
	if err == nil {
		c.mu.Lock()
		c.main = i
		c.mu.Unlock()
	}
	return i, err
}

// spawn starts an instance beside the main one.
func (c *crew) spawn(point string) (*instance, error) {
	port, err := child.FreePort()
	if err != nil {
		return nil, err
	}
	i := &instance{log: &tailWriter{}, admin: "127.0.0.1:" + strconv.Itoa(port), point: point, ended: make(chan struct{})}
	c.mu.Lock()
	i.number = len(c.all)
	c.all = append(c.all, i)
	c.mu.Unlock()
	config := filepath.Join(c.dir, fmt.Sprintf("cdc-%d.yaml", i.number))
	if err := os.WriteFile(config, []byte(c.yaml(i.admin)), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command(c.program, "run", "--config", config)
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), "CDC_FAILPOINT="+point, clockVariable+"="+c.clock.path)
	cmd.Stdout, cmd.Stderr = i.log, i.log
	if i.proc, err = child.Start(cmd, child.User{}, syscall.SIGKILL); err != nil {
		return nil, fmt.Errorf("start cdc: %w", err)
	}
	go c.watch(i)
	return i, nil
}

// watch replaces an instance that its fail point has killed. One that ended by
// itself is a failure: no fault is one that trying again cannot mend.
func (c *crew) watch(i *instance) {
	defer close(i.ended)
	<-i.proc.Done()
	i.mu.Lock()
	asked := i.asked
	left := i.leaving && i.proc.ExitCode() == 0
	i.mu.Unlock()
	fenced := i.fenced()
	hit := i.point != "" && i.proc.ExitCode() < 0
	c.mu.Lock()
	c.over[i] = true
	again := c.main == i && !c.closing && !c.held && !asked
	switch {
	case asked, left:
	case hit:
		c.hits++
	case fenced: // as it should
		c.fenced++
	case (c.full || i.number < c.fullTo) && i.ranOut(): // its broker cannot go on
		c.ranOut++
	default:
		c.failures = append(c.failures, fmt.Sprintf("instance %d ended by itself: %v", i.number, i.proc.Err()))
	}
	c.mu.Unlock()
	if again {
		if _, err := c.start(""); err != nil {
			c.fail(err)
		}
	}
}

// current is the main instance.
func (c *crew) current() *instance {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.main
}

// first is the instance that began.
func (c *crew) first() *instance {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all[0]
}

// hold has nobody replaced until become.
func (c *crew) hold() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = true
}

// become makes an instance the main one, or a new one if it has ended.
func (c *crew) become(i *instance) error {
	c.mu.Lock()
	c.main, c.held = i, false
	gone := c.over[i]
	c.mu.Unlock()
	if !gone {
		return nil
	}
	_, err := c.start("")
	return err
}

// kill ends an instance with SIGKILL.
func (i *instance) kill() {
	i.ask()
	i.measure()
	i.proc.KillTree()
	<-i.ended
}

func (i *instance) ask() {
	i.mu.Lock()
	i.asked = true
	i.mu.Unlock()
}

func (i *instance) pause() error  { return i.proc.Signal(syscall.SIGSTOP) }
func (i *instance) resume() error { return i.proc.Signal(syscall.SIGCONT) }

// frozen says that the process is stopped.
func (i *instance) frozen() bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", i.proc.PID))
	if err != nil {
		return false
	}
	at := bytes.LastIndexByte(b, ')')
	return at >= 0 && len(b) > at+2 && b[at+2] == 'T'
}

// terminate stops in order and says how it ended. The promise is ten seconds; the
// limit has room for a loaded machine.
func (i *instance) terminate() error {
	i.ask()
	i.measure()
	if err := i.proc.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-i.proc.Done():
	case <-time.After(termLimit):
		i.proc.KillTree()
		return fmt.Errorf("instance %d still ran %v after SIGTERM", i.number, termLimit)
	}
	<-i.ended
	if i.fenced() {
		return nil
	}
	if i.proc.ExitCode() < 0 && (i.point != "" || i.log.tail() == "") {
		return nil // hit on its way, or so young that it did not listen for signals yet
	}
	if i.proc.ExitCode() != 0 {
		return fmt.Errorf("instance %d ended with %w after SIGTERM", i.number, i.proc.Err())
	}
	return nil
}

// termLimit bounds an orderly stop.
const termLimit = 60 * time.Second

// rival says that the instance runs beside another one.
func (i *instance) rival() {
	i.mu.Lock()
	i.rivals = true
	i.mu.Unlock()
}

// fenced says that it found itself replaced.
func (i *instance) fenced() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.rivals && i.log.contains("reason=fenced")
}

// gone says that the process has ended.
func (i *instance) gone() bool {
	select {
	case <-i.proc.Done():
		return true
	default:
		return false
	}
}

// leave sends SIGTERM to an instance that may be hit on its way.
func (i *instance) leave() error {
	i.mu.Lock()
	i.leaving = true
	i.mu.Unlock()
	return i.proc.Signal(syscall.SIGTERM)
}

// measure notes the most memory that the process has had.
func (i *instance) measure() {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", i.proc.PID))
	if err != nil {
		return
	}
	for line := range strings.Lines(string(b)) {
		rest, ok := strings.CutPrefix(line, "VmHWM:")
		if !ok {
			continue
		}
		if kb, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB"))); err == nil {
			i.mu.Lock()
			i.memory = max(i.memory, kb)
			i.mu.Unlock()
		}
	}
}

// close kills what is left.
func (c *crew) close() {
	c.mu.Lock()
	c.closing = true
	all := c.all
	c.mu.Unlock()
	for _, i := range all {
		if i.proc != nil {
			i.kill()
		}
	}
}

// stop ends the main instance in order. Where it was hit at a fail point on its
// way, another is started and stopped.
func (c *crew) stop() error {
	c.mu.Lock()
	c.closing = true
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.closing = false
		c.mu.Unlock()
	}()
	for range 2 {
		i := c.current()
		if err := i.terminate(); err != nil || i.proc.ExitCode() == 0 {
			return err
		}
		if _, err := c.start(""); err != nil {
			return err
		}
		if err := c.current().awaitLog("replication started"); err != nil {
			return err
		}
	}
	return errors.New("cdc was killed twice by one fail point")
}

// awaitLog waits until the output holds a text.
func (i *instance) awaitLog(text string) error {
	limit := time.After(termLimit)
	for !i.log.contains(text) {
		select {
		case <-i.ended:
			return fmt.Errorf("instance %d ended before it said %q", i.number, text)
		case <-limit:
			return fmt.Errorf("instance %d has not said %q after %v", i.number, text, termLimit)
		case <-time.After(again):
		}
	}
	return nil
}

// memory is the most that any instance has had, in kB.
func (c *crew) memory() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	most := 0
	for _, i := range c.all {
		i.mu.Lock()
		most = max(most, i.memory)
		i.mu.Unlock()
	}
	return most
}

// fail notes what an instance did that it must not.
func (c *crew) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failures = append(c.failures, err.Error())
}

// ended returns what instances have done by themselves.
func (c *crew) ended() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.failures...)
}

// logs are the ends of the outputs of the last instances.
func (c *crew) logs(instances int) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	for _, i := range c.all[max(0, len(c.all)-instances):] {
		fmt.Fprintf(&b, "--- instance %d", i.number)
		if i.point != "" {
			fmt.Fprintf(&b, " (fail point %s)", i.point)
		}
		fmt.Fprintf(&b, "\n%s", i.log.tail())
	}
	return b.String()
}

// tailWriter keeps the end of what is written.
type tailWriter struct {
	mu   sync.Mutex
	text []byte
}

func (w *tailWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text = append(w.text, b...)
	if len(w.text) > 2*logKept {
		w.text = append([]byte(nil), w.text[len(w.text)-logKept:]...)
	}
	return len(b), nil
}

func (w *tailWriter) contains(text string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return bytes.Contains(w.text, []byte(text))
}

func (w *tailWriter) tail() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(w.text)
}
