package main

import "fmt"

// table is one that cdc captures.
type table struct {
	name string
	key  []string
}

var tables = []table{{"accounts", []string{"id"}}, {"items", []string{"tenant", "id"}}, {"journal", []string{"id"}}}

// schema makes the tables, and in a schema of their own what the checker knows.
// The triggers write into the audit in the transaction of the change, while the
// row is locked: of one key, the order of seq is the order of commits. TRUNCATE
// locks its table, so what has a lower seq was there before it. Versions are
// drawn from one sequence, so no two records of a topic are alike.
func (p plan) schema() []string {
	all := []string{
		`CREATE SCHEMA audit`,
		`CREATE SEQUENCE audit.ver`,
		`CREATE TABLE audit.log(seq bigserial PRIMARY KEY, xid bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint, tbl text NOT NULL, op text NOT NULL, old jsonb, new jsonb)`,
		`CREATE FUNCTION audit.row() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	was jsonb;
	now jsonb;
BEGIN
	IF TG_OP = 'TRUNCATE' THEN
		INSERT INTO audit.log(tbl, op) VALUES (TG_TABLE_NAME, 't');
		RETURN NULL;
	END IF;
	IF TG_OP <> 'INSERT' THEN
		SELECT jsonb_object_agg(k, to_jsonb(OLD) -> k) INTO was FROM unnest(TG_ARGV) k;
	END IF;
	IF TG_OP <> 'DELETE' THEN
		now := to_jsonb(NEW);
	END IF;
	INSERT INTO audit.log(tbl, op, old, new) VALUES (TG_TABLE_NAME, lower(left(TG_OP, 1)), was, now);
	RETURN NULL;
END $$`,
		`CREATE TABLE accounts(id int PRIMARY KEY, balance bigint NOT NULL, ver bigint NOT NULL DEFAULT nextval('audit.ver'))`,
		`CREATE TABLE items(tenant int, id int, note text, payload text, ver bigint NOT NULL DEFAULT nextval('audit.ver'), PRIMARY KEY (tenant, id))`,
		`ALTER TABLE items ALTER payload SET STORAGE EXTERNAL`,
		`CREATE TABLE journal(id bigint PRIMARY KEY, v text, ver bigint NOT NULL DEFAULT nextval('audit.ver'))`,
	}
	if p.config.full {
		all = append(all, `ALTER TABLE items REPLICA IDENTITY FULL`)
	}
	all = append(all,
		fmt.Sprintf(`INSERT INTO accounts(id, balance) SELECT i, %d FROM generate_series(1, %d) i`, accountBalance, accounts),
		fmt.Sprintf(`INSERT INTO items(tenant, id, note, payload) SELECT t, i, 'first', repeat(t || '/' || i || ';', CASE WHEN i %% 2 = 0 THEN 600 ELSE 3 END) FROM generate_series(%d, 4) t, generate_series(1, %d) i`, sharedTenant, tenantKeys/2),
		fmt.Sprintf(`INSERT INTO journal(id, v) SELECT i, 'first ' || i FROM generate_series(1, %d) i`, p.rows),
	)
	for _, t := range tables {
		args := ""
		for i, k := range t.key {
			if i > 0 {
				args += ", "
			}
			args += "'" + k + "'"
		}
		all = append(all,
			fmt.Sprintf(`INSERT INTO audit.log(tbl, op, new) SELECT '%[1]s', 'i', to_jsonb(t) FROM %[1]s t`, t.name),
			fmt.Sprintf(`CREATE TRIGGER row AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION audit.row(%s)`, t.name, args),
			fmt.Sprintf(`CREATE TRIGGER truncated AFTER TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION audit.row()`, t.name))
	}
	return all
}
