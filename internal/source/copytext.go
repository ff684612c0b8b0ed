package source

import (
	"bytes"
	"fmt"

	"cdc/internal/cdc"
)

// decodeRow splits one row of COPY's text format, without its newline, into
// values, one per column. Escapes are undone in place: values alias line, whose
// bytes are changed. What COPY TO never writes is an error (PostgreSQL
// documentation, COPY, "Text Format").
func decodeRow(line []byte, values []cdc.Value) error {
	if len(values) == 0 {
		if len(line) != 0 {
			return fmt.Errorf("row of COPY has data, want no columns")
		}
		return nil
	}
	plain := bytes.IndexByte(line, '\\') < 0
	for i := range values {
		field := line
		tab := bytes.IndexByte(line, '\t')
		switch {
		case tab >= 0 && i == len(values)-1:
			return fmt.Errorf("row of COPY has more than %d columns", len(values))
		case tab < 0 && i < len(values)-1:
			return fmt.Errorf("row of COPY has %d columns, want %d", i+1, len(values))
		case tab >= 0:
			field, line = line[:tab:tab], line[tab+1:]
		}
		if plain {
			values[i] = cdc.Value{Kind: cdc.Text, Data: field}
			continue
		}
		if len(field) == 2 && field[0] == '\\' && field[1] == 'N' {
			values[i] = cdc.Value{Kind: cdc.Null}
			continue
		}
		n, err := unescape(field)
		if err != nil {
			return fmt.Errorf("column %d: %w", i+1, err)
		}
		values[i] = cdc.Value{Kind: cdc.Text, Data: field[:n]}
	}
	return nil
}

// unescape undoes COPY's backslash escapes in place and returns the new length.
func unescape(b []byte) (int, error) {
	n := bytes.IndexByte(b, '\\')
	if n < 0 {
		return len(b), nil
	}
	for i := n; i < len(b); {
		if b[i] != '\\' {
			// Whole runs between escapes: a bytea or JSON value has few of them.
			run := bytes.IndexByte(b[i:], '\\')
			if run < 0 {
				run = len(b) - i
			}
			n += copy(b[n:], b[i:i+run])
			i += run
			continue
		}
		if i+1 == len(b) {
			return 0, fmt.Errorf("row of COPY ends inside an escape")
		}
		c, ok := unescaped(b[i+1])
		if !ok {
			return 0, fmt.Errorf("row of COPY has the escape \\%c, which COPY does not write", b[i+1])
		}
		b[n] = c
		n++
		i += 2
	}
	return n, nil
}

func unescaped(c byte) (byte, bool) {
	switch c {
	case 'b':
		return '\b', true
	case 'f':
		return '\f', true
	case 'n':
		return '\n', true
	case 'r':
		return '\r', true
	case 't':
		return '\t', true
	case 'v':
		return '\v', true
	case '\\':
		return '\\', true
	}
	return 0, false
}
