package eventstore

import (
	"context"
	"errors"
	"fmt"

	"cdc/internal/intent"
	"cdc/internal/sqlcheck"
)

// check has the server judge the expressions that are not installed yet.
func (i *installer) check(ctx context.Context) error {
	for _, e := range i.d.Events {
		if !i.typeDiffers(e) {
			continue
		}
		path := "events[" + e.Name + "]"
		if have, ok := i.types[e.Name]; ok && e.Schema < have.Schema {
			if err := i.checkNewest(ctx, path+".schema", e); err != nil {
				return err
			}
		}
		for from := 1; from < e.Schema; from++ {
			text, ok := e.Upcast[from]
			where := fmt.Sprintf("%s.upcast[%d]", path, from)
			if !ok || i.faulty(where) {
				continue
			}
			expr, err := plainExpr(text)
			if err != nil {
				return err // a fault of Validate
			}
			if err := i.checkExpr(ctx, where, expr, []sqlcheck.Param{{Name: "data", Type: "jsonb"}, {Name: "meta", Type: "jsonb"}, {Name: "stream", Type: "text"}, {Name: "at", Type: "timestamptz"}}); err != nil {
				return err
			}
		}
	}
	for _, f := range i.d.Folds {
		if !i.foldDiffers(f) {
			continue
		}
		for _, typ := range sortedKeys(f.When) {
			where := fmt.Sprintf("state[%s].when[%s]", f.Category, typ)
			event := eventType(i.d.Events, typ)
			if i.faulty(where) || i.faulty("events["+typ+"].data") {
				continue
			}
			expr, err := foldExpr(f, event)
			if err != nil {
				return err // a fault of Validate
			}
			var params []sqlcheck.Param
			for _, p := range foldParams {
				params = append(params, sqlcheck.Param{Name: ":" + p.name, Type: p.typ})
			}
			if err := i.checkExpr(ctx, where, expr, params); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkNewest refuses a schema below that of a stored event, which nothing could
// read then.
func (i *installer) checkNewest(ctx context.Context, path string, e intent.EventType) error {
	var newest int
	if err := i.tx.QueryRow(ctx, "select coalesce(max(schema), 0) from es.event where type = $1", e.Name).Scan(&newest); err != nil {
		return fmt.Errorf("read the newest schema of type %s: %w", e.Name, err)
	}
	if newest > e.Schema {
		i.fault(path, "events of schema %d are stored: the number may not go below it", newest)
	}
	return nil
}

func (i *installer) checkExpr(ctx context.Context, path, expr string, params []sqlcheck.Param) error {
	findings, err := sqlcheck.Check(ctx, i.tx, sqlcheck.Statement{SQL: expr, Params: params, Returns: "jsonb", SearchPath: "pg_catalog"})
	var refused *sqlcheck.Error
	switch {
	case errors.As(err, &refused):
		i.fault(path, "%s", refused)
	case err != nil:
		return fmt.Errorf("check %s: %w", path, err)
	}
	for _, f := range findings {
		i.fault(path, "%s", f.Text)
	}
	return nil
}
