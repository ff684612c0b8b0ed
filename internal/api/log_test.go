package api

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"cdc/internal/intent"
)

// positions of events.
func positions(all []intent.Event) []int64 {
	var out []int64
	for _, e := range all {
		out = append(out, e.Position)
	}
	return out
}

func TestLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t, undeclared)
	for range 3 {
		w.add(t, "a/1", "x", 1)
		w.add(t, "a/1", "y", 1)
		w.add(t, "a/1", "z", 1)
	}
	for _, tc := range []struct {
		query string
		want  []int64
		head  string
	}{
		{"", []int64{1, 2, 3, 4, 5, 6, 7, 8, 9}, "9"},
		{"?after=7", []int64{8, 9}, "9"},
		{"?after=9", nil, "9"},
		{"?after=90", nil, "90"},
		{"?after=end", nil, "9"},
		{"?limit=2", []int64{1, 2}, "9"},
		{"?type=x", []int64{1, 4, 7}, "9"},
		{"?type=x,z&after=4", []int64{6, 7, 9}, "9"},
		{"?type=x&type=z&limit=3", []int64{1, 3, 4}, "9"},
		{"?type=none", nil, "9"},
		{"?type=x&wait=10s", []int64{1, 4, 7}, "9"}, // there is something: it does not wait
	} {
		t.Run(tc.query, func(t *testing.T) {
			res := w.do(t, "GET", "/v1/log"+tc.query, "")
			status, text := read(t, res)
			if got := positions(events(t, text)); status != 200 || !slices.Equal(got, tc.want) || res.Header.Get(positionHeader) != tc.head || res.Header.Get("Content-Type") != ndjson {
				t.Errorf("got %d %v, %v, want %v", status, got, res.Header, tc.want)
			}
		})
	}
	for path, fate := range map[string]string{
		"?after=-1": "after", "?after=x": "after", "?limit=0": "limit", "?wait=1h": "wait", "?wait=1": "wait", "?type=": "type", "?types=x": "types", "?after=1&after=2": "after",
	} {
		status, text := w.get(t, "/v1/log"+path)
		if f := failureOf(t, text).Error; status != 400 || f.Path != fate {
			t.Errorf("%s: got %d %s", path, status, text)
		}
	}
	status, text := w.get(t, "/v1/log?wait=1s", "Accept", eventStream)
	if f := failureOf(t, text).Error; status != 400 || f.Path != "wait" {
		t.Errorf("wait with server-sent events: got %d %s", status, text)
	}
}

// TestLogWaits: an answer begins when there is something to say, far behind the
// limits of the server on short requests.
func TestLogWaits(t *testing.T) {
	t.Parallel()
	w := newWorld(t, undeclared)
	w.add(t, "a/1", "x", 1)
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		<-w.waiting(t)
		w.add(t, "a/1", "y", 1)
		<-time.After(2 * w.server.Config.WriteTimeout) // what it asks for comes later than any limit
		w.add(t, "a/1", "x", 1)
	}()
	res := w.do(t, "GET", "/v1/log?after=1&type=x&wait=50s", "")
	status, text := read(t, res)
	if got := positions(events(t, text)); status != 200 || !slices.Equal(got, []int64{3}) || res.Header.Get(positionHeader) != "3" {
		t.Errorf("got %d %s, %v", status, text, res.Header)
	}
	<-asked
	if res = w.do(t, "GET", "/v1/log?after=3&wait=10ms", ""); res.StatusCode != 200 || res.Header.Get(positionHeader) != "3" {
		t.Errorf("nothing in time: got %d %v", res.StatusCode, res.Header)
	}
}

// waiting is closed when a request is being answered.
func (w *world) waiting(t testing.TB) <-chan struct{} {
	ctx := testContext(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for len(w.handler.long) == 0 && ctx.Err() == nil {
			time.Sleep(time.Millisecond) // nothing tells that a handler has begun
		}
	}()
	return done
}

// quiet waits until no request is being answered.
func (w *world) quiet(t testing.TB) {
	t.Helper()
	ctx := testContext(t)
	for len(w.handler.long) > 0 {
		if ctx.Err() != nil {
			t.Fatalf("%d requests are still being answered", len(w.handler.long))
		}
		time.Sleep(time.Millisecond) // nothing tells that a handler has ended
	}
}

// message is a server-sent event.
type message struct{ id, event, data, retry, comment string }

// messages reads server-sent events.
func messages(r io.Reader) func() (message, error) {
	lines := bufio.NewReader(r)
	return func() (m message, err error) {
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return m, err
			}
			name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
			value = strings.TrimPrefix(value, " ")
			switch name {
			case "id":
				m.id = value
			case "event":
				m.event = value
			case "data":
				m.data = value
			case "retry":
				m.retry = value
			case "":
				if line == "\n" {
					return m, nil
				}
				m.comment += "x"
			default:
				return m, fmt.Errorf("line %q", line)
			}
		}
	}
}

// TestFollow: server-sent events come as they are numbered; a client that comes back
// goes on where it was, also behind what is not of its types.
func TestFollow(t *testing.T) {
	t.Parallel()
	w := newWorld(t, undeclared, func(h *handler) { h.beat = 50 * time.Millisecond })
	w.add(t, "a/1", "x", 2)
	follow := func(query string, header ...string) (*http.Response, func() message) {
		res := w.do(t, "GET", "/v1/log"+query, "", append(header, "Accept", "text/html, Text/Event-Stream;q=0.9")...)
		if res.StatusCode != 200 || res.Header.Get("Content-Type") != eventStream {
			t.Fatalf("got %d %v", res.StatusCode, res.Header)
		}
		read := messages(res.Body)
		next := func() message {
			t.Helper()
			m, err := read()
			if err != nil {
				t.Fatalf("read a message: %v", err)
			}
			return m
		}
		if m := next(); m.retry != comeBack {
			t.Fatalf("got first message %+v, want retry", m)
		}
		return res, next
	}
	event := func(next func() message) message {
		for {
			if m := next(); m.data != "" {
				return m
			}
		}
	}
	res, next := follow("")
	for i := range 4 {
		if i == 2 {
			w.add(t, "a/1", "x", 2)
		}
		m := event(next)
		if e := events(t, m.data); m.id != strconv.Itoa(i+1) || m.event != "x" || len(e) != 1 || e[0].Position != int64(i+1) {
			t.Errorf("got message %+v, want event %d", m, i+1)
		}
	}
	res.Body.Close()
	w.quiet(t) // a client that goes ends the work

	_, next = follow("?after=1", "Last-Event-ID", "3")
	if m := event(next); m.id != "4" {
		t.Errorf("resumed behind 3: got %+v", m)
	}
	_, next = follow("?after=end")
	w.add(t, "a/1", "x", 1)
	if m := event(next); m.id != "5" {
		t.Errorf("from the end: got %+v", m)
	}

	// Its type does not come: heartbeats take its id along.
	_, next = follow("?type=y&after=1")
	m := next()
	for m.id == "" {
		if m.comment == "" {
			t.Fatalf("got %+v, want heartbeats", m)
		}
		m = next()
	}
	if m.id != "5" || m.data != "" || m.event != "" {
		t.Errorf("got %+v, want the id 5 alone", m)
	}
	w.add(t, "a/1", "y", 1)
	if m := event(next); m.id != "6" || m.event != "y" {
		t.Errorf("got %+v, want event 6", m)
	}
	if status, text := w.get(t, "/v1/log", "Accept", eventStream, "Last-Event-ID", "x"); status != 400 || failureOf(t, text).Error.Path != "Last-Event-ID" {
		t.Errorf("an id that is no position: got %d %s", status, text)
	}
}

// TestStopping: what waits and follows ends when the daemon stops.
func TestStopping(t *testing.T) {
	t.Parallel()
	w := newWorld(t, undeclared)
	w.add(t, "a/1", "x", 1)
	follow := w.do(t, "GET", "/v1/log", "", "Accept", eventStream)
	type answer struct {
		status int
		text   string
	}
	waited := make(chan answer, 1)
	go func() {
		status, text := w.get(t, "/v1/log?after=1&wait=60s")
		waited <- answer{status, text}
	}()
	ctx := testContext(t)
	for len(w.handler.long) < 2 && ctx.Err() == nil {
		time.Sleep(time.Millisecond) // nothing tells that a handler has begun
	}
	close(w.stopping)
	if _, err := io.ReadAll(follow.Body); err != nil {
		t.Errorf("the follower's answer ends with %v, want its end", err)
	}
	if a := <-waited; a.status != 503 || failureOf(t, a.text).Error.Code != "unavailable" {
		t.Errorf("the waiting request got %d %s", a.status, a.text)
	}
	w.quiet(t)
}

// TestManyEvents: a hundred thousand events go through with the memory of some; and
// a client that stops reading holds no connection to Postgres.
func TestManyEvents(t *testing.T) {
	w := newWorld(t, undeclared)
	const many, pad = 100_000, 400
	w.fill(t, "a/1", many, pad)
	for _, path := range []string{"/v1/streams/a/1", "/v1/log"} {
		t.Run(path, func(t *testing.T) {
			base := live()
			res := w.do(t, "GET", path, "")
			lines := bufio.NewReaderSize(res.Body, 1<<16)
			var most uint64
			for i := 1; i <= many; i++ {
				line, err := lines.ReadSlice('\n')
				if err != nil {
					t.Fatalf("line %d: %v", i, err)
				}
				if want := fmt.Sprintf(`"version":%d,`, i); !strings.Contains(string(line), want) {
					t.Fatalf("line %d: got %s, want %s", i, line, want)
				}
				if i%20_000 == 0 {
					most = max(most, live())
				}
				if i == many/2 {
					w.idle(t)
				}
			}
			if _, err := lines.ReadByte(); err != io.EOF {
				t.Errorf("behind the last line: %v, want the end", err)
			}
			t.Logf("%d MB of events, %d KB of live memory at most", many*pad>>20, (int64(most)-int64(base))>>10)
			if most > base+8<<20 {
				t.Errorf("%d MB are held, where %d MB of events go through", (most-base)>>20, many*pad>>20)
			}
		})
	}
}

// live is the memory in use, rubbish left out.
func live() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// idle waits until no connection to Postgres is in use.
func (w *world) idle(t testing.TB) {
	t.Helper()
	ctx := testContext(t)
	for w.store.Pool().Stat().AcquiredConns() > 0 {
		if ctx.Err() != nil {
			t.Fatalf("%d connections to Postgres are held while the client does not read", w.store.Pool().Stat().AcquiredConns())
		}
		time.Sleep(time.Millisecond) // nothing tells that a connection was given back
	}
}

// TestClientThatDoesNotRead: it is cut off after a while.
func TestClientThatDoesNotRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t, undeclared, func(h *handler) { h.patience = 200 * time.Millisecond })
	w.fill(t, "a/1", 30_000, 1000)
	var d net.Dialer
	conn, err := d.DialContext(testContext(t), "tcp", w.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /v1/streams/a/1 HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-w.waiting(t)
	w.quiet(t)
	if n, err := io.Copy(io.Discard, conn); n >= 30_000*1000 {
		t.Errorf("the client got all %d bytes (%v), want it cut off", n, err)
	}
}

// TestBusy: beyond the bound a request is told so at once, and room comes back.
func TestBusy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, undeclared, func(h *handler) { h.long = make(chan struct{}, 1) })
	w.add(t, "a/1", "x", 1)
	first := w.do(t, "GET", "/v1/log", "", "Accept", eventStream)
	status, text := w.get(t, "/v1/log")
	if f := failureOf(t, text).Error; status != 503 || f.Code != "busy" {
		t.Errorf("got %d %s, want busy", status, text)
	}
	if status, text := w.post(t, `{"batches": [{"stream": "a/1"}]}`); status != 200 {
		t.Errorf("an append beside it: got %d %s", status, text)
	}
	first.Body.Close()
	w.quiet(t)
	if status, text := w.get(t, "/v1/log"); status != 200 {
		t.Errorf("afterwards: got %d %s", status, text)
	}
}

// broken is a log that fails behind the first event of a piece: Postgres cannot be
// made to fail there.
type broken struct{ Events }

func (b broken) Log(ctx context.Context, after int64, limit int, types []string, fn func(*intent.Event) error) (int64, error) {
	if after > 0 {
		return after, fmt.Errorf("the disk is on fire: %w", sqlError("58030"))
	}
	return b.Events.Log(ctx, after, 1, types, fn)
}

type sqlError string

func (e sqlError) Error() string    { return "io_error" }
func (e sqlError) SQLState() string { return string(e) }

// TestBreaksOff: an error in the middle is the last line of an answer that breaks
// off.
func TestBreaksOff(t *testing.T) {
	t.Parallel()
	w := newWorld(t, undeclared, func(h *handler) { h.Events = broken{h.Events} })
	w.add(t, "a/1", "x", 3)
	res := w.do(t, "GET", "/v1/log", "")
	body, err := io.ReadAll(res.Body)
	if err == nil {
		t.Errorf("the answer ends as if it were whole")
	}
	lines := strings.Split(strings.TrimSpace(string(body)), "\n")
	if len(lines) != 2 || len(events(t, lines[0])) != 1 || failureOf(t, lines[1]).Error.Code != "internal" {
		t.Errorf("got %q, want an event and an error", lines)
	}
}
