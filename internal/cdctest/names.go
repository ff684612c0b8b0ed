package cdctest

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
)

// names are the hosts that the tests have made.
var names struct {
	sync.Mutex
	hosts map[string]*host // by fully qualified name
}

// host is a name of the tests: who asks is told addr, and that there is no such
// host where addr is nil.
type host struct {
	addr  net.IP
	asked int // questions since addr was set
}

// ServeNames has this process ask the tests for the addresses of hosts, so that a
// Failover has a name. It is for TestMain: the resolver belongs to all connections.
// Addresses, and what /etc/hosts knows, are not asked for.
func ServeNames() {
	names.hosts = map[string]*host{}
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		here, there := net.Pipe() // to Go's resolver anything but a packet connection is a stream
		go serveNames(there)
		return here, nil
	}}
}

// newHost makes a name without an address.
func newHost() (name string, h *host) {
	names.Lock()
	defer names.Unlock()
	if names.hosts == nil {
		panic("cdctest: a host before ServeNames")
	}
	h = &host{}
	name = fmt.Sprintf("host%d.test", len(names.hosts)+1)
	names.hosts[name+"."] = h
	return name, h
}

func (h *host) set(addr net.IP) {
	names.Lock()
	defer names.Unlock()
	h.addr, h.asked = addr, 0
}

func (h *host) questions() int {
	names.Lock()
	defer names.Unlock()
	return h.asked
}

// serveNames answers the questions of a connection until its other end is closed.
func serveNames(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	for {
		var size [2]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return
		}
		query := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(conn, query); err != nil {
			return
		}
		answer, err := answerName(query)
		if err != nil {
			return // the resolver asks again, and says so in the end
		}
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
			return
		}
	}
}

// answerName answers one question (RFC 1035, 4.1), and leaves out what the query
// has beside it.
func answerName(query []byte) ([]byte, error) {
	const (
		header    = 12
		response  = 0x8580 // authoritative; recursion was asked for and is there
		noName    = 3
		typeA     = 1
		classIN   = 1
		ownerName = 0xc000 | header // of a record: the question's
	)
	name, at := "", header
	for at < len(query) && query[at] != 0 {
		end := at + 1 + int(query[at])
		if end > len(query) {
			return nil, io.ErrUnexpectedEOF
		}
		name += string(query[at+1:end]) + "."
		at = end
	}
	question := at + 5 // the root, type and class
	if question > len(query) {
		return nil, io.ErrUnexpectedEOF
	}
	var addr net.IP
	names.Lock()
	h := names.hosts[name]
	if h != nil {
		addr = h.addr
		h.asked++
	}
	names.Unlock()
	flags, answers := uint16(response), uint16(0)
	if addr == nil {
		flags |= noName
	} else if binary.BigEndian.Uint16(query[at+1:]) == typeA {
		answers = 1
	}
	b := append([]byte(nil), query[:2]...)
	for _, v := range []uint16{flags, 1, answers, 0, 0} {
		b = binary.BigEndian.AppendUint16(b, v)
	}
	b = append(b, query[header:question]...)
	if answers == 1 {
		for _, v := range []uint16{ownerName, typeA, classIN, 0, 0, net.IPv4len} { // two of them: seconds that it may be kept
			b = binary.BigEndian.AppendUint16(b, v)
		}
		b = append(b, addr.To4()...)
	}
	return b, nil
}
