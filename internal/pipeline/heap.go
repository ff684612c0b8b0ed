package pipeline

import (
	"os"
	"runtime/debug"
)

// heapSlack is how much may be allocated between two collections, in percent of
// what is in use. Go's own 100 would let a pipeline whose buffers are full of
// unacknowledged records hold as much again in garbage. Rows allocate nothing and
// nearly all that is in use are buffers without pointers, so collections stay
// rare and take a millisecond.
const heapSlack = 25

// TightHeap keeps the memory of a process that runs pipelines close to what they
// have in use. It is for the process as a whole: call it at its start. A GOGC in
// the environment is left as it is.
func TightHeap() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(heapSlack)
	}
}
