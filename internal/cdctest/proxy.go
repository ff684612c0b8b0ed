package cdctest

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"
)

// Proxy is a TCP proxy that breaks connections as networks do. Every method may
// be called at any time, concurrently with traffic; faults hold for connections
// that are open and for later ones, until Resume or Heal.
type Proxy struct {
	Addr string

	target   string
	listener net.Listener
	wg       sync.WaitGroup

	mu      sync.Mutex
	changed chan struct{} // closed and replaced when a fault changes
	pairs   map[*pair]struct{}
	closed  bool
	fault   fault
	conns   int // accepted so far
}

// fault is what the proxy does to traffic now.
type fault struct {
	refuse   bool          // new connections are reset
	stall    bool          // nothing passes, either way
	halfOpen bool          // answers are swallowed, connections stay open
	drop     int           // answers to swallow before their connection is cut
	delay    time.Duration // of each piece, either way
}

// pair is a connection and its continuation to the target.
type pair struct {
	client, server *net.TCPConn
}

const (
	// pieceSize is what a pump reads at once.
	pieceSize = 32 << 10
	// pairLimit bounds the connections of one proxy: two goroutines each.
	pairLimit = 256
	// dialLimit bounds the connection to the target, which is on this machine.
	dialLimit = 10 * time.Second
)

// NewProxy listens on a free port of 127.0.0.1 and passes everything to target,
// until the test ends.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("start a proxy: %v", err)
	}
	return proxyAt(t, l, target)
}

// proxyAt serves a listener until the test ends.
func proxyAt(t testing.TB, l net.Listener, target string) *Proxy {
	p := &Proxy{
		Addr: l.Addr().String(), target: target, listener: l,
		changed: make(chan struct{}), pairs: make(map[*pair]struct{}),
	}
	p.wg.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

// Cut resets every open connection (RST, both ways). New ones are served.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cutLocked()
}

// Refuse resets the open connections and every new one, until Heal.
func (p *Proxy) Refuse() {
	p.set(func(f *fault) { f.refuse = true })
	p.Cut()
}

// Stall holds all traffic back, both ways, without closing anything: a network
// that has gone away. Resume lets what was held back pass.
func (p *Proxy) Stall() { p.set(func(f *fault) { f.stall = true }) }

// Resume ends Stall.
func (p *Proxy) Resume() { p.set(func(f *fault) { f.stall = false }) }

// Delay holds every piece of traffic back for d, both ways; 0 ends it.
func (p *Proxy) Delay(d time.Duration) { p.set(func(f *fault) { f.delay = d }) }

// HalfOpen swallows what the target sends while requests still reach it: they
// are carried out and never answered. Resume does not bring the answers back.
func (p *Proxy) HalfOpen() { p.set(func(f *fault) { f.halfOpen = true }) }

// DropAnswers swallows each of the next n pieces that the target sends and resets
// its connection: a request that was carried out and whose answer is lost.
func (p *Proxy) DropAnswers(n int) { p.set(func(f *fault) { f.drop = n }) }

// Heal ends every fault. Connections that were cut stay cut.
func (p *Proxy) Heal() { p.set(func(f *fault) { *f = fault{} }) }

// SetTarget sends later connections to another address.
func (p *Proxy) SetTarget(addr string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = addr
}

// Connections counts the connections accepted so far.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.conns
}

// Await returns when n connections have been accepted since the start.
func (p *Proxy) Await(ctx context.Context, n int) error {
	for {
		p.mu.Lock()
		enough, changed := p.conns >= n, p.changed
		p.mu.Unlock()
		if enough {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (p *Proxy) set(change func(*fault)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.fault)
	p.wakeLocked()
}

func (p *Proxy) wakeLocked() {
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *Proxy) cutLocked() {
	for pr := range p.pairs {
		pr.reset()
		delete(p.pairs, pr)
	}
	p.wakeLocked()
}

func (p *Proxy) close() {
	p.mu.Lock()
	p.closed = true
	p.cutLocked()
	p.mu.Unlock()
	_ = p.listener.Close()
	p.wg.Wait()
}

// reset closes both ends with RST instead of FIN.
func (pr *pair) reset() {
	for _, c := range []*net.TCPConn{pr.client, pr.server} {
		_ = c.SetLinger(0)
		_ = c.Close()
	}
}

func (p *Proxy) accept() {
	for {
		conn, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		p.wg.Go(func() { p.serve(conn.(*net.TCPConn)) })
	}
}

// serve connects to the target and pumps both ways until either end closes.
func (p *Proxy) serve(client *net.TCPConn) {
	p.mu.Lock()
	target := p.target
	refuse := p.closed || p.fault.refuse || len(p.pairs) >= pairLimit
	p.mu.Unlock()
	if refuse {
		_ = client.SetLinger(0)
		_ = client.Close()
		return
	}
	server, err := net.DialTimeout("tcp", target, dialLimit)
	if err != nil {
		_ = client.SetLinger(0)
		_ = client.Close()
		return
	}
	pr := &pair{client: client, server: server.(*net.TCPConn)}
	p.mu.Lock()
	if p.closed || p.fault.refuse {
		p.mu.Unlock()
		pr.reset()
		return
	}
	p.pairs[pr] = struct{}{}
	p.conns++
	p.wakeLocked()
	p.mu.Unlock()

	var pumps sync.WaitGroup
	pumps.Go(func() { p.pump(pr, false) })
	pumps.Go(func() { p.pump(pr, true) })
	pumps.Wait()
	p.mu.Lock()
	delete(p.pairs, pr)
	p.mu.Unlock()
	_ = pr.client.Close()
	_ = pr.server.Close()
}

// pump copies one way: the target's answers, or the client's requests.
func (p *Proxy) pump(pr *pair, answers bool) {
	buf := make([]byte, pieceSize)
	from, to := pr.client, pr.server
	if answers {
		from, to = pr.server, pr.client
	}
	for {
		n, err := from.Read(buf)
		if n > 0 && p.pass(pr, answers) {
			if _, err := to.Write(buf[:n]); err != nil {
				_ = from.Close()
				return
			}
		}
		if err != nil {
			_ = to.CloseWrite()
			return
		}
	}
}

// pass waits until a piece may go on, and says whether it does.
func (p *Proxy) pass(pr *pair, answer bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.fault.stall && p.openLocked(pr) {
		p.waitLocked(nil)
	}
	if d := p.fault.delay; d > 0 && p.openLocked(pr) {
		timer := time.NewTimer(d)
		defer timer.Stop()
		for waiting := true; waiting && p.openLocked(pr); {
			waiting = p.waitLocked(timer.C)
		}
	}
	if !p.openLocked(pr) || answer && p.fault.halfOpen {
		return false
	}
	if answer && p.fault.drop > 0 {
		p.fault.drop--
		pr.reset()
		delete(p.pairs, pr)
		p.wakeLocked()
		return false
	}
	return true
}

// openLocked says that the pair has not been cut.
func (p *Proxy) openLocked(pr *pair) bool {
	_, ok := p.pairs[pr]
	return ok
}

// waitLocked releases the lock until a fault changes (true) or timer fires (false).
func (p *Proxy) waitLocked(timer <-chan time.Time) bool {
	changed := p.changed
	p.mu.Unlock()
	defer p.mu.Lock()
	select {
	case <-changed:
		return true
	case <-timer:
		return false
	}
}
