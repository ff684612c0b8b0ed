package config

import (
	"maps"
	"slices"
	"strconv"
	"time"
)

// Config is a whole configuration file. Its tags are the schema of the file:
// yaml names the key, oneof lists the values allowed, min and max bound a
// number, secret keeps the value out of every message, file marks a path that is
// relative to the directory of the configuration file, url marks a Postgres URL,
// mode a key that pipelines of one mode alone have.
type Config struct {
	Postgres Postgres `yaml:"postgres"`
	Kafka    Kafka    `yaml:"kafka"`
	Admin    Admin    `yaml:"admin"`
	Log      Log      `yaml:"log"`
	// Pipelines by name; PipelineNames gives their order in the file.
	Pipelines map[string]*Pipeline `yaml:"pipelines"`

	order []string         // of Pipelines, as the file has them
	file  string           // for messages; "" when built in code
	at    map[string]place // where the value of a path stands in the file
}

// Postgres says how to reach the source.
type Postgres struct {
	// URL is postgres://user:password@host:port/database?options. It may hold a
	// password: print Redacted instead.
	URL string `yaml:"url" secret:"true" url:"true"`
}

// Kafka says how to reach the sink: Brokers or Embedded, exactly one of them.
type Kafka struct {
	Brokers  []string  `yaml:"brokers"` // host:port of some brokers, the rest are discovered
	Embedded *Embedded `yaml:"embedded"`
	TLS      *TLS      `yaml:"tls"`
	SASL     *SASL     `yaml:"sasl"`
	// Replication is the replication factor of topics this daemon creates, -1
	// for the broker's default.
	Replication int `yaml:"replication" min:"-1" max:"32767"`
	// MinISR is min.insync.replicas of topics this daemon creates, 0 for the
	// broker's default.
	MinISR int `yaml:"min_isr" min:"0" max:"32767"`
}

// Embedded is a broker inside this process, for one machine.
type Embedded struct {
	Dir    string `yaml:"dir" file:"true"` // where the log is kept
	Listen string `yaml:"listen"`          // loopback host:port
}

// TLS to the brokers. All fields may be empty: then the system's roots are
// trusted and no client certificate is shown.
type TLS struct {
	CA   string `yaml:"ca" file:"true"`
	Cert string `yaml:"cert" file:"true"`
	Key  string `yaml:"key" file:"true"`
}

// SASL is how to log in to the brokers.
type SASL struct {
	Mechanism string `yaml:"mechanism" oneof:"plain|scram-sha-256|scram-sha-512"`
	Username  string `yaml:"username"`
	Password  string `yaml:"password" secret:"true"`
}

// Admin is the HTTP server for health, metrics and status.
type Admin struct {
	Listen string `yaml:"listen"` // loopback host:port, "" for none
}

// Log is what the daemon writes to standard error.
type Log struct {
	Level  string `yaml:"level" oneof:"debug|info|warn|error"`
	Format string `yaml:"format" oneof:"text|json"`
}

// Pipeline is one stream from a database to topics.
type Pipeline struct {
	Name     string    `yaml:"-"`        // its key in Config.Pipelines, and its transactional id
	Postgres *Postgres `yaml:"postgres"` // nil: Config.Postgres
	Mode     string    `yaml:"mode" oneof:"cdc|events"`

	Tables  []string            `yaml:"tables" mode:"cdc"`  // patterns, see ParsePattern
	Exclude []string            `yaml:"exclude" mode:"cdc"` // patterns
	Columns map[string][]string `yaml:"columns" mode:"cdc"` // table to the columns published, all others stay in Postgres
	Key     map[string][]string `yaml:"key" mode:"cdc"`     // table to the columns of the message key, in place of the primary key

	Topic       string            `yaml:"topic"` // template of {database}, and {schema}, {table} or, of events, {category}
	Partitions  int               `yaml:"partitions" min:"1" max:"10000"`
	Replication int               `yaml:"replication" min:"-1" max:"32767"` // 0: Kafka.Replication
	TopicConfig map[string]string `yaml:"topic_config"`                     // settings of topics beyond those the policy fixes

	Format   string   `yaml:"format" oneof:"json|debezium-json" mode:"cdc"`
	Debezium Debezium `yaml:"debezium" mode:"cdc"`
	Delivery string   `yaml:"delivery" oneof:"exactly-once|at-least-once"`
	Snapshot Snapshot `yaml:"snapshot" mode:"cdc"`
	Messages Messages `yaml:"messages" mode:"cdc"`
	Verify   Verify   `yaml:"verify"`

	Toast      string `yaml:"toast" oneof:"fill|omit|placeholder|refuse" mode:"cdc"`
	Truncate   string `yaml:"truncate" oneof:"tombstones|stop" mode:"cdc"`
	Oversize   string `yaml:"oversize" oneof:"stop|dead-letter" mode:"cdc"`
	OnGap      string `yaml:"on_gap" oneof:"stop|resnapshot" mode:"cdc"`
	DeadLetter string `yaml:"dead_letter" mode:"cdc"` // topic

	Undeclared string                `yaml:"undeclared" oneof:"refuse|allow" optional:"true" mode:"events"` // "": refuse where there are Events
	MaxEvent   Bytes                 `yaml:"max_event" min:"1KiB" max:"64MiB" mode:"events"`                // data and meta of one event
	Events     map[string]*EventType `yaml:"events" mode:"events"`
	State      map[string]*Fold      `yaml:"state" mode:"events"`
	Snapshots  Snapshots             `yaml:"snapshots" mode:"events"`
	Views      map[string]*View      `yaml:"views" mode:"events"`
	Reactions  map[string]*Reaction  `yaml:"reactions" mode:"events"`

	Memory      Bytes         `yaml:"memory" min:"4MiB" max:"64GiB"`
	Linger      time.Duration `yaml:"linger" min:"0s" max:"10s"`
	Compression string        `yaml:"compression" oneof:"none|snappy|lz4|zstd"`

	Slot          Slot   `yaml:"slot"`
	Publication   string `yaml:"publication"`
	ProgressTopic string `yaml:"progress_topic"`
}

// Debezium holds what format debezium-json alone needs.
type Debezium struct {
	Unknown string `yaml:"unknown" oneof:"text|omit"` // columns of types Debezium leaves out
	Name    string `yaml:"name"`                      // source.name of the envelope
}

// Snapshot is how existing rows come into the topics.
type Snapshot struct {
	Mode    string `yaml:"mode" oneof:"initial|never|only"`
	Workers int    `yaml:"workers" min:"1" max:"64"`
}

// Messages are those of pg_logical_emit_message. No prefixes: they are left out.
type Messages struct {
	Prefixes []string `yaml:"prefixes"`
	Topic    string   `yaml:"topic"`
}

// Verify is how often a running daemon compares what it has written with its source.
type Verify struct {
	Every time.Duration `yaml:"every" min:"0s" max:"8760h"`             // 0: never
	Rate  Bytes         `yaml:"rate" min:"0B" max:"1024GiB" mode:"cdc"` // read per second from both sides together, 0B: no limit
	Dir   string        `yaml:"dir" file:"true" mode:"cdc"`             // for what does not fit into memory; "": the system's
}

// Slot is the replication slot.
type Slot struct {
	Name     string `yaml:"name"`
	Failover bool   `yaml:"failover"` // Postgres 17: keep a copy of the slot on standbys
}

// PipelineNames are the keys of Pipelines in the order of the file; pipelines
// added in code follow, sorted. A nil entry is none.
func (c *Config) PipelineNames() []string {
	names := make([]string, 0, len(c.Pipelines))
	listed := make(map[string]bool, len(c.order))
	for _, n := range c.order {
		if c.Pipelines[n] != nil && !listed[n] {
			names, listed[n] = append(names, n), true
		}
	}
	for _, n := range slices.Sorted(maps.Keys(c.Pipelines)) {
		if c.Pipelines[n] != nil && !listed[n] {
			names = append(names, n)
		}
	}
	return names
}

// PostgresFor is where the pipeline reads: its own server or the common one.
func (c *Config) PostgresFor(p *Pipeline) Postgres {
	if p.Postgres != nil {
		return *p.Postgres
	}
	return c.Postgres
}

// ReplicationFor is the replication factor of topics created for the pipeline,
// -1 for the broker's default.
func (c *Config) ReplicationFor(p *Pipeline) int {
	if p.Replication != 0 {
		return p.Replication
	}
	return c.Kafka.Replication
}

// TopicConfigFor are the settings of topics created for the pipeline, beyond
// those their policy fixes: Kafka.MinISR, and TopicConfig above it.
func (c *Config) TopicConfigFor(p *Pipeline) map[string]string {
	m := maps.Clone(p.TopicConfig)
	if _, set := m[minISR]; c.Kafka.MinISR > 0 && !set {
		if m == nil {
			m = map[string]string{}
		}
		m[minISR] = strconv.Itoa(c.Kafka.MinISR)
	}
	return m
}

const minISR = "min.insync.replicas"

// Include are Tables without quotes, as the source takes patterns.
func (p *Pipeline) Include() []string { return plain(p.Tables) }

// Excluded are those of Exclude, in the same form.
func (p *Pipeline) Excluded() []string { return plain(p.Exclude) }

// ColumnsByTable is Columns under the plain names of the tables: schema.table
// without quotes.
func (p *Pipeline) ColumnsByTable() map[string][]string { return plainKeys(p.Columns) }

// KeyByTable is Key, in the same form.
func (p *Pipeline) KeyByTable() map[string][]string { return plainKeys(p.Key) }

func plain(patterns []string) []string {
	var out []string
	for _, s := range patterns {
		out = append(out, plainName(s))
	}
	return out
}

func plainKeys(m map[string][]string) map[string][]string {
	out := make(map[string][]string, len(m))
	for k, v := range m {
		out[plainName(k)] = v
	}
	return out
}

// plainName leaves alone what is no pattern: Validate has refused it.
func plainName(s string) string {
	p, err := ParsePattern(s)
	if err != nil {
		return s
	}
	return p.Plain()
}
