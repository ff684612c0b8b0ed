package source

import (
	"fmt"
	"slices"
	"strings"

	"cdc/internal/cdc"
)

// maxListed bounds how many leaves of one table a fault spells out; a tree of
// thousands is mended by the same statement for each.
const maxListed = 20

// publish works out the columns the stream will carry: the configured ones,
// else the publication's own list, else all but generated ones.
func (t *catalogTable) publish(configured []string, pub *publication, version int) faults {
	var found faults
	if configured != nil && version < 150000 {
		found = append(found, fault{"column-list", fmt.Sprintf("columns of %s: column lists need PostgreSQL 15", t.fullName()), ""})
	}
	wanted := configured
	if wanted == nil {
		wanted = pub.columnList(t)
	}
	for _, name := range wanted {
		i := slices.IndexFunc(t.columns, func(c catalogColumn) bool { return c.name == name })
		switch {
		case i < 0:
			found = append(found, fault{reason: "column-list", what: fmt.Sprintf("columns of %s: it has no column %q", t.fullName(), name)})
		case t.columns[i].virtual, t.columns[i].generated && version < 180000:
			found = append(found, fault{reason: "column-list", what: fmt.Sprintf(
				"columns of %s: %q is generated and this server does not publish it; leave it out", t.fullName(), name)})
		}
	}
	for _, c := range t.columns {
		switch {
		case wanted != nil && !slices.Contains(wanted, c.name):
		case c.virtual, c.generated && version < 180000:
		case c.generated && wanted == nil && !pub.generated:
		default:
			t.published = append(t.published, c.name)
		}
	}
	return found
}

// validate finds the message key and says why the table cannot be captured with it.
func (t *catalogTable) validate(configured []string, version int) (key []string, found faults) {
	for _, leaf := range t.leaves {
		if why := leaf.unfitLeaf(); why != "" {
			found = append(found, fault{"table-kind", fmt.Sprintf("%s cannot be captured: its partition %s %s", t.fullName(), leaf.fullName(), why),
				fmt.Sprintf("ALTER TABLE %s DETACH PARTITION %s;", t.quoted(), leaf.quoted())})
		}
	}
	key, f := t.key(configured, version)
	if f != nil {
		return nil, append(found, *f)
	}
	found = append(found, t.checkColumns(key)...)
	found = append(found, t.checkIdentity(key)...)
	return key, found
}

func (t *catalogTable) unfitLeaf() string {
	switch {
	case t.kind == kindForeign:
		return "is a foreign table, whose changes are not in this server's WAL"
	case t.persistence == persistTemp:
		return "is temporary"
	case t.persistence == persistUnlogged:
		return "is unlogged, so its changes are not in the WAL"
	}
	return ""
}

// key is the configured key, else the primary key, in its own order.
func (t *catalogTable) key(configured []string, version int) ([]string, *fault) {
	if len(configured) > 0 {
		return configured, t.checkConfigured(configured, version)
	}
	pk := t.primary()
	switch {
	case pk == nil:
		return nil, t.unkeyed()
	case !pk.immediate:
		return nil, &fault{"deferrable-key", fmt.Sprintf(
			"%s: its primary key is deferrable, so rows may share a key inside a transaction and the order of its changes does not tell which one stays", t.fullName()),
			fmt.Sprintf("ALTER TABLE %s DROP CONSTRAINT %s, ADD CONSTRAINT %s PRIMARY KEY (%s);",
				t.quoted(), quote(pk.name), quote(pk.name), quoteList(pk.columns))}
	case !pk.valid:
		return nil, &fault{"unkeyed-table", fmt.Sprintf("%s: the index %s of its primary key is not valid", t.fullName(), pk.name),
			fmt.Sprintf("REINDEX INDEX %s;", quote(t.schema, pk.name))}
	}
	for _, name := range pk.columns {
		if c := t.column(name); c != nil && c.generated && version < 180000 {
			return nil, &fault{"generated-key", fmt.Sprintf(
				"%s: column %q of its primary key is generated, and Postgres before 18 leaves generated columns out of the stream, so deletes would arrive without a key", t.fullName(), name),
				fmt.Sprintf("ALTER TABLE %s ALTER COLUMN %s DROP EXPRESSION;", t.quoted(), quote(name))}
		}
	}
	return pk.columns, nil
}

// unkeyed is the fault of a table without a primary key, with the nearest cure.
func (t *catalogTable) unkeyed() *fault {
	f := &fault{reason: "unkeyed-table", what: fmt.Sprintf(
		"%s has no primary key: publishing it would make the application's own UPDATE and DELETE fail, and its records could not be compacted", t.fullName())}
	for _, x := range t.indexes {
		if x.valid && x.immediate && t.allNotNull(x.columns) {
			f.mend = fmt.Sprintf("ALTER TABLE %s ADD PRIMARY KEY USING INDEX %s;", t.quoted(), quote(x.name))
			if t.kind == kindPartitioned {
				f.mend = fmt.Sprintf("ALTER TABLE %s ADD PRIMARY KEY (%s);", t.quoted(), quoteList(x.columns))
			}
			return f
		}
	}
	f.mend = fmt.Sprintf("ALTER TABLE %s ADD COLUMN cdc_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY; -- rewrites the table\n"+
		"-- or, where some columns identify a row: ALTER TABLE %s REPLICA IDENTITY FULL; and in the configuration\n"+
		"-- key: {%q: [column, …]}", t.quoted(), t.quoted(), t.fullName())
	return f
}

// checkConfigured holds a configured key to what a primary key would give.
func (t *catalogTable) checkConfigured(key []string, version int) *fault {
	for i, name := range key {
		c := t.column(name)
		switch {
		case c == nil:
			return &fault{"unkeyed-table", fmt.Sprintf("key of %s: it has no column %q", t.fullName(), name), ""}
		case slices.Contains(key[:i], name):
			return &fault{"unkeyed-table", fmt.Sprintf("key of %s names column %q twice", t.fullName(), name), ""}
		case !c.notNull:
			return &fault{"nullable-key", fmt.Sprintf("key of %s: column %q may be NULL, and NULL identifies nothing", t.fullName(), name),
				fmt.Sprintf("ALTER TABLE %s ALTER COLUMN %s SET NOT NULL;", t.quoted(), quote(name))}
		case c.virtual, c.generated && version < 180000:
			return &fault{"generated-key", fmt.Sprintf("key of %s: column %q is generated and not in the stream", t.fullName(), name),
				fmt.Sprintf("ALTER TABLE %s ALTER COLUMN %s DROP EXPRESSION;", t.quoted(), quote(name))}
		}
	}
	if deferrable := t.deferrableOver(key); deferrable != nil && !t.unique(key) {
		return &fault{"deferrable-key", fmt.Sprintf(
			"key of %s: only the deferrable constraint %s makes it unique, so rows may share it inside a transaction", t.fullName(), deferrable.name),
			fmt.Sprintf("ALTER TABLE %s DROP CONSTRAINT %s, ADD CONSTRAINT %s UNIQUE (%s);",
				t.quoted(), quote(deferrable.name), quote(deferrable.name), quoteList(deferrable.columns))}
	}
	return nil
}

// checkColumns refuses a column list that leaves out the key, or a column of a
// replica identity: the latter makes every UPDATE and DELETE of the application fail.
func (t *catalogTable) checkColumns(key []string) faults {
	if missing := without(key, t.published); len(missing) > 0 {
		return faults{{"column-list", fmt.Sprintf("%s: the published columns lack %s of its key; add them to its columns", t.fullName(), quoteList(missing)), ""}}
	}
	for _, p := range t.parts() {
		cols, _ := p.identityColumns()
		cols = slices.DeleteFunc(slices.Clone(cols), func(n string) bool { c := p.column(n); return c != nil && c.generated })
		if missing := without(cols, t.published); len(missing) > 0 {
			mend := ""
			if p.identity != cdc.IdentityDefault && p.primary() != nil {
				mend = fmt.Sprintf("ALTER TABLE %s REPLICA IDENTITY DEFAULT;", p.quoted())
			}
			return faults{{"column-list", fmt.Sprintf("%s: the published columns lack %s of the replica identity of %s, so its UPDATE and DELETE would fail; add them to its columns",
				t.fullName(), quoteList(missing), p.fullName()), mend}}
		}
	}
	return nil
}

// checkIdentity refuses a key outside the replica identity: a delete would not
// say which key it deletes. Of a partitioned table every leaf counts, because it
// is the leaf's identity that decides what is written to the WAL.
func (t *catalogTable) checkIdentity(key []string) faults {
	var what string
	var mend []string
	outside := 0
	for _, p := range t.parts() {
		cols, name := p.identityColumns()
		missing := without(key, cols)
		// The stream marks old rows by the root's identity: under FULL there, a leaf
		// that logs its key alone would have its other columns read as NULL.
		mixed := t.identity == cdc.IdentityFull && p.identity != cdc.IdentityFull
		if len(missing) == 0 && !mixed {
			continue
		}
		outside++
		if what == "" && mixed {
			what = fmt.Sprintf("%s has REPLICA IDENTITY FULL, its partition %s has %s", t.fullName(), p.fullName(), name)
		} else if what == "" {
			what = fmt.Sprintf("%s: %s of its key is not in the replica identity of %s (%s), so a delete would not say which row it deletes",
				t.fullName(), quoteList(missing), p.fullName(), name)
		}
		if outside <= maxListed {
			mend = append(mend, t.identityMend(p, key))
		}
	}
	if outside == 0 {
		return nil
	}
	if outside > 1 {
		what += fmt.Sprintf(" (and %d more partitions)", outside-1)
	}
	if outside > maxListed {
		mend = append(mend, fmt.Sprintf("-- and likewise %d more partitions of %s", outside-maxListed, t.fullName()))
	}
	return faults{{"key-outside-identity", what, strings.Join(mend, "\n")}}
}

func (t *catalogTable) identityMend(p *catalogTable, key []string) string {
	pk := p.primary()
	if t.identity == cdc.IdentityFull || pk == nil || !pk.immediate || len(without(key, pk.columns)) > 0 {
		return fmt.Sprintf("ALTER TABLE %s REPLICA IDENTITY FULL;", p.quoted())
	}
	mend := fmt.Sprintf("ALTER TABLE %s REPLICA IDENTITY DEFAULT;", p.quoted())
	if cols, _ := p.identityColumns(); p.identity == cdc.IdentityIndex && len(cols) > 0 && p == t {
		mend += fmt.Sprintf("\n-- or in the configuration: key: {%q: [%s]}", t.fullName(), strings.Join(cols, ", "))
	}
	return mend
}

// identityColumns are the columns of the replica identity and its name.
func (t *catalogTable) identityColumns() ([]string, string) {
	switch t.identity {
	case cdc.IdentityFull:
		var all []string
		for _, c := range t.columns {
			all = append(all, c.name)
		}
		return all, "FULL"
	case cdc.IdentityDefault:
		if pk := t.primary(); pk != nil && pk.valid && pk.immediate {
			return pk.columns, "the primary key"
		}
		return nil, "DEFAULT without a usable primary key"
	case cdc.IdentityIndex:
		for _, x := range t.indexes {
			if x.identity && x.valid && x.immediate {
				return x.columns, "index " + x.name
			}
		}
		return nil, "USING INDEX, and the index is gone"
	}
	return nil, "NOTHING"
}

// parts are the tables whose replica identity counts: the table itself and,
// where it is partitioned, its leaves.
func (t *catalogTable) parts() []*catalogTable { return append([]*catalogTable{t}, t.leaves...) }

func (t *catalogTable) primary() *catalogIndex {
	for i := range t.indexes {
		if t.indexes[i].primary {
			return &t.indexes[i]
		}
	}
	return nil
}

// unique says that an immediate unique index makes the key unique.
func (t *catalogTable) unique(key []string) bool {
	return slices.ContainsFunc(t.indexes, func(x catalogIndex) bool {
		return x.valid && x.immediate && len(without(x.columns, key)) == 0 && t.allNotNull(x.columns)
	})
}

func (t *catalogTable) deferrableOver(key []string) *catalogIndex {
	for i, x := range t.indexes {
		if !x.immediate && len(without(x.columns, key)) == 0 {
			return &t.indexes[i]
		}
	}
	return nil
}

func (t *catalogTable) column(name string) *catalogColumn {
	for i := range t.columns {
		if t.columns[i].name == name {
			return &t.columns[i]
		}
	}
	return nil
}

func (t *catalogTable) allNotNull(names []string) bool {
	return !slices.ContainsFunc(names, func(n string) bool { c := t.column(n); return c == nil || !c.notNull })
}

// without lists what is in names and not in set.
func without(names, set []string) []string {
	var missing []string
	for _, n := range names {
		if !slices.Contains(set, n) {
			missing = append(missing, n)
		}
	}
	return missing
}

func quoteList(names []string) string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = quote(n)
	}
	return strings.Join(quoted, ", ")
}
