package cdctest

import (
	"net"
	"strconv"
	"testing"
)

// Failover is a host of two addresses, one after the other, with a proxy at each
// of them, on one port: what stands behind it moves, and only its name tells.
type Failover struct {
	Addr string // name:port

	host    *host
	proxies [2]*Proxy
	now     int // index of the proxy that the name leads to
}

// failoverAddrs are addresses of this machine: Linux has all of 127.0.0.0/8.
var failoverAddrs = [2]net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(127, 0, 0, 2)}

// failoverTries bounds the search for a port that is free at both.
const failoverTries = 100

// NewFailover makes one that leads to target, until the test ends. Its package's
// TestMain calls ServeNames. Where the machine has one loopback address alone the
// test is skipped, and says so.
func NewFailover(t testing.TB, target string) *Failover {
	t.Helper()
	probe, err := net.Listen("tcp", net.JoinHostPort(failoverAddrs[1].String(), "0"))
	if err != nil {
		t.Skipf("a second address of this machine is needed: %v", err)
	}
	_ = probe.Close()
	var listeners [2]net.Listener
	for range failoverTries {
		if listeners[0], err = net.Listen("tcp", net.JoinHostPort(failoverAddrs[0].String(), "0")); err != nil {
			t.Fatalf("start a proxy: %v", err)
		}
		_, port, _ := net.SplitHostPort(listeners[0].Addr().String())
		if listeners[1], err = net.Listen("tcp", net.JoinHostPort(failoverAddrs[1].String(), port)); err == nil {
			break
		}
		_ = listeners[0].Close()
	}
	if err != nil {
		t.Fatalf("find a port that is free at two addresses: %v", err)
	}
	name, h := newHost()
	port := listeners[0].Addr().(*net.TCPAddr).Port
	f := &Failover{Addr: net.JoinHostPort(name, strconv.Itoa(port)), host: h}
	for i, l := range listeners {
		f.proxies[i] = proxyAt(t, l, target)
	}
	f.proxies[1].Refuse()
	h.set(failoverAddrs[0])
	return f
}

// Leave resets the connections and refuses new ones, and the name has no address:
// what it led to is gone, and nobody has taken its place yet.
func (f *Failover) Leave() {
	f.host.set(nil)
	f.proxies[f.now].Refuse()
}

// Asked says that somebody has asked for the name since it was last changed.
func (f *Failover) Asked() bool { return f.host.questions() > 0 }

// Arrive is the end of a failover: the name leads to the other address.
func (f *Failover) Arrive() {
	f.now = 1 - f.now
	f.proxies[f.now].Heal()
	f.host.set(failoverAddrs[f.now])
}
