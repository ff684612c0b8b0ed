package view

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// DependentsError says that dropping a view's table would take objects of others
// with it. Nothing was changed.
type DependentsError struct {
	View    string
	Objects []string // as Postgres describes them
}

func (e *DependentsError) Error() string {
	return fmt.Sprintf("the table of view %s is used by %s: drop that first, and make it again afterwards", e.View, list(e.Objects))
}

// dependents are what hangs on a table and is neither part of it nor of its
// definition: views, foreign keys of other tables, functions, and what somebody
// added to the table itself and would miss in silence: triggers, policies, its place
// in a publication.
const dependentsSQL = `
	select case when d.classid = 'pg_rewrite'::regclass
	            then (select case c.relkind when 'm' then 'materialized view ' else 'view ' end || r.ev_class::regclass::text
	                  from pg_rewrite r join pg_class c on c.oid = r.ev_class where r.oid = d.objid)
	            else pg_describe_object(d.classid, d.objid, 0) end
	from pg_depend d
	where d.refclassid = 'pg_class'::regclass and d.refobjid = to_regclass($1) and d.deptype = 'n'
	  and not exists (select from pg_constraint k where d.classid = 'pg_constraint'::regclass and k.oid = d.objid and k.conrelid = d.refobjid)
	  and not exists (select from pg_index i where d.classid = 'pg_class'::regclass and i.indexrelid = d.objid and i.indrelid = d.refobjid)
	union
	select pg_describe_object('pg_trigger'::regclass, oid, 0) from pg_trigger where tgrelid = to_regclass($1) and not tgisinternal
	union
	select pg_describe_object('pg_policy'::regclass, oid, 0) from pg_policy where polrelid = to_regclass($1)
	union
	select 'publication ' || p.pubname from pg_publication_rel r join pg_publication p on p.oid = r.prpubid where r.prrelid = to_regclass($1)
	order by 1`

func dependents(ctx context.Context, q querier, table string) ([]string, error) {
	rows, err := q.Query(ctx, dependentsSQL, table)
	if err != nil {
		return nil, fmt.Errorf("look for what depends on table %s: %w", table, err)
	}
	names, err := collectText(rows)
	if err != nil {
		return nil, fmt.Errorf("look for what depends on table %s: %w", table, err)
	}
	return names, nil
}

func collectText(rows pgx.Rows) ([]string, error) { return pgx.CollectRows(rows, pgx.RowTo[string]) }

// refuseDependents ends a switch before it has kept anybody waiting.
func (s *switching) refuseDependents(ctx context.Context) error {
	if s.pair.live == nil {
		return nil
	}
	names, err := dependents(ctx, s.place(*s.pair.live).conn, s.pair.live.table())
	if err == nil && len(names) > 0 {
		return &DependentsError{s.pair.live.name, names}
	}
	return err
}

// dependent finds the object in a line of the server's detail.
var dependent = regexp.MustCompile(`(?m)^(.+) depends on `)

// dropError names what came to depend on the table since refuseDependents looked.
func dropError(view string, err error) error {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || pe.Code != codeDependents {
		return fmt.Errorf("drop the table of view %s: %w", view, err)
	}
	e := &DependentsError{View: view}
	for _, m := range dependent.FindAllStringSubmatch(pe.Detail, -1) {
		if !slices.Contains(e.Objects, m[1]) {
			e.Objects = append(e.Objects, m[1])
		}
	}
	return e
}

// grantsOf is the SQL that gives the rights others have on a table to the one that
// is about to be views.<name>, and no more than those.
func grantsOf(ctx context.Context, q querier, table, next string) ([]string, error) {
	target := "views" + strings.TrimPrefix(next, next[:strings.IndexByte(next, '.')])
	rows, err := q.Query(ctx, `
		with acl as (
			select c.relowner, a.*, '' as columns from pg_class c, aclexplode(c.relacl) a where c.oid = to_regclass($1)
			union all
			select c.relowner, a.*, ' (' || quote_ident(t.attname) || ')'
			from pg_class c join pg_attribute t on t.attrelid = c.oid, aclexplode(t.attacl) a
			where c.oid = to_regclass($1) and not t.attisdropped
			  and exists (select from pg_attribute n where n.attrelid = to_regclass($2) and n.attname = t.attname and not n.attisdropped))
		select 'grant ' || acl.privilege_type || acl.columns || ' on ' || $3 || ' to '
		       || case acl.grantee when 0 then 'public' else (select quote_ident(rolname) from pg_roles where oid = acl.grantee) end
		       || case when acl.is_grantable then ' with grant option' else '' end
		from acl where acl.grantee <> acl.relowner order by 1`, table, next, target)
	if err != nil {
		return nil, fmt.Errorf("read the rights on table %s: %w", table, err)
	}
	texts, err := collectText(rows)
	if err != nil {
		return nil, fmt.Errorf("read the rights on table %s: %w", table, err)
	}
	if texts == nil {
		texts = []string{} // none, which is not the same as the usual ones
	}
	return texts, nil
}

// defaultGrants is what a view's table grants when it becomes live first: reading it
// to the store's roles, which another Postgres need not have.
func defaultGrants(ctx context.Context, q querier, table string) ([]string, error) {
	rows, err := q.Query(ctx, `select 'grant select on ' || $1 || ' to ' || quote_ident(rolname) from pg_roles where rolname in ('es_reader', 'es_writer') order by rolname`, table)
	if err != nil {
		return nil, fmt.Errorf("look up roles: %w", err)
	}
	texts, err := collectText(rows)
	if err != nil {
		return nil, fmt.Errorf("look up roles: %w", err)
	}
	return texts, nil
}
