package child

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// The range FreePort chooses from lies below the ports that Linux (32768 up) and
// macOS (49152 up) give to outgoing connections, so that a server which is
// stopped for a while finds its port free when it comes back.
const (
	firstPort = 17000
	lastPort  = 31999
	portTries = 200
)

// FreePort finds a TCP port on 127.0.0.1 that nobody listens on.
func FreePort() (int, error) {
	var last error
	for range portTries {
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			last = err
			continue
		}
		return port, l.Close()
	}
	return 0, fmt.Errorf("find a free port from %d to %d: %w", firstPort, lastPort, last)
}
