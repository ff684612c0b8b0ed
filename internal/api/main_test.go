package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"cdc/internal/cdctest"
	"cdc/internal/eventstore"
	"cdc/internal/intent"
	"cdc/internal/view"
)

func TestMain(m *testing.M) { cdctest.Main(m) }

// testLimit bounds what a test waits for in all.
const testLimit = 2 * time.Minute

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testLimit)
	t.Cleanup(cancel)
	return ctx
}

// world is a store, what serves it, and its client.
type world struct {
	*cdctest.DB
	store    *eventstore.Store
	head     *eventstore.Head
	handler  *handler
	server   *httptest.Server
	stopping chan struct{}
}

// newWorld serves a fresh store. The server has limits far shorter than the daemon's,
// so that a request which must outlive them shows that it does.
func newWorld(t testing.TB, defs intent.Definitions, change ...func(*handler)) *world {
	t.Helper()
	return newWorldAt(t, cdctest.Database(t), "", defs, change...)
}

func newWorldAt(t testing.TB, db *cdctest.DB, url string, defs intent.Definitions, change ...func(*handler)) *world {
	t.Helper()
	ctx := testContext(t)
	if _, err := eventstore.Init(ctx, db.URL, eventstore.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	if url == "" {
		url = db.URL
	}
	owner, err := eventstore.Open(ctx, eventstore.Config{URL: db.URL, MaxConns: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(owner.Close)
	if _, err := owner.Install(ctx, defs); err != nil {
		t.Fatal(err)
	}
	if _, err := view.Install(ctx, owner, defs); err != nil {
		t.Fatal(err)
	}
	store, err := eventstore.Open(ctx, eventstore.Config{URL: url, Role: eventstore.RoleWriter, MaxConns: 12})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	w := &world{DB: db, store: store, head: eventstore.NewHead(), stopping: make(chan struct{})}
	w.handler = newHandler(Config{
		Append: store, Events: store, States: store, Wait: store,
		Rows: view.New(view.Config{Store: owner}), Head: w.head, Stopping: w.stopping,
	})
	for _, f := range change {
		f(w.handler)
	}
	w.server = httptest.NewUnstartedServer(w.handler.routes())
	w.server.Config.ReadTimeout = 300 * time.Millisecond
	w.server.Config.WriteTimeout = 300 * time.Millisecond
	w.server.Start()
	t.Cleanup(func() {
		w.server.CloseClientConnections()
		w.server.Close()
	})
	return w
}

// number numbers what is appended, as the reader of the slot does, and tells.
func (w *world) number(t testing.TB) {
	t.Helper()
	w.Exec(t, `insert into es.log (pos, event, lsn, tx)
		select (select coalesce(max(pos), 0) from es.log) + row_number() over (order by e.at, e.stream, e.version), e.id, '1/23', 4
		from es.event e where not exists (select from es.log l where l.event = e.id)`)
	pos, err := w.store.Head(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	w.head.Set(pos)
}

// do sends a request; the body of the answer is closed with the test.
func (w *world) do(t testing.TB, method, path, body string, header ...string) *http.Response {
	t.Helper()
	ctx, cancel := context.WithCancel(testContext(t))
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, w.server.URL+path, r)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := w.server.Client().Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	t.Cleanup(func() {
		cancel()
		res.Body.Close()
	})
	return res
}

// get is the status and the whole body of an answer.
func (w *world) get(t testing.TB, path string, header ...string) (int, string) {
	t.Helper()
	return read(t, w.do(t, "GET", path, "", header...))
}

func (w *world) post(t testing.TB, body string) (int, string) {
	t.Helper()
	return read(t, w.do(t, "POST", "/v1/append", body))
}

func read(t testing.TB, res *http.Response) (int, string) {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("read the answer: %v", err)
	}
	return res.StatusCode, string(b)
}

// failure is an answer that is an error.
type failure struct {
	Error struct {
		Code, Message, Stream, Path string
		Offset, Actual              *int64
		Expected                    any
	}
}

func failureOf(t testing.TB, body string) failure {
	t.Helper()
	var f failure
	d := json.NewDecoder(strings.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil || f.Error.Code == "" || f.Error.Message == "" {
		t.Fatalf("the answer is no error: %v: %s", err, body)
	}
	return f
}

// events reads NDJSON.
func events(t testing.TB, body string) []intent.Event {
	t.Helper()
	var all []intent.Event
	lines := bufio.NewScanner(strings.NewReader(body))
	lines.Buffer(nil, 1<<22)
	for lines.Scan() {
		var e intent.Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatalf("line %q: %v", lines.Text(), err)
		}
		all = append(all, e)
	}
	return all
}

// add appends n events of a type to a stream, and numbers them.
func (w *world) add(t testing.TB, stream, kind string, n int) {
	t.Helper()
	b := intent.Batch{Stream: stream, Expect: intent.Any}
	for i := range n {
		b.Events = append(b.Events, intent.NewEvent{ID: intent.NewID(), Type: kind, Data: json.RawMessage(fmt.Sprintf(`{"n": %d}`, i))})
	}
	if _, err := w.store.Append(testContext(t), []intent.Batch{b}); err != nil {
		t.Fatal(err)
	}
	w.number(t)
}

// fill appends many events to one stream in the database itself.
func (w *world) fill(t testing.TB, stream string, n, bytes int) {
	t.Helper()
	w.Exec(t, fmt.Sprintf(`insert into es.stream values ('%[1]s', %[2]d);
		insert into es.event (id, stream, version, type, data) select gen_random_uuid(), '%[1]s', i, 'filled', jsonb_build_object('pad', repeat('x', %[3]d)) from generate_series(1, %[2]d) i;
		insert into es.log (pos, event, lsn, tx) select (select coalesce(max(pos), 0) from es.log) + version, id, '0/1', 1 from es.event where stream = '%[1]s'`, stream, n, bytes))
	pos, err := w.store.Head(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	w.head.Set(pos)
}

// undeclared is no definitions.
var undeclared = intent.Definitions{Undeclared: true, MaxEvent: 1 << 20}

func contextWithStop(t testing.TB) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	return ctx, cancel
}
