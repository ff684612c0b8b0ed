package source

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/source/pgoutput"

	"github.com/jackc/pgx/v5/pgproto3"
)

// fakeWalsender stands in for a server that misbehaves as no real one can be
// made to: it speaks just enough to start replication and then runs a script.
type fakeWalsender struct {
	net.Conn
	backend  *pgproto3.Backend
	statuses chan status // what the client sends, until it ends the copy
}

type status struct {
	write, flush, apply cdc.LSN
	reply               bool
}

// fakeStream starts a Stream on a fake; script runs once replication has begun,
// and the connection is closed when it returns.
func fakeStream(t *testing.T, senderTimeout string, secure bool, script func(*fakeWalsender)) *Stream {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var config *tls.Config
	mode := "disable"
	if secure {
		config, mode = selfSigned(t), "require"
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		serveFake(c, config, senderTimeout, script)
	})
	s := &Source{cfg: Config{
		URL:  fmt.Sprintf("postgres://u@%s/d?sslmode=%s", l.Addr(), mode),
		Slot: "s", Publication: "p", Tick: 5 * time.Millisecond,
	}, log: slog.New(slog.NewTextHandler(t.Output(), nil)), target: "fake", version: 150000}
	s.catalogue = newCatalogue(s)
	st, err := s.Stream(t.Context(), 0x8, 0)
	if err != nil {
		l.Close()
		t.Fatal(err)
	}
	st.asm.completer = &bareCompleter{}
	t.Cleanup(func() {
		_ = st.Close(context.Background())
		l.Close()
		wg.Wait()
	})
	return st
}

func serveFake(c net.Conn, config *tls.Config, senderTimeout string, script func(*fakeWalsender)) {
	defer func() { _ = c.Close() }()
	be := pgproto3.NewBackend(c, c)
	for {
		m, err := be.ReceiveStartupMessage()
		if err != nil {
			return
		}
		if _, ok := m.(*pgproto3.SSLRequest); ok {
			if _, err := c.Write([]byte{'S'}); err != nil {
				return
			}
			c = tls.Server(c, config)
			be = pgproto3.NewBackend(c, c)
			continue
		}
		break
	}
	be.Send(&pgproto3.AuthenticationOk{})
	be.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	for be.Flush() == nil {
		m, err := be.Receive()
		if err != nil {
			return
		}
		q, ok := m.(*pgproto3.Query)
		switch {
		case !ok:
			return
		case strings.HasPrefix(q.String, "START_REPLICATION"):
			be.Send(&pgproto3.CopyBothResponse{})
			if be.Flush() != nil {
				return
			}
			f := &fakeWalsender{Conn: c, backend: be, statuses: make(chan status, 1<<16)}
			done := make(chan struct{})
			go func() { f.receive(); close(done) }()
			script(f)
			_ = c.Close()
			<-done
			return
		case strings.Contains(q.String, "wal_sender_timeout"):
			be.Send(&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("setting"), DataTypeOID: 25}}})
			be.Send(&pgproto3.DataRow{Values: [][]byte{[]byte(senderTimeout)}})
		}
		be.Send(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")})
		be.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	}
}

// receive collects statuses until the client hangs up.
func (f *fakeWalsender) receive() {
	defer close(f.statuses)
	for {
		m, err := f.backend.Receive()
		if err != nil {
			return
		}
		d, ok := m.(*pgproto3.CopyData)
		if !ok { // CopyDone: the end
			return
		}
		if len(d.Data) != pgoutput.StatusSize || d.Data[0] != 'r' {
			return
		}
		at := func(i int) cdc.LSN { return cdc.LSN(binary.BigEndian.Uint64(d.Data[1+8*i:])) }
		f.statuses <- status{at(0), at(1), at(2), d.Data[33] == 1}
	}
}

// copies encodes payloads as CopyData messages.
func copies(payloads ...[]byte) (b []byte) {
	for _, p := range payloads {
		b, _ = (&pgproto3.CopyData{Data: p}).Encode(b)
	}
	return b
}

func (f *fakeWalsender) send(payloads ...[]byte) { _, _ = f.Write(copies(payloads...)) }

// wait holds the script until the client has hung up.
func (f *fakeWalsender) wait() {
	for range f.statuses {
	}
}

func selfSigned(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// nextError reads on until the stream fails.
func nextError(t *testing.T, st *Stream) error {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if _, err := st.Next(t.Context()); err != nil {
			return err
		}
	}
	t.Fatalf("no error within %s", patience)
	return nil
}

// pump calls Next until a status arrives.
func pump(t *testing.T, st *Stream, statuses <-chan status) status {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		select {
		case s, ok := <-statuses:
			if !ok {
				t.Fatal("the client hung up")
			}
			return s
		default:
		}
		if _, err := st.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatalf("no status within %s", patience)
	return status{}
}
