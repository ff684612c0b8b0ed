package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"cdc/internal/cdctest"
	"cdc/internal/eventstore"
	"cdc/internal/intent"
	"cdc/internal/view"
)

// viewed has an inline and an async view of the same events.
var viewed = intent.Definitions{
	MaxEvent: 1 << 20,
	Events: []intent.EventType{{Name: "put", Stream: "box/{name}", Schema: 1, Fields: []intent.Field{
		{Name: "limit", Type: intent.TypeInt}, {Name: "name", Type: intent.TypeString}}}},
	Views: []intent.View{
		{Name: "later", Mode: intent.Async, Table: `name text primary key, "limit" bigint`, When: map[string]string{"put": `insert into later values (:name, :limit)`}},
		{Name: "now", Mode: intent.Inline, Table: `name text primary key, "limit" bigint`, When: map[string]string{"put": `insert into now values (:name, :limit)`}},
	},
}

func (w *world) put(t testing.TB, name string, limit int) intent.ID {
	t.Helper()
	status, text := w.post(t, fmt.Sprintf(`{"batches": [{"stream": "box/%[1]s", "events": [{"id": %[3]q, "type": "put", "data": {"name": %[1]q, "limit": %[2]d}}]}]}`, name, limit, intent.NewID()))
	var r intent.Receipt
	if err := json.Unmarshal([]byte(text), &r); err != nil || status != 200 {
		t.Fatalf("append: got %d %s", status, text)
	}
	return r.Token
}

func TestViews(t *testing.T) {
	t.Parallel()
	w := newWorld(t, viewed)
	tokens := []intent.ID{w.put(t, "a", 1), w.put(t, "b", 2), w.put(t, "c", 2)}
	for _, tc := range []struct {
		path string
		want string
	}{
		{"now", `a b c`},
		{"now?limit=2", `a b`},
		{"now?column.limit=2", `b c`},
		{"now?name=b", `b`},
		{"now?name=b&column.limit=1", ``},
		{"now?column.name=a", `a`},
		{"now?name=" + url.QueryEscape(`' or true --`), ``},
		{"now?token=" + tokens[2].String(), `a b c`},
	} {
		t.Run(tc.path, func(t *testing.T) {
			status, text := w.get(t, "/v1/views/"+tc.path)
			var names []string
			for line := range strings.Lines(text) {
				var row struct {
					Name  string
					Limit int
				}
				if err := json.Unmarshal([]byte(line), &row); err != nil {
					t.Fatalf("line %q: %v", line, err)
				}
				names = append(names, row.Name)
			}
			if status != 200 || strings.Join(names, " ") != tc.want {
				t.Errorf("got %d %s, want %s", status, text, tc.want)
			}
		})
	}
	stranger := intent.NewID().String()
	for _, tc := range []struct {
		path       string
		status     int
		code, fate string
	}{
		{"views/none", 404, "not-found", ""},
		{"views/none?token=" + tokens[0].String(), 404, "not-found", ""},
		{"views/now?token=" + stranger, 404, "not-found", ""},
		{"views/now?token=x", 400, "malformed", "token"},
		{"views/now?colour=red", 422, "invalid", "colour"},
		{"views/now?column.limit=many", 422, "invalid", ""},
		{"views/now?limit=0", 400, "malformed", "limit"},
		{"views/now?limit=1000000", 400, "malformed", "limit"},
		{"views/now?name=a&name=b", 400, "malformed", "name"},
		{"views/now?name=a&column.name=a", 400, "malformed", "name"},
		{"views/later?timeout=2h", 400, "malformed", "timeout"},
		{"views/later?timeout=1ms&token=" + tokens[0].String(), 504, "timeout", ""},
		{"views/later/wait?timeout=1ms&token=" + tokens[0].String(), 504, "timeout", ""},
		{"views/later/wait", 400, "malformed", "token"},
		{"views/later/wait?name=a&token=" + tokens[0].String(), 400, "malformed", "name"},
		{"views/none/wait?token=" + tokens[0].String(), 404, "not-found", ""},
		{"views/later/wait?token=" + stranger, 404, "not-found", ""},
	} {
		t.Run(tc.path, func(t *testing.T) {
			status, text := w.get(t, "/v1/"+tc.path)
			f := failureOf(t, text).Error
			if fate := strings.TrimPrefix(f.Path, columnPrefix); status != tc.status || f.Code != tc.code || fate != tc.fate {
				t.Errorf("got %d %s, want %+v", status, text, tc)
			}
		})
	}
}

// TestReadYourWrites: a request with the token of an append waits until the view has
// it, and no longer.
func TestReadYourWrites(t *testing.T) {
	t.Parallel()
	w := newWorld(t, viewed)
	owner, err := eventstore.Open(testContext(t), eventstore.Config{URL: w.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close()
	token := w.put(t, "a", 1)
	type answer struct {
		status int
		text   string
		header http.Header
	}
	answers := make(chan answer, 2)
	for _, path := range []string{"later?timeout=60s&token=", "later/wait?timeout=60s&token="} {
		go func() {
			res := w.do(t, "GET", "/v1/views/"+path+token.String(), "")
			status, text := read(t, res)
			answers <- answer{status, text, res.Header}
		}()
	}
	<-w.waiting(t)
	ctx, stop := contextWithStop(t)
	ended := make(chan error, 1)
	go func() { ended <- view.New(view.Config{Store: owner, Head: w.head}).Run(ctx) }()
	w.number(t)
	got := []answer{<-answers, <-answers}
	slices.SortFunc(got, func(a, b answer) int { return a.status - b.status })
	if got[0].status != 200 || !strings.Contains(got[0].text, `"a"`) {
		t.Errorf("rows: got %d %s", got[0].status, got[0].text)
	}
	if got[1].status != 204 || got[1].text != "" || got[1].header.Get(positionHeader) != "1" {
		t.Errorf("wait: got %d %q %v", got[1].status, got[1].text, got[1].header)
	}
	stop()
	<-ended
}

// TestStoreNotReachable: every request says so, and works again when the store is
// back.
func TestStoreNotReachable(t *testing.T) {
	t.Parallel()
	db := cdctest.Database(t)
	u, err := url.Parse(db.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := cdctest.NewProxy(t, u.Host)
	u.Host = proxy.Addr
	w := newWorldAt(t, db, u.String(), viewed, func(h *handler) {
		h.Rows = view.New(view.Config{Store: h.Append.(*eventstore.Store)})
	})
	token := w.put(t, "a", 1)
	proxy.Cut()
	proxy.Refuse()
	body := fmt.Sprintf(`{"batches": [{"stream": "box/b", "events": [{"id": %q, "type": "put", "data": {"name": "b", "limit": 1}}]}]}`, intent.NewID())
	for _, path := range []string{"/v1/log", "/v1/streams/box/a", "/v1/streams/box/a/state", "/v1/views/now", "/v1/views/later/wait?token=" + token.String()} {
		status, text := w.get(t, path)
		if f := failureOf(t, text).Error; status != 503 || f.Code != "unavailable" {
			t.Errorf("%s: got %d %s", path, status, text)
		}
	}
	if status, text := w.post(t, body); status != 503 || failureOf(t, text).Error.Code != "unavailable" {
		t.Errorf("append: got %d %s", status, text)
	}
	proxy.Heal()
	if status, text := w.post(t, body); status != 200 {
		t.Errorf("append, when it is back: got %d %s", status, text)
	}
}
