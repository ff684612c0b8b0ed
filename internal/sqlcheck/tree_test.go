package sqlcheck

import (
	"strings"
	"testing"
)

func TestParseTree(t *testing.T) {
	root, err := parseTree(`(({A :x 1 :name :odd\ \{\( :b ("a\"" "c d") :c {B :opnos (o 96 98) :v 4 [ 1 0 0 0 ] :w <>} :d ({C :e ({D :x 2})})}))`)
	if err != nil {
		t.Fatal(err)
	}
	var tags []string
	root.walk(func(n *node) { tags = append(tags, n.tag) })
	if got := strings.Join(tags, " "); got != " A B C D" {
		t.Errorf("got %q", got)
	}
	a := root.children[0]
	if got := unescape(a.fields["name"]); got != ":odd {(" {
		t.Errorf("name: got %q", got)
	}
	if got := a.lists["c"][0].tokens["opnos"]; len(got) != 3 || got[2] != "98" {
		t.Errorf("opnos: got %q", got)
	}
	for _, broken := range []string{"{A", "(", "{A :x", "{A :x}", ")", "}", "{A :x (1", "(}", strings.Repeat("(", depthLimit+10)} {
		if _, err := parseTree(broken); err == nil {
			t.Errorf("%.20q is read without an error", broken)
		}
	}
}

// FuzzParseTree: whatever a server of another version writes, reading it ends.
func FuzzParseTree(f *testing.F) {
	f.Add(`({QUERY :commandType 3 :cteList <> :rtable ({RANGETBLENTRY :alias <> :eref {ALIAS :aliasname w :colnames ("course" "at")} :relid 16385})})`)
	f.Add(`{A :constvalue 5 [ 20 0 0 0 120 ] :name \:odd\ {\} }`)
	f.Add(`(o 1 2 {X} ())`)
	f.Fuzz(func(t *testing.T, text string) {
		root, err := parseTree(text)
		if err != nil {
			return
		}
		nodes := 0
		root.walk(func(n *node) { nodes++ })
		if nodes > len(text)+1 {
			t.Errorf("%d nodes of %d bytes", nodes, len(text))
		}
		j := newJudge(text)
		j.collect(root)
	})
}
