package sqlcheck

import (
	"fmt"
	"strings"
)

// depthLimit bounds the nesting of a tree. The server parses with max_stack_depth
// (2 MB by default), which ends at some thousand levels.
const depthLimit = 100_000

// node is a node of a pg_node_tree, the server's parse tree as text:
// {TAG :field value …}, where a value is a token, a node or a list in parentheses.
// The format differs a little between versions; this reading of it does not depend
// on the fields that are there.
type node struct {
	tag      string
	fields   map[string]string // first token of the values that are tokens
	children []*node           // nodes in any value, in order
	lists    map[string][]*node
	tokens   map[string][]string // of lists of tokens, as in (o 96 98)
}

// parseTree reads a tree; its root has no tag.
func parseTree(text string) (*node, error) {
	r := reader{rest: text}
	root := newNode("")
	if err := r.fields(root, "", 0); err != nil {
		return nil, fmt.Errorf("read the server's parse tree: %w", err)
	}
	return root, nil
}

// walk calls fn for the node and everything below it.
func (n *node) walk(fn func(*node)) {
	fn(n)
	for _, c := range n.children {
		c.walk(fn)
	}
}

func newNode(tag string) *node { return &node{tag: tag} }

func (n *node) set(field, value string) {
	if n.fields == nil {
		n.fields = map[string]string{}
	}
	if _, ok := n.fields[field]; !ok {
		n.fields[field] = value
	}
}

func (n *node) add(field string, child *node) {
	n.children = append(n.children, child)
	if n.lists == nil {
		n.lists = map[string][]*node{}
	}
	n.lists[field] = append(n.lists[field], child)
}

func (n *node) addToken(field, token string) {
	if n.tokens == nil {
		n.tokens = map[string][]string{}
	}
	n.tokens[field] = append(n.tokens[field], token)
}

// reader splits a tree into tokens, as pg_strtok does: white space, braces and
// parentheses divide, a backslash takes the next byte's meaning away.
type reader struct {
	rest string
}

// next is the next token, with its backslashes; "" at the end.
func (r *reader) next() string {
	r.rest = strings.TrimLeft(r.rest, " \n\t")
	if r.rest == "" {
		return ""
	}
	if strings.IndexByte("(){}", r.rest[0]) >= 0 {
		t := r.rest[:1]
		r.rest = r.rest[1:]
		return t
	}
	i := 0
	for i < len(r.rest) && strings.IndexByte(" \n\t(){}", r.rest[i]) < 0 {
		if r.rest[i] == '\\' && i+1 < len(r.rest) {
			i++
		}
		i++
	}
	t := r.rest[:i]
	r.rest = r.rest[i:]
	return t
}

// fields reads into n up to end, "}" or "" for the end of the text.
func (r *reader) fields(n *node, end string, depth int) error {
	if depth > depthLimit {
		return fmt.Errorf("nested deeper than %d", depthLimit)
	}
	field := ""
	for {
		t := r.next()
		switch {
		case t == end:
			return nil
		case t == "":
			return fmt.Errorf("ends inside %s", n.tag)
		case t == "{" || t == "(":
			if err := r.value(n, field, t, depth); err != nil {
				return err
			}
		case t == "}" || t == ")":
			return fmt.Errorf("%q out of place in %s", t, n.tag)
		case t[0] == ':':
			// The token behind a field is its value, also where it begins with a
			// colon: names are not escaped against that.
			field = t[1:]
			v := r.next()
			if v == "{" || v == "(" {
				if err := r.value(n, field, v, depth); err != nil {
					return err
				}
			} else if v == "" || v == "}" || v == ")" {
				return fmt.Errorf("field %s of %s has no value", field, n.tag)
			} else {
				n.set(field, v)
			}
		default: // the bytes of a constant behind its length
		}
	}
}

// value reads what open began, a node or a list, into field of n.
func (r *reader) value(n *node, field, open string, depth int) error {
	if depth > depthLimit {
		return fmt.Errorf("nested deeper than %d", depthLimit)
	}
	if open == "{" {
		child := newNode(r.next())
		n.add(field, child)
		return r.fields(child, "}", depth+1)
	}
	for {
		switch t := r.next(); t {
		case ")":
			return nil
		case "", "}":
			return fmt.Errorf("list %s of %s has no end", field, n.tag)
		case "{", "(":
			if err := r.value(n, field, t, depth+1); err != nil {
				return err
			}
		default:
			n.addToken(field, t)
		}
	}
}

// unescape takes the backslashes from a token and the quotes from a string.
func unescape(t string) string {
	if t == "<>" {
		return ""
	}
	if len(t) >= 2 && t[0] == '"' && t[len(t)-1] == '"' {
		t = t[1 : len(t)-1]
	}
	if strings.IndexByte(t, '\\') < 0 {
		return t
	}
	var b strings.Builder
	for i := 0; i < len(t); i++ {
		if t[i] == '\\' && i+1 < len(t) {
			i++
		}
		b.WriteByte(t[i])
	}
	return b.String()
}
