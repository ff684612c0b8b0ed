package config

import (
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Validate returns every fault of c at once, as *Error. It looks at c alone:
// nothing is read, resolved or connected to.
func (c *Config) Validate() error {
	f := &faults{file: c.file}
	c.validate(f)
	return f.err()
}

// validate adds to the faults already found while decoding: what one of those
// covers is not judged a second time.
func (c *Config) validate(f *faults) {
	v := &validator{Config: c, faults: f, decoding: slices.Clone(f.list), outlines: map[string]*outline{}}
	names := c.PipelineNames()
	switch {
	case len(names) == 0:
		v.fault("pipelines", "there is no pipeline: add one, as in config.example.yaml")
	case len(names) > maxPipelines:
		v.fault("pipelines", "there are %d pipelines, one process runs at most %d: use more processes", len(names), maxPipelines)
		return
	}
	for _, name := range names {
		if p := c.Pipelines[name]; p.Mode == ModeCDC || p.Mode == ModeEvents {
			v.wrongMode(join("pipelines", name), p)
		}
	}
	v.tagged(reflect.ValueOf(c).Elem(), "")
	v.kafka()
	v.listen("admin.listen", c.Admin.Listen, true)
	v.url("postgres.url", c.Postgres.URL, slices.ContainsFunc(names, func(n string) bool { return c.Pipelines[n].Postgres == nil }))
	for _, name := range names {
		v.pipeline(name, c.Pipelines[name])
	}
	v.clashes(names)
}

// validator judges a decoded Config.
type validator struct {
	*Config
	*faults
	decoding []Fault // found before; they cover what lies at and below their paths

	settled []string // paths whose fault is found, and the last word on all below them

	outlines    map[string]*outline // by pipeline
	comparisons int                 // of patterns, at most maxComparisons
}

// fault adds a fault at a path, unless one is found there already.
func (v *validator) fault(path, format string, args ...any) {
	for _, g := range v.decoding {
		if within(path, g.Path) || g.Path == "" {
			return
		}
	}
	for _, p := range v.settled {
		if within(path, p) {
			return
		}
	}
	v.add(v.place(path), path, format, args...)
}

// place is where a path stands in the file: a missing key where its section does.
func (v *validator) place(path string) place {
	for path != "" {
		if p, ok := v.at[path+keySuffix]; ok {
			return p
		}
		if p, ok := v.at[path]; ok {
			return p
		}
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
	return place{}
}

// show is a value as a message may repeat it: what the environment gave may be a
// secret, even where none belongs.
func (v *validator) show(path, value string) string {
	if v.at[path].env {
		return "the value from the environment"
	}
	return strconv.Quote(value)
}

// tagged checks what the struct tags say of every field below x.
func (v *validator) tagged(x reflect.Value, path string) {
	for i := range x.NumField() {
		f, field := x.Type().Field(i), x.Field(i)
		key := f.Tag.Get("yaml")
		if key == "" || key == "-" {
			continue
		}
		at := join(path, key)
		switch {
		case field.Kind() == reflect.Struct:
			v.tagged(field, at)
		case field.Kind() == reflect.Pointer && !field.IsNil():
			v.tagged(field.Elem(), at)
		case f.Type == reflect.TypeFor[map[string]*Pipeline]():
			for _, name := range v.PipelineNames() {
				v.tagged(reflect.ValueOf(v.Pipelines[name]).Elem(), join(at, name))
			}
		case field.Kind() == reflect.Map && f.Type.Elem().Kind() == reflect.Pointer:
			v.sections(field, at)
		case f.Tag.Get("oneof") != "" && f.Tag.Get("optional") != "" && field.String() == "" && v.at[at] == place{}:
			// left out, and what that means depends on other keys
		case f.Tag.Get("oneof") != "":
			v.oneOf(at, field.String(), strings.Split(f.Tag.Get("oneof"), "|"))
		case f.Tag.Get("min") != "":
			v.bounds(at, field, f.Tag.Get("min"), f.Tag.Get("max"))
		}
	}
}

// sections checks the entries of a map of sections.
func (v *validator) sections(m reflect.Value, path string) {
	keys := m.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
	for _, k := range keys {
		if x := m.MapIndex(k); !x.IsNil() {
			v.tagged(x.Elem(), path+"["+k.String()+"]")
		}
	}
}

// notYet are values of the contract that this version does not carry out.
var notYet = map[string]bool{"delivery: transactional": true}

func (v *validator) oneOf(path, value string, allowed []string) {
	if slices.Contains(allowed, value) {
		return
	}
	if setting := path[strings.LastIndexByte(path, '.')+1:] + ": " + value; notYet[setting] {
		v.fault(path, "%s is not in this version: write %s", setting, strings.Join(allowed, " or "))
		return
	}
	hint := ""
	if near := nearest(value, allowed); near != "" && value != "" {
		hint = fmt.Sprintf("; did you mean %q?", near)
	}
	v.fault(path, "%s is not one of %s%s", v.show(path, value), strings.Join(allowed, ", "), hint)
}

// bounds checks a number, size or duration. The limits are written in the tag as
// a file would write them.
func (v *validator) bounds(path string, x reflect.Value, low, high string) {
	limit := func(s string) int64 {
		switch x.Type() {
		case typeBytes:
			b, err := ParseBytes(s)
			must(err)
			return int64(b)
		case typeDuration:
			d, err := time.ParseDuration(s)
			must(err)
			return int64(d)
		}
		n, err := strconv.ParseInt(s, 10, 64)
		must(err)
		return n
	}
	if n := x.Int(); n < limit(low) || n > limit(high) {
		v.fault(path, "%s is out of range: write a value from %s to %s", v.show(path, fmt.Sprint(x.Interface())), low, high)
	}
}

// must panics on a struct tag nobody can read: a fault of this package.
func must(err error) {
	if err != nil {
		panic("config: struct tag: " + err.Error())
	}
}

// url checks where a pipeline reads. No message repeats it: it holds a password.
func (v *validator) url(path, url string, needed bool) {
	if url == "" {
		if needed {
			v.fault(path, "is missing: write postgres://user:password@host:5432/database?sslmode=verify-full")
		}
		return
	}
	if _, err := parseURL(url); err != nil {
		v.fault(path, "%v", err)
	}
}

func (v *validator) kafka() {
	k := &v.Kafka
	switch {
	case k.Embedded != nil && k.Brokers != nil:
		v.fault("kafka.embedded", "kafka.brokers and kafka.embedded exclude each other: keep one")
	case k.Embedded == nil && len(k.Brokers) == 0:
		v.fault("kafka.brokers", "no broker: write brokers: [\"host:9092\"], or embedded: {} for one inside this process")
	}
	for i, b := range k.Brokers {
		path := fmt.Sprintf("kafka.brokers[%d]", i)
		if err := hostPort(b); err != nil {
			v.fault(path, "%s is not host:port: %v", v.show(path, b), err)
		}
		if j := slices.Index(k.Brokers, b); j < i {
			v.fault(path, "%s is listed twice: remove one", v.show(path, b))
		}
	}
	v.embedded()
	if t := k.TLS; t != nil && (t.Cert == "") != (t.Key == "") {
		v.fault("kafka.tls", "cert and key belong together: write both, or neither for no client certificate")
	}
	if s := k.SASL; s != nil {
		for _, part := range [][2]string{{"username", s.Username}, {"password", s.Password}} {
			if part[1] == "" {
				v.fault("kafka.sasl."+part[0], "is missing or empty: write it, or remove sasl")
			}
		}
	}
	if k.Replication == 0 {
		v.fault("kafka.replication", "0 copies hold nothing: write 1 or more, or -1 for the broker's default")
	}
	if k.Replication > 0 && k.MinISR > k.Replication {
		v.fault("kafka.min_isr", "%d in-sync replicas cannot come of %d: write at most kafka.replication", k.MinISR, k.Replication)
	}
}

// embedded checks what a broker inside the process cannot do.
func (v *validator) embedded() {
	k := &v.Kafka
	if k.Embedded == nil {
		return
	}
	if k.Embedded.Dir == "" {
		v.fault("kafka.embedded.dir", "is empty: write the directory the log is kept in")
	}
	v.listen("kafka.embedded.listen", k.Embedded.Listen, false)
	if v.Admin.Listen == k.Embedded.Listen && !strings.HasSuffix(v.Admin.Listen, ":0") {
		v.fault("kafka.embedded.listen", "admin.listen has the same address: change one port")
	}
	if k.TLS != nil {
		v.fault("kafka.tls", "the embedded broker speaks no TLS: remove tls, it listens on this machine only")
	}
	if k.SASL != nil {
		v.fault("kafka.sasl", "the embedded broker has no login: remove sasl, it listens on this machine only")
	}
	if k.Replication > 1 {
		v.fault("kafka.replication", "the embedded broker is one broker: write 1, or remove the key")
	}
	if k.MinISR > 1 {
		v.fault("kafka.min_isr", "the embedded broker is one broker: write 1, or remove the key")
	}
}

// listen checks an address to listen on. Neither server has a login, so only
// this machine may reach it.
func (v *validator) listen(path, addr string, mayBeEmpty bool) {
	if addr == "" && mayBeEmpty {
		return
	}
	if err := hostPort(addr); err != nil {
		v.fault(path, "%s is not host:port: %v", v.show(path, addr), err)
		return
	}
	host, port, _ := net.SplitHostPort(addr) // checked by hostPort
	if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback()) {
		v.fault(path, "%s can be reached from other machines, and there is no login: write 127.0.0.1:%s", v.show(path, addr), port)
	}
}

// hostPort checks host:port; port 0 is for the system to choose.
func hostPort(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("write it as in 127.0.0.1:9092")
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("the port is a number up to 65535")
	}
	if host == "" || strings.ContainsAny(host, " /@") {
		return fmt.Errorf("the host is missing or not a host, write it as in 127.0.0.1:%s", port)
	}
	return nil
}
