package broker

import (
	"fmt"
	"net"
	"strconv"
)

// loopback checks that an address can be reached from this machine only: the
// broker knows no authentication.
func loopback(address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", fmt.Errorf("listen address %q: want host:port, for example 127.0.0.1:9092", address)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", fmt.Errorf("listen address %q: the port is no number from 0 to 65535", address)
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return "", fmt.Errorf("listen address %q: the embedded broker has no authentication and listens on loopback only (127.0.0.1, ::1 or localhost); use a Kafka cluster to serve other machines", address)
	}
	return net.JoinHostPort(host, port), nil
}
