package sink

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"cdc/internal/cdc"
)

var kafkaNotEnough = error(kafka.NotEnoughReplicas)

func certificate(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "cdc", Organization: []string{"University"}}, NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, &tls.Config{RootCAs: pool}
}

func TestTLSAndSASL(t *testing.T) {
	server, client := certificate(t)
	for _, m := range []string{"scram-sha-256", "scram-sha-512", "plain"} {
		t.Run(m, func(t *testing.T) {
			k := cluster(t, kfake.SeedTopics(2, "data"), kfake.TLS(server), kfake.EnableSASL(), kfake.Superuser(strings.ToUpper(m), "u", "secret"),
				kfake.Superuser("SCRAM-SHA-512", "reader", "r"))
			cfg := Config{Brokers: k.ListenAddrs(), TLS: client, SASL: &SASL{Mechanism: m, User: "u", Password: "secret"}}
			w := owner(t, dialConfig(t, cfg), WriterConfig{TransactionalID: "p", RequestBytes: 4 << 10}, parts("data", 2))
			load(t, w, parts("data", 2), 1000)
			onceInOrder(t, seen(t, k, "data", 1000, kgo.DialTLSConfig(client), kgo.SASL(scram.Auth{User: "reader", Pass: "r"}.AsSha512Mechanism())), 1000)

			cfg.SASL = &SASL{Mechanism: m, User: "u", Password: "wrong"}
			c, err := Dial(testContext(t), cfg)
			if err == nil {
				_ = c.Close()
				t.Fatal("a wrong password was accepted")
			}
			if strings.Contains(err.Error(), "wrong") {
				t.Errorf("the error shows the password: %v", err)
			}
			cfg.TLS = nil
			if c, err := Dial(testContext(t), cfg); err == nil {
				_ = c.Close()
				t.Fatal("plain text to a TLS port was accepted")
			}
		})
	}
}

// The commands that mend a missing right name whom the broker knows.
func TestUser(t *testing.T) {
	own, _ := certificate(t)
	for want, cfg := range map[string]Config{
		"ANONYMOUS":           {},
		"u":                   {TLS: own, SASL: &SASL{User: "u"}},
		"CN=cdc,O=University": {TLS: own},
	} {
		if got := (&Client{cfg: cfg}).user(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestDialRefusesNonsense(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no broker":         {},
		"unknown mechanism": {Brokers: []string{"127.0.0.1:1"}, SASL: &SASL{Mechanism: "md5"}},
		"nobody there":      {Brokers: []string{"127.0.0.1:1"}},
	} {
		if c, err := Dial(testContext(t), cfg); err == nil {
			_ = c.Close()
			t.Errorf("%s: no error", name)
		}
	}
}

// One of the addresses is dead: the others serve.
func TestDialTriesEveryAddress(t *testing.T) {
	k := cluster(t)
	for range 5 { // the order is random
		dialConfig(t, Config{Brokers: []string{"127.0.0.1:1", k.ListenAddrs()[0]}})
	}
}

func TestTopics(t *testing.T) {
	k := cluster(t, kfake.NumBrokers(3))
	c := dial(t, k)
	ctx := testContext(t)
	spec := cdc.TopicSpec{Name: "a.state", Partitions: 4, Replication: 3}
	must(t, c.CreateTopic(ctx, spec, map[string]string{"cleanup.policy": "compact", "min.compaction.lag.ms": "60000"}))
	must(t, c.CreateTopic(ctx, spec, nil)) // exists: left alone
	must(t, c.CreateTopic(ctx, cdc.TopicSpec{Name: "a.other", Partitions: 1}, nil))
	must(t, c.SetTopicConfig(ctx, "a.state", map[string]string{"retention.ms": "-1"}))

	got, err := c.Topics(ctx, "a.state", "missing")
	must(t, err)
	s := got["a.state"]
	if s.Partitions != 4 || s.Config["cleanup.policy"] != "compact" || s.Config["min.compaction.lag.ms"] != "60000" || s.Config["retention.ms"] != "-1" {
		t.Errorf("state %+v", s)
	}
	if s.Config["max.message.bytes"] == "" {
		t.Error("defaults are missing from the settings")
	}
	if m, ok := got["missing"]; !ok || m.Partitions != 0 {
		t.Errorf("missing topic: %+v", m)
	}
	names, err := c.List(ctx, "a.")
	must(t, err)
	if !slices.Equal(names, []string{"a.other", "a.state"}) {
		t.Errorf("listed %v", names)
	}
	must(t, c.replaceConfig(ctx, "a.state", map[string]string{"retention.ms": "5"})) // the way of old brokers
	got, err = c.Topics(ctx, "a.state")
	must(t, err)
	if s := got["a.state"]; s.Config["retention.ms"] != "5" || s.Config["cleanup.policy"] != "compact" {
		t.Errorf("after replacing the set of settings: %v", s.Config)
	}
	must(t, c.DeleteTopic(ctx, "a.other"))
	must(t, c.DeleteTopic(ctx, "a.other"))
	names, err = c.List(ctx, "a.")
	must(t, err)
	if !slices.Equal(names, []string{"a.state"}) {
		t.Errorf("listed %v after deleting", names)
	}
}

// The flow against the versions of old and new brokers.
func TestBrokerVersions(t *testing.T) {
	for name, v := range map[string]*kversion.Versions{
		"2.5": kversion.V2_5_0(), "2.8": kversion.V2_8_0(), "3.9": kversion.V3_9_0(), "4.0": kversion.V4_0_0(),
	} {
		t.Run(name, func(t *testing.T) {
			k := cluster(t, kfake.SeedTopics(2, "data"), kfake.MaxVersions(v))
			w := owner(t, dial(t, k), WriterConfig{TransactionalID: "p", Compression: "zstd"}, parts("data", 2))
			load(t, w, parts("data", 2), 100)
			lastStamp(t, w, parts("data", 2)[1], 100)
			onceInOrder(t, seen(t, k, "data", 100), 100)
		})
	}
	t.Run("too old for own epochs", func(t *testing.T) {
		k := cluster(t, kfake.SeedTopics(1, "data"), kfake.MaxVersions(kversion.V2_3_0()))
		err := dial(t, k).NewWriter(WriterConfig{TransactionalID: "p"}).TakeOver(testContext(t), parts("data", 1))
		var e *cdc.TerminalError
		if !errors.As(err, &e) || !strings.Contains(e.Mend, "at-least-once") {
			t.Fatalf("got %v", err)
		}
		w := owner(t, dial(t, k), WriterConfig{}, nil)
		load(t, w, parts("data", 1), 100)
		onceInOrder(t, seen(t, k, "data", 100), 100)
	})
}

func TestUnknownTopicIsSaidSoon(t *testing.T) {
	_, _, err := dial(t, cluster(t)).Offsets(testContext(t), parts("typo", 1))
	wantErr(t, err, kafka.UnknownTopicOrPartition)
}
