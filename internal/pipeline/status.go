package pipeline

import (
	"fmt"
	"sync"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/sink"
)

// tally counts what the reading goroutine did; it is published every houseEvery,
// so that counting a row costs no synchronisation.
type tally struct {
	transactions, changes, records, bytes, skipped, deadLetters, takeOvers, rereads uint64
}

func (t *tally) add(o tally) {
	t.transactions += o.transactions
	t.changes += o.changes
	t.records += o.records
	t.bytes += o.bytes
	t.skipped += o.skipped
	t.deadLetters += o.deadLetters
	t.takeOvers += o.takeOvers
	t.rereads += o.rereads
}

type counts struct {
	mu  sync.Mutex
	sum tally
}

func (c *counts) total() tally {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sum
}

func (c *counts) add(o *counts) { c.publish(o.total()) }

func (c *counts) publish(t tally) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sum.add(t)
}

func (l *life) publishTally() {
	l.counts.publish(l.tally)
	l.tally = tally{}
}

// show publishes how far the life has come.
func (l *life) show(acked sink.Mark, now time.Time) {
	st := l.w.Stats()
	l.tally.bytes += st.Bytes - l.bytes
	l.bytes = st.Bytes
	l.publishTally()
	l.view.mu.Lock()
	defer l.view.mu.Unlock()
	v := &l.view
	if acked != v.acked || st.Buffered == 0 {
		v.moved = now
	}
	v.received, v.acked, v.confirmd = l.mark.End, acked, l.confirmed
	v.copies = l.copier.progress(v.copies[:0:0])
	l.progress.Restart = max(l.progress.Restart, v.restart)
	switch {
	case acked.End == l.mark.End:
		v.behind = time.Time{}
	case v.behind.IsZero():
		v.behind = time.UnixMicro(l.mark.CommitTime)
	case acked.CommitTime > 0:
		// Everything up to the acknowledged commit is done; the next one is at
		// least as young.
		v.behind = time.UnixMicro(acked.CommitTime)
	}
}

// describe fills in what a running life knows. The pipeline's lock is held.
func (l *life) describe(s *cdc.Status) {
	l.view.mu.Lock()
	defer l.view.mu.Unlock()
	v := &l.view
	s.Tables = v.tables
	s.Received, s.Acked, s.Confirmed = v.received, v.acked.End, v.confirmd
	if v.stream != nil {
		s.ServerEnd = v.stream.ServerEnd()
		if why := v.stream.Held(); why != "" && s.Stalled == "" {
			s.Stalled = why
		}
	}
	if v.slot != nil {
		s.SlotBytes, s.SlotSafe, s.SlotStatus = v.slot.Retained, v.slot.Safe, v.slot.WALStatus
		s.ServerEnd = max(s.ServerEnd, v.slot.Restart+cdc.LSN(max(v.slot.Retained, 0)))
	}
	if s.ServerEnd > s.Acked && s.Acked > 0 {
		s.LagBytes = int64(s.ServerEnd - s.Acked)
	}
	if !v.behind.IsZero() {
		s.LagSeconds = max(0, time.Since(v.behind).Seconds())
	}
	if v.snapshot != nil {
		s.Snapshot = v.snapshot.Progress()
	}
	s.Snapshot = append(s.Snapshot, v.copies...)
	for _, c := range v.copies {
		if c.State == string(copyFailed) && s.Stalled == "" {
			s.Stalled = fmt.Sprintf("the copy of table %s failed, its topic may lack rows: %s; when that is mended: cdc snapshot %s", c.Table, c.Error, c.Table)
		}
	}
	if v.src != nil && s.State == cdc.StateSnapshot {
		if why := v.src.Waiting(); why != "" {
			s.Stalled = why
		}
	}
	if v.writer != nil {
		st := v.writer.Stats()
		s.BufferedBytes, s.Acks, s.AckLatency = st.Buffered, st.Acks, st.LastAck
		if st.Buffered > 0 && time.Since(v.moved) > stalledAfter && s.Stalled == "" {
			s.Stalled = "Kafka has acknowledged nothing for " + time.Since(v.moved).Round(time.Second).String()
		}
	}
}
