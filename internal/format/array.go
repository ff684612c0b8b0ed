package format

// maxDimensions is Postgres' MAXDIM.
const maxDimensions = 6

// arrayCodec writes an array as a (nested) JSON array of its elements' form. The
// lower bounds of [5:7]={…} have no place in JSON and are dropped.
func arrayCodec(delim byte, elem codec) codec {
	a := &array{delim: delim, elem: elem}
	if a.delim == 0 {
		a.delim = ','
	}
	return a.append
}

type array struct {
	delim   byte
	elem    codec
	scratch []byte // an element without its quotes and backslashes
}

func (a *array) append(dst, s []byte) ([]byte, error) {
	s, err := skipBounds(s)
	if err != nil {
		return dst, err
	}
	depth, fresh := 0, true // fresh: an element or brace must come
	for i := 0; i < len(s); {
		switch c := s[i]; {
		case c == '{' && fresh:
			if depth++; depth > maxDimensions {
				return dst, ErrMalformed
			}
			dst = append(dst, '[')
			i++
			if i < len(s) && s[i] == '}' { // only the empty array has an empty brace
				fresh = false
			}
		case c == '}' && !fresh:
			depth--
			dst = append(dst, ']')
			i++
			if depth == 0 {
				if i != len(s) {
					return dst, ErrMalformed
				}
				return dst, nil
			}
		case depth == 0:
			return dst, ErrMalformed
		case c == a.delim && !fresh:
			dst = append(dst, ',')
			i++
			fresh = true
		case fresh:
			n := 0
			if dst, n, err = a.element(dst, s[i:]); err != nil {
				return dst, err
			}
			i += n
			fresh = false
		default:
			return dst, ErrMalformed
		}
	}
	return dst, ErrMalformed
}

// element writes the element that s begins with and says how long its text is.
func (a *array) element(dst, s []byte) ([]byte, int, error) {
	if s[0] == '"' {
		text, n, err := unquote(a.scratch[:0], s)
		if err != nil {
			return dst, 0, err
		}
		a.scratch = text
		dst, err = a.elem(dst, text)
		return dst, n, err
	}
	n := 0
	for n < len(s) && s[n] != a.delim && s[n] != '}' {
		if s[n] == '"' || s[n] == '\\' || s[n] == '{' {
			return dst, 0, ErrMalformed
		}
		n++
	}
	if n == 0 {
		return dst, 0, ErrMalformed
	}
	if string(s[:n]) == "NULL" {
		return append(dst, "null"...), n, nil
	}
	dst, err := a.elem(dst, s[:n])
	return dst, n, err
}

// unquote appends the text between the double quotes that s begins with; a
// backslash takes the next byte as it is. It says how long the quoted text is.
func unquote(dst, s []byte) ([]byte, int, error) {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return dst, i + 1, nil
		case '\\':
			i++
			if i == len(s) {
				return dst, 0, ErrMalformed
			}
		}
		dst = append(dst, s[i])
	}
	return dst, 0, ErrMalformed
}

// skipBounds drops the explicit bounds [1:2][3:4]= in front of an array.
func skipBounds(s []byte) ([]byte, error) {
	if len(s) == 0 || s[0] != '[' {
		return s, nil
	}
	p := scanner{s: s}
	for range maxDimensions {
		if !p.take('[') {
			break
		}
		p.bound()
		p.want(':')
		p.bound()
		p.want(']')
	}
	p.want('=')
	if p.failed {
		return nil, ErrMalformed
	}
	return p.s, nil
}

func (p *scanner) bound() {
	if !p.take('-') {
		p.take('+')
	}
	p.number(1, 10)
}
