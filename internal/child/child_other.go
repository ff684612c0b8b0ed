//go:build unix && !linux

package child

import (
	"context"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// dieWithParent does nothing: only Linux can tie a child's life to ours.
func dieWithParent(*syscall.SysProcAttr, syscall.Signal) {}

// childrenOf lists the processes whose parent is pid.
func childrenOf(pid int) []int {
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
