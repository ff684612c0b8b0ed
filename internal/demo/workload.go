package demo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"
)

// workers is how many people act at the same time; enough for their
// transactions to overlap and to disturb each other now and then.
const workers = 4

// workload is the university in motion.
type workload struct {
	url   string
	seed  uint64
	rate  int    // transactions begun per second
	limit int    // transactions begun in all, 0: no limit
	half  func() // called once, when half of limit has begun

	committed atomic.Int64
	undone    atomic.Int64 // rolled back on purpose
	lost      atomic.Int64 // rolled back because another was faster
}

// run acts until ctx ends, or limit is reached. What was begun is finished: after
// it returns nil, nothing of it is open. Statements themselves are ended by hard.
func (w *workload) run(ctx, hard context.Context) error {
	turns := make(chan struct{})
	group, hard := errgroup.WithContext(hard)
	for i := range workers {
		group.Go(func() error { return w.work(hard, turns, rand.New(rand.NewPCG(w.seed, uint64(i)+1))) })
	}
	group.Go(func() error {
		defer close(turns)
		w.pace(ctx, hard, turns)
		return nil
	})
	return group.Wait()
}

// pace hands out turns at the rate. A turn that nobody takes, because everybody
// waits for the database, delays the next ones: there is no burst to catch up.
func (w *workload) pace(ctx, hard context.Context, turns chan<- struct{}) {
	tick := time.NewTicker(time.Second / time.Duration(w.rate))
	defer tick.Stop()
	for n := 0; w.limit == 0 || n < w.limit; n++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		case <-hard.Done():
			return
		}
		if w.limit > 0 && n == w.limit/2 && w.half != nil {
			w.half()
		}
		select {
		case turns <- struct{}{}:
		case <-ctx.Done():
			return
		case <-hard.Done():
			return
		}
	}
}

func (w *workload) work(ctx context.Context, turns <-chan struct{}, rng *rand.Rand) (err error) {
	conn, err := pgx.Connect(ctx, w.url)
	if err != nil {
		return fmt.Errorf("connect to the university: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	for range turns {
		a := chooseAction(rng)
		err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return a.do(ctx, tx, rng) })
		switch {
		case err == nil:
			w.committed.Add(1)
		case errors.Is(err, errNobody):
		case errors.Is(err, errRegret):
			w.undone.Add(1)
		case overtaken(err):
			w.lost.Add(1)
		default:
			return fmt.Errorf("let a student %s: %w", a.name, err)
		}
	}
	return nil
}

// overtaken says that a transaction failed because another one was faster, which
// is nobody's fault: both waited for each other.
func overtaken(err error) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return false
	}
	switch pg.Code {
	case "40001", // serialization_failure
		"40P01": // deadlock_detected
		return true
	}
	return false
}
