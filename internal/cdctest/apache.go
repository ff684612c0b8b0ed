package cdctest

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/template"

	"cdc/internal/child"
	"cdc/internal/download"
)

// manifests name the jars of each Apache Kafka that the tests can run.
//
//go:embed testdata/kafka-*.txt
var manifests embed.FS

// heap is enough for a broker of the tests; several may run at once.
const heap = "-Xmx512m"

// clusterID is any base64 UUID; storage must be formatted with one.
const clusterID = "MkU3OEVBNTcwNTJENDM2Qg"

// properties configures a KRaft node. The short broker session makes a killed
// broker come back in seconds (its controller waits for the old session to end),
// and the log is cleaned only when a test asks for it.
var properties = template.Must(template.New("server.properties").Parse(`process.roles=broker,controller
node.id={{.ID}}
controller.quorum.voters={{.Voters}}
listeners=PLAINTEXT://127.0.0.1:{{.Port}},CONTROLLER://127.0.0.1:{{.ControllerPort}}
advertised.listeners=PLAINTEXT://{{.Advertise}}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={{.Dir}}/data
auto.create.topics.enable=false
default.replication.factor={{.Replicas}}
min.insync.replicas={{.InSync}}
offsets.topic.replication.factor={{.Replicas}}
offsets.topic.num.partitions=1
transaction.state.log.replication.factor={{.Replicas}}
transaction.state.log.min.isr={{.InSync}}
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
controlled.shutdown.max.retries=1
{{.More}}`))

// apache is Apache Kafka in a JVM: a cluster of its own, or a node of one.
type apache struct {
	java           string
	version        string
	jars           string // directory
	options        []string
	ID             int
	Dir            string
	Port           int
	ControllerPort int
	Voters         string // controllers of the cluster, id@address each
	Replicas       int    // of topics that do not say, and of the broker's own
	InSync         int    // min.insync.replicas of the same
	Advertise      string // address that clients are told to use
	More           string // further lines of the configuration
	log            *child.Log
	proc           *child.Process
}

// brief suits a JVM that lives for a test and may be killed in it: without the
// second compiler it is up in half the time.
const brief = "-XX:TieredStopAtLevel=1"

// startApache starts a cluster of one node in a directory under another, with more
// lines of configuration, its JVM with more options.
func startApache(ctx context.Context, version, advertise, under, settings string, options ...string) (node, error) {
	a, err := newApache(ctx, version, 1, under)
	if err != nil {
		return nil, err
	}
	a.options, a.More = append(a.options, options...), settings
	a.Voters = a.voter()
	if a.Advertise = advertise; advertise == "" {
		a.Advertise = a.addr()
	}
	if err := a.format(ctx); err != nil {
		a.close()
		return nil, err
	}
	if err := a.start(ctx); err != nil {
		a.close()
		return nil, err
	}
	return a, nil
}

// newApache is a node with a directory and free ports, still to be formatted.
func newApache(ctx context.Context, version string, id int, under string) (*apache, error) {
	java, err := findJava(ctx)
	if err != nil {
		return nil, fmt.Errorf("start Apache Kafka %s: %w", version, err)
	}
	jars, err := kafkaJars(ctx, version)
	if err != nil {
		return nil, err
	}
	a := &apache{java: java, version: version, jars: jars, options: []string{heap}, ID: id, Replicas: 1, InSync: 1, log: child.NewLog(nil)}
	if a.Port, err = child.FreePort(); err != nil {
		return nil, err
	}
	for a.ControllerPort = a.Port; a.ControllerPort == a.Port; {
		if a.ControllerPort, err = child.FreePort(); err != nil {
			return nil, err
		}
	}
	if a.Dir, err = os.MkdirTemp(under, "cdc-kafka-"); err != nil {
		return nil, fmt.Errorf("make a directory for Kafka: %w", err)
	}
	return a, nil
}

// findJava returns a Java that runs every Kafka of the manifests.
func findJava(ctx context.Context) (string, error) {
	const advice = "Apache Kafka 4 needs Java 17 or newer; install it (apt-get install openjdk-17-jre-headless) or set JAVA_HOME"
	java := "java"
	if home := os.Getenv("JAVA_HOME"); home != "" {
		java = filepath.Join(home, "bin", "java")
	}
	out, err := exec.CommandContext(ctx, java, "-version").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("run java: %w; %s", err, advice)
	}
	major, ok := javaMajor(string(out))
	if !ok || major < 17 {
		first, _, _ := strings.Cut(string(out), "\n")
		return "", fmt.Errorf("java is %q; %s", first, advice)
	}
	return java, nil
}

// javaMajor reads `openjdk version "17.0.15" …`; Java 8 calls itself "1.8.0".
func javaMajor(text string) (int, bool) {
	_, quoted, _ := strings.Cut(text, `version "`)
	end := strings.IndexFunc(quoted, func(r rune) bool { return r < '0' || r > '9' })
	if end <= 0 {
		return 0, false
	}
	major, err := strconv.Atoi(quoted[:end])
	return major, err == nil
}

// kafkaJars makes sure that the jars of the version are in the cache.
func kafkaJars(ctx context.Context, version string) (string, error) {
	text, err := manifests.ReadFile("testdata/kafka-" + version + ".txt")
	if err != nil {
		return "", fmt.Errorf("start Apache Kafka %q: no manifest internal/cdctest/testdata/kafka-%s.txt; %s names one of those there", version, version, KafkaVariable)
	}
	list, err := download.ParseManifest(bytes.NewReader(text))
	if err != nil {
		return "", fmt.Errorf("start Apache Kafka %s: %w", version, err)
	}
	cache, err := download.CacheDir()
	if err != nil {
		return "", err
	}
	name := "kafka-" + version
	dir := filepath.Join(cache, name)
	return dir, download.Locked(name, func() error {
		return download.Get(ctx, dir, "Apache Kafka "+version, list, os.Stderr)
	})
}

// format writes the configuration and makes the data directory.
func (a *apache) format(ctx context.Context) error {
	var text bytes.Buffer
	if err := properties.Execute(&text, a); err != nil {
		return fmt.Errorf("configure Kafka: %w", err)
	}
	if err := os.WriteFile(a.properties(), text.Bytes(), 0o600); err != nil {
		return fmt.Errorf("configure Kafka: %w", err)
	}
	out, err := exec.CommandContext(ctx, a.java, brief, "-cp", a.jars+"/*", "kafka.tools.StorageTool", "format", "-t", clusterID, "-c", a.properties()).CombinedOutput()
	if err != nil {
		return fmt.Errorf("format storage of Kafka %s: %w\n%s", a.version, err, bytes.TrimSpace(out))
	}
	return nil
}

func (a *apache) properties() string { return filepath.Join(a.Dir, "server.properties") }

func (a *apache) addr() string { return "127.0.0.1:" + strconv.Itoa(a.Port) }

// voter names the node's controller as controller.quorum.voters does.
func (a *apache) voter() string { return fmt.Sprintf("%d@127.0.0.1:%d", a.ID, a.ControllerPort) }

func (a *apache) start(ctx context.Context) error {
	if err := a.launch(); err != nil {
		return err
	}
	if err := awaitBroker(ctx, a.addr(), a.proc.Done()); err != nil {
		return fmt.Errorf("start Kafka %s: %w\n%s", a.version, err, a.log.Tail())
	}
	return nil
}

// launch starts the JVM and does not wait for it.
func (a *apache) launch() (err error) {
	if a.proc != nil {
		return fmt.Errorf("start Kafka %s: it is running (pid %d)", a.version, a.proc.PID)
	}
	cmd := exec.Command(a.java, append(slices.Clone(a.options), "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
		"-cp", a.jars+"/*", "kafka.Kafka", a.properties())...)
	cmd.Dir = a.Dir
	cmd.Stdout, cmd.Stderr = a.log, a.log
	if a.proc, err = child.Start(cmd, child.User{}, syscall.SIGKILL); err != nil {
		return fmt.Errorf("start Kafka %s: %w", a.version, err)
	}
	return nil
}

func (a *apache) kill() {
	if a.proc != nil {
		a.proc.KillTree()
		a.proc = nil
	}
}

func (a *apache) ended() <-chan struct{} { return a.proc.Done() }

func (a *apache) close() {
	a.kill()
	_ = os.RemoveAll(a.Dir)
}
