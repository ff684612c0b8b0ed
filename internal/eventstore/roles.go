package eventstore

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"cdc/internal/cdc"
)

// The roles of a store. They are of the cluster, not of the database, and none can
// log in: logins are made members.
const (
	RoleOwner  = "es_owner"  // owns schema es and all in it; the daemon's login is a member
	RoleWriter = "es_writer" // applications that append: the functions of es, and the live views
	RoleReader = "es_reader" // the same without appending
	RoleView   = "es_view"   // owns schema views and the builds beside it; the daemon's login is a member
)

var roles = []string{RoleOwner, RoleWriter, RoleReader, RoleView}

// facts are what a plan depends on.
type facts struct {
	version   int // server_version_num
	encoding  string
	standby   bool
	database  string
	login     string
	super     bool
	makeRoles bool            // CREATEROLE
	create    bool            // CREATE on the database
	owns      bool            // of the database: may give CREATE away
	exists    map[string]bool // which of the roles there are
	may       map[string]bool // SET ROLE to it is allowed
	admin     map[string]bool // membership in it may be given
	schema    string          // owner of schema es, "" where there is none
	views     string          // of schema views
	meta      bool            // es.meta exists
	logins    map[string]login
}

// login is a role that is to be made a member.
type login struct {
	memberOf    map[string]bool
	create      bool // CREATE on the database
	replication bool
}

// memberships of a role that let it act as another. From 16 on, who makes a role
// is a member of it with ADMIN alone: the columns set_option and inherit_option,
// which older servers lack, say so.
const memberSQL = `select m.roleid::regrole::text, coalesce((to_jsonb(m)->>'set_option')::boolean, true), m.admin_option
	from pg_catalog.pg_auth_members m join pg_catalog.pg_roles r on r.oid = m.member
	where r.rolname = $1 and m.roleid in (select oid from pg_catalog.pg_roles where rolname = any ($2))`

func inspect(ctx context.Context, tx pgx.Tx, o InitOptions) (facts, error) {
	f := facts{exists: map[string]bool{}, may: map[string]bool{}, admin: map[string]bool{}, logins: map[string]login{}}
	err := tx.QueryRow(ctx, `select current_setting('server_version_num')::int, current_setting('server_encoding'), pg_is_in_recovery(),
			current_database(), current_user::text, r.rolsuper, r.rolcreaterole,
			has_database_privilege(current_database(), 'create'), pg_has_role(d.datdba, 'usage'),
			coalesce((select nspowner::regrole::text from pg_namespace where nspname = 'es'), ''),
			coalesce((select nspowner::regrole::text from pg_namespace where nspname = 'views'), ''),
			exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'es' and c.relname = 'meta')
		from pg_roles r, pg_database d where r.rolname = current_user and d.datname = current_database()`).
		Scan(&f.version, &f.encoding, &f.standby, &f.database, &f.login, &f.super, &f.makeRoles, &f.create, &f.owns, &f.schema, &f.views, &f.meta)
	if err != nil {
		return facts{}, fmt.Errorf("read the rights of the login: %w", err)
	}
	var names []string
	if err := tx.QueryRow(ctx, "select coalesce(array_agg(rolname::text), '{}') from pg_roles where rolname = any ($1)", roles).Scan(&names); err != nil {
		return facts{}, fmt.Errorf("read the roles of the store: %w", err)
	}
	for _, name := range names {
		f.exists[name] = true
		// Before 16 CREATEROLE may give any membership; from 16 on ADMIN is needed.
		f.admin[name] = f.super || f.makeRoles && f.version < 160000
		f.may[name] = f.super
	}
	if !f.super {
		question := "member"
		if f.version >= 160000 {
			question = "set"
		}
		for _, name := range names {
			var may, admin bool
			if err := tx.QueryRow(ctx, "select pg_has_role($1::name, $2), pg_has_role($1::name, 'member with admin option')", name, question).Scan(&may, &admin); err != nil {
				return facts{}, fmt.Errorf("read the memberships of the login: %w", err)
			}
			f.may[name], f.admin[name] = may, f.admin[name] || admin
		}
	}
	for _, name := range []string{o.Daemon, o.App} {
		if name == "" {
			continue
		}
		if f.logins[name], err = inspectLogin(ctx, tx, name); err != nil {
			return facts{}, err
		}
	}
	return f, nil
}

func inspectLogin(ctx context.Context, tx pgx.Tx, name string) (login, error) {
	l := login{memberOf: map[string]bool{}}
	var there bool
	err := tx.QueryRow(ctx, `select true, rolreplication or rolsuper, has_database_privilege(oid, current_database(), 'create')
		from pg_roles where rolname = $1 union all select false, false, false limit 1`, name).Scan(&there, &l.replication, &l.create)
	if err != nil {
		return login{}, fmt.Errorf("read role %q: %w", name, err)
	}
	if !there {
		return login{}, cdc.Terminal("role-missing", "CREATE ROLE "+quote(name)+" LOGIN PASSWORD '…';", "there is no role %q", name)
	}
	rows, err := tx.Query(ctx, memberSQL, name, roles)
	if err != nil {
		return login{}, fmt.Errorf("read the memberships of role %q: %w", name, err)
	}
	var role string
	var set, admin bool
	_, err = pgx.ForEachRow(rows, []any{&role, &set, &admin}, func() error {
		l.memberOf[role] = l.memberOf[role] || set
		return nil
	})
	if err != nil {
		return login{}, fmt.Errorf("read the memberships of role %q: %w", name, err)
	}
	return l, nil
}

// roleSteps are the statements that make roles and memberships, and what the login
// lacks to run them, as SQL for somebody who has it.
func (f *facts) roleSteps(o InitOptions) (steps, missing []string) {
	add := func(allowed bool, sql string) {
		steps = append(steps, sql)
		if !allowed {
			missing = append(missing, sql)
		}
	}
	for _, name := range roles {
		if !f.exists[name] {
			add(f.super || f.makeRoles, "CREATE ROLE "+name+" NOLOGIN;")
		}
	}
	grants := func(to string, names ...string) {
		for _, name := range names {
			add(f.admin[name] || !f.exists[name] && f.makeRoles, "GRANT "+name+" TO "+quote(to)+";")
		}
	}
	for _, name := range []string{RoleOwner, RoleView} {
		if !f.super && !f.may[name] {
			grants(f.login, name)
		}
	}
	// Who owns the store may serve applications too, and does it with their rights:
	// given where it can be, the store does not need it.
	if !f.super && !f.may[RoleWriter] && o.Daemon != f.login && (f.admin[RoleWriter] || !f.exists[RoleWriter] && f.makeRoles) {
		grants(f.login, RoleWriter)
	}
	wanted := func(to string, names ...string) {
		for _, name := range names {
			self := to == f.login && !f.super && !f.may[name] && name != RoleWriter
			if to != "" && !f.logins[to].memberOf[name] && !self {
				grants(to, name)
			}
		}
	}
	wanted(o.Daemon, RoleOwner, RoleView, RoleWriter)
	wanted(o.App, RoleWriter)
	if f.schema == "" || f.views == "" {
		if !f.create {
			missing = append(missing, "GRANT CREATE ON DATABASE "+quote(f.database)+" TO "+quote(f.login)+";")
		}
	}
	if o.Daemon != "" && !f.logins[o.Daemon].create && f.owns {
		steps = append(steps, "GRANT CREATE ON DATABASE "+quote(f.database)+" TO "+quote(o.Daemon)+";")
	}
	return steps, missing
}

// notes are what the daemon's login lacks and Init does not give.
func (f *facts) notes(o InitOptions) []string {
	if o.Daemon == "" {
		return nil
	}
	var notes []string
	l := f.logins[o.Daemon]
	if !l.create && !f.owns {
		notes = append(notes, "GRANT CREATE ON DATABASE "+quote(f.database)+" TO "+quote(o.Daemon)+";")
	}
	if !l.replication {
		notes = append(notes, "ALTER ROLE "+quote(o.Daemon)+" REPLICATION;")
	}
	return notes
}

func quote(name string) string {
	plain := name != ""
	for i, r := range name {
		plain = plain && (r >= 'a' && r <= 'z' || r == '_' || i > 0 && r >= '0' && r <= '9')
	}
	if plain && strings.HasPrefix(name, "es_") {
		return name
	}
	return pgx.Identifier{name}.Sanitize()
}
