package format

// objectScanner walks the members of one JSON object (RFC 8259) in the order in which
// they stand there. It checks the grammar of everything that it passes, at any
// depth, and decodes nothing but the names. That strings are UTF-8 it does not
// check. The zero value is ready for open.
type objectScanner struct {
	data  []byte
	at    int  // never beyond data
	state byte // one of the states below; the first fault sticks

	nest []byte // the brackets open inside the value being passed: less than a byte for each of data
	text []byte // a name without its escapes
}

const (
	scanFirst  = iota // behind the opening brace
	scanNext          // behind a member
	scanDone          // behind the object, of which nothing is left
	scanFailed        // at is where it is no object
)

// open begins with an object.
func (s *objectScanner) open(data []byte) {
	s.data, s.at, s.state = data, 0, scanFirst
	if !s.take('{') {
		s.state = scanFailed
	}
}

// next is the next member: its name, valid until the next call, and its value as
// it stands there. It says false behind the last member and at a fault.
func (s *objectScanner) next() (name, value []byte, ok bool) {
	if s.state >= scanDone {
		return nil, nil, false
	}
	if s.take('}') {
		s.space()
		s.state = scanDone
		if s.at < len(s.data) {
			s.state = scanFailed
		}
		return nil, nil, false
	}
	if ok = s.state == scanFirst || s.take(','); ok {
		name, ok = s.name()
	}
	if ok {
		s.state = scanNext
		s.space()
		begin := s.at
		if s.value() {
			return name, s.data[begin:s.at], true
		}
	}
	s.state = scanFailed
	return nil, nil, false
}

// done says that the whole object was read and is one.
func (s *objectScanner) done() bool { return s.state == scanDone }

// peek is the byte in hand, 0 at the end, which is no byte of JSON either.
func (s *objectScanner) peek() byte {
	if s.at < len(s.data) {
		return s.data[s.at]
	}
	return 0
}

func (s *objectScanner) space() {
	for s.at < len(s.data) {
		switch s.data[s.at] {
		case ' ', '\t', '\n', '\r':
			s.at++
		default:
			return
		}
	}
}

// take passes c, and the space before it, where it is the next byte.
func (s *objectScanner) take(c byte) bool {
	s.space()
	if s.peek() != c {
		return false
	}
	s.at++
	return true
}

// name passes a member's name and its colon.
func (s *objectScanner) name() (name []byte, ok bool) {
	s.space()
	begin := s.at
	escaped, ok := s.str()
	if !ok {
		return nil, false
	}
	name = s.data[begin+1 : s.at-1]
	if escaped {
		s.text = appendUnescaped(s.text[:0], name)
		name = s.text
	}
	return name, s.take(':')
}

// value passes a value and everything inside it, without the space around it. It
// does not call itself: a document's depth is the length of nest.
func (s *objectScanner) value() bool {
	s.nest = s.nest[:0]
	for {
		s.space()
		switch c := s.peek(); c {
		case '{', '[':
			s.at++
			if s.take(c + 2) { // } and ] stand two behind { and [
				break
			}
			s.nest = append(s.nest, c)
			if c == '{' && !s.passName() {
				return false
			}
			continue
		case '"':
			if _, ok := s.str(); !ok {
				return false
			}
		case 't', 'f', 'n':
			if !s.literal(c) {
				return false
			}
		default:
			if !s.number() {
				return false
			}
		}
		more, ok := s.after()
		if !more {
			return ok
		}
	}
}

// after closes the brackets that end behind a value. It says whether another
// value follows inside the outermost one.
func (s *objectScanner) after() (more, ok bool) {
	for len(s.nest) > 0 {
		open := s.nest[len(s.nest)-1]
		switch {
		case s.take(','):
			ok = open == '[' || s.passName()
			return ok, ok
		case s.take(open + 2):
			s.nest = s.nest[:len(s.nest)-1]
		default:
			return false, false
		}
	}
	return false, true
}

func (s *objectScanner) passName() bool {
	s.space()
	_, ok := s.str()
	return ok && s.take(':')
}

// str passes a string with its quotes.
func (s *objectScanner) str() (escaped, ok bool) {
	if s.peek() != '"' {
		return false, false
	}
	s.at++
	for s.at < len(s.data) {
		s.at += plainPrefix(s.data[s.at:])
		for s.at < len(s.data) {
			c := s.data[s.at]
			if c == '"' {
				s.at++
				return escaped, true
			}
			if c < 0x20 {
				return escaped, false
			}
			s.at++
			if c != '\\' {
				continue
			}
			escaped = true
			if !s.escape() {
				return escaped, false
			}
			break
		}
	}
	return escaped, false
}

// escape passes what follows a backslash.
func (s *objectScanner) escape() bool {
	c := s.peek()
	if s.at == len(s.data) {
		return false
	}
	s.at++
	switch c {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return true
	case 'u':
		_, ok := hexUnit(s.data[s.at:])
		if ok {
			s.at += 4
		}
		return ok
	}
	return false
}

func (s *objectScanner) literal(c byte) bool {
	word := "null"
	switch c {
	case 't':
		word = "true"
	case 'f':
		word = "false"
	}
	if len(s.data)-s.at < len(word) || string(s.data[s.at:s.at+len(word)]) != word {
		return false
	}
	s.at += len(word)
	return true
}

func (s *objectScanner) number() bool {
	if s.peek() == '-' {
		s.at++
	}
	if s.peek() == '0' {
		s.at++
	} else if !s.digits() {
		return false
	}
	if s.peek() == '.' {
		s.at++
		if !s.digits() {
			return false
		}
	}
	if c := s.peek(); c != 'e' && c != 'E' {
		return true
	}
	s.at++
	if c := s.peek(); c == '+' || c == '-' {
		s.at++
	}
	return s.digits()
}

// digits passes one digit or more.
func (s *objectScanner) digits() bool {
	begin := s.at
	for s.at < len(s.data) && s.data[s.at]-'0' <= 9 {
		s.at++
	}
	return s.at > begin
}
