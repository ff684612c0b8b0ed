package reaction

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"cdc/internal/eventstore"
)

// childVariable has the URL of the store and after how many steps to kill.
const childVariable = "CDC_TEST_REACTION_CHILD"

// child runs the reactions of a store until it has taken so many steps, and kills
// itself.
func child() int {
	steps, url, _ := strings.Cut(os.Getenv(childVariable), " ")
	left, err := strconv.Atoi(steps)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	store, err := eventstore.Open(context.Background(), eventstore.Config{URL: url, MaxConns: 4})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	r := New(Config{Store: store, Hook: func(step, _ string) {
		if left--; left == 0 {
			fmt.Println(step) // the pipe has it before the process is gone
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}})
	_ = r.Run(context.Background())
	return 2 // it never ends by itself
}

// TestKilledAtEveryStep: whatever moment the process dies at, each cancellation
// offers its place once, to the next who waits.
func TestKilledAtEveryStep(t *testing.T) {
	t.Parallel()
	const triggers = 40
	w := newWorld(t)
	w.install(t, university())
	w.views(t)
	students := make([]string, triggers)
	for i := range students {
		students[i] = fmt.Sprintf("student-%02d", i)
	}
	w.waitlist(t, "ddia", students...)
	for i := range triggers {
		w.cancel(t, "ddia", fmt.Sprint("leaver-", i))
	}
	seed := uint64(os.Getpid())
	rng := rand.New(rand.NewPCG(seed, 0))
	died := map[string]int{}
	for life := 0; len(died) < 7 && life < 60; life++ {
		// The first lives die at each step of the first event, the later ones anywhere.
		steps := 1 + life
		if life >= 7 {
			steps = 1 + rng.IntN(10)
		}
		cmd := exec.CommandContext(testContext(t), os.Args[0])
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %s", childVariable, steps, w.URL))
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		step := strings.TrimSpace(string(out))
		if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
			t.Fatalf("seed %d: the runner was to die by SIGKILL and ended with %v (%s)", seed, err, step)
		}
		died[step]++
	}
	for _, step := range []string{stepWait, stepBegin, stepQuery, stepAppend, stepMove, stepCommit, stepDone} {
		if died[step] == 0 {
			t.Errorf("seed %d: no runner died before step %s: %v", seed, step, died)
		}
	}
	w.reactions(t)
	w.reacted(t, "offer-freed-place")
	wrong := w.Query(t, `select t.id, count(o.id) from es.event t left join es.event o on o.type = 'place-offered' and o.meta->>'causation' = t.id::text
		where t.type = 'enrolment-cancelled' group by t.id having count(o.id) <> 1`)
	if len(wrong) > 0 {
		t.Errorf("seed %d: triggers with another number of offers than one: %v", seed, wrong)
	}
	for i, e := range w.events(t, "place-offered") {
		if want := fmt.Sprintf("student-%02d", i); !strings.Contains(string(e.Data), want) {
			t.Errorf("seed %d: offer %d is %s, want %s", seed, i, e.Data, want)
		}
	}
}

// TestTwoRunners: two runners of a store, as two daemons for a moment, do each thing
// once.
func TestTwoRunners(t *testing.T) {
	t.Parallel()
	const triggers = 60
	w := newWorld(t)
	defs := university()
	defs.Reactions[0].After = "" // nothing keeps them from meeting
	defs.Reactions[0].Append = `select 'place-offered' as type, jsonb_build_object('course', :course, 'student', :student) as data`
	w.install(t, defs)
	w.views(t)
	a, _ := w.reactions(t)
	b, _ := w.reactions(t)
	for i := range triggers {
		w.cancel(t, fmt.Sprint("course-", i%5), fmt.Sprint("leaver-", i))
	}
	w.until(t, "all are offered", "select count(*) >= $1 from es.event where type = 'place-offered'", triggers)
	w.reacted(t, "offer-freed-place")
	if n := len(w.events(t, "place-offered")); n != triggers {
		t.Errorf("got %d offers, want %d", n, triggers)
	}
	for _, r := range []*Runner{a, b} {
		for _, s := range r.Status() {
			if s.Error != "" || s.Restarts > 0 {
				t.Errorf("a runner has met the other: %+v", s)
			}
		}
	}
}
