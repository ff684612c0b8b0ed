package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"cdc/internal/intent"
)

// decodeAppend reads the body of an append. Whatever it does not know it refuses: a
// misspelt "expect" must not append without a check.
func decodeAppend(body []byte) ([]intent.Batch, error) {
	if err := syntax(body); err != nil {
		return nil, err
	}
	d := &decoder{json: json.NewDecoder(bytes.NewReader(body))}
	d.json.UseNumber()
	var batches []intent.Batch
	given := false
	err := d.object("", func(key, path string) error {
		if key != "batches" {
			return d.unknown(path, "batches")
		}
		given = true
		return d.array(path, func(path string) error {
			b, err := d.batch(path)
			batches = append(batches, b)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	if !given || len(batches) == 0 {
		return nil, malformed("batches", "no batches: write {\"batches\":[{\"stream\":…,\"events\":[…]}]}")
	}
	return batches, nil
}

// syntax says where a body is not one JSON value in UTF-8.
func syntax(body []byte) error {
	for i := 0; i < len(body); {
		r, n := utf8.DecodeRune(body[i:])
		if r == utf8.RuneError && n == 1 {
			return at(malformed("", "not UTF-8 at byte %d", i), int64(i))
		}
		i += n
	}
	err := json.Unmarshal(body, &skipped{})
	var wrong *json.SyntaxError
	if errors.As(err, &wrong) {
		return at(malformed("", "not JSON at byte %d: %s", wrong.Offset, wrong.Error()), wrong.Offset)
	}
	return err
}

// skipped is any JSON value, not kept.
type skipped struct{}

func (*skipped) UnmarshalJSON([]byte) error { return nil }

func at(f *fault, offset int64) *fault {
	f.Offset = &offset
	return f
}

// decoder walks through JSON that is well formed, and refuses what is out of place.
type decoder struct{ json *json.Decoder }

func (d *decoder) batch(path string) (intent.Batch, error) {
	b := intent.Batch{Expect: intent.Any}
	err := d.object(path, func(key, path string) (err error) {
		switch key {
		case "stream":
			b.Stream, err = d.text(path)
		case "expect":
			b.Expect, err = d.expect(path)
		case "events":
			err = d.array(path, func(path string) error {
				e, err := d.event(path)
				b.Events = append(b.Events, e)
				return err
			})
		default:
			err = d.unknown(path, "stream, expect and events")
		}
		return err
	})
	if err == nil && b.Stream == "" {
		err = d.wrong(path+".stream", "missing: the name of a stream")
	}
	return b, err
}

func (d *decoder) event(path string) (intent.NewEvent, error) {
	var e intent.NewEvent
	err := d.object(path, func(key, path string) (err error) {
		switch key {
		case "id":
			var text string
			if text, err = d.text(path); err == nil {
				if e.ID, err = intent.ParseID(text); err != nil {
					err = d.wrong(path, "%s", err)
				}
			}
		case "type":
			e.Type, err = d.text(path)
		case "schema":
			var n int64
			if n, err = d.integer(path, 1, 1<<31-1); err == nil {
				e.Schema = int(n)
			}
		case "data":
			e.Data, err = d.members(path)
		case "meta":
			e.Meta, err = d.members(path)
		case "subjects":
			err = d.array(path, func(path string) error {
				s, err := d.text(path)
				e.Subjects = append(e.Subjects, s)
				return err
			})
		default:
			err = d.unknown(path, "id, type, schema, data, meta and subjects")
		}
		return err
	})
	switch {
	case err != nil:
	case e.Type == "":
		err = d.wrong(path+".type", "missing: the type of the event")
	case e.Data == nil:
		err = d.wrong(path+".data", "missing: an object, {} where there is nothing to say")
	case e.ID.IsZero():
		e.ID = intent.NewID()
	}
	return e, err
}

// expect is a word or a version.
func (d *decoder) expect(path string) (intent.Expect, error) {
	t, err := d.token()
	switch t := t.(type) {
	case string:
		if e, err := intent.ParseExpect(t); err == nil && t != "" {
			return e, nil
		}
	case json.Number:
		if n, err := t.Int64(); err == nil && n >= 0 {
			return intent.Expect(n), nil
		}
	}
	if err != nil {
		return 0, err
	}
	return 0, d.wrong(path, "write any, none, some or a version from 0")
}

// object calls fn for every key, before its value.
func (d *decoder) object(path string, fn func(key, path string) error) error {
	if err := d.open(path, '{', "an object"); err != nil {
		return err
	}
	seen := map[string]bool{}
	for d.json.More() {
		t, err := d.token()
		if err != nil {
			return err
		}
		key := t.(string) // the syntax is known to be right
		inner := key
		if path != "" {
			inner = path + "." + key
		}
		if seen[key] {
			return d.wrong(inner, "given twice")
		}
		seen[key] = true
		if err := fn(key, inner); err != nil {
			return err
		}
	}
	_, err := d.token()
	return err
}

// array calls fn before every element.
func (d *decoder) array(path string, fn func(path string) error) error {
	if err := d.open(path, '[', "a list"); err != nil {
		return err
	}
	for i := 0; d.json.More(); i++ {
		if err := fn(fmt.Sprintf("%s[%d]", path, i)); err != nil {
			return err
		}
	}
	_, err := d.token()
	return err
}

func (d *decoder) open(path string, want json.Delim, what string) error {
	t, err := d.token()
	if err != nil {
		return err
	}
	if t != want {
		return d.wrong(path, "must be %s", what)
	}
	return nil
}

func (d *decoder) text(path string) (string, error) {
	t, err := d.token()
	if err != nil {
		return "", err
	}
	s, ok := t.(string)
	if !ok {
		return "", d.wrong(path, "must be a string")
	}
	return s, nil
}

func (d *decoder) integer(path string, from, to int64) (int64, error) {
	t, err := d.token()
	if err != nil {
		return 0, err
	}
	if number, ok := t.(json.Number); ok {
		if n, err := number.Int64(); err == nil && n >= from && n <= to {
			return n, nil
		}
	}
	return 0, d.wrong(path, "must be a whole number from %d", from)
}

// members is an object as it stands in the body.
func (d *decoder) members(path string) (json.RawMessage, error) {
	var raw json.RawMessage
	if err := d.json.Decode(&raw); err != nil {
		return nil, d.wrong(path, "%s", err)
	}
	if raw[0] != '{' {
		return nil, d.wrong(path, "must be an object")
	}
	return raw, nil
}

func (d *decoder) token() (json.Token, error) {
	t, err := d.json.Token()
	if err != nil { // cannot be: the syntax was looked at
		return nil, d.wrong("", "%s", err)
	}
	return t, nil
}

func (d *decoder) unknown(path, known string) error {
	return d.wrong(path, "not known here: there are %s", known)
}

func (d *decoder) wrong(path, format string, args ...any) error {
	if path == "" {
		path = "body"
	}
	offset := d.json.InputOffset()
	return at(malformed(path, "%s: %s", path, fmt.Sprintf(format, args...)), offset)
}
