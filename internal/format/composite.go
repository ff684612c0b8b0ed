package format

// compositeCodec writes a composite value as an object of its fields. A value
// with another number of fields than the type has today (an attribute was added
// or dropped since it was written to the stream) stays Postgres' text: naming
// its fields would be guessing.
func compositeCodec(prefixes [][]byte, fields []codec, text codec) codec {
	c := &composite{prefixes: prefixes, fields: fields, text: text}
	return c.append
}

type composite struct {
	prefixes [][]byte // {"a": and ,"b":
	fields   []codec
	text     codec
	scratch  []byte
}

func (c *composite) append(dst, s []byte) ([]byte, error) {
	n, err := countFields(s)
	if err != nil {
		return dst, err
	}
	if n != len(c.fields) {
		return c.text(dst, s)
	}
	if n == 0 {
		return append(dst, "{}"...), nil
	}
	s = s[1:] // the parenthesis
	for i := range c.fields {
		dst = append(dst, c.prefixes[i]...)
		text, size, isNull, err := field(c.scratch[:0], s)
		if err != nil {
			return dst, err
		}
		c.scratch = text
		s = s[size+1:] // the comma, or the parenthesis
		if isNull {
			dst = append(dst, "null"...)
			continue
		}
		if dst, err = c.fields[i](dst, text); err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), nil
}

// field appends the text of the field that s begins with, and says how long it
// is in s. A field without a single character, not even quotes, is NULL.
func field(dst, s []byte) (text []byte, size int, isNull bool, err error) {
	quoted, seen := false, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\':
			i++
			if i == len(s) {
				return dst, 0, false, ErrMalformed
			}
			dst, seen = append(dst, s[i]), true
		case c == '"' && quoted && i+1 < len(s) && s[i+1] == '"':
			i++
			dst = append(dst, '"')
		case c == '"':
			quoted, seen = !quoted, true
		case !quoted && (c == ',' || c == ')'):
			return dst, i, !seen, nil
		case !quoted && c == '(':
			return dst, 0, false, ErrMalformed
		default:
			dst, seen = append(dst, c), true
		}
	}
	return dst, 0, false, ErrMalformed
}

// countFields checks the text of a composite value as a whole.
func countFields(s []byte) (int, error) {
	if len(s) < 2 || s[0] != '(' || s[len(s)-1] != ')' {
		return 0, ErrMalformed
	}
	if len(s) == 2 {
		return 1, nil // one NULL; a type without fields has no values in a table
	}
	n, quoted := 1, false
	for i := 1; i < len(s)-1; i++ {
		switch c := s[i]; {
		case c == '\\':
			i++
			if i == len(s)-1 {
				return 0, ErrMalformed
			}
		case c == '"':
			quoted = !quoted // a doubled quote inside turns twice
		case quoted:
		case c == ',':
			n++
		case c == '(' || c == ')':
			return 0, ErrMalformed
		}
	}
	if quoted {
		return 0, ErrMalformed
	}
	return n, nil
}
