package demo

import (
	"fmt"
	"strings"
	"testing"

	"cdc/internal/cdc"
)

// The records of an action come in any order, others between them.
func TestLens(t *testing.T) {
	cancelled := change{tx: "7", key: []byte("course/x"), value: []byte(`{"course":"x","student":1,"reason":"late"}`),
		meant: &meant{id: "e-1", kind: "enrolment-cancelled", version: "4", actor: "student:1"}}
	place := change{tx: "7", table: tables[2], key: []byte(`{"course":"x","student":1}`), op: cdc.OpDelete}
	said := change{tx: "7", table: tables[4], key: []byte(`{"id":9}`), value: []byte(`{"id":9,"kind":"cancellation"}`), op: cdc.OpInsert}
	offered := change{tx: "8", key: []byte("course/x"), value: []byte(`{"course":"x","student":2}`),
		meant: &meant{id: "e-2", kind: "place-offered", version: "5", actor: "reaction:r", cause: "e-1"}}
	listed := change{tx: "8", table: tables[3], key: []byte(`{"course":"x","student":2}`), value: []byte(`{"offer":"e-2"}`), op: cdc.OpUpdate}
	l := &lens{config: "f.yaml"}
	var shown []string
	see := func(c change) {
		if block := l.see(c, false); block != "" {
			shown = append(shown, block)
		}
	}
	see(place)
	see(listed)
	see(said)
	see(change{table: tables[4], key: []byte(`{"id":1}`), op: cdc.OpRead}) // of no transaction
	see(cancelled)
	see(offered)
	cancelled.tx, place.tx, said.tx = "9", "9", "9" // of a kind that was shown
	see(cancelled)
	see(place)
	see(said)
	want := []string{`             one action, seen both ways: transaction 7
             │ meant  student:1: enrolment-cancelled  course/x@4 reason=late
             │ rows   - enrolments  x 1
             │        + feedback  9  kind=cancellation
             │ again  cdc tx e-1 --config f.yaml`, `             one action, seen both ways: transaction 8
             │ meant  reaction:r: place-offered  course/x@5 student=2
             │ why    student:1: enrolment-cancelled  course/x@4 reason=late
             │ rows   ~ waiting_list  x 2  offer=e-2
             │ again  cdc tx e-2 --config f.yaml`}
	if got := strings.Join(shown, "\n\n"); got != strings.Join(want, "\n\n") {
		t.Errorf("got:\n%s\nwant:\n%s", got, strings.Join(want, "\n\n"))
	}
	for i := range 3 * remembered {
		see(change{tx: fmt.Sprint("t", i), table: tables[4], key: []byte(`{"id":1}`), op: cdc.OpInsert})
	}
	if len(l.deeds) != remembered || len(l.recent) != remembered {
		t.Errorf("remembers %d and %d transactions, want %d", len(l.deeds), len(l.recent), remembered)
	}
}
