package pgserver

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// attributes makes the child run as id and die with this process: SIGQUIT is
// PostgreSQL's immediate shutdown, after which the next start recovers.
func attributes(id identity) *syscall.SysProcAttr {
	attr := credential(id)
	attr.Pdeathsig = syscall.SIGQUIT
	return attr
}

// children lists the processes whose parent is pid, from /proc (proc(5), stat):
// slim container images have no ps.
func children(pid int) []int {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil
	}
	var pids []int
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		// "123 (name) S 45 …"; the name may hold spaces and brackets.
		f := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
		if len(f) < 2 || string(f[1]) != strconv.Itoa(pid) {
			continue
		}
		if child, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			pids = append(pids, child)
		}
	}
	return pids
}
