package format

import (
	"fmt"

	"cdc/internal/cdc"
)

// EncodeMessage emits the record of a logical message (pg_logical_emit_message):
// key {"prefix":…}; value in debezium-json op m with its source block and no
// headers, in json {"prefix":…,"content":base64} with the headers of a row. It
// may be called concurrently; its buffers are its own.
func (f *Format) EncodeMessage(c *cdc.Change, out Emitter) error {
	if c.Op != cdc.OpMessage {
		return fmt.Errorf("encode a message: operation %q is none", c.Op)
	}
	r := cdc.Record{Time: f.now().UnixMilli()}
	key, err := appendString([]byte(`{"prefix":`), []byte(c.Prefix), f.debezium)
	if err != nil {
		return fmt.Errorf("encode the prefix of a logical message: %w", err)
	}
	r.Key = append(key, '}')
	if f.debezium {
		v, err := f.newEnvelope("", "")
		if err != nil {
			return fmt.Errorf("encode a logical message: %w", err)
		}
		r.Value = v.message(nil, r.Key, c)
		return out.Emit(&r)
	}
	if r.Value, err = leanMessage(nil, []byte(c.Prefix), c.Content); err != nil {
		return err
	}
	r.Headers = newLean().headers(nil, c, cdc.OpMessage)
	return out.Emit(&r)
}
