//go:build unix && !linux

package pgserver

import (
	"context"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// attributes makes the child run as id. Only Linux can tie its life to ours.
func attributes(id identity) *syscall.SysProcAttr { return credential(id) }

// children lists the processes whose parent is pid.
func children(pid int) []int {
	ctx, cancel := context.WithTimeout(context.Background(), drainLimit)
	defer cancel()
	out, err := exec.CommandContext(ctx, "ps", "-A", "-o", "pid=,ppid=").Output()
	if err != nil {
		return nil
	}
	var pids []int
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) == 2 && f[1] == strconv.Itoa(pid) {
			if child, err := strconv.Atoi(f[0]); err == nil {
				pids = append(pids, child)
			}
		}
	}
	return pids
}
