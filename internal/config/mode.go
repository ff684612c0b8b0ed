package config

import "reflect"

// The modes of a pipeline.
const (
	ModeCDC    = "cdc"    // rows as they are
	ModeEvents = "events" // events as they are appended
)

// wrongMode refuses the keys of a pipeline that belong to the other mode: they
// would be without effect. The struct tag mode names the mode of a key; one
// without the tag belongs to both.
func (v *validator) wrongMode(path string, p *Pipeline) {
	v.notOf(p.Mode, path, reflect.ValueOf(p).Elem(), reflect.ValueOf(defaultPipeline(p.Name, p.Mode)).Elem())
}

// notOf refuses the keys of a section, and of those in it, that are not of a mode.
func (v *validator) notOf(mode, path string, x, defaults reflect.Value) {
	for i := range x.NumField() {
		f := x.Type().Field(i)
		of, at := f.Tag.Get("mode"), join(path, f.Tag.Get("yaml"))
		switch {
		case of == "" || of == mode:
			if f.Type.Kind() == reflect.Struct {
				v.notOf(mode, at, x.Field(i), defaults.Field(i))
			}
		case v.written(at, x.Field(i), defaults.Field(i)):
			v.add(v.place(at+wordSuffix), at, "belongs to mode: %s, this pipeline is of mode: %s: remove it", of, mode)
			v.settled = append(v.settled, at)
		}
	}
}

// written says that a key stands in the file, or that a configuration built in
// code has something there.
func (v *validator) written(path string, x, byDefault reflect.Value) bool {
	if v.at != nil {
		_, ok := v.at[path]
		return ok
	}
	if k := x.Kind(); (k == reflect.Slice || k == reflect.Map) && x.Len() == 0 {
		return false
	}
	return !reflect.DeepEqual(x.Interface(), byDefault.Interface())
}
