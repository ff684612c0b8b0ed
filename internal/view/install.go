package view

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"cdc/internal/eventstore"
	"cdc/internal/intent"
)

// Report is what Install did, a line per view, sorted by name.
type Report []Installed

// Installed is what became of one view.
type Installed struct {
	View   string `json:"view"`
	Build  int64  `json:"build"`
	Action Action `json:"action"`
	Text   string `json:"text"`
}

// Action is what Install did about a view.
type Action string

// The actions.
const (
	ActionNone     Action = "none"     // as configured
	ActionLive     Action = "live"     // made, and live at once: there are no events yet
	ActionBuilding Action = "building" // made: it is live as soon as it has caught up
	ActionChanged  Action = "changed"  // the live build is of another definition, and goes on
	ActionUnknown  Action = "unknown"  // not configured any more, and goes on
)

func (r Installed) String() string { return "view " + r.View + ": " + r.Text }

const (
	// installLock is the advisory lock of those who make builds: "cdcviews".
	installLock = 0x6364637669657773
	// holdLimit bounds how long appends may be kept waiting by a new inline view. The
	// lock is only tried for while there are no events.
	holdLimit = 5 * time.Second
)

// Install makes what is configured and missing: a first build of each new view. A
// view whose definition changed, or that is not configured any more, goes on as it
// is; the report says what to do. Calling it again changes nothing, also from
// several processes at once.
//
// A FaultsError says what is wrong with new definitions; nothing is made then.
func Install(ctx context.Context, store *eventstore.Store, defs intent.Definitions) (Report, error) {
	missing, report, err := compareInstalled(ctx, store.Pool(), defs)
	if err != nil {
		return nil, err
	}
	if len(missing) > 0 {
		if err := Check(ctx, store.Pool(), intent.Definitions{Events: defs.Events, Views: missing}); err != nil {
			return nil, err
		}
	}
	for _, v := range missing {
		did, err := installOne(ctx, store, v, defs.Events)
		if err != nil {
			return nil, fmt.Errorf("install view %s: %w", v.Name, err)
		}
		report = append(report, did)
	}
	slices.SortFunc(report, func(a, b Installed) int { return strings.Compare(a.View, b.View) })
	return report, nil
}

// builds of a name, as far as Install cares.
type installed struct {
	build int64
	name  string
	hash  []byte
	state string
}

func readInstalled(ctx context.Context, q querier) (map[string][]installed, error) {
	rows, err := q.Query(ctx, `select build, name, hash, state from es.view where state <> 'retired' order by name, build`)
	if err != nil {
		return nil, fmt.Errorf("read es.view: %w", err)
	}
	all := map[string][]installed{}
	var i installed
	_, err = pgx.ForEachRow(rows, []any{&i.build, &i.name, &i.hash, &i.state}, func() error {
		all[i.name] = append(all[i.name], installed{i.build, i.name, slices.Clone(i.hash), i.state})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read es.view: %w", err)
	}
	return all, nil
}

// compareInstalled says which views have to be made, and how the others stand.
func compareInstalled(ctx context.Context, q querier, defs intent.Definitions) (missing []intent.View, report Report, err error) {
	there, err := readInstalled(ctx, q)
	if err != nil {
		return nil, nil, err
	}
	for _, v := range defs.Views {
		hash := v.Hash(defs.Events)
		did, fresh := judge(v, hash[:], there[v.Name])
		if fresh {
			missing = append(missing, v)
		} else {
			report = append(report, did)
		}
		delete(there, v.Name)
	}
	for name, builds := range there {
		report = append(report, Installed{name, builds[len(builds)-1].build, ActionUnknown,
			"it is not configured any more and goes on: cdc views drop " + name + " ends it"})
	}
	return missing, report, nil
}

// judge compares a definition with the builds of its name. The first build of a view
// that was never live is made anew when its definition changes: nobody reads it, and
// it may stand still because of what was mended.
func judge(v intent.View, hash []byte, builds []installed) (did Installed, fresh bool) {
	for _, b := range builds {
		if bytes.Equal(b.hash, hash) {
			switch {
			case b.state == stateLive:
				return Installed{v.Name, b.build, ActionNone, "as configured"}, false
			case len(builds) == 1:
				return Installed{v.Name, b.build, ActionNone, "its first build is under way"}, false
			}
			return Installed{v.Name, b.build, ActionChanged, fmt.Sprintf("its new definition is build %d, the old one is live: cdc views switch %s", b.build, v.Name)}, false
		}
	}
	if i := slices.IndexFunc(builds, func(b installed) bool { return b.state == stateLive }); i >= 0 {
		return Installed{v.Name, builds[i].build, ActionChanged,
			fmt.Sprintf("its definition changed and the old one goes on: cdc views build %[1]s, then cdc views switch %[1]s", v.Name)}, false
	}
	return Installed{View: v.Name}, true
}

// installOne makes a view's first build in one transaction.
func installOne(ctx context.Context, store *eventstore.Store, v intent.View, events []intent.EventType) (Installed, error) {
	c, err := compile(v, events)
	if err != nil {
		return Installed{}, err
	}
	var did Installed
	err = pgx.BeginFunc(ctx, store.Pool(), func(tx pgx.Tx) error {
		if err := lockInstall(ctx, tx); err != nil {
			return err
		}
		there, err := readInstalled(ctx, tx) // again: another may have made it meanwhile
		if err != nil {
			return err
		}
		hash := v.Hash(events)
		var fresh bool
		if did, fresh = judge(v, hash[:], there[v.Name]); !fresh {
			return nil
		}
		for _, old := range there[v.Name] { // none is live
			if err := dropFirst(ctx, tx, v, old.build); err != nil {
				return err
			}
		}
		did, err = c.makeFirst(ctx, tx, store, v.Database, hash[:])
		return err
	})
	return did, err
}

// lockInstall lets one at a time make builds, to the end of its transaction.
func lockInstall(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, `select pg_advisory_xact_lock($1)`, int64(installLock)); err != nil {
		return fmt.Errorf("wait for others that install: %w", err)
	}
	return nil
}

// dropFirst removes a build that was never live.
func dropFirst(ctx context.Context, tx pgx.Tx, v intent.View, build int64) error {
	if _, err := tx.Exec(ctx, "drop schema if exists "+schemaName(build)+" cascade"); err != nil {
		return fmt.Errorf("drop build %d: %w", build, err)
	}
	if _, err := tx.Exec(ctx, `delete from es.view where build = $1`, build); err != nil {
		return fmt.Errorf("drop build %d: %w", build, err)
	}
	return nil
}

// makeFirst makes the first build of a view: live where there are no events, else
// building.
func (c *code) makeFirst(ctx context.Context, tx pgx.Tx, store *eventstore.Store, url string, hash []byte) (Installed, error) {
	b, err := c.makeBuild(ctx, tx, url, hash)
	if err != nil {
		return Installed{}, err
	}
	did := Installed{c.view.Name, b.id, ActionBuilding, fmt.Sprintf("new: build %d is live when it has caught up", b.id)}
	if c.view.Database != "" {
		return did, nil
	}
	empty, err := noEvents(ctx, tx, c.view.Mode == intent.Inline)
	if err != nil || !empty {
		return did, err
	}
	if err := c.makeLive(ctx, tx, b); err != nil {
		return did, err
	}
	did.Action, did.Text = ActionLive, "new: live"
	return did, nil
}

// noEvents says that the store has no event; with hold, that none can be appended
// before the end of the transaction. Where appends hold it off, there is one soon.
func noEvents(ctx context.Context, tx pgx.Tx, hold bool) (empty bool, err error) {
	const text = `select not exists (select from es.event)`
	if err := tx.QueryRow(ctx, text).Scan(&empty); err != nil {
		return false, fmt.Errorf("look for events: %w", err)
	}
	if !empty || !hold {
		return empty, nil
	}
	save, err := tx.Begin(ctx)
	if err != nil {
		return false, fmt.Errorf("set a savepoint: %w", err)
	}
	if err := setLockTimeout(ctx, save, holdLimit); err != nil {
		return false, err
	}
	if _, err := save.Exec(ctx, `lock table es.event in share row exclusive mode`); err != nil {
		rollback(ctx, save)
		if isLockTimeout(err) {
			return false, nil
		}
		return false, fmt.Errorf("hold appends off: %w", err)
	}
	if err := save.QueryRow(ctx, text).Scan(&empty); err != nil {
		return false, fmt.Errorf("look for events: %w", err)
	}
	return empty, save.Commit(ctx)
}

// makeBuild makes a build in state building: its row, and in the database that holds
// it its schema with table and functions. In another Postgres that is committed
// before the row is: one whose row never came is removed by the next of the store.
func (c *code) makeBuild(ctx context.Context, tx pgx.Tx, url string, hash []byte) (buildRow, error) {
	def, err := c.definition().MarshalJSON()
	if err != nil {
		return buildRow{}, fmt.Errorf("store the definition: %w", err)
	}
	b, err := scanBuild(tx.QueryRow(ctx, `insert into es.view (name, hash, definition, mode, database, state)
		values ($1, $2, $3, $4, nullif($5, ''), 'building') returning `+buildColumns,
		c.view.Name, hash, string(def), string(c.view.Mode), c.view.DatabaseName()))
	if err != nil {
		return buildRow{}, fmt.Errorf("write es.view: %w", err)
	}
	if b.database != "" {
		return b, c.makeThere(ctx, tx, b, url)
	}
	texts := []string{
		"create schema " + b.schema() + " authorization es_view",
		"set local role es_view",
	}
	texts = append(texts, c.tableSQL(b.schema())...)
	texts = append(texts,
		c.applySQL(b.schema(), b.schema()),
		"revoke all on function "+b.schema()+".apply from public",
		"reset role")
	return b, run(ctx, tx, texts)
}

// makeLive makes a build live that has applied every event there is: none.
func (c *code) makeLive(ctx context.Context, tx pgx.Tx, b buildRow) error {
	table := "views." + intent.Quote(b.name)
	texts := []string{
		"set local role es_view",
		"alter table " + b.table() + " set schema views",
		"alter function " + b.schema() + ".apply set search_path = pg_catalog, views, pg_temp",
		"grant select on " + table + " to es_reader, es_writer",
	}
	if b.mode == intent.Inline {
		texts = append(texts, c.onEventSQL(b.schema(), "views"), "revoke all on function "+b.schema()+".on_event from public")
	}
	texts = append(texts, "reset role")
	if b.mode == intent.Inline {
		texts = append(texts, c.triggerSQL(b.schema()))
	}
	if err := run(ctx, tx, texts); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `update es.view set state = 'live', since = now() where build = $1`, b.id); err != nil {
		return fmt.Errorf("write es.view: %w", err)
	}
	return nil
}

// run executes commands, one after the other.
func run(ctx context.Context, q querier, texts []string) error {
	for _, text := range texts {
		if _, err := q.Exec(ctx, text); err != nil {
			return fmt.Errorf("%.60s…: %w", text, err)
		}
	}
	return nil
}

// makeThere makes schema, table and functions in another Postgres.
func (c *code) makeThere(ctx context.Context, here querier, b buildRow, url string) error {
	conn, err := connectThere(ctx, b, url)
	if err != nil {
		return err
	}
	defer closeConn(conn)
	id, err := storeID(ctx, here)
	if err != nil {
		return err
	}
	known, err := knownBuilds(ctx, here)
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if err := lockInstall(ctx, tx); err != nil { // of this database
			return err
		}
		if err := run(ctx, tx, []string{remoteSchema}); err != nil {
			return err
		}
		if err := dropUnknown(ctx, tx, id, known); err != nil {
			return err
		}
		texts := append([]string{"create schema " + b.schema()}, c.tableSQL(b.schema())...)
		texts = append(texts, c.applySQL(b.schema(), b.schema()), "revoke all on function "+b.schema()+".apply from public")
		if err := run(ctx, tx, texts); err != nil {
			if hasCode(err, "42P06") {
				return fmt.Errorf("schema %s exists in %s: another store keeps views there; give each store a database of its own", b.schema(), b.database)
			}
			return err
		}
		_, err := tx.Exec(ctx, `insert into es_remote.view (store, build, name) values ($1, $2, $3)`, [16]byte(id), b.id, b.name)
		if err != nil {
			return fmt.Errorf("write es_remote.view: %w", err)
		}
		return nil
	})
}

func knownBuilds(ctx context.Context, q querier) ([]int64, error) {
	rows, err := q.Query(ctx, `select build from es.view where state <> 'retired'`)
	if err != nil {
		return nil, fmt.Errorf("read es.view: %w", err)
	}
	known, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return nil, fmt.Errorf("read es.view: %w", err)
	}
	return known, nil
}

// dropUnknown removes builds of a store, in another Postgres, that the store does not
// know: their maker was killed before its transaction there ended. Whoever makes
// builds holds the store's lock, so none of them is being made.
func dropUnknown(ctx context.Context, tx pgx.Tx, store intent.ID, known []int64) error {
	rows, err := tx.Query(ctx, `delete from es_remote.view where store = $1 and build <> all ($2) returning build`, [16]byte(store), known)
	if err != nil {
		return fmt.Errorf("read es_remote.view: %w", err)
	}
	orphans, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return fmt.Errorf("read es_remote.view: %w", err)
	}
	for _, build := range orphans {
		if _, err := tx.Exec(ctx, "drop schema if exists "+schemaName(build)+" cascade"); err != nil {
			return fmt.Errorf("drop build %d: %w", build, err)
		}
	}
	return nil
}
