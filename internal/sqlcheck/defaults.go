package sqlcheck

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// CheckDefaults judges what a table does by itself when a row is written: defaults
// and generated columns, identity, check constraints, domains of its columns, and
// foreign keys to other tables. table is qualified, and quoted where it must be.
func CheckDefaults(ctx context.Context, tx pgx.Tx, table string) ([]Finding, error) {
	rows, err := tx.Query(ctx, `
		select 'column ' || pg_catalog.quote_ident(a.attname) || ': ', pg_catalog.pg_get_expr(d.adbin, d.adrelid), d.adbin::text, a.atttypid::oid, a.attidentity::text, ''
		  from pg_catalog.pg_attribute a left join pg_catalog.pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
		 where a.attrelid = $1::text::regclass and a.attnum > 0 and not a.attisdropped
		union all
		select 'constraint ' || pg_catalog.quote_ident(c.conname) || ': ', pg_catalog.pg_get_constraintdef(c.oid), c.conbin::text, 0, '',
		       case when c.contype = 'f' and c.confrelid <> c.conrelid then c.confrelid::regclass::text else '' end
		  from pg_catalog.pg_constraint c where c.conrelid = $1::text::regclass
		 order by 1`, table)
	if err != nil {
		return nil, fmt.Errorf("look up the columns of %s: %w", table, err)
	}
	type part struct {
		where          string
		text, tree     *string
		typ            uint32
		identity, refs string
	}
	parts, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (p part, err error) {
		err = row.Scan(&p.where, &p.text, &p.tree, &p.typ, &p.identity, &p.refs)
		return p, err
	})
	if err != nil {
		return nil, fmt.Errorf("look up the columns of %s: %w", table, err)
	}
	var findings []Finding
	for _, p := range parts {
		j := newJudge("")
		if p.text != nil {
			j.sql = *p.text
		}
		if p.tree != nil {
			root, err := parseTree(*p.tree)
			if err != nil {
				return nil, err
			}
			j.collect(root)
		}
		if p.typ != 0 {
			j.types[p.typ] = true
		}
		if p.identity != "" {
			j.find("generated as identity: %s", reasonSequence)
		}
		if p.refs != "" {
			j.find("references %s: its rows are not the view's own, and are not the same in a replay", p.refs)
		}
		if err := j.judge(ctx, tx, []string{table}); err != nil {
			return nil, err
		}
		for _, f := range j.findings {
			findings = append(findings, Finding{Text: p.where + f.Text})
		}
	}
	return findings, nil
}
