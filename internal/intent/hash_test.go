package intent

import (
	"encoding/hex"
	"encoding/json"
	"slices"
	"testing"
)

// Everything that decides a view's rows changes its hash, and nothing else does:
// a change of the hash builds the view anew.
func TestViewHash(t *testing.T) {
	base := university()
	before := base.Views[0].Hash(base.Events)
	for _, tc := range []struct {
		name    string
		edit    func(v *View, events []EventType)
		changes bool
	}{
		{"name", func(v *View, _ []EventType) { v.Name = "other" }, true},
		{"mode", func(v *View, _ []EventType) { v.Mode = Async }, true},
		{"database", func(v *View, _ []EventType) { v.Database = "postgres://u:p@db/uni" }, true},
		{"table", func(v *View, _ []EventType) { v.Table += ", note text" }, true},
		{"indexes", func(v *View, _ []EventType) { v.Indexes = append(v.Indexes, "course") }, true},
		{"order of indexes", func(v *View, _ []EventType) { v.Indexes = append([]string{"course"}, v.Indexes...) }, true},
		{"statement", func(v *View, _ []EventType) { v.When["student-enrolled"] += " " }, true},
		{"a statement more", func(v *View, _ []EventType) { v.When["moved"] = "select 1" }, true},
		{"a statement less", func(v *View, _ []EventType) { delete(v.When, "student-enrolled") }, true},
		{"step", func(_ *View, e []EventType) { e[0].Upcast = map[int]string{1: "data"} }, true},
		{"schema", func(_ *View, e []EventType) { e[0].Schema = 3 }, true},
		{"type of a field a statement names", func(_ *View, e []EventType) {
			e[2].Fields = []Field{{Name: "course", Type: TypeInt}, {Name: "student", Type: TypeString}}
		}, true},
		{"field a statement names is not declared", func(_ *View, e []EventType) { e[2].Fields = e[2].Fields[:1] }, true},

		{"nothing", func(*View, []EventType) {}, false},
		{"order of types", func(_ *View, e []EventType) { slices.Reverse(e) }, false},
		{"order of fields", func(_ *View, e []EventType) {
			e[2].Fields = []Field{{Name: "student", Type: TypeString}, {Name: "course", Type: TypeString}}
		}, false},
		{"stream of a type", func(_ *View, e []EventType) { e[2].Stream = "other/{course}" }, false},
		{"a field that may be missing", func(_ *View, e []EventType) {
			e[2].Fields = []Field{{Name: "course", Type: TypeString}, {Name: "student", Type: TypeString, Optional: true}}
		}, false},
		{"a field no statement names", func(_ *View, e []EventType) { e[2].Fields = append(e[2].Fields, Field{Name: "note", Type: TypeString}) }, false},
		{"a type the view does not use", func(_ *View, e []EventType) { e[4].Schema, e[4].Upcast = 2, map[int]string{1: "data"} }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := university()
			tc.edit(&d.Views[0], d.Events)
			if after := d.Views[0].Hash(d.Events); (after != before) != tc.changes {
				t.Errorf("hash changed: %v, want %v", after != before, tc.changes)
			}
		})
	}
}

// The password of a view's database is in no hash.
func TestViewHashWithoutPassword(t *testing.T) {
	d := university()
	hashes := map[[32]byte]bool{}
	for _, url := range []string{"postgres://u:one@db/x", "postgres://v:two@DB:5432/x?sslmode=disable", "postgresql://db/x?password=three"} {
		d.Views[1].Database = url
		hashes[d.Views[1].Hash(d.Events)] = true
	}
	if len(hashes) != 1 {
		t.Errorf("%d hashes of one database", len(hashes))
	}
	d.Views[1].Database = "postgres://u:one@db/y"
	if hashes[d.Views[1].Hash(d.Events)] {
		t.Error("two databases have one hash")
	}
}

func TestFoldHash(t *testing.T) {
	base := university()
	before := base.Folds[0].Hash(base.Events)
	for _, tc := range []struct {
		name    string
		edit    func(f *Fold, events []EventType)
		changes bool
	}{
		{"category", func(f *Fold, _ []EventType) { f.Category = "room" }, true},
		{"initial state", func(f *Fold, _ []EventType) { f.Initial = nil }, true},
		{"expression", func(f *Fold, _ []EventType) { f.When["student-enrolled"] = ":state" }, true},
		{"type of a field", func(_ *Fold, e []EventType) {
			e[2].Fields = []Field{{Name: "course", Type: TypeString}, {Name: "student", Type: TypeInt}}
		}, true},
		{"step", func(_ *Fold, e []EventType) { e[2].Schema, e[2].Upcast = 2, map[int]string{1: "data"} }, true},
		{"nothing", func(*Fold, []EventType) {}, false},
		{"space in the initial state", func(f *Fold, _ []EventType) { f.Initial = json.RawMessage("{ \"students\":[]}\n") }, false},
		{"field no expression names", func(_ *Fold, e []EventType) {
			e[2].Fields = []Field{{Name: "course", Type: TypeInt}, {Name: "student", Type: TypeString}}
		}, false},
		{"a type without an expression", func(_ *Fold, e []EventType) { e[1].Schema = 7 }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := university()
			tc.edit(&d.Folds[0], d.Events)
			if after := d.Folds[0].Hash(d.Events); (after != before) != tc.changes {
				t.Errorf("hash changed: %v, want %v", after != before, tc.changes)
			}
		})
	}
	none, null := Fold{Category: "a"}, Fold{Category: "a", Initial: json.RawMessage(" null ")}
	if none.Hash(nil) != null.Hash(nil) {
		t.Error("no initial state and null differ")
	}
}

func TestDefinitionsHash(t *testing.T) {
	before := university().Hash()
	for name, edit := range map[string]func(d *Definitions){
		"a type":            func(d *Definitions) { d.Events = d.Events[:4] },
		"stream of a type":  func(d *Definitions) { d.Events[0].Stream = "c/{course}" },
		"optional field":    func(d *Definitions) { d.Events[0].Fields[2].Optional = false },
		"undeclared":        func(d *Definitions) { d.Undeclared = true },
		"largest event":     func(d *Definitions) { d.MaxEvent++ },
		"snapshots":         func(d *Definitions) { d.Snapshots++ },
		"a fold":            func(d *Definitions) { d.Folds = nil },
		"expression":        func(d *Definitions) { d.Folds[0].When["moved"] = ":state" },
		"a view":            func(d *Definitions) { d.Views = d.Views[:1] },
		"database":          func(d *Definitions) { d.Views[1].Database = "" },
		"reaction's name":   func(d *Definitions) { d.Reactions[0].Name = "other" },
		"reaction's after":  func(d *Definitions) { d.Reactions[0].After = "" },
		"reaction's when":   func(d *Definitions) { d.Reactions[0].When = append(d.Reactions[0].When, "moved") },
		"reaction's append": func(d *Definitions) { d.Reactions[0].Append = "select 1" },
		"reaction's from":   func(d *Definitions) { d.Reactions[0].From = FromBeginning },
	} {
		d := university()
		edit(&d)
		if d.Hash() == before {
			t.Errorf("%s: the hash is the same", name)
		}
	}
	for name, edit := range map[string]func(d *Definitions){
		"order of types":      func(d *Definitions) { slices.Reverse(d.Events) },
		"order of views":      func(d *Definitions) { slices.Reverse(d.Views) },
		"password":            func(d *Definitions) { d.Views[1].Database = "postgres://w:other@db:5432/reports" },
		"space in JSON":       func(d *Definitions) { d.Folds[0].Initial = json.RawMessage(`{"students":[]}`) },
		"sections left empty": func(d *Definitions) { d.Views[1].Indexes = []string{} },
	} {
		d := university()
		edit(&d)
		if d.Hash() != before {
			t.Errorf("%s: the hash is another", name)
		}
	}
	r := Reaction{Name: "r", When: []string{"b", "a"}}
	if r.Hash() != (Reaction{Name: "r", When: []string{"a", "b"}}).Hash() || r.When[0] != "b" {
		t.Errorf("the order of a reaction's types matters, or hashing sorted it: %q", r.When)
	}
}

// Hashes are stored: where one of these changes, every view of every store is
// built anew by the next version.
func TestHashesAreStable(t *testing.T) {
	d := university()
	for _, tc := range []struct {
		name string
		got  [32]byte
		want string
	}{
		{"view", d.Views[0].Hash(d.Events), "7aa67eb2a3e6f923ce9785c94b2d2931580fd6ad8bab9b4ff9ed40848625c34f"},
		{"view elsewhere", d.Views[1].Hash(d.Events), "a91c852f51934b7a9f48f7fc0fa58a0fdf4263deabc85e7a5d41f5e2738e9e85"},
		{"fold", d.Folds[0].Hash(d.Events), "1d7c39f2d5bbd8058cfc1825015453ec1fd2e60b0772d97bf98d772336c1c2d2"},
		{"reaction", d.Reactions[0].Hash(), "bdef50cccc40279d6a82bb1a132944844b15f876c443913ecdfa480e063c4a4e"},
		{"definitions", d.Hash(), "d4fbee321a0a2e60b68fafb4229c4c2ce0f7b7dae758ad27582dcba19222c49b"},
	} {
		if got := hex.EncodeToString(tc.got[:]); got != tc.want {
			t.Errorf("%s: got %s, want %s", tc.name, got, tc.want)
		}
	}
}
