package eventstore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"cdc/internal/cdc"
	"cdc/internal/intent"
)

// installLock is the key of the advisory lock that Install holds: "es defs" in ASCII.
const installLock = 0x65732064656673

// generator is the version of what declare.go and fold.go write. It stands before
// the hash of what is installed: with another one everything is written anew.
const generator = 2

// InstallReport is what Install changed, or CheckDefinitions would.
type InstallReport struct {
	Changed bool     `json:"changed"`
	Types   []string `json:"types,omitempty"`   // declared anew or otherwise than before
	Folds   []string `json:"folds,omitempty"`   // categories whose fold is new or another: their snapshots are made again
	Removed []string `json:"removed,omitempty"` // types and folds, as in events[x] and state[y]
}

// DefinitionError is every fault of the definitions.
type DefinitionError struct {
	Faults []intent.Fault
}

func (e *DefinitionError) Error() string {
	var b strings.Builder
	b.WriteString("the definitions of events cannot be installed:")
	for _, f := range e.Faults {
		b.WriteString("\n  " + f.String())
	}
	return b.String()
}

// Install declares types, upcasts and folds, and the limits that hold for all events,
// in one transaction; what is as it was before is left alone. Events that are
// appended afterwards are held to it, and appends that run meanwhile to the one or
// the other. Where anything is wrong nothing is changed: the error is a
// TerminalError "definition" that holds a *DefinitionError with every fault. The
// login must be a member of es_owner. Views and reactions are installed by their
// packages; what is wrong with their words is told here as well.
func (s *Store) Install(ctx context.Context, d intent.Definitions) (InstallReport, error) {
	return s.install(ctx, d, true)
}

// CheckDefinitions is Install in a transaction that is rolled back.
func (s *Store) CheckDefinitions(ctx context.Context, d intent.Definitions) (InstallReport, error) {
	return s.install(ctx, d, false)
}

func (s *Store) install(ctx context.Context, d intent.Definitions, keep bool) (InstallReport, error) {
	tx, err := s.pool.Begin(ctx)
	if err != nil {
		return InstallReport{}, fmt.Errorf("install definitions: %w", err)
	}
	defer func() { _ = tx.Rollback(ctx) }() // without effect after the commit
	i := &installer{tx: tx, d: d, faults: d.Validate()}
	if err := i.run(ctx); err != nil {
		return InstallReport{}, fmt.Errorf("install definitions: %w", err)
	}
	if len(i.faults) > 0 {
		slices.SortStableFunc(i.faults, func(a, b intent.Fault) int { return strings.Compare(a.Path, b.Path) })
		return InstallReport{}, cdc.Terminal("definition", "", "%w", &DefinitionError{i.faults})
	}
	if keep {
		if err := tx.Commit(ctx); err != nil {
			return InstallReport{}, fmt.Errorf("install definitions: %w", err)
		}
	}
	return i.report, nil
}

// installer is one Install.
type installer struct {
	tx     pgx.Tx
	d      intent.Definitions
	faults []intent.Fault
	report InstallReport

	types map[string]intent.EventType // installed now
	folds map[string][]byte           // hashes of those installed now
	all   bool                        // write everything, whatever is there
}

func (i *installer) fault(path, format string, args ...any) {
	i.faults = append(i.faults, intent.Fault{Path: path, Text: fmt.Sprintf(format, args...)})
}

// faulty says that something at the path, or below it, is wrong already: what the
// server would say of it is not told as well.
func (i *installer) faulty(path string) bool {
	return slices.ContainsFunc(i.faults, func(f intent.Fault) bool {
		rest, ok := strings.CutPrefix(f.Path, path)
		return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
	})
}

func (i *installer) run(ctx context.Context) error {
	if err := i.begin(ctx); err != nil {
		return err
	}
	hash := i.hash()
	same, err := i.installed(ctx, hash)
	if err != nil || same && len(i.faults) == 0 {
		return err
	}
	if err := i.check(ctx); err != nil || len(i.faults) > 0 {
		return err
	}
	i.report.Changed = true
	if err := i.writeTypes(ctx); err != nil {
		return err
	}
	if err := i.writeFolds(ctx); err != nil {
		return err
	}
	if err := i.sweep(ctx); err != nil {
		return err
	}
	return i.exec(ctx, "update es.meta set undeclared = $1, max_event = $2, snapshots = $3, definitions = $4, changed = now()",
		i.d.Undeclared, i.maxEvent(), i.d.Snapshots, hash)
}

// begin takes the owner's role and the lock.
func (i *installer) begin(ctx context.Context) error {
	_, err := i.tx.Exec(ctx, "set local role "+RoleOwner)
	var pe *pgconn.PgError
	if errors.As(err, &pe) && pe.Code == codeInsufficientPrivilege {
		return cdc.Terminal("store-rights", "GRANT "+RoleOwner+" TO the login.", "the login may not change definitions: %w", err)
	}
	if err != nil {
		return fmt.Errorf("act as %s: %w", RoleOwner, err)
	}
	// Constants of expressions are read now, with the settings they are run with.
	if err := i.exec(ctx, "set local search_path = pg_catalog; set local timezone = 'UTC'; set local datestyle = 'ISO, MDY';"+
		" set local intervalstyle = 'postgres'; set local transform_null_equals = off; set local check_function_bodies = on"); err != nil {
		return err
	}
	return i.exec(ctx, "select pg_advisory_xact_lock($1)", int64(installLock))
}

// defaultMaxEvent is that of es.meta, for definitions that name none.
const defaultMaxEvent = 1 << 20

func (i *installer) maxEvent() int {
	if i.d.MaxEvent == 0 {
		return defaultMaxEvent
	}
	return i.d.MaxEvent
}

// hash is what es.meta remembers: of what is installed here, and by which generator.
func (i *installer) hash() []byte {
	own := i.d
	own.Views, own.Reactions = nil, nil
	sum := own.Hash()
	return append([]byte{generator}, sum[:]...)
}

// installed reads what is there, and says whether it is what is wanted.
func (i *installer) installed(ctx context.Context, hash []byte) (same bool, err error) {
	var have []byte
	if err := i.tx.QueryRow(ctx, "select definitions from es.meta").Scan(&have); err != nil {
		return false, fmt.Errorf("read what is installed: %w", typed(err))
	}
	if bytes.Equal(have, hash) {
		return true, nil
	}
	i.all = len(have) == 0 || have[0] != generator
	i.types, i.folds = map[string]intent.EventType{}, map[string][]byte{}
	rows, err := i.tx.Query(ctx, "select type, definition from es.declared")
	if err != nil {
		return false, fmt.Errorf("read the declared types: %w", err)
	}
	var name string
	var text []byte
	if _, err = pgx.ForEachRow(rows, []any{&name, &text}, func() error {
		var e intent.EventType
		err := json.Unmarshal(text, &e)
		i.types[name] = e
		return err
	}); err != nil {
		return false, fmt.Errorf("read the declared types: %w", err)
	}
	rows, err = i.tx.Query(ctx, "select category, hash from es.fold")
	if err != nil {
		return false, fmt.Errorf("read the folds: %w", err)
	}
	if _, err = pgx.ForEachRow(rows, []any{&name, &text}, func() error {
		i.folds[name] = bytes.Clone(text)
		return nil
	}); err != nil {
		return false, fmt.Errorf("read the folds: %w", err)
	}
	return false, nil
}

// typeDiffers says that a type is not installed as it is defined.
func (i *installer) typeDiffers(e intent.EventType) bool {
	have, ok := i.types[e.Name]
	if !ok || i.all {
		return true
	}
	a, err := json.Marshal(e)
	b, err2 := json.Marshal(have)
	return err != nil || err2 != nil || !bytes.Equal(a, b)
}

// foldDiffers says the same of a fold.
func (i *installer) foldDiffers(f intent.Fold) bool {
	return i.all || !bytes.Equal(i.folds[f.Category], foldHash(f, i.d.Events))
}

// writeTypes makes the functions of types that differ, and those over all of them.
func (i *installer) writeTypes(ctx context.Context) error {
	for _, e := range i.d.Events {
		if !i.typeDiffers(e) {
			continue
		}
		i.report.Types = append(i.report.Types, e.Name)
		steps, err := upcastSQL(e)
		if err != nil {
			return fmt.Errorf("write the upcasts of type %s: %w", e.Name, err)
		}
		for _, sql := range append(steps, validateSQL(e), admitSQL(e)) {
			if err := i.exec(ctx, sql); err != nil {
				return fmt.Errorf("declare type %s: %w", e.Name, err)
			}
		}
		definition, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("declare type %s: %w", e.Name, err)
		}
		if err := i.exec(ctx, `insert into es.declared (type, schema, definition) values ($1, $2, $3)
			on conflict (type) do update set schema = excluded.schema, definition = excluded.definition`, e.Name, e.Schema, string(definition)); err != nil {
			return fmt.Errorf("declare type %s: %w", e.Name, err)
		}
	}
	for _, name := range sortedKeys(i.types) {
		if !slices.ContainsFunc(i.d.Events, func(e intent.EventType) bool { return e.Name == name }) {
			i.report.Removed = append(i.report.Removed, "events["+name+"]")
			if err := i.exec(ctx, "delete from es.declared where type = $1", name); err != nil {
				return err
			}
		}
	}
	if err := i.exec(ctx, upcastAllSQL(i.d.Events)); err != nil {
		return err
	}
	if err := i.exec(ctx, validateAllSQL(i.d.Events, i.d.Undeclared)); err != nil {
		return err
	}
	return i.exec(ctx, admitAllSQL(i.d.Events, i.d.Undeclared, i.maxEvent()))
}

// writeFolds makes the functions of folds that differ.
func (i *installer) writeFolds(ctx context.Context) error {
	for _, f := range i.d.Folds {
		if !i.foldDiffers(f) {
			continue
		}
		i.report.Folds = append(i.report.Folds, f.Category)
		steps, err := foldSQL(f, i.d.Events)
		if err != nil {
			return fmt.Errorf("write the fold of %s: %w", f.Category, err)
		}
		for _, sql := range steps {
			if err := i.exec(ctx, sql); err != nil {
				return fmt.Errorf("write the fold of %s: %w", f.Category, err)
			}
		}
		definition, err := json.Marshal(f)
		if err != nil {
			return fmt.Errorf("write the fold of %s: %w", f.Category, err)
		}
		if err := i.exec(ctx, `insert into es.fold (category, hash, definition) values ($1, $2, $3)
			on conflict (category) do update set hash = excluded.hash, definition = excluded.definition`, f.Category, foldHash(f, i.d.Events), string(definition)); err != nil {
			return fmt.Errorf("write the fold of %s: %w", f.Category, err)
		}
	}
	for _, name := range sortedKeys(i.folds) {
		if !slices.ContainsFunc(i.d.Folds, func(f intent.Fold) bool { return f.Category == name }) {
			i.report.Removed = append(i.report.Removed, "state["+name+"]")
			if err := i.exec(ctx, "delete from es.fold where category = $1", name); err != nil {
				return err
			}
			if err := i.exec(ctx, "delete from es.snapshot where fold = $1", name); err != nil {
				return err
			}
		}
	}
	return nil
}

// replaced marks a generated function that nothing names any more, in its comment.
const replaced = "replaced"

// sweep marks generated functions that nothing names any more, and drops those that
// were marked before: queries and transactions that began with the definitions
// before these find what they need.
func (i *installer) sweep(ctx context.Context) error {
	wanted := map[string]bool{}
	for _, e := range i.d.Events {
		wanted[validateName(e.Name)], wanted[admitName(e.Name)] = true, true
		for from := 1; from < e.Schema; from++ {
			wanted[upcastName(e, from)] = true
		}
	}
	for _, f := range i.d.Folds {
		hash := foldHash(f, i.d.Events)
		wanted[stateName(hash)] = true
		for typ := range f.When {
			wanted[foldName(hash, typ)] = true
		}
	}
	rows, err := i.tx.Query(ctx, `select p.proname, p.oid::regprocedure::text, coalesce(obj_description(p.oid, 'pg_proc') = $1, false) from pg_proc p
		where p.pronamespace = 'es'::regnamespace and p.proname ~ '^(validate|admit|upcast|state|fold) '`, replaced)
	if err != nil {
		return fmt.Errorf("read the generated functions: %w", err)
	}
	var name, signature string
	var marked bool
	var mark, drop []string
	if _, err = pgx.ForEachRow(rows, []any{&name, &signature, &marked}, func() error {
		switch {
		case wanted[name]:
		case marked:
			drop = append(drop, signature)
		default:
			mark = append(mark, signature)
		}
		return nil
	}); err != nil {
		return fmt.Errorf("read the generated functions: %w", err)
	}
	for _, signature := range mark {
		if err := i.exec(ctx, "comment on function "+signature+" is '"+replaced+"'"); err != nil {
			return err
		}
	}
	if len(drop) > 0 { // at once: steps of upcasts call each other
		return i.exec(ctx, "drop function "+strings.Join(drop, ", "))
	}
	return nil
}

func (i *installer) exec(ctx context.Context, sql string, args ...any) error {
	if _, err := i.tx.Exec(ctx, sql, args...); err != nil {
		line, _, _ := strings.Cut(strings.TrimSpace(sql), "\n")
		return fmt.Errorf("run %.120q: %w", line, err)
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
