package history

import (
	"encoding/json"
	"strconv"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/intent"
)

// Headers of a record, in their order; cdc.StampHeader comes before them. Values are
// text. The last four are there where the event has them.
const (
	headerID          = "id"
	headerType        = "type"
	headerSchema      = "schema"
	headerVersion     = "version"     // in the stream
	headerPosition    = "position"    // in the log
	headerTx          = "tx"          // transaction id, as row changes of the same transaction have it
	headerLSN         = "lsn"         // start of its commit record
	headerTime        = "time"        // RFC 3339, UTC
	headerCorrelation = "correlation" // of meta, where it is a string there
	headerCausation   = "causation"   // the same
	headerMeta        = "meta"        // the rest of meta: a JSON object
	headerSubjects    = "subjects"    // a JSON array of strings
)

// encoder makes records of events, in memory of its own.
type encoder struct {
	rec     cdc.Record
	headers [12]cdc.Header
	key     []byte
	text    []byte // values of headers that have to be written out
	meta    []byte // the rest of meta
}

// encode is the record of an event. It is valid until the next one is encoded, and
// shares the event's own bytes.
func (e *encoder) encode(ev *intent.Event) *cdc.Record {
	e.key = append(e.key[:0], ev.Stream...)
	e.text = e.text[:0]
	h := e.headers[:0]
	h = e.add(h, headerID, appendID(e.text, ev.ID))
	h = e.add(h, headerType, append(e.text, ev.Type...))
	h = e.add(h, headerSchema, strconv.AppendInt(e.text, int64(ev.Schema), 10))
	h = e.add(h, headerVersion, strconv.AppendInt(e.text, ev.Version, 10))
	h = e.add(h, headerPosition, strconv.AppendInt(e.text, ev.Position, 10))
	h = e.add(h, headerTx, strconv.AppendUint(e.text, uint64(ev.Tx), 10))
	h = e.add(h, headerLSN, append(e.text, ev.LSN.String()...))
	h = e.add(h, headerTime, ev.At.UTC().AppendFormat(e.text, time.RFC3339Nano))
	why := splitMeta(ev.Meta, e.meta[:0])
	e.meta = why.rest
	if why.correlation != "" {
		h = e.add(h, headerCorrelation, append(e.text, why.correlation...))
	}
	if why.causation != "" {
		h = e.add(h, headerCausation, append(e.text, why.causation...))
	}
	if len(why.rest) > 0 {
		h = append(h, cdc.Header{Key: headerMeta, Value: why.rest})
	}
	if len(ev.Subjects) > 0 {
		subjects, err := json.Marshal(ev.Subjects)
		if err != nil {
			panic("history: strings have no JSON form: " + err.Error())
		}
		h = append(h, cdc.Header{Key: headerSubjects, Value: subjects})
	}
	e.rec = cdc.Record{Key: e.key, Value: ev.Data, Headers: h, Time: ev.At.UnixMilli()}
	return &e.rec
}

// add appends a header whose value is what grown has behind the text so far. A
// header made before keeps the memory it was made in, should the text have moved.
func (e *encoder) add(h []cdc.Header, key string, grown []byte) []cdc.Header {
	from := len(e.text)
	e.text = grown
	return append(h, cdc.Header{Key: key, Value: grown[from:len(grown):len(grown)]})
}

func appendID(dst []byte, id intent.ID) []byte { return append(dst, id.String()...) }
