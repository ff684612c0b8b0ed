package source

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cdc/internal/cdctest"
)

// authority signs certificates for a test server.
type authority struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	file string // PEM of the certificate
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{t: t, key: newKey(t), file: filepath.Join(t.TempDir(), name+".pem")}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.WriteFile(a.file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue makes a server's certificate and key, valid until a time.
func (a *authority) issue(serial int64, host string, until time.Time) (cert, key string) {
	a.t.Helper()
	own := newKey(a.t)
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: host},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: until, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &own.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	secret, err := x509.MarshalECPrivateKey(own)
	if err != nil {
		a.t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: secret}))
}

// servedSerial is the serial number of the certificate that the server shows to
// anybody who asks (SSLRequest, PostgreSQL's documentation 54.2.11); 0 for none.
func servedSerial(addr string) int64 {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return 0
	}
	defer func() { _ = conn.Close() }()
	answer := make([]byte, 1)
	if _, err := conn.Write([]byte{0, 0, 0, 8, 4, 210, 22, 47}); err != nil {
		return 0
	}
	if _, err := conn.Read(answer); err != nil || answer[0] != 'S' {
		return 0
	}
	secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true}) // it is the certificate itself that is looked at
	if err := secure.Handshake(); err != nil {
		return 0
	}
	return secure.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
}

// 163: TLS toward Postgres. A certificate of another host, of another authority or
// one that is expired is refused, by the ordinary and the replication connection
// alike; one that is replaced is taken up, and the stream that runs goes on.
func TestCase163TLS(t *testing.T) {
	t.Parallel()
	pg := cdctest.PrivatePostgres(t, nil)
	db := pg.Database(t)
	u, err := url.Parse(db.URL)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := newAuthority(t, "ours"), newAuthority(t, "theirs")
	tomorrow, yesterday := time.Now().Add(24*time.Hour), time.Now().Add(-24*time.Hour)
	serial := int64(1)
	serve := func(by *authority, host string, until time.Time) {
		serial++
		cert, key := by.issue(serial, host, until)
		pg.WriteFile(t, "server.crt", cert)
		pg.WriteFile(t, "server.key", key)
		db.Exec(t, `ALTER SYSTEM SET ssl = on`, `SELECT pg_reload_conf()`)
		for deadline := time.Now().Add(time.Minute); servedSerial(u.Host) != serial; {
			if time.Now().After(deadline) {
				t.Fatalf("the server does not take certificate %d", serial)
			}
			time.Sleep(5 * time.Millisecond) // a reload is not acknowledged
		}
	}
	u.RawQuery = url.Values{"sslmode": {"verify-full"}, "sslrootcert": {ours.file}}.Encode()
	open := func() (*Source, error) {
		s, err := Open(t.Context(), Config{URL: u.String(), Slot: db.Name, Publication: "pub", Include: []string{"public.*"}})
		if s != nil {
			t.Cleanup(func() { _ = s.Close() })
		}
		return s, err
	}
	for _, tt := range []struct {
		name  string
		by    *authority
		host  string
		until time.Time
		says  string
	}{
		{"another host", ours, "db.example", tomorrow, "x509: "},
		{"another authority", theirs, "127.0.0.1", tomorrow, "unknown authority"},
		{"expired", ours, "127.0.0.1", yesterday, "expired"},
	} {
		serve(tt.by, tt.host, tt.until)
		if _, err := open(); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: got %v, want an error with %q", tt.name, err, tt.says)
		}
		if c, err := connectReplication(t.Context(), u.String(), replicationOptions{}); err == nil {
			closeConn(c)
			t.Errorf("%s: the replication connection is taken", tt.name)
		}
	}
	serve(ours, "127.0.0.1", tomorrow)
	s, err := open()
	if err != nil {
		t.Fatal(err)
	}
	db.Exec(t, `CREATE TABLE t(id int PRIMARY KEY)`)
	mustPublish(t, s)
	from, err := s.CreateSlot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	db.KeepSlot(db.Name)
	st, err := s.Stream(t.Context(), from, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close(t.Context()) })
	if got := db.Value(t, `SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'cdc'`); got != "t" {
		t.Errorf("the connections of cdc use TLS: %s, want t", got)
	}
	serve(ours, "127.0.0.1", tomorrow) // rotated under the stream
	db.Exec(t, `INSERT INTO t VALUES (1)`)
	if got := readTxn(t, st); len(got.changes) != 1 {
		t.Errorf("got %d changes, want the one", len(got.changes))
	}
	if _, err := s.System(t.Context()); err != nil { // a new connection
		t.Error(err)
	}
}
