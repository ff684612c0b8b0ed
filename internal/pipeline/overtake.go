package pipeline

import (
	"slices"

	"cdc/internal/cdc"
)

// overtake is called with every change of a captured table before its records are
// written: rows of the change's keys that would land behind it are written first.
func (k *copier) overtake(r *route, c *cdc.Change) error {
	if k.capture != r.capture {
		return nil
	}
	if c.Op == cdc.OpTruncate {
		k.window.Truncate(c.Tx.XID)
		if k.suspects != nil {
			clear(k.suspects.keys) // the truncation is their tombstone
		}
		return nil
	}
	// While a chunk is read an event that lacks a column could take the place of the
	// only row that has it.
	lacking := k.arrived == nil && k.l.cfg.Toast != "fill" && slices.ContainsFunc(c.New, func(v cdc.Value) bool { return v.Kind == cdc.Unchanged })
	if lacking || k.rel != nil && !sameShape(k.rel, r.rel) {
		if k.window.Spoil(); !k.window.Active() {
			k.arrived = nil
		}
	}
	for _, row := range [...][]cdc.Value{c.Old, c.New} {
		if row == nil {
			continue
		}
		var err error
		if k.key, err = r.enc.AppendKey(k.key[:0], row); err != nil {
			return unsayable(c, err)
		}
		if k.suspects != nil {
			k.suspects.strike(k.key)
		}
		if before, first := k.window.Event(k.key, c.Tx.XID); first {
			if err := k.put(k.arrived, before); err != nil {
				return err
			}
		}
	}
	return nil
}

// sameShape says that rows of two versions of a relation look the same.
func sameShape(a, b *cdc.Relation) bool {
	return a == b || slices.EqualFunc(a.Columns, b.Columns, func(x, y cdc.Column) bool {
		return x.Name == y.Name && x.TypeOID == y.TypeOID && x.Mod == y.Mod
	})
}
