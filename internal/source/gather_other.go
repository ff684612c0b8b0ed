//go:build !linux

package source

import "net"

// gatherer needs Linux' SO_RCVLOWAT and poll; elsewhere every read is plain.
type gatherer struct{}

func newGatherer(net.Conn) gatherer { return gatherer{} }

func (g *gatherer) read([]byte, int) (int, error) { return 0, nil }

func (g *gatherer) relax() {}
