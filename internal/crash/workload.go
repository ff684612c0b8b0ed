package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// step is one transaction of a session.
type step struct {
	parts []part
	abort bool          // rolled back as a whole
	pause time.Duration // before it
}

// part is SQL, or the rows of a COPY FROM STDIN.
type part struct {
	sql  string
	rows []byte
}

func (s step) String() string {
	var b strings.Builder
	b.WriteString("BEGIN; ")
	for _, p := range s.parts {
		b.WriteString(p.sql)
		if p.rows != nil {
			fmt.Fprintf(&b, " (%d rows)", bytes.Count(p.rows, []byte("\n")))
		}
		b.WriteString("; ")
	}
	if s.abort {
		return b.String() + "ROLLBACK"
	}
	return b.String() + "COMMIT"
}

const (
	accounts       = 20  // of the bank
	accountBalance = 100 // of each at first
	tenantKeys     = 12  // keys of items a tenant
	sharedTenant   = 0   // written by every session
	journalRange   = 1_000_000
)

// generator draws the steps of one session. It knows nothing of the others and
// of what is in the tables: the audit knows what came of it.
type generator struct {
	rnd     *rand.Rand
	session int
	next    int // id in journal
	serial  int // makes texts differ
	columns int // added so far
}

func newGenerator(rnd *rand.Rand, session int) *generator {
	return &generator{rnd: rnd, session: session, next: (session + 1) * journalRange}
}

func (g *generator) steps(n int) []step {
	steps := make([]step, n)
	for i := range steps {
		s := step{abort: g.rnd.IntN(12) == 0, pause: time.Duration(g.rnd.IntN(25)) * time.Millisecond}
		for range 1 + g.rnd.IntN(4) {
			s.parts = append(s.parts, g.part(0)...)
		}
		steps[i] = s
	}
	return steps
}

// part draws one thing that a transaction does. Savepoints nest this deep.
func (g *generator) part(depth int) []part {
	sql := func(format string, args ...any) []part { return []part{{sql: fmt.Sprintf(format, args...)}} }
	switch n := g.rnd.IntN(100); {
	case n < 18:
		return sql("%s", g.transfer())
	case n < 34:
		tenant, id := g.key()
		return sql("INSERT INTO items(tenant, id, note, payload) VALUES (%d, %d, %s, %s) ON CONFLICT (tenant, id) DO UPDATE SET ver = nextval('audit.ver'), note = excluded.note, payload = excluded.payload", tenant, id, g.text(), g.payload())
	case n < 46: // the payload is left alone
		tenant, id := g.key()
		return sql("UPDATE items SET ver = nextval('audit.ver'), note = %s WHERE tenant = %d AND id = %d", g.text(), tenant, id)
	case n < 53:
		tenant, id := g.key()
		return sql("DELETE FROM items WHERE tenant = %d AND id = %d", tenant, id)
	case n < 58:
		tenant, id := g.key()
		return sql("DELETE FROM items WHERE tenant = %[1]d AND id = %[2]d; INSERT INTO items(tenant, id, note, payload) VALUES (%[1]d, %[2]d, %[3]s, %[4]s)", tenant, id, g.text(), g.payload())
	case n < 64:
		tenant, id := g.key()
		other := 1 + g.rnd.IntN(tenantKeys)
		return sql("UPDATE items SET id = %[3]d, ver = nextval('audit.ver') WHERE tenant = %[1]d AND id = %[2]d AND NOT EXISTS (SELECT FROM items WHERE tenant = %[1]d AND id = %[3]d)", tenant, id, other)
	case n < 68:
		return sql("%s", g.swap())
	case n < 80:
		return g.journal()
	case n < 81:
		return sql("TRUNCATE journal")
	case n < 83:
		return sql("TRUNCATE journal; INSERT INTO journal(id, v) VALUES (%d, %s)", g.id(1), g.text())
	case n < 86:
		column := g.column()
		return sql("ALTER TABLE items ADD COLUMN %[1]s text; UPDATE items SET ver = nextval('audit.ver'), %[1]s = %[2]s WHERE tenant = %[3]d AND id < 4", column, g.text(), g.session+1)
	case n < 88:
		return sql("ALTER TABLE items DROP COLUMN IF EXISTS c%d_%d", g.session, g.rnd.IntN(g.columns+1))
	case depth < 2:
		name := fmt.Sprintf("s%d", depth)
		parts := sql("SAVEPOINT %s", name)
		for range 1 + g.rnd.IntN(3) {
			parts = append(parts, g.part(depth+1)...)
		}
		end := "RELEASE"
		if g.rnd.IntN(2) == 0 {
			end = "ROLLBACK TO"
		}
		return append(parts, sql("%s %s", end, name)...)
	default:
		return sql("UPDATE accounts SET ver = nextval('audit.ver') WHERE id = %d", 1+g.rnd.IntN(accounts))
	}
}

// key is one of this session's own, or one that all write to.
func (g *generator) key() (tenant, id int) {
	tenant = g.session + 1
	if g.rnd.IntN(2) == 0 {
		tenant = sharedTenant
	}
	return tenant, 1 + g.rnd.IntN(tenantKeys)
}

// column is a new name each time: rows that are not written again keep in the
// topic what they had under a name that is dropped and comes back.
func (g *generator) column() string {
	g.columns++
	return fmt.Sprintf("c%d_%d", g.session, g.columns-1)
}

func (g *generator) text() string {
	g.serial++
	return fmt.Sprintf("'%d-%d'", g.session, g.serial)
}

// payload is large enough to be stored apart half of the time.
func (g *generator) payload() string {
	g.serial++
	return fmt.Sprintf("repeat('%d-%d;', %d)", g.session, g.serial, pick(g.rnd, 3, 30, 600, 900))
}

// transfer locks in one order: two sessions do not wait for each other.
func (g *generator) transfer() string {
	from, to := 1+g.rnd.IntN(accounts), 1+g.rnd.IntN(accounts)
	if from > to {
		from, to = to, from
	}
	n := g.rnd.IntN(41) - 20
	return fmt.Sprintf("UPDATE accounts SET balance = balance - %[1]d, ver = nextval('audit.ver') WHERE id = %[2]d; UPDATE accounts SET balance = balance + %[1]d, ver = nextval('audit.ver') WHERE id = %[3]d", n, from, to)
}

// swap exchanges two keys by way of a third.
func (g *generator) swap() string {
	tenant, a := g.key()
	b := 1 + g.rnd.IntN(tenantKeys)
	third := -1 - g.session
	move := func(from, to int) string {
		return fmt.Sprintf("UPDATE items SET id = %d, ver = nextval('audit.ver') WHERE tenant = %d AND id = %d", to, tenant, from)
	}
	if a == b {
		return move(a, a)
	}
	return move(a, third) + "; " + move(b, a) + "; " + move(third, b)
}

// id takes n ids of journal.
func (g *generator) id(n int) int {
	at := g.next
	g.next += n
	return at
}

func (g *generator) journal() []part {
	sql := func(format string, args ...any) []part { return []part{{sql: fmt.Sprintf(format, args...)}} }
	mine := (g.session + 1) * journalRange
	switch n := g.rnd.IntN(20); {
	case n < 6:
		return sql("INSERT INTO journal(id, v) VALUES (%d, %s)", g.id(1), g.text())
	case n < 10:
		rows := 20 + g.rnd.IntN(200)
		var b bytes.Buffer
		for id, i := g.id(rows), 0; i < rows; i++ {
			g.serial++
			fmt.Fprintf(&b, "%d\t%d-%d\n", id+i, g.session, g.serial)
		}
		return []part{{sql: "COPY journal(id, v) FROM STDIN", rows: b.Bytes()}}
	case n < 11:
		rows := 1000 + g.rnd.IntN(2000)
		at := g.id(rows)
		return sql("INSERT INTO journal(id, v) SELECT i, %s || i FROM generate_series(%d, %d) i", g.text(), at, at+rows-1)
	case n < 16:
		return sql("UPDATE journal SET v = %s, ver = nextval('audit.ver') WHERE id BETWEEN %d AND %d", g.text(), g.next-20-g.rnd.IntN(100), g.next)
	default:
		from := mine + g.rnd.IntN(g.next-mine+1)
		return sql("DELETE FROM journal WHERE id BETWEEN %d AND %d", from, from+g.rnd.IntN(50))
	}
}
