package eventlog_test

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
	"cdc/internal/eventlog"
	"cdc/internal/eventstore"
	"cdc/internal/intent"
	"cdc/internal/source"
)

// waitLimit is how long a test waits for something that must happen.
const waitLimit = 2 * time.Minute

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
	t.Cleanup(cancel)
	return ctx
}

// rig is a store in a database of its own, numbered by a login with the rights that
// the documentation names, no more.
type rig struct {
	t     testing.TB
	db    *cdctest.DB
	store *eventstore.Store // as the superuser: for the test's own appends and looks
	url   string            // of the daemon's login
	slot  string
}

func newRig(t testing.TB) *rig { return newRigOn(t, cdctest.Database(t)) }

func newRigOn(t testing.TB, db *cdctest.DB) *rig {
	t.Helper()
	r := &rig{t: t, db: db, slot: "events_" + db.Name}
	login := "daemon_" + db.Name
	db.Exec(t, fmt.Sprintf("CREATE ROLE %s LOGIN REPLICATION", login), fmt.Sprintf("GRANT CREATE ON DATABASE %s TO %s", db.Name, login))
	if _, err := eventstore.Init(testContext(t), db.URL, eventstore.InitOptions{Daemon: login}); err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(db.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.User(login)
	r.url = u.String()
	r.store, err = eventstore.Open(testContext(t), eventstore.Config{URL: db.URL, MaxConns: 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.store.Close)
	db.KeepSlot(r.slot)
	return r
}

// config is what a numberer gets, in this process or in a child.
type config struct {
	cdctest.Point // where a victim kills itself
	URL, Slot     string
	Publication   string
	Idle          time.Duration
}

func (r *rig) config() config {
	return config{URL: r.url, Slot: r.slot, Publication: r.slot, Idle: time.Hour}
}

func (c config) numberer(store *eventstore.Store, head *eventstore.Head, log *slog.Logger, hook func(string)) *eventlog.Numberer {
	return eventlog.New(eventlog.Config{
		Source: source.Config{URL: c.URL, Slot: c.Slot, Publication: c.Publication, Tick: 5 * time.Millisecond},
		Store:  store, Head: head, Logger: log, Idle: c.Idle, Hook: hook,
	})
}

// run is a numberer in this process.
type run struct {
	r      *rig
	n      *eventlog.Numberer
	head   *eventstore.Head
	log    *output
	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

// output keeps what was logged.
type output struct {
	mu sync.Mutex
	b  strings.Builder
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// start runs a numberer until stop or the end of the test. hook may be nil.
func (r *rig) start(c config, hook func(string)) *run {
	r.t.Helper()
	store, err := eventstore.Open(testContext(r.t), eventstore.Config{URL: c.URL, MaxConns: 2})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(store.Close)
	u := &run{r: r, head: eventstore.NewHead(), log: &output{}}
	u.n = c.numberer(store, u.head, slog.New(slog.NewTextHandler(u.log, nil)), hook)
	u.begin()
	return u
}

func (u *run) begin() {
	ctx, cancel := context.WithCancel(context.Background())
	u.cancel, u.done = cancel, make(chan struct{})
	go func() {
		defer close(u.done)
		u.err = u.n.Run(ctx)
	}()
	u.r.t.Cleanup(func() {
		cancel()
		<-u.done
		if u.r.t.Failed() {
			u.r.t.Logf("numberer:\n%s", u.log)
		}
	})
}

// again is the same numberer's next life.
func (u *run) again() *run {
	next := &run{r: u.r, n: u.n, head: u.head, log: u.log}
	next.begin()
	return next
}

// stop ends it in order.
func (u *run) stop() {
	u.r.t.Helper()
	u.cancel()
	<-u.done
	if u.err != nil {
		u.r.t.Fatalf("run: %v", u.err)
	}
}

// failed waits until it ends by itself.
func (u *run) failed() error {
	u.r.t.Helper()
	select {
	case <-u.done:
	case <-time.After(waitLimit):
		u.r.t.Fatalf("it still runs: %+v", u.n.Status())
	}
	return u.err
}

// until waits for a condition that no event announces to the test.
func (r *rig) until(what string, ok func() bool) {
	r.t.Helper()
	for end := time.Now().Add(waitLimit); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("waited in vain: %s", what)
		}
	}
}

func (u *run) state(want cdc.State) {
	u.r.t.Helper()
	u.r.until("state "+string(want), func() bool {
		select {
		case <-u.done:
			u.r.t.Fatalf("ended before state %s: %v", want, u.err)
		default:
		}
		return u.n.Status().State == want
	})
}

// barrier waits until everything is numbered.
func (r *rig) barrier() {
	r.t.Helper()
	if err := eventstore.Barrier(testContext(r.t), r.store.Pool()); err != nil {
		r.t.Fatal(err)
	}
}

// event is a new one of a type that nobody declared.
func event(n int) intent.NewEvent {
	return intent.NewEvent{ID: intent.NewID(), Type: "noted", Data: json.RawMessage(fmt.Sprintf(`{"n":%d}`, n))}
}

// append writes n events to a stream in one transaction.
func (r *rig) append(stream string, n int) {
	r.t.Helper()
	b := intent.Batch{Stream: stream, Expect: intent.Any}
	for i := range n {
		b.Events = append(b.Events, event(i))
	}
	if _, err := r.store.Append(testContext(r.t), []intent.Batch{b}); err != nil {
		r.t.Fatal(err)
	}
}

// workload appends from many sessions: several streams at once, savepoints rolled
// back, transactions rolled back, a few prepared.
type workload struct {
	r    *rig
	once sync.Once
	stop chan struct{}
	wg   sync.WaitGroup
}

func (r *rig) workload(writers, transactions int, seed uint64) *workload {
	w := &workload{r: r, stop: make(chan struct{})}
	for i := range writers {
		rnd := rand.New(rand.NewPCG(seed, uint64(i)))
		w.wg.Go(func() { w.write(rnd, i, transactions) })
	}
	r.t.Cleanup(w.finish)
	return w
}

func (w *workload) write(rnd *rand.Rand, writer, transactions int) {
	ctx := context.Background()
	for n := 0; transactions == 0 || n < transactions; n++ {
		select {
		case <-w.stop:
			return
		default:
		}
		if err := w.transaction(ctx, rnd); err != nil {
			w.r.t.Errorf("writer %d: %v", writer, err)
			return
		}
	}
}

func (w *workload) transaction(ctx context.Context, rnd *rand.Rand) error {
	tx, err := w.r.store.Pool().Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(ctx) }()
	// Streams in one order over the whole transaction: no deadlocks.
	streams := rnd.Perm(12)[:1+rnd.IntN(4)]
	slices.Sort(streams)
	for _, s := range streams {
		b := intent.Batch{Stream: fmt.Sprintf("s%02d/hot", s), Expect: intent.Any}
		for i := range 1 + rnd.IntN(3) {
			b.Events = append(b.Events, event(i))
		}
		if rnd.IntN(6) > 0 {
			if _, err := eventstore.AppendTx(ctx, tx, []intent.Batch{b}); err != nil {
				return err
			}
			continue
		}
		save, err := tx.Begin(ctx)
		if err != nil {
			return err
		}
		if _, err := eventstore.AppendTx(ctx, save, []intent.Batch{b}); err != nil {
			return err
		}
		if rnd.IntN(2) == 0 {
			err = save.Rollback(ctx)
		} else {
			err = save.Commit(ctx)
		}
		if err != nil {
			return err
		}
	}
	if rnd.IntN(8) == 0 {
		return tx.Rollback(ctx)
	}
	return tx.Commit(ctx)
}

func (w *workload) wait() { w.wg.Wait() }

func (w *workload) finish() {
	w.once.Do(func() { close(w.stop) })
	w.wg.Wait()
}

// exactlyOnce checks the log against the store: dense, every event once, the
// versions of each stream in order. It returns the events in the log's order.
func (r *rig) exactlyOnce() []string {
	r.t.Helper()
	rows := r.db.Query(r.t, `select l.pos, l.event, e.stream, e.version from es.log l left join es.event e on e.id = l.event order by l.pos`)
	versions := map[string]int{}
	var order []string
	bad := 0
	for i, row := range rows {
		order = append(order, row[1])
		version, _ := strconv.Atoi(row[3])
		if row[0] != strconv.Itoa(i+1) || version != versions[row[2]]+1 {
			if bad++; bad < 6 {
				r.t.Errorf("row %d of the log: position %s, event %s, stream %s at version %s behind %d", i+1, row[0], row[1], row[2], row[3], versions[row[2]])
			}
		}
		versions[row[2]] = version
	}
	if want := r.db.Value(r.t, `select count(*) from es.event`); want != strconv.Itoa(len(rows)) {
		r.t.Errorf("es.log has %d rows, es.event %s", len(rows), want)
	}
	if at := r.db.Value(r.t, `select coalesce((select 'slot at ' || confirmed_flush_lsn || ', reader at ' || lsn from es.reader join pg_replication_slots on slot_name = slot where confirmed_flush_lsn > lsn), '')`); at != "" {
		r.t.Errorf("the slot is ahead of es.reader: %s", at)
	}
	return order
}

// witness is a second slot, read by functions of the server and taken apart here:
// it shares no code with the numberer.
type witness struct {
	r    *rig
	slot string
}

func (r *rig) witness() *witness {
	r.t.Helper()
	w := &witness{r, "witness_" + r.db.Name}
	r.db.KeepSlot(w.slot)
	r.db.Exec(r.t, fmt.Sprintf(`select pg_create_logical_replication_slot('%s', 'pgoutput')`, w.slot))
	return w
}

// order is the ids of es.event in the WAL's order since the slot was made.
func (w *witness) order() []string {
	w.r.t.Helper()
	rows := w.r.db.Query(w.r.t, fmt.Sprintf(`select encode(data, 'hex') from pg_logical_slot_peek_binary_changes('%s', null, null,
		'proto_version', '1', 'publication_names', '%s') where get_byte(data, 0) = ascii('I')`, w.slot, w.r.slot))
	var ids []string
	for _, row := range rows {
		b, err := hex.DecodeString(row[0])
		if err != nil {
			w.r.t.Fatal(err)
		}
		// 'I', relation (4), 'N', columns (2), then of the first column 't', length (4), text.
		const first = 1 + 4 + 1 + 2
		if b[first] != 't' || binary.BigEndian.Uint32(b[first+1:]) != 36 {
			w.r.t.Fatalf("an insert whose first column is not an id: %x", b[:first+5])
		}
		ids = append(ids, string(b[first+5:first+5+36]))
	}
	return ids
}

// same compares orders and shows the first difference.
func (r *rig) same(got, want []string) {
	r.t.Helper()
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			r.t.Fatalf("position %d: the log has %s, the WAL %s", i+1, got[i], want[i])
		}
	}
	if len(got) != len(want) {
		r.t.Fatalf("the log has %d events, the WAL %d", len(got), len(want))
	}
}
