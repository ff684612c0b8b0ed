package demo

import (
	"fmt"
	"strings"
)

// lens shows a few actions through both lenses: what was meant, and the rows that
// the same transaction changed. Its records come from topics that know nothing of
// each other; the transaction's id, a header of each, brings them together.
type lens struct {
	config string // file that a command can be given; "": nothing is shown

	deeds  map[string]*deed
	recent []string        // the transactions of deeds, oldest first
	shown  map[string]bool // kinds of intents that were shown
}

// deed is a transaction as far as it has arrived.
type deed struct {
	intents, rows []change
}

// lensRows are the kinds of intents to be shown, once each, and how many rows they
// change: when so many have arrived the deed is complete.
var lensRows = map[string]int{
	"enrolment-cancelled": 2, // the enrolment and the feedback
	"place-offered":       1, // the waiting list
}

// see takes a change and gives what to show, now that it has arrived.
func (l *lens) see(c change, p palette) string {
	if l.config == "" || c.tx == "" {
		return ""
	}
	if l.deeds == nil {
		l.deeds, l.shown = map[string]*deed{}, map[string]bool{}
	}
	d := l.deeds[c.tx]
	if d == nil {
		if len(l.recent) == remembered {
			delete(l.deeds, l.recent[0])
			l.recent = l.recent[1:]
		}
		d = &deed{}
		l.deeds[c.tx] = d
		l.recent = append(l.recent, c.tx)
	}
	if c.meant != nil {
		d.intents = append(d.intents, c)
	} else {
		d.rows = append(d.rows, c)
	}
	if len(d.intents) != 1 {
		return ""
	}
	kind := d.intents[0].meant.kind
	if n, wanted := lensRows[kind]; !wanted || l.shown[kind] || len(d.rows) != n {
		return ""
	}
	l.shown[kind] = true
	return l.write(d, c.tx, p)
}

func (l *lens) write(d *deed, tx string, p palette) string {
	in := d.intents[0]
	var b strings.Builder
	line := func(label, text string) {
		fmt.Fprintf(&b, "%12s %s %-6s %s\n", "", p.dim("│"), label, strings.TrimSpace(text))
	}
	fmt.Fprintf(&b, "%12s %s\n", "", p.bold("one action, seen both ways: transaction "+printable(tx)))
	line("meant", clip(printable(in.meant.actor+": "+in.meant.kind)+"  "+in.text(), lensWidth))
	if cause := l.intent(in.meant.cause); cause != nil {
		line("why", clip(printable(cause.meant.actor+": "+cause.meant.kind)+"  "+cause.text(), lensWidth))
	}
	for i, r := range d.rows {
		label := "rows"
		if i > 0 {
			label = ""
		}
		line(label, p.op(r.op, r.sign())+" "+clip(r.table.name+"  "+summarise(r.key, nil, keyWidth)+"  "+r.text(), lensWidth))
	}
	line("again", "cdc tx "+printable(in.meant.id)+" --config "+l.config)
	return strings.TrimSuffix(b.String(), "\n")
}

// lensWidth keeps a line within 100 columns.
const lensWidth = 76

// intent is one that arrived lately, nil where it did not.
func (l *lens) intent(id string) *change {
	for _, d := range l.deeds {
		for i := range d.intents {
			if d.intents[i].meant.id == id {
				return &d.intents[i]
			}
		}
	}
	return nil
}
