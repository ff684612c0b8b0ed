package config

import (
	"fmt"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// maxNodes bounds the walk: aliases of aliases multiply (a file of one kilobyte
// can name a billion nodes), and no sensible file comes near. The depth needs no
// bound: the walk follows the structs, and these do not contain themselves.
const maxNodes = 20_000

// decoder walks YAML nodes along the structs and collects faults.
type decoder struct {
	faults
	env   func(string) (string, bool)
	dir   string           // of the file: relative paths are relative to it
	at    map[string]place // filled: where the value of each path stands
	order []string         // names of pipelines, as they come
	nodes int
	full  bool // maxNodes was reached and reported
}

func placeOf(n *yaml.Node) place { return place{line: n.Line, column: n.Column} }

// config decodes the root of the file into c, which holds the defaults.
func (d *decoder) config(root *yaml.Node, c *Config) {
	d.value(root, reflect.ValueOf(c).Elem(), "", tags{})
}

// tags are a field's struct tags.
type tags struct {
	secret, file, url bool
}

var (
	typeDuration = reflect.TypeFor[time.Duration]()
	typeBytes    = reflect.TypeFor[Bytes]()
	typePipeline = reflect.TypeFor[*Pipeline]()
	typeWords    = reflect.TypeFor[Words]()
)

// value decodes n into v. path names v in messages.
func (d *decoder) value(n *yaml.Node, v reflect.Value, path string, t tags) {
	here := placeOf(n)
	if path != "" {
		d.at[path] = here
	}
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if d.nodes++; d.nodes > maxNodes {
		if !d.full {
			d.full = true
			d.add(here, path, "aliases make this file too large: write the values out")
		}
		return
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		if path == "" {
			d.add(place{}, "", "the file is empty: start from config.example.yaml")
			return
		}
		d.add(here, path, "has no value: write %s, or leave the key out for its default", wanted(v.Type()))
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		d.pointer(n, v, path, t)
	case reflect.Struct:
		d.structure(n, v, path)
	case reflect.Map:
		d.mapping(n, v, path)
	case reflect.Slice:
		d.sequence(n, v, path, t)
	default:
		d.scalar(n, here, v, path, t)
	}
}

func (d *decoder) pointer(n *yaml.Node, v reflect.Value, path string, t tags) {
	v.Set(reflect.New(v.Type().Elem()))
	if s, ok := v.Interface().(interface{ setDefaults() }); ok {
		s.setDefaults()
		d.placeFiles(v.Elem())
	}
	d.value(n, v.Elem(), path, t)
}

// placeFiles makes the default paths of a section relative to the file, as those
// that stand in it are.
func (d *decoder) placeFiles(v reflect.Value) {
	for _, f := range fieldsOf(v.Type()) {
		if s := v.Field(f.index); f.tags.file && s.String() != "" && !filepath.IsAbs(s.String()) {
			s.SetString(filepath.Join(d.dir, s.String()))
		}
	}
}

// structure decodes a mapping whose keys are the fields of v.
func (d *decoder) structure(n *yaml.Node, v reflect.Value, path string) {
	fields := fieldsOf(v.Type())
	d.pairs(n, path, v.Type(), func(key, val *yaml.Node) {
		for _, f := range fields {
			if f.key == key.Value {
				d.at[join(path, key.Value)+wordSuffix] = placeOf(key)
				d.value(val, v.Field(f.index), join(path, key.Value), f.tags)
				return
			}
		}
		d.unknownKey(key, path, v.Type(), fields)
	})
}

// mapping decodes a mapping whose keys are free.
func (d *decoder) mapping(n *yaml.Node, v reflect.Value, path string) {
	typ := v.Type()
	v.Set(reflect.MakeMap(typ))
	d.pairs(n, path, typ, func(key, val *yaml.Node) {
		at := path + "[" + key.Value + "]"
		item := reflect.New(typ.Elem()).Elem()
		if typ.Elem() != typePipeline {
			if typ.Elem().Kind() == reflect.Pointer { // a section: what it lacks is said of its name
				d.at[at+keySuffix] = placeOf(key)
			}
			d.value(val, item, at, tags{})
			v.SetMapIndex(reflect.ValueOf(key.Value), item)
			return
		}
		at = join(path, key.Value)
		d.at[at+keySuffix] = placeOf(key)
		d.order = append(d.order, key.Value)
		p := DefaultPipeline(key.Value)
		d.value(val, reflect.ValueOf(p).Elem(), at, tags{})
		if _, set := d.at[at+".topic"]; !set && topicOf[p.Mode] != "" {
			p.Topic = topicOf[p.Mode] // the one default that depends on the mode
		}
		v.SetMapIndex(reflect.ValueOf(key.Value), reflect.ValueOf(p))
	})
}

// keySuffix marks in decoder.at the place of a key, as against its value's.
const keySuffix = "\x00key"

// wordSuffix marks the place of a key whose faults stand at its value, for the
// one that says that the key must go.
const wordSuffix = "\x00word"

// pairs calls each for the pairs of a mapping, in order, each key once.
func (d *decoder) pairs(n *yaml.Node, path string, typ reflect.Type, each func(key, val *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		d.wrongType(n, path, typ)
		return
	}
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		switch {
		case key.Tag == "!!merge":
			d.add(placeOf(key), path, "merge keys (<<) are not taken: write the keys out, or use an alias for a whole value")
		case key.Kind != yaml.ScalarNode || key.Tag == "!!null":
			d.add(placeOf(key), path, "a key must be a plain word, not %s", kindOf(key))
		case lines[key.Value] > 0:
			d.add(placeOf(key), join(path, key.Value), "the key appears twice, first on line %d: remove one", lines[key.Value])
		default:
			lines[key.Value] = key.Line
			each(key, n.Content[i+1])
		}
	}
}

func (d *decoder) sequence(n *yaml.Node, v reflect.Value, path string, t tags) {
	if v.Type() == typeWords && n.Kind == yaml.ScalarNode {
		var word string
		d.value(n, reflect.ValueOf(&word).Elem(), path+"[0]", t)
		v.Set(reflect.ValueOf(Words{word}))
		return
	}
	if n.Kind != yaml.SequenceNode {
		d.wrongType(n, path, v.Type())
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), 0, 0))
	for i, item := range n.Content {
		if d.full {
			return
		}
		x := reflect.New(v.Type().Elem()).Elem()
		d.value(item, x, fmt.Sprintf("%s[%d]", path, i), t)
		v.Set(reflect.Append(v, x))
	}
}

// scalar decodes a single value. What the environment gave is never repeated in
// a message: it may be a secret, even where none belongs.
func (d *decoder) scalar(n *yaml.Node, at place, v reflect.Value, path string, t tags) {
	if n.Kind != yaml.ScalarNode {
		d.wrongType(n, path, v.Type())
		return
	}
	text, ok := d.expand(n.Value, at, path, t.url)
	if !ok {
		return
	}
	shown := strconv.Quote(n.Value)
	if t.secret {
		shown = "the value"
	}
	if strings.Contains(n.Value, "${") {
		at.env = true
		d.at[path] = at
		shown += " with the environment filled in"
	}
	switch {
	case v.Type() == typeDuration:
		x, err := time.ParseDuration(text)
		if err != nil {
			d.add(at, path, "%s is not a duration: write a number and ms, s, m or h, as in 10s", shown)
			return
		}
		v.SetInt(int64(x))
	case v.Type() == typeBytes:
		x, err := ParseBytes(text)
		if err != nil {
			d.add(at, path, "%s is not a size: write a whole number and B, KiB, MiB or GiB, as in 64MiB", shown)
			return
		}
		v.SetInt(int64(x))
	case v.Kind() == reflect.Int:
		x, err := strconv.Atoi(text)
		if err != nil {
			d.add(at, path, "%s is not a whole number", shown)
			return
		}
		v.SetInt(int64(x))
	case v.Kind() == reflect.Bool:
		if text != "true" && text != "false" {
			d.add(at, path, "%s is neither true nor false", shown)
			return
		}
		v.SetBool(text == "true")
	case v.Kind() == reflect.String:
		if t.file && text != "" && !filepath.IsAbs(text) {
			text = filepath.Join(d.dir, text)
		}
		v.SetString(text)
	default:
		panic(fmt.Sprintf("config: field %s has type %s, which the decoder does not know", path, v.Type()))
	}
}

func (d *decoder) wrongType(n *yaml.Node, path string, typ reflect.Type) {
	d.add(placeOf(n), path, "want %s, found %s", wanted(typ), kindOf(n))
}

// wanted describes what a field takes, with an article.
func wanted(t reflect.Type) string {
	switch {
	case t == typeDuration:
		return "a duration such as 10s"
	case t == typeBytes:
		return "a size such as 64MiB"
	case t.Kind() == reflect.Pointer:
		return wanted(t.Elem())
	case t.Kind() == reflect.Struct || t.Kind() == reflect.Map:
		return "keys with values"
	case t == typeWords:
		return "a text, or a list such as [a, b]"
	case t.Kind() == reflect.Slice:
		return "a list such as [a, b]"
	case t.Kind() == reflect.Int:
		return "a whole number"
	case t.Kind() == reflect.Bool:
		return "true or false"
	}
	return "a text"
}

func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys with values"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	if n.Tag == "!!null" {
		return "nothing"
	}
	return "a single value"
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// field is one key of a section.
type field struct {
	key   string
	index int
	tags  tags
}

// fieldsOf are the fields of a struct that the file can set.
func fieldsOf(t reflect.Type) []field {
	var out []field
	for i := range t.NumField() {
		f := t.Field(i)
		key := f.Tag.Get("yaml")
		if key == "" || key == "-" {
			continue
		}
		out = append(out, field{key: key, index: i, tags: tags{
			secret: f.Tag.Get("secret") != "", file: f.Tag.Get("file") != "", url: f.Tag.Get("url") != "",
		}})
	}
	return out
}
