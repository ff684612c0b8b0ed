package main

import (
	"context"
	"fmt"
	"io"
	"slices"
)

// shrinkTries is how often a smaller plan may pass before it is taken for one
// that does not fail: the interleaving is not part of the seed.
const shrinkTries = 4

// shrink drops faults, then halves the workload, while the seed still fails.
func shrink(ctx context.Context, o options, program string, out io.Writer) (ok bool, err error) {
	l, err := newLane(program, !o.limits.noDisk)
	if err != nil {
		return false, err
	}
	defer l.close()
	kafka := o.kafka[0]
	fails := func(limits limits) (*result, error) {
		for range shrinkTries {
			r, err := l.run(ctx, makePlan(o.seed, kafka, limits))
			if err != nil || r.failed() {
				return r, err
			}
		}
		return nil, nil
	}
	smallest := o.limits
	worst, err := fails(smallest)
	if err != nil {
		return false, err
	}
	if worst == nil {
		fmt.Fprintf(out, "seed %d did not fail in %d runs\n", o.seed, shrinkTries)
		return true, nil
	}
	try := func(l limits) (bool, error) {
		r, err := fails(l)
		if err != nil || r == nil {
			return false, err
		}
		worst, smallest = r, l
		fmt.Fprintf(out, "still fails with %d faults and %d steps\n", len(r.plan.faults), r.plan.steps())
		return true, nil
	}
	faults := []int{}
	for _, f := range worst.plan.faults {
		faults = append(faults, f.number)
	}
	for _, n := range slices.Clone(faults) {
		fewer := slices.DeleteFunc(slices.Clone(faults), func(m int) bool { return m == n })
		less, err := try(limits{steps: smallest.steps, faults: fewer, noDisk: smallest.noDisk})
		if err != nil {
			return false, err
		}
		if less {
			faults = fewer
		}
	}
	for steps := longest(worst.plan) / 2; steps > 0; steps /= 2 {
		if less, err := try(limits{steps: steps, faults: smallest.faults, noDisk: smallest.noDisk}); err != nil || !less {
			if err != nil {
				return false, err
			}
			break
		}
	}
	o.limits = smallest
	report(out, o, worst)
	return false, nil
}

// longest is the number of steps of the longest session.
func longest(p plan) int {
	n := 0
	for _, s := range p.sessions {
		n = max(n, len(s))
	}
	return n
}
