package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"cdc/internal/cdc"
)

// board is a Source whose statuses a test sets: a pipeline cannot be made to be
// in each state at will.
type board struct {
	mu  sync.Mutex
	all []cdc.Status
	// gate, where set, holds Status up until it is closed; entered then says that
	// a request is being answered.
	gate, entered chan struct{}
}

func (b *board) Version() string { return "1.2.3" }

func (b *board) Status() []cdc.Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.gate != nil {
		b.entered <- struct{}{}
		<-b.gate
	}
	return append([]cdc.Status(nil), b.all...)
}

func (b *board) set(all ...cdc.Status) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all = all
}

// full is a status with something in every field.
func full() cdc.Status {
	s := cdc.Status{
		Name: "rows", Mode: "cdc", State: cdc.StateStreaming, Ready: true, Since: time.Unix(1700000000, 5e8).UTC(),
		Slot: "rows", Publication: "rows", Tables: 3,
		Received: 0x300, Acked: 0x200, Confirmed: 0x100, ServerEnd: 0x400,
		LagBytes: 0x200, LagSeconds: 1.5, SlotBytes: 4096, SlotSafe: 8192, SlotStatus: "reserved",
		Transactions: 10, Changes: 20, Records: 30, Bytes: 40, Skipped: 5, DeadLetters: 6, TakeOvers: 7, Restarts: 8, Rereads: 9,
		BufferedBytes: 1024, AckLatency: 3 * time.Millisecond,
		Snapshot: []cdc.TableProgress{
			{Table: "public.students", Rows: 50, RowsTotal: 100, Bytes: 2000, Done: false},
			{Table: "public.courses", Rows: 7, Bytes: 70, Done: true},
		},
	}
	for _, d := range []time.Duration{500 * time.Microsecond, 3 * time.Millisecond, 3 * time.Millisecond, time.Minute} {
		s.Acks.Observe(d)
	}
	return s
}

// start runs a server and stops it with the test.
func start(t *testing.T, source Source) *Server {
	t.Helper()
	s := New(source, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, "127.0.0.1:0") }()
	<-s.Bound()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	if s.Addr() == "" {
		t.Fatal("the server does not listen")
	}
	return s
}

// ask sends a request and gives status code and body.
func ask(t *testing.T, s *Server, method, path string) (int, http.Header, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.Addr()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(body)
}

func TestHealth(t *testing.T) {
	b := &board{}
	s := start(t, b)
	b.set(cdc.Status{Name: "rows", State: cdc.StateFailed})
	code, header, body := ask(t, s, "GET", "/healthz")
	if code != 200 || body != "{\"status\":\"ok\"}\n" {
		t.Errorf("%d %q: a failed pipeline does not make the process dead", code, body)
	}
	if got := header.Get("Content-Type"); !strings.HasPrefix(got, "application/json") {
		t.Errorf("content type %q", got)
	}
}

func TestReady(t *testing.T) {
	ready := cdc.Status{Name: "good", State: cdc.StateStreaming, Ready: true}
	for _, tc := range []struct {
		name string
		all  []cdc.Status
		code int
		want Readiness
	}{
		{"all ready", []cdc.Status{ready, ready}, 200, Readiness{Ready: true}},
		{"none", nil, 200, Readiness{Ready: true}},
		{"starting", []cdc.Status{ready, {Name: "a", State: cdc.StateStarting}}, 503,
			Readiness{NotReady: []NotReady{{"a", cdc.StateStarting, "the pipeline is starting", ""}}}},
		{"stalled", []cdc.Status{{Name: "a", State: cdc.StateStreaming, Stalled: "no acknowledgement for 30s"}}, 503,
			Readiness{NotReady: []NotReady{{"a", cdc.StateStreaming, "no acknowledgement for 30s", ""}}}},
		{"failed, and one more", []cdc.Status{{Name: "a", State: cdc.StateFailed, Error: "slot is gone", Reason: "slot-missing", Mend: "cdc drop a"}, ready, {Name: "b", State: cdc.StateBackingOff, Error: "no broker"}}, 503,
			Readiness{NotReady: []NotReady{{"a", cdc.StateFailed, "slot is gone", "cdc drop a"}, {"b", cdc.StateBackingOff, "no broker", ""}}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := &board{}
			b.set(tc.all...)
			code, _, body := ask(t, start(t, b), "GET", "/readyz")
			var got Readiness
			if err := json.Unmarshal([]byte(body), &got); err != nil {
				t.Fatalf("%v in %q", err, body)
			}
			if code != tc.code || !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %d %+v, want %d %+v", code, got, tc.code, tc.want)
			}
		})
	}
}

func TestStatusAndFetch(t *testing.T) {
	b := &board{}
	s := start(t, b)
	if _, _, body := ask(t, s, "GET", "/v1/status"); body != "{\"version\":\"1.2.3\",\"pipelines\":[]}\n" {
		t.Errorf("without pipelines: %q", body)
	}
	b.set(full())
	got, err := Fetch(t.Context(), s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	want := full()
	want.Acks = cdc.Latency{} // not part of the answer
	if got.Version != "1.2.3" || len(got.Pipelines) != 1 || !reflect.DeepEqual(got.Pipelines[0], want) {
		t.Errorf("\n got %+v\nwant %+v", got.Pipelines, want)
	}
}

func TestFetchFaults(t *testing.T) {
	b := &board{}
	b.set(cdc.Status{Name: "x", LagSeconds: math.NaN()}) // JSON cannot say it
	s := start(t, b)
	if _, err := Fetch(t.Context(), s.Addr()); err == nil || !strings.Contains(err.Error(), "500 Internal Server Error") {
		t.Errorf("a failing server: %v", err)
	}

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	if _, err := Fetch(t.Context(), addr); err == nil || !strings.Contains(err.Error(), "is it running") {
		t.Errorf("no server: %v", err)
	}
	if _, err := Fetch(t.Context(), "no address\n"); err == nil {
		t.Error("an address that is none was taken")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Fetch(ctx, s.Addr()); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestFetchFromAnotherServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") })}
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(l) }()
	defer func() { srv.Close(); <-done }()
	if _, err := Fetch(t.Context(), l.Addr().String()); err == nil || !strings.Contains(err.Error(), "is it cdc?") {
		t.Errorf("an answer that is not ours: %v", err)
	}
}

func TestOtherPaths(t *testing.T) {
	s := start(t, &board{})
	for _, tc := range []struct {
		method, path string
		code         int
	}{
		{"GET", "/", 404}, {"GET", "/v1/none", 404}, {"GET", "/healthz/x", 404}, {"DELETE", "/x", 404},
		{"POST", "/healthz", 405}, {"PUT", "/v1/status", 405}, {"DELETE", "/metrics", 405},
		{"HEAD", "/healthz", 200}, {"HEAD", "/metrics", 200},
	} {
		code, header, body := ask(t, s, tc.method, tc.path)
		if code != tc.code {
			t.Errorf("%s %s: %d, want %d", tc.method, tc.path, code, tc.code)
		}
		if tc.code < 400 {
			continue
		}
		var answer struct {
			Error string
			Paths []string
		}
		if err := json.Unmarshal([]byte(body), &answer); err != nil || answer.Error == "" || len(answer.Paths) != 4 {
			t.Errorf("%s %s: %v in %q", tc.method, tc.path, err, body)
		}
		if tc.code == 405 && header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s %s: Allow %q", tc.method, tc.path, header.Get("Allow"))
		}
	}
}

func TestOnlyLoopback(t *testing.T) {
	for _, listen := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0", "8083", "", "127.0.0.1:99999"} {
		s := New(&board{}, slog.New(slog.DiscardHandler))
		if err := s.Run(t.Context(), listen); err == nil {
			t.Errorf("listened on %q", listen)
		}
		<-s.Bound()
		if s.Addr() != "" {
			t.Errorf("%q: address %q after a failure", listen, s.Addr())
		}
	}
}

func TestPortInUse(t *testing.T) {
	s := start(t, &board{})
	err := New(&board{}, slog.New(slog.DiscardHandler)).Run(t.Context(), s.Addr())
	if err == nil || !strings.Contains(err.Error(), s.Addr()) {
		t.Errorf("error %v, want one that names %s", err, s.Addr())
	}
}

func TestRunOnce(t *testing.T) {
	s := start(t, &board{})
	if err := s.Run(t.Context(), "127.0.0.1:0"); err == nil {
		t.Error("Run ran twice")
	}
}

// The end of the context lets a request that is being answered finish, and
// nothing of the server is left when Run returns.
func TestStopFinishesRequests(t *testing.T) {
	b := &board{gate: make(chan struct{}), entered: make(chan struct{}, 1)}
	s := New(b, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, "127.0.0.1:0") }()
	<-s.Bound()
	answer := make(chan error, 1)
	go func() {
		_, err := Fetch(context.Background(), s.Addr())
		answer <- err
	}()
	<-b.entered
	cancel()
	for { // the end has begun when nobody new is taken
		c, err := net.Dial("tcp", s.Addr())
		if err != nil {
			break
		}
		c.Close()
	}
	select {
	case err := <-ended:
		t.Fatalf("Run returned %v while a request was being answered", err)
	case err := <-answer:
		t.Fatalf("answered %v before its source was", err)
	default:
	}
	close(b.gate)
	if err := <-answer; err != nil {
		t.Errorf("the request that was being answered: %v", err)
	}
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	if c, err := net.Dial("tcp", s.Addr()); err == nil {
		c.Close()
		t.Error("the port is still open")
	}
}

// More clients than connections: the later ones wait until a place is free.
func TestConnectionsAreBounded(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	bounded := newLimited(l, 2)
	accepted := make(chan net.Conn)
	ended := make(chan error, 1)
	go func() {
		for {
			c, err := bounded.Accept()
			if err != nil {
				ended <- err
				return
			}
			accepted <- c
		}
	}()
	var dialed []net.Conn
	for range 3 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		dialed = append(dialed, c)
	}
	first, second := <-accepted, <-accepted
	if n := len(bounded.(*limited).free); n != 0 {
		t.Errorf("%d places free with two connections of two open", n)
	}
	first.Close()
	first.Close() // gives its place back once
	third := <-accepted
	if n := len(bounded.(*limited).free); n != 0 {
		t.Errorf("%d places free with two connections of two open again", n)
	}
	bounded.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: %v", err)
	}
	for _, c := range append(dialed, second, third) {
		c.Close()
	}
}

func TestNoSecretsOfTheRequestInTheLog(t *testing.T) {
	var log bytes.Buffer
	s := New(&board{}, slog.New(slog.NewTextHandler(&log, nil)))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, "127.0.0.1:0") }()
	<-s.Bound()
	ask(t, s, "GET", "/none?password=geheim")
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if strings.Contains(log.String(), "geheim") || !strings.Contains(log.String(), "admin server listens") {
		t.Errorf("log %q", log.String())
	}
}

// TestMount: a mounted handler answers its patterns with all methods, is named
// among the paths, and may take longer than the server's own answers do.
func TestMount(t *testing.T) {
	s := New(&board{}, slog.New(slog.DiscardHandler))
	s.Mount(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Hour)); err != nil {
			t.Errorf("move the deadline of an answer: %v", err)
		}
		_, _ = io.WriteString(w, r.Method+" "+r.URL.EscapedPath())
	}), "/v1/append", "/v1/streams/")
	h := httptest.NewServer(s.Handler())
	defer h.Close()
	for _, tc := range []struct{ method, path, want string }{
		{"POST", "/v1/append", "POST /v1/append"},
		{"GET", "/v1/streams/course%2Fddia/state", "GET /v1/streams/course%2Fddia/state"},
		{"GET", "/v1/nothing", `{"error":"no such path","paths":["/healthz","/readyz","/metrics","/v1/status","/v1/append","/v1/streams/"]}` + "\n"},
	} {
		t.Run(tc.method+" "+tc.path, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), tc.method, h.URL+tc.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			if err != nil || string(body) != tc.want {
				t.Errorf("got %q, %v, want %q", body, err, tc.want)
			}
		})
	}
}
