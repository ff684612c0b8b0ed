package source

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/source/pgoutput"
	"cdc/internal/source/pgoutput/pgoutputtest"

	"github.com/jackc/pgx/v5/pgproto3"
)

func keepaliveAt(end cdc.LSN, reply bool) []byte {
	return pgoutputtest.Keepalive(pgoutput.Keepalive{End: end, Reply: reply})
}

func wal(msgs ...[]byte) (out [][]byte) {
	for _, m := range msgs {
		out = append(out, pgoutputtest.XLogData(0x9, m))
	}
	return out
}

func TestCase009FlushZeroIsNothing(t *testing.T) {
	statuses := make(chan (<-chan status), 1)
	more := make(chan struct{})
	st := fakeStream(t, "60000", false, func(f *fakeWalsender) {
		f.send(keepaliveAt(0x8, true))
		statuses <- f.statuses
		<-more
		f.send(append(wal(beginAt(0x10), relation7, insertRow, commitAt(0x10, 0x20)), keepaliveAt(0x20, true))...)
		<-more
		f.wait()
	})
	defer close(more)
	from := <-statuses
	if got, want := pump(t, st, from), (status{write: 0x8}); got != want {
		t.Errorf("before anything is durable: got %+v, want %+v", got, want)
	}
	more <- struct{}{}
	if got := readTxn(t, st); got.end != 0x20 {
		t.Fatalf("got %+v", got)
	}
	st.Confirm(0x20)
	st.Confirm(0x18) // never back
	if got, want := pump(t, st, from), (status{write: 0x20, flush: 0x20, apply: 0x20}); got != want {
		t.Errorf("confirmed: got %+v, want %+v", got, want)
	}
	if st.ServerEnd() != 0x20 {
		t.Errorf("server's end: got %s, want 0/20", st.ServerEnd())
	}
}

func TestCase014SilentServer(t *testing.T) {
	answered := make(chan struct{})
	st := fakeStream(t, "0", false, func(f *fakeWalsender) {
		for s := range f.statuses {
			if s.reply {
				f.send(keepaliveAt(0x18, false))
				close(answered)
				break
			}
		}
		f.wait() // from now on silent for good
	})
	if got, want := st.status.patience, assumedTimeout; got != want {
		t.Errorf("patience where the server has none: got %s, want %s", got, want)
	}
	st.status.patience = 30 * time.Millisecond
	idle := false
	for !idle {
		ev, err := st.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		idle = ev.Kind == cdc.EventIdle && ev.End == 0x18
	}
	<-answered
	if err := nextError(t, st); !errors.Is(err, ErrSilent) || cdc.IsTerminal(err) {
		t.Errorf("got %v, want %v", err, ErrSilent)
	}
}

func TestCase019NoticeAndParameterStatus(t *testing.T) {
	st := fakeStream(t, "60000", false, func(f *fakeWalsender) {
		f.send(wal(beginAt(0x10), relation7)...)
		f.backend.Send(&pgproto3.NoticeResponse{Severity: "NOTICE", Code: "00000", Message: "something"})
		f.backend.Send(&pgproto3.ParameterStatus{Name: "TimeZone", Value: "UTC"})
		_ = f.backend.Flush()
		f.send(wal(insertRow, commitAt(0x10, 0x20))...)
		f.backend.Send(&pgproto3.NoticeResponse{Severity: "WARNING", Code: "55000", Message: `skipped loading publication "p"`})
		_ = f.backend.Flush()
		f.wait()
	})
	wantChanges(t, readTxn(t, st), "1c public.t → 1|a")
	var term *cdc.TerminalError
	if err := nextError(t, st); !errors.As(err, &term) || term.Reason != "publication-missing" {
		t.Errorf("got %v, want publication-missing", err)
	}
}

func TestCase020ErrorInStream(t *testing.T) {
	tests := []struct {
		code     string
		terminal bool
	}{{"42704", true}, {"0A000", true}, {"54000", true}, {"58P01", true}, {"57P01", false}, {"XX000", false}, {"53200", false}}
	for _, tt := range tests {
		t.Run(tt.code, func(t *testing.T) {
			st := fakeStream(t, "60000", false, func(f *fakeWalsender) {
				f.backend.Send(&pgproto3.ErrorResponse{Severity: "ERROR", Code: tt.code, Message: "no"})
				f.backend.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
				_ = f.backend.Flush()
				f.wait() // the connection stays open
			})
			err := nextError(t, st)
			if cdc.IsTerminal(err) != tt.terminal || !strings.Contains(err.Error(), tt.code) {
				t.Errorf("got %v, want terminal: %t", err, tt.terminal)
			}
		})
	}
}

func TestServerEndsInOrder(t *testing.T) {
	st := fakeStream(t, "60000", false, func(f *fakeWalsender) {
		f.backend.Send(&pgproto3.CommandComplete{CommandTag: []byte("COPY 0")})
		_ = f.backend.Flush()
		f.wait()
	})
	if err := nextError(t, st); !errors.Is(err, ErrServerClosed) || cdc.IsTerminal(err) {
		t.Errorf("got %v, want %v", err, ErrServerClosed)
	}
}

func TestCase021UnknownTags(t *testing.T) {
	tests := map[string]struct {
		payload []byte
		want    []string
	}{
		"CopyData":      {[]byte("zzz"), []string{"'z'"}},
		"empty":         {nil, []string{"empty"}},
		"message":       {pgoutputtest.XLogData(0xABC, []byte("?x")), []string{"'?'", "0/ABC"}},
		"streamed":      {pgoutputtest.XLogData(0xABC, []byte("S\x00\x00\x00\x01\x01")), []string{"'S'", "0/ABC"}},
		"short header":  {[]byte("w1234567"), []string{"XLogData"}},
		"bad keepalive": {keepaliveAt(1, false)[:17], []string{"keepalive"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			st := fakeStream(t, "60000", false, func(f *fakeWalsender) { f.send(tt.payload); f.wait() })
			err := nextError(t, st)
			if !cdc.IsTerminal(err) || !errors.Is(err, ErrProtocol) {
				t.Errorf("got %v, want a terminal %v", err, ErrProtocol)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want it to name %s", err, want)
				}
			}
			if _, again := st.Next(t.Context()); again == nil || again.Error() != err.Error() {
				t.Errorf("asked again: got %v, want the same error", again)
			}
		})
	}
}

func TestCase174FloodOfRequests(t *testing.T) {
	const requests = 100_000
	answers := make(chan int, 1)
	st := fakeStream(t, "60000", false, func(f *fakeWalsender) {
		one := copies(keepaliveAt(0x8, true))
		flood := make([]byte, 0, requests*len(one))
		for range requests {
			flood = append(flood, one...)
		}
		_, _ = f.Write(flood)
		f.send(wal(beginAt(0x10), commitAt(0x10, 0x20))...)
		n := 0
		for range f.statuses {
			n++
		}
		answers <- n
	})
	if got := readTxn(t, st).end; got != 0x20 {
		t.Errorf("got %s, want 0/20", got)
	}
	if err := st.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := <-answers; n == 0 || n > requests/10 {
		t.Errorf("got %d answers to %d requests, want few and at least one", n, requests)
	}
}

// slowly sends a transaction in pieces with pauses that are longer than a tick,
// so that reads end in the middle of headers, messages and TLS records.
func slowly(t *testing.T, secure bool) {
	st := fakeStream(t, "60000", secure, func(f *fakeWalsender) {
		b := copies(append(wal(beginAt(0x10), relation7, insertRow, commitAt(0x10, 0x20)), keepaliveAt(0x28, false))...)
		for i := range b {
			if _, err := f.Write(b[i : i+1]); err != nil {
				return
			}
			if i%16 == 0 {
				time.Sleep(12 * time.Millisecond) // two ticks: the pause is what is tested
			}
		}
		f.wait()
	})
	var ticks int
	var got []string
	for {
		ev, err := st.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		switch ev.Kind {
		case cdc.EventTick:
			ticks++
		case cdc.EventChange:
			got = append(got, describe(ev.Change))
		case cdc.EventIdle:
			if ticks < 3 || len(got) != 1 || got[0] != "1c public.t → 1|a" || ev.End != 0x28 {
				t.Errorf("got %q, idle at %s after %d ticks", got, ev.End, ticks)
			}
			return
		}
	}
}

func TestCase175SlowServer(t *testing.T)        { slowly(t, false) }
func TestCase175SlowServerOverTLS(t *testing.T) { slowly(t, true) }

func TestCase175Garbage(t *testing.T) {
	tests := map[string][]byte{
		"gzip":           {0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 3},
		"1 GiB and gone": binary.BigEndian.AppendUint32([]byte{'d'}, 1<<30-1),
		"beyond 1 GiB":   binary.BigEndian.AppendUint32([]byte{'d'}, 1<<31-1),
		"negative":       binary.BigEndian.AppendUint32([]byte{'d'}, 1<<31),
	}
	for name, b := range tests {
		t.Run(name, func(t *testing.T) {
			st := fakeStream(t, "60000", false, func(f *fakeWalsender) { _, _ = f.Write(b) })
			if err := nextError(t, st); cdc.IsTerminal(err) {
				t.Errorf("got %v, want an error that can pass", err)
			}
		})
	}
}

// TestGatheredReadsKeepEveryByte sends enough to turn gathering on, in pieces of
// every size, and then a trickle.
func TestGatheredReadsKeepEveryByte(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls=%t", secure), func(t *testing.T) {
			const rows = 60_000
			st := fakeStream(t, "60000", secure, func(f *fakeWalsender) {
				random := rand.New(rand.NewPCG(1, 2))
				b := copies(wal(beginAt(0x10), relation7)...)
				for i := range rows {
					b = append(b, copies(wal(pgoutputtest.Insert(row(0, nil, pgoutputtest.Values(fmt.Sprint(i), strings.Repeat("v", i%97)))))...)...)
				}
				b = append(b, copies(wal(commitAt(0x10, 0x20))...)...)
				for len(b) > 0 {
					n := min(1+random.IntN(64<<10), len(b))
					if _, err := f.Write(b[:n]); err != nil {
						return
					}
					b = b[n:]
				}
				f.send(wal(beginAt(0x20), insertRow, commitAt(0x20, 0x30))...)
				f.wait()
			})
			waits := 0
			st.BeforeRead(func() { waits++ })
			for i := range rows {
				c := next(t, st).Change
				if got, want := values(c.New), fmt.Sprintf("%d|%s", i, short(strings.Repeat("v", i%97))); got != want || c.Index != uint32(i+1) {
					t.Fatalf("row %d: got %s, index %d, want %s", i, got, c.Index, want)
				}
			}
			readTxn(t, st)
			if got := readTxn(t, st).end; got != 0x30 {
				t.Errorf("trickle after the load: got %s, want 0/30", got)
			}
			if waits == 0 || waits > rows/10 {
				t.Errorf("waited %d times for %d rows, want few", waits, rows)
			}
		})
	}
}

func short(s string) string {
	if len(s) > 40 {
		return fmt.Sprintf("%.5s…%d", s, len(s))
	}
	return s
}

func TestCloseDoesNotWaitForTheServer(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	st := fakeStream(t, "60000", false, func(f *fakeWalsender) { f.wait(); <-release }) // never answers CopyDone
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if err := st.Close(ctx); err != nil {
		t.Error(err)
	}
	if _, err := st.Next(t.Context()); !errors.Is(err, errClosed) {
		t.Errorf("after Close: got %v, want %v", err, errClosed)
	}
	if err := st.Close(ctx); err != nil {
		t.Errorf("closed again: %v", err)
	}
}
