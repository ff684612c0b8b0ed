package source

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"cdc/internal/cdc"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
)

// Level says how bad a Finding is that is not OK.
type Level string

// The levels of a Finding.
const (
	LevelError   Level = "error"   // the pipeline cannot run
	LevelWarning Level = "warning" // it can run, at a risk that What names
)

// Finding is one thing that Check looked at.
type Finding struct {
	OK    bool
	Level Level  // of a finding that is not OK
	What  string // what was looked at and what was found
	Mend  string // the SQL or setting that mends it
}

// checker collects findings.
type checker struct {
	s        *Source
	findings []Finding
}

func (k *checker) ok(format string, args ...any) {
	k.findings = append(k.findings, Finding{OK: true, What: fmt.Sprintf(format, args...)})
}

func (k *checker) add(level Level, mend, format string, args ...any) {
	k.findings = append(k.findings, Finding{Level: level, What: fmt.Sprintf(format, args...), Mend: mend})
}

// failed adds an error, with its own mend where it has one.
func (k *checker) failed(err error) {
	mend := ""
	if t := new(cdc.TerminalError); errors.As(err, &t) {
		mend = t.Mend
		err = errors.New(strings.TrimSuffix(err.Error(), "\n"+t.Mend))
	}
	k.add(LevelError, mend, "%v", err)
}

// Check looks at everything a pipeline needs of this database and changes
// nothing: the server's settings and free places, the role's rights, the tables
// and their keys, publication and slot, encryption, poolers. A part that cannot
// be looked at is a finding too; it never stops the others.
func (s *Source) Check(ctx context.Context) []Finding {
	k := &checker{s: s}
	k.encryption()
	k.replication(ctx)
	k.each(ctx, k.pooler, k.walLevel, k.places, k.role, k.failover)
	tables, err := s.Tables(ctx)
	if err != nil {
		k.failed(err)
		return k.findings
	}
	k.ok("%d tables are captured, each with a key inside its replica identity", len(tables))
	reading := func(ctx context.Context, c *pgx.Conn) error { return k.reading(ctx, c, tables) }
	publication := func(ctx context.Context, c *pgx.Conn) error { return k.publication(ctx, c, tables) }
	k.each(ctx, reading, k.uniqueness, publication, k.slot)
	return k.findings
}

// each runs parts one after the other; one that fails is a finding of its own.
func (k *checker) each(ctx context.Context, parts ...func(context.Context, *pgx.Conn) error) {
	for _, part := range parts {
		before := len(k.findings)
		err := k.s.retrySQL(ctx, func(c *pgx.Conn) error {
			k.findings = k.findings[:before] // of an attempt on a broken connection
			return part(ctx, c)
		})
		if err != nil {
			k.failed(err)
		}
	}
}

// encryption warns of a connection over the network that may be in the clear.
func (k *checker) encryption() {
	cfg, err := parseURL(k.s.cfg.URL)
	if err != nil {
		k.failed(err)
		return
	}
	plain := cfg.TLSConfig == nil
	for _, f := range cfg.Fallbacks {
		plain = plain || f.TLSConfig == nil
	}
	switch {
	case isLocal(cfg.Host):
		k.ok("the connection stays on this machine")
	case plain:
		k.add(LevelWarning, "Put sslmode=verify-full (and sslrootcert) into the connection string.",
			"the connection to %s may be unencrypted: rows and password cross the network in the clear", cfg.Host)
	case cfg.TLSConfig.InsecureSkipVerify && cfg.TLSConfig.VerifyPeerCertificate == nil && cfg.TLSConfig.VerifyConnection == nil:
		k.add(LevelWarning, "Put sslmode=verify-full (and sslrootcert) into the connection string.",
			"the connection to %s is encrypted, but the server's certificate is not verified", cfg.Host)
	default:
		k.ok("the connection to %s is encrypted and the server verified", cfg.Host)
	}
}

// replication opens a replication connection, which proves the role's right, a
// free walsender, pg_hba.conf and the absence of a pooler in one.
func (k *checker) replication(ctx context.Context) {
	conn, err := connectReplication(ctx, k.s.cfg.URL, replicationOptions{})
	if err != nil {
		mend, what := k.explainReplication(err)
		k.add(LevelError, mend, "%s: %v", what, err)
		return
	}
	defer closeConn(conn)
	id, err := pglogrepl.IdentifySystem(ctx, conn)
	if err != nil {
		k.add(LevelError, poolerMend, "the replication connection does not answer IDENTIFY_SYSTEM as Postgres does: %v", err)
		return
	}
	k.ok("a replication connection to system %s, timeline %d is possible", id.SystemID, id.Timeline)
}

// connectError names what was tried. Poolers refuse the settings pinned in the
// startup packet, or replication, as protocol violations; Postgres never does.
func connectError(what, target string, err error) error {
	if sqlState(err) == codeProtocolViolation {
		return cdc.Terminal("pooler", poolerMend, "%s at %s: it is not Postgres that answers: %w", what, target, err)
	}
	return fmt.Errorf("%s at %s: %w", what, target, err)
}

const poolerMend = "Connect to Postgres itself, not to a connection pooler (PgBouncer, Supavisor, a provider's pooled endpoint)."

// explainReplication tells the usual causes of a refused replication connection
// apart.
func (k *checker) explainReplication(err error) (mend, what string) {
	role := k.s.role()
	switch state := sqlState(err); {
	case state == "53300":
		return "ALTER SYSTEM SET max_wal_senders = …; -- then restart Postgres; or end a replication connection that is not needed", "no replication connection is free"
	case state == codeInsufficientPrivilege:
		return fmt.Sprintf("ALTER ROLE %s REPLICATION; -- on Amazon RDS: GRANT rds_replication TO %s;", role, role), "the role may not replicate"
	case state == "28000":
		return fmt.Sprintf("Add to pg_hba.conf: host %s %s <address> scram-sha-256; then SELECT pg_reload_conf();", quote(k.s.database), role), "pg_hba.conf or the role refuses it"
	case state == "28P01":
		return "Set the password that the role has now; look at rolvaliduntil in pg_roles.", "the password is refused"
	case state == codeProtocolViolation:
		return poolerMend, "the server at the other end is not Postgres itself"
	}
	return "", "no replication connection"
}

// pooler compares the backend's own id with the one the connection was told: a
// pooler or proxy answers for a backend with an id of its own making.
func (k *checker) pooler(ctx context.Context, c *pgx.Conn) error {
	var pid int64
	if err := c.QueryRow(ctx, `SELECT pg_backend_pid()`).Scan(&pid); err != nil {
		return fmt.Errorf("read backend id: %w", err)
	}
	if uint32(pid) != c.PgConn().PID() {
		k.add(LevelWarning, poolerMend, "something between here and Postgres answers for it; where it shares sessions, snapshots and settings are lost")
	}
	return nil
}

func (k *checker) walLevel(ctx context.Context, c *pgx.Conn) error {
	// From 19 on a logical slot raises the level by itself: effective_wal_level tells.
	var level, set string
	err := c.QueryRow(ctx, `SELECT coalesce(current_setting('effective_wal_level', true), current_setting('wal_level')), current_setting('wal_level')`).Scan(&level, &set)
	switch {
	case err != nil:
		return fmt.Errorf("read wal_level: %w", err)
	case level == "logical", k.s.version >= 190000 && set == "replica":
		k.ok("wal_level is %s", level)
	default:
		k.add(LevelError, "ALTER SYSTEM SET wal_level = 'logical'; -- then restart Postgres (Amazon RDS: rds.logical_replication = 1; Cloud SQL: cloudsql.logical_decoding = on)",
			"wal_level is %s, want logical", level)
	}
	return nil
}

// places counts slots and walsenders: a slot of our own may be among them.
func (k *checker) places(ctx context.Context, c *pgx.Conn) error {
	var slots, maxSlots, senders, maxSenders int
	var own bool
	err := c.QueryRow(ctx, `SELECT (SELECT count(*) FROM pg_replication_slots), current_setting('max_replication_slots')::int,
		(SELECT count(*) FROM pg_stat_replication), current_setting('max_wal_senders')::int,
		EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)`, k.s.cfg.Slot).Scan(&slots, &maxSlots, &senders, &maxSenders, &own)
	if err != nil {
		return fmt.Errorf("count slots and walsenders: %w", err)
	}
	switch free := maxSlots - slots; {
	case own || free >= 2:
		k.ok("%d of %d replication slots are in use", slots, maxSlots)
	default:
		k.add(LevelError, fmt.Sprintf("ALTER SYSTEM SET max_replication_slots = %d; -- then restart Postgres; or drop slots that nobody reads", slots+2),
			"%d of max_replication_slots = %d are in use, the first snapshot needs two", slots, maxSlots)
	}
	if maxSenders-senders >= 2 {
		k.ok("%d of %d walsenders are in use", senders, maxSenders)
	} else {
		k.add(LevelError, fmt.Sprintf("ALTER SYSTEM SET max_wal_senders = %d; -- then restart Postgres", senders+2),
			"%d of max_wal_senders = %d are in use, two are needed", senders, maxSenders)
	}
	return nil
}

func (k *checker) role(ctx context.Context, c *pgx.Conn) error {
	var name string
	var replication, super bool
	err := c.QueryRow(ctx, `SELECT r.rolname, r.rolsuper OR r.rolreplication OR EXISTS (
			SELECT FROM pg_roles m WHERE m.rolname IN ('rds_replication', 'rds_superuser') AND pg_has_role(r.oid, m.oid, 'MEMBER')), r.rolsuper
		FROM pg_roles r WHERE r.rolname = current_user`).Scan(&name, &replication, &super)
	if err != nil {
		return fmt.Errorf("read rights of the role: %w", err)
	}
	if !replication {
		k.add(LevelError, fmt.Sprintf("ALTER ROLE %s REPLICATION; -- on Amazon RDS: GRANT rds_replication TO %s;", quote(name), quote(name)),
			"role %s may not replicate", name)
		return nil
	}
	k.ok("role %s may replicate", name)
	return nil
}

// failover looks at what a slot needs to survive the loss of the primary.
func (k *checker) failover(ctx context.Context, c *pgx.Conn) error {
	if !k.s.cfg.Failover {
		return nil
	}
	if k.s.version < 170000 {
		k.add(LevelWarning, "Upgrade Postgres to 17, or leave failover out.", "failover slots need Postgres 17, this server has server_version_num %d", k.s.version)
		return nil
	}
	var standbys string
	if err := c.QueryRow(ctx, `SELECT current_setting('synchronized_standby_slots')`).Scan(&standbys); err != nil {
		return fmt.Errorf("read synchronized_standby_slots: %w", err)
	}
	if standbys == "" {
		k.add(LevelWarning, "ALTER SYSTEM SET synchronized_standby_slots = '<physical slot of the standby>'; SELECT pg_reload_conf();",
			"the slot is a failover slot and synchronized_standby_slots is empty: after a failover the topics may be ahead of the new primary")
		return nil
	}
	k.ok("synchronized_standby_slots is %q", standbys)
	return nil
}

// reading looks at rights and row level security of every table.
func (k *checker) reading(ctx context.Context, c *pgx.Conn, tables []cdc.Table) error {
	problems, err := k.s.readProblems(ctx, c, tables)
	if err != nil {
		return err
	}
	for _, p := range problems {
		k.add(LevelError, p.mend, "%s", p.what)
	}
	if len(problems) == 0 {
		k.ok("the role may read every row of the captured tables")
	}
	return nil
}

// uniqueness warns of configured keys that rows may share.
func (k *checker) uniqueness(ctx context.Context, c *pgx.Conn) error {
	chosen, _, err := k.s.resolve(ctx, c)
	if err != nil {
		return err
	}
	for _, t := range chosen {
		if key := k.s.cfg.Key[t.fullName()]; len(key) > 0 && !t.unique(key) {
			k.add(LevelWarning, fmt.Sprintf("CREATE UNIQUE INDEX CONCURRENTLY ON %s (%s);", t.quoted(), quoteList(key)),
				"nothing makes the key %s of %s unique: rows that share it become one", quoteList(key), t.fullName())
		}
	}
	return nil
}

// publication tells what Publish would do and whether the role may do it.
func (k *checker) publication(ctx context.Context, c *pgx.Conn, tables []cdc.Table) error {
	pub, err := loadPublication(ctx, c, k.s.cfg.Publication, k.s.version)
	if err != nil {
		return err
	}
	statements, err := pub.plan(tables, k.s.cfg.Columns, k.s.version)
	if err != nil {
		return err
	}
	if len(statements) == 0 {
		k.ok("publication %q covers the captured tables", k.s.cfg.Publication)
		return nil
	}
	oids := make([]uint32, len(tables))
	for i, t := range tables {
		oids[i] = t.OID
	}
	var may bool
	err = c.QueryRow(ctx, `SELECT (EXISTS (SELECT FROM pg_publication WHERE pubname = $1 AND pg_has_role(pubowner, 'USAGE'))
			OR NOT EXISTS (SELECT FROM pg_publication WHERE pubname = $1) AND has_database_privilege(current_database(), 'CREATE'))
		AND NOT EXISTS (SELECT FROM pg_class WHERE oid = ANY($2::oid[]) AND NOT pg_has_role(relowner, 'USAGE'))`,
		k.s.cfg.Publication, oids).Scan(&may)
	mend := strings.Join(statements, ";\n") + ";"
	switch {
	case err != nil:
		return fmt.Errorf("read rights for the publication: %w", err)
	case may:
		k.ok("publication %q will be made to cover the captured tables: %s", k.s.cfg.Publication, mend)
	default:
		k.add(LevelError, "-- as the owner of the tables with CREATE on the database, or as a superuser:\n"+mend,
			"publication %q does not cover the captured tables, and the role may not make it so", k.s.cfg.Publication)
	}
	return nil
}

func (k *checker) slot(ctx context.Context, c *pgx.Conn) error {
	if err := checkSlotName(k.s.cfg.Slot); err != nil {
		return err
	}
	slot, exists, err := readSlot(ctx, c, k.s.cfg.Slot)
	switch {
	case err != nil:
		return err
	case !exists:
		k.ok("slot %q will be made by the first snapshot", k.s.cfg.Slot)
	case slot.Plugin != plugin || slot.Database != k.s.database:
		k.add(LevelError, "Choose another slot name.", "slot %q belongs to plugin %q of database %q", slot.Name, slot.Plugin, slot.Database)
	case slot.WALStatus == "lost" || slot.Invalidation != "":
		k.add(LevelError, fmt.Sprintf("SELECT pg_drop_replication_slot(%s); -- then the tables must be copied again", quoteLiteral(slot.Name)),
			"slot %q is lost (%s): the WAL it needs is gone", slot.Name, slot.Invalidation)
	case slot.TwoPhase:
		k.add(LevelError, "Drop the slot and let the first snapshot make it anew.", "slot %q decodes prepared transactions (two_phase), which would arrive before their commit", slot.Name)
	case slot.WALStatus == "unreserved":
		k.add(LevelWarning, "Start the pipeline, or raise max_slot_wal_keep_size.", "slot %q holds back %d bytes of WAL and may be lost at the next checkpoint", slot.Name, slot.Retained)
	default:
		k.ok("slot %q exists, holds back %d bytes of WAL", slot.Name, slot.Retained)
	}
	if exists && k.s.cfg.Failover && k.s.version >= 170000 && !slot.Failover {
		k.add(LevelWarning, "ALTER_REPLICATION_SLOT "+quote(slot.Name)+" (FAILOVER true) on a replication connection.", "slot %q is not a failover slot", slot.Name)
	}
	return nil
}
