package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"cdc/internal/cdctest"
)

// disks are the volumes of a lane; nil where none can be mounted. Each is made
// when it is first needed.
type disks struct {
	postgres *volume
	broker   *volume
}

// volumeOf is one of the lane's volumes; nil where there are none.
func (l *lane) volumeOf(which **volume, size int64) (*volume, error) {
	if *which == nil && l.full {
		v, err := newVolume(size)
		if err != nil {
			return nil, err
		}
		*which = v
		l.stops = append(l.stops, func() {
			if err := v.close(); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		})
	}
	return *which, nil
}

// postgresDir is where the lane's server has its data; "" is a temporary directory.
func (l *lane) postgresDir() (string, error) {
	v, err := l.volumeOf(&l.disks.postgres, postgresVolume)
	if v == nil || err != nil {
		return "", err
	}
	return filepath.Join(v.dir, "data"), nil
}

// brokerDir is what brokers have their directories in, or "".
func (l *lane) brokerDir() (string, error) {
	v, err := l.volumeOf(&l.disks.broker, brokerVolume)
	if v == nil || err != nil {
		return "", err
	}
	return v.dir, nil
}

// embeddedDir is a seed's directory for the broker inside cdc.
func (l *lane) embeddedDir(seed, scratch string) (dir string, remove func(), err error) {
	volume, err := l.brokerDir()
	if volume == "" || err != nil {
		return filepath.Join(scratch, "broker"), func() {}, err
	}
	dir = filepath.Join(volume, seed)
	return dir, func() { _ = os.RemoveAll(dir) }, nil
}

// free takes the ballast out of every volume.
func (l *lane) free() error {
	for _, v := range []*volume{l.disks.postgres, l.disks.broker} {
		if v != nil {
			if err := v.free(); err != nil {
				return err
			}
		}
	}
	return nil
}

// diskFull keeps a disk full for a while: what others delete meanwhile is filled
// again, a moment later. Then there is room, and what has ended of it is started.
func (n *nemesis) diskFull(ctx context.Context, f fault) error {
	v := n.lane.disks.postgres
	if f.kind == faultDiskBroker {
		v = n.lane.disks.broker
		n.crew.exhausted(true)
		defer n.crew.exhausted(false)
	}
	for i, began := 0, time.Now(); time.Since(began) < f.hold; i++ {
		if err := v.fill(); err != nil {
			return err
		}
		if i == 0 && f.point != "" {
			_, _ = n.db.query(ctx, "SELECT "+f.point+"()") // Postgres may end of it
		}
		if err := sleep(ctx, again); err != nil {
			return err
		}
	}
	if err := v.free(); err != nil {
		return err
	}
	if f.kind == faultDiskPG {
		return n.mendPostgres(ctx, f)
	}
	return n.mendBroker(ctx, f)
}

// mendPostgres waits until the server answers. It has ended where its own
// recovery found the disk full.
func (n *nemesis) mendPostgres(ctx context.Context, f fault) error {
	for {
		select {
		case <-n.lane.pg.Done():
			n.note("fault %d: Postgres had ended", f.number)
			if err := n.lane.awaitPostgres(ctx); err != nil {
				return err
			}
		default:
		}
		if _, err := n.db.query(ctx, "SELECT 1"); err == nil {
			return nil
		}
		if err := sleep(ctx, again); err != nil {
			return err
		}
	}
}

// mendBroker waits until the broker answers: it serves one request after the
// other, so whatever it could not write has had its consequence by then. Where it
// has ended it is started again; that inside cdc ends with cdc, which is started
// as a supervisor would.
func (n *nemesis) mendBroker(ctx context.Context, f fault) error {
	if n.broker == nil {
		err := cdctest.AwaitBroker(ctx, n.address)
		if ended := n.crew.took(); ended > 0 {
			n.note("fault %d: %d instances had ended of it", f.number, ended)
		}
		return err
	}
	ended, err := n.broker.Ended(ctx)
	if err != nil {
		return err
	}
	if ended {
		n.note("fault %d: the broker had ended", f.number)
	}
	switch {
	case !n.broker.forgets: // Apache Kafka may be about to end
		n.broker.Kill()
		return n.broker.Start(ctx)
	case !ended:
		return nil
	}
	// kfake forgets which batches it has, so cdc begins anew with it.
	n.killMain()
	n.broker.Kill()
	if err := n.broker.Start(ctx); err != nil {
		return err
	}
	_, err = n.crew.start("")
	return err
}

const (
	// brokerFailed is what cdc says when the log of its own broker could not be
	// written.
	brokerFailed = "the log could not be written"
	// noSpace is the operating system's.
	noSpace = "no space left on device"
)

// exhausted says whether the disk of the broker inside cdc is full: an instance
// may end of that, and is started again.
func (c *crew) exhausted(yes bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.full, c.fullTo = yes, len(c.all)
}

// took is how many instances have ended of a full disk since it was last asked.
func (c *crew) took() (ended int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ended, c.ranOut = c.ranOut, 0
	return ended
}

// ranOut says that the instance ended because its disk was full.
func (i *instance) ranOut() bool { return i.log.contains(brokerFailed) || i.log.contains(noSpace) }
