package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"cdc/internal/cdc"
	"cdc/internal/compaction"
	"cdc/internal/pipeline"
)

// repairBytes bounds the keys of one request, so that it stays below what the
// daemon takes.
const repairBytes = 512 << 10

// differences are those of a pipeline, in a file: there may be as many as
// there are rows.
type differences struct {
	file   *os.File
	w      *bufio.Writer
	enc    *json.Encoder
	tables map[string]map[int32]int64 // those that differ, with their RepairRequest.Ends
}

// difference is one difference as the file holds it.
type difference struct {
	Table     string   `json:"t"`
	Row       []string `json:"r,omitempty"` // nil: a ghost
	Key       []byte   `json:"k,omitempty"` // of a ghost
	Partition int32    `json:"p,omitempty"`
}

// newDifferences makes the file. It has no name from then on, where the system
// allows that: it is gone with the process.
func newDifferences(dir string) (*differences, error) {
	f, err := os.CreateTemp(dir, "cdc-repair-*")
	if err != nil {
		return nil, fmt.Errorf("make a file for the differences: %w", err)
	}
	_ = os.Remove(f.Name())
	d := &differences{file: f, w: bufio.NewWriterSize(f, 64<<10), tables: map[string]map[int32]int64{}}
	d.enc = json.NewEncoder(d.w)
	return d, nil
}

// add takes one difference; those of one table come together.
func (d *differences) add(v pipeline.VerifyDifference) error {
	out := difference{Table: v.Table, Row: v.Row}
	if v.Kind == compaction.DifferenceGhost {
		out.Key, out.Partition = v.Key, v.Partition
	}
	if err := d.enc.Encode(out); err != nil {
		return fmt.Errorf("write differences to %s: %w", d.file.Name(), err)
	}
	return nil
}

// result takes down the result for a table.
func (d *differences) result(v pipeline.Verified) {
	if v.Verdict == cdc.VerdictDifferent {
		d.tables[v.Subject] = v.Ends
	}
}

// batches calls fn with requests that hold all the differences of the tables that
// came to a verdict.
func (d *differences) batches(fn func(cdc.RepairRequest) error) error {
	if err := d.w.Flush(); err != nil {
		return fmt.Errorf("write differences to %s: %w", d.file.Name(), err)
	}
	if _, err := d.file.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read differences from %s: %w", d.file.Name(), err)
	}
	dec := json.NewDecoder(bufio.NewReaderSize(d.file, 64<<10))
	var req cdc.RepairRequest
	bytes := 0
	send := func() error {
		if len(req.Keys)+len(req.Ghosts) == 0 {
			return nil
		}
		err := fn(req)
		req, bytes = cdc.RepairRequest{}, 0
		return err
	}
	for {
		var x difference
		err := dec.Decode(&x)
		if errors.Is(err, io.EOF) {
			return send()
		}
		if err != nil {
			return fmt.Errorf("read differences from %s: %w", d.file.Name(), err)
		}
		ends, ok := d.tables[x.Table]
		if !ok {
			continue // found, and then given up
		}
		if x.Table != req.Table || len(req.Keys)+len(req.Ghosts) == cdc.MaxRepairKeys || bytes >= repairBytes {
			if err := send(); err != nil {
				return err
			}
			req.Table, req.Ends = x.Table, ends
		}
		if x.Row == nil {
			req.Ghosts = append(req.Ghosts, cdc.GhostKey{Partition: x.Partition, Key: x.Key})
			bytes += len(x.Key)
			continue
		}
		req.Keys = append(req.Keys, x.Row)
		for _, part := range x.Row {
			bytes += len(part)
		}
	}
}

func (d *differences) close() {
	_ = d.file.Close()           // nothing of it is needed any more
	_ = os.Remove(d.file.Name()) // where it still has a name
}
