package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// nemesis does the faults of a plan, one after the other. Each heals what it
// did, so that in between one instance of cdc is on its way.
type nemesis struct {
	lane     *lane
	crew     *crew
	broker   *broker // nil: the one inside cdc
	address  string  // of either
	pipeline string
	db       *database // not through the proxy
	steps    func() int64
	notes    []string // what came of the faults, for the report
	copies   int      // snapshots that were asked for and granted
}

const (
	// pointLimit is how long a fail point is waited for. One that is not reached
	// may still be, later.
	pointLimit = 2 * time.Second
	// settleLimit is how long a stream is waited for between faults: no verdict.
	settleLimit = 5 * time.Second
)

// run does the faults. done is closed when the workload has ended: then nothing
// is waited for any more. An error is one of this program's own means.
func (n *nemesis) run(ctx context.Context, p plan, done <-chan struct{}) error {
	for _, f := range p.faults {
		for over := false; n.steps() < int64(f.at) && !over; {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-done:
				over = true
			case <-time.After(3 * time.Millisecond):
			}
		}
		if err := sleep(ctx, f.delay); err != nil {
			return err
		}
		began := time.Now()
		if err := n.do(ctx, f); err != nil {
			return fmt.Errorf("fault %s: %w", f, err)
		}
		if f.settle {
			n.awaitStream(ctx)
		}
		n.note("fault %d %s took %v", f.number, f.kind, time.Since(began).Round(time.Millisecond))
	}
	return nil
}

func (n *nemesis) note(format string, args ...any) {
	n.notes = append(n.notes, fmt.Sprintf(format, args...))
}

func (n *nemesis) do(ctx context.Context, f fault) error {
	switch f.kind {
	case faultKill, faultTerm, faultPause, faultPoint, faultZombie, faultHandover, faultBoth:
		return n.process(ctx, f)
	case faultPGKill:
		n.lane.pg.Kill()
		return n.restart(ctx, f)
	case faultPGStop, faultPGFast:
		mode := map[string]string{faultPGStop: "immediate", faultPGFast: "fast"}[f.kind]
		limited, cancel := context.WithTimeout(ctx, termLimit)
		defer cancel()
		if err := n.lane.pg.Stop(limited, mode); err != nil {
			return err
		}
		return n.restart(ctx, f)
	case faultSender:
		return n.terminateSender(ctx)
	case faultSender9:
		return n.killSender(ctx)
	case faultSnapshot:
		return n.snapshot(ctx)
	case faultClock:
		if err := n.crew.clock.set(f.off); err != nil || f.hold == 0 {
			return err
		}
		if err := sleep(ctx, f.hold); err != nil {
			return err
		}
		return n.crew.clock.set(0)
	case faultDiskPG, faultDiskBroker:
		return n.diskFull(ctx, f)
	case faultBroker:
		n.broker.Kill()
		if err := sleep(ctx, f.hold); err != nil {
			return err
		}
		return n.broker.Start(ctx)
	}
	return n.network(ctx, f)
}

// process is what happens to cdc itself.
func (n *nemesis) process(ctx context.Context, f fault) error {
	switch f.kind {
	case faultKill:
		n.killMain()
	case faultTerm:
		i := n.crew.current()
		if err := i.terminate(); err != nil {
			n.crew.fail(err)
		}
		if n.crew.current() != i { // hit at its fail point just before
			n.killMain()
		}
	case faultBoth:
		n.broker.Kill()
		n.killMain()
		if err := n.broker.Start(ctx); err != nil {
			return err
		}
	case faultPause:
		i := n.crew.current()
		if err := i.pause(); err != nil {
			return err
		}
		if err := sleep(ctx, f.hold); err != nil {
			return err
		}
		return i.resume()
	case faultPoint:
		return n.point(ctx, f)
	case faultZombie:
		return n.zombie(ctx, f, n.crew.current())
	case faultHandover:
		second, err := n.crew.spawn("")
		if err != nil {
			return err
		}
		n.crew.current().rival()
		second.rival()
		if err := sleep(ctx, f.hold); err != nil {
			return err
		}
		n.crew.hold()
		n.killMain()
		return n.crew.become(second)
	}
	if err := sleep(ctx, f.hold); err != nil {
		return err
	}
	_, err := n.crew.start("")
	return err
}

// killMain kills the main instance, and the one that has taken its place if its
// fail point was reached in that moment.
func (n *nemesis) killMain() {
	for {
		i := n.crew.current()
		i.kill()
		if n.crew.current() == i {
			return
		}
	}
}

// point starts cdc with a fail point, unless it began with it, and waits until it is
// hit.
func (n *nemesis) point(ctx context.Context, f fault) error {
	i := n.crew.first()
	if i.point != f.failpoint() {
		n.killMain()
		var err error
		if i, err = n.crew.start(f.failpoint()); err != nil {
			return err
		}
	}
	if f.point == "stop-confirm" {
		n.awaitStream(ctx)
		if err := i.leave(); err != nil {
			return err
		}
	}
	if slices.Contains(chunkPoints, f.point) {
		n.awaitStream(ctx)
		if err := n.snapshot(ctx); err != nil {
			return err
		}
	}
	limit := time.After(pointLimit)
	for {
		select {
		case <-i.ended:
			n.note("fault %d: hit at %s", f.number, i.point)
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-limit:
			n.note("fault %d: %s not reached yet", f.number, i.point)
			if f.stop { // it would stand still unseen
				n.killMain()
				_, err := n.crew.start("")
				return err
			}
			return nil
		case <-time.After(3 * time.Millisecond):
		}
		if f.stop && i.frozen() {
			n.note("fault %d: stopped at %s", f.number, i.point)
			if n.broker != nil {
				return n.zombie(ctx, f, i)
			}
			if err := sleep(ctx, f.hold); err != nil {
				return err
			}
			return i.resume()
		}
	}
}

// zombie stops an instance, has another take over, and wakes it up: whatever it
// has in hand then, no reader may see it.
func (n *nemesis) zombie(ctx context.Context, f fault, old *instance) error {
	if err := old.pause(); err != nil {
		return err
	}
	n.crew.hold()
	old.rival()
	second, err := n.crew.spawn("")
	if err != nil {
		return err
	}
	second.rival()
	if err := n.terminateSender(ctx); err != nil {
		return err
	}
	if f.settle {
		n.awaitStream(ctx)
	} else if err := sleep(ctx, f.hold); err != nil {
		return err
	}
	if err := old.resume(); err != nil {
		return err
	}
	if err := sleep(ctx, f.hold); err != nil {
		return err
	}
	return n.oneOf(f, old, second)
}

// oneOf leaves one of two instances. Where that has found itself fenced already
// it is the other one, or a new one.
func (n *nemesis) oneOf(f fault, old, second *instance) error {
	stay, leave := old, second
	if f.first || old.gone() {
		stay, leave = second, old
	}
	leave.kill()
	return n.crew.become(stay)
}

func (n *nemesis) restart(ctx context.Context, f fault) error {
	if err := sleep(ctx, f.hold); err != nil {
		return err
	}
	return n.lane.pg.Restart(ctx)
}

func (n *nemesis) terminateSender(ctx context.Context) error {
	_, err := n.db.query(ctx, "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active AND database = current_database()")
	return err
}

// killSender kills the walsender itself: Postgres then ends every other backend,
// and recovers.
func (n *nemesis) killSender(ctx context.Context) error {
	rows, err := n.db.query(ctx, "SELECT active_pid FROM pg_replication_slots WHERE active AND database = current_database()")
	if err != nil || len(rows) == 0 {
		return err
	}
	pid, err := strconv.Atoi(rows[0][0])
	if err != nil {
		return err
	}
	_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended by itself
	return nil
}

// streamed is the confirmed position of the slot that is read. A slot that is made
// is active too, and may be dropped again by a copy that is begun anew.
const streamed = "SELECT s.confirmed_flush_lsn FROM pg_replication_slots s JOIN pg_stat_replication r ON r.pid = s.active_pid" +
	" WHERE NOT s.temporary AND s.database = current_database() AND s.confirmed_flush_lsn IS NOT NULL AND r.state IN ('catchup', 'streaming')"

// awaitStream waits a while until the slot is read.
func (n *nemesis) awaitStream(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	for {
		rows, err := n.db.query(ctx, streamed)
		if err == nil && len(rows) > 0 {
			return true
		}
		if sleep(ctx, again) != nil {
			return false
		}
	}
}

// snapshot asks cdc to copy tables while it streams. A build without that
// answers 404; one that is not ready for it refuses.
func (n *nemesis) snapshot(ctx context.Context) error {
	names := make([]string, len(tables))
	for i, t := range tables {
		names[i] = "public." + t.name
	}
	body, err := json.Marshal(map[string]any{"action": "start", "tables": names})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	url := "http://" + n.crew.current().admin + "/v1/pipelines/" + n.pipeline + "/snapshot"
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		n.note("snapshot: no answer")
		return nil
	}
	_ = res.Body.Close()
	if res.StatusCode/100 == 2 {
		n.copies++
	}
	n.note("snapshot: %s", res.Status)
	return nil
}
