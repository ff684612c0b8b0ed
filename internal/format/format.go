package format

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"time"

	"cdc/internal/cdc"
)

// The formats.
const (
	JSON         = "json"
	DebeziumJSON = "debezium-json"
)

// Options say how a pipeline writes its records.
type Options struct {
	Format   string           // "json" or "debezium-json"
	Server   string           // logical name: Debezium's source.name and header connectorLogicalName
	Database string           // Debezium's source.db
	Toast    string           // "fill", "omit", "refuse": an Unchanged value still there is left out; "placeholder": Debezium's bytes
	Unknown  string           // debezium-json: "text" or "omit" for the types that Debezium leaves out
	Now      func() time.Time // clock of the envelope and of Record.Time; nil: time.Now
}

// Format encodes the changes of one pipeline.
type Format struct {
	opts     Options
	debezium bool
	now      func() time.Time
	runID    []byte       // one life of the process, as Debezium's runId
	context  []cdc.Header // Debezium's context headers
}

// New checks the options. An empty Toast is "fill", an empty Unknown "text".
func New(o Options) (*Format, error) {
	f := &Format{opts: o, debezium: o.Format == DebeziumJSON, now: o.Now}
	if !f.debezium && o.Format != JSON {
		return nil, fmt.Errorf("format %q is not known: want %q or %q", o.Format, JSON, DebeziumJSON)
	}
	switch o.Toast {
	case "":
		f.opts.Toast = "fill"
	case "fill", "omit", "refuse", "placeholder":
	default:
		return nil, fmt.Errorf("toast %q is not known: want fill, omit, refuse or placeholder", o.Toast)
	}
	switch o.Unknown {
	case "":
		f.opts.Unknown = "text"
	case "text", "omit":
	default:
		return nil, fmt.Errorf("unknown %q is not known: want text or omit", o.Unknown)
	}
	if f.now == nil {
		f.now = time.Now
	}
	runID, err := newRunID(f.now())
	if err != nil {
		return nil, err
	}
	f.runID = runID
	f.context = []cdc.Header{
		{Key: "__debezium.context.connectorLogicalName", Value: []byte(o.Server)},
		{Key: "__debezium.context.taskId", Value: []byte("0")},
		{Key: "__debezium.context.connectorName", Value: []byte("postgresql")},
		{Key: "__debezium.context.runId", Value: f.runID},
	}
	return f, nil
}

// Emitter takes the records of a change in order.
type Emitter interface {
	// Emit copies what it keeps of r, which is reused when it returns.
	Emit(r *cdc.Record) error
}

// newRunID makes a version 7 UUID (RFC 9562 section 5.7): milliseconds, then chance.
func newRunID(now time.Time) ([]byte, error) {
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, fmt.Errorf("make run id: %w", err)
	}
	ms := uint64(now.UnixMilli())
	binary.BigEndian.PutUint16(id[0:], uint16(ms>>32))
	binary.BigEndian.PutUint32(id[2:], uint32(ms))
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	h := hex.EncodeToString(id[:])
	return []byte(h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]), nil
}
