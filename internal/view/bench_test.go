package view

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cdc/internal/cdctest"
	"cdc/internal/eventstore"
	"cdc/internal/intent"
)

// benchEvents is what BenchmarkFollow applies each time: 20 batches.
const benchEvents = 100_000

// fill writes n numbered events past es.append: one in ten cancels.
func fill(b testing.TB, db *cdctest.DB, n int) {
	db.Exec(b, fmt.Sprintf(`
		insert into es.stream select 'course/c' || i, %[1]d from generate_series(0, 999) i;
		insert into es.event (id, stream, version, type, data, meta)
		select lpad(to_hex(i), 32, '0')::uuid, 'course/c' || i %% 1000, i / 1000 + 1,
		       case when i %% 10 = 9 then 'enrolment-cancelled' else 'student-enrolled' end,
		       jsonb_build_object('course', 'c' || i %% 1000, 'student', 'stu_' || (i / 1000) %% 500, 'note', repeat('x', 100)), '{"actor": "a"}'
		from generate_series(0, %[1]d - 1) i;
		insert into es.log select row_number() over (order by id), id, '0/1', 1 from es.event;
		analyze es.event; analyze es.log`, n))
}

// BenchmarkFollow applies a log to an empty view with one upsert or delete an event.
func BenchmarkFollow(b *testing.B) {
	for _, mode := range []string{"here", "there", "nothing"} {
		b.Run(mode, func(b *testing.B) {
			db, store := openStore(b)
			fill(b, db, benchEvents)
			v := enrolments("e", intent.Async)
			v.Indexes = nil
			url := ""
			switch mode {
			case "there":
				url = cdctest.Database(b).URL
				v.Database = url
			case "nothing": // how fast the log is read
				v.When = map[string]string{"no-such-type": "delete from e"}
			}
			var cpu time.Duration
			for b.Loop() {
				b.StopTimer()
				ctx := context.Background()
				if _, err := store.Pool().Exec(ctx, `delete from es.view; drop schema if exists es_b1 cascade`); err != nil {
					b.Fatal(err)
				}
				build := install(b, store, intent.Definitions{Events: universityTypes, Undeclared: true, Views: []intent.View{v}})[0].Build
				row, err := findBuild(ctx, store.Pool(), "e", build)
				if err != nil {
					b.Fatal(err)
				}
				c, err := compile(v, universityTypes)
				if err != nil {
					b.Fatal(err)
				}
				var src source = newLocal(store, c, row, func(string) {})
				if url != "" {
					src = newRemote(store, c, row, url, func(string) {})
				}
				pos, err := src.position(ctx)
				if err != nil {
					b.Fatal(err)
				}
				before := cpuTime(b)
				b.StartTimer()
				for pos < benchEvents {
					if pos, err = src.step(ctx, pos, maxPosition); err != nil {
						b.Fatal(err)
					}
				}
				b.StopTimer()
				cpu += cpuTime(b) - before
				src.close()
				b.StartTimer()
			}
			b.ReportMetric(float64(benchEvents)*float64(b.N)/b.Elapsed().Seconds(), "events/s")
			b.ReportMetric(cpu.Seconds()/float64(b.N)/benchEvents*1e6, "cpu-us/event")
		})
	}
}

// cpuTime is what this process and the sessions of the test server have used: it
// tells the cost on a machine that is busy with others.
func cpuTime(b *testing.B) time.Duration {
	pids := []string{"self"}
	for _, row := range (&cdctest.DB{Name: "postgres", URL: cdctest.Postgres(b).URL("postgres")}).Query(b, "select pid from pg_stat_activity where backend_type = 'client backend'") {
		pids = append(pids, row[0])
	}
	var ticks int
	for _, pid := range pids {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil {
			continue // the session that asked; or no Linux
		}
		_, after, _ := strings.Cut(string(stat), ") ")
		var user, system int
		if f := strings.Fields(after); len(f) > 12 {
			user, _ = strconv.Atoi(f[11])
			system, _ = strconv.Atoi(f[12])
		}
		ticks += user + system
	}
	return time.Duration(ticks) * 10 * time.Millisecond // of USER_HZ
}

// BenchmarkInline appends from 16 clients to 20 streams each, with and without
// inline views. The cases take turns, so that a machine that is busy with others is
// as busy in each.
func BenchmarkInline(b *testing.B) {
	const clients, turn = 16, 500 * time.Millisecond
	counts := []int{0, 1, 3}
	var stores []*eventstore.Store
	for _, n := range counts {
		db := cdctest.Database(b)
		openIn(b, db)
		store, err := eventstore.Open(context.Background(), eventstore.Config{URL: db.URL, MaxConns: clients + 2})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(store.Close)
		d := intent.Definitions{Undeclared: true, Events: universityTypes}
		if n > 0 {
			d.Views = append(d.Views, enrolments("e", intent.Inline))
		}
		if n > 1 {
			d.Views = append(d.Views, enrolments("f", intent.Inline), enrolments("g", intent.Inline))
		}
		install(b, store, d)
		stores = append(stores, store)
	}
	total, cpu := make([]int64, len(counts)), make([]time.Duration, len(counts))
	rounds := 0
	for b.Loop() {
		rounds++
		for i := range counts {
			before := cpuTime(b)
			total[i] += appendFor(b, stores[i], clients, turn)
			cpu[i] += cpuTime(b) - before
		}
	}
	for i, n := range counts {
		b.ReportMetric(float64(total[i])/(float64(rounds)*turn.Seconds()), fmt.Sprintf("appends/s-%d-views", n))
	}
	per := func(i int) float64 { return cpu[i].Seconds() / float64(total[i]) }
	b.ReportMetric(float64(total[0])/float64(total[2]), "times-3-views")
	b.ReportMetric(per(2)/per(0), "times-cpu-3-views")
}

var benchClient atomic.Int64

func appendFor(b *testing.B, store *eventstore.Store, clients int, d time.Duration) int64 {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	var all sync.WaitGroup
	var n atomic.Int64
	for range clients {
		all.Go(func() {
			me := benchClient.Add(1)
			for i := 0; ctx.Err() == nil; i++ {
				course := fmt.Sprintf("%d-%d", me, i%20)
				data, _ := json.Marshal(map[string]string{"course": course, "student": fmt.Sprintf("stu_%d", i/20)})
				_, err := store.Append(context.Background(), []intent.Batch{{Stream: "course/" + course, Expect: intent.Any,
					Events: []intent.NewEvent{{ID: intent.NewID(), Type: "student-enrolled", Data: data}}}})
				if err != nil {
					b.Errorf("append: %v", err)
					return
				}
				n.Add(1)
			}
		})
	}
	all.Wait()
	return n.Load()
}
