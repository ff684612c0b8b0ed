package eventstore

import (
	"encoding/json"
	"strings"
	"testing"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
	"cdc/internal/intent"
)

// untriggered changes tables as a superuser who switches the triggers off.
func untriggered(t *testing.T, db *cdctest.DB, table string, sql ...string) {
	t.Helper()
	all := append([]string{"begin", "alter table es." + table + " disable trigger user"}, sql...)
	all = append(all, "alter table es."+table+" enable always trigger append_only", "alter table es."+table+" enable always trigger no_truncate", "commit")
	db.Exec(t, strings.Join(all, ";"))
}

// What is wrong with a log is found, counted and shown, and what mends it said.
func TestVerifyLog(t *testing.T) {
	t.Parallel()
	const restore = "Restore the schema es"
	for _, tc := range []struct {
		name, table string
		sql         []string
		want        cdc.Verification // counts and verdict
		sample      string           // a sample holds it
		mend        string
	}{
		{name: "all as it should be", want: cdc.Verification{Verdict: cdc.VerdictEqual, Rows: 12, Records: 12}},
		{
			name: "holes", table: "log", sql: []string{"delete from es.log where pos in (3, 4, 8)", "delete from es.event where id not in (select event from es.log)"},
			want: cdc.Verification{Verdict: cdc.VerdictDifferent, Records: 9}, sample: `positions 3 to 4`, mend: restore,
		},
		{
			name: "a position without an event", table: "event", sql: []string{"delete from es.event where stream = 'b/1' and version = 6"},
			want: cdc.Verification{Verdict: cdc.VerdictDifferent, Rows: 11, Records: 12, Ghosts: 1, Different: 1}, sample: `"position 12"`, mend: restore,
		},
		{
			name: "a version is left out", table: "event", sql: []string{"update es.event set version = 9 where stream = 'b/1' and version = 6"},
			want: cdc.Verification{Verdict: cdc.VerdictDifferent, Rows: 12, Records: 12, Different: 1}, sample: `"b/1"`, mend: restore,
		},
		{
			name: "a stream says another version", table: "stream", sql: []string{"update es.stream set version = 7 where stream = 'a/1'"},
			want: cdc.Verification{Verdict: cdc.VerdictDifferent, Rows: 12, Records: 12, Different: 1}, sample: `{"column":"version","source":"7","target":"6"}`, mend: restore,
		},
		{
			name: "versions against the order of the log", table: "log",
			sql:  []string{"update es.log set pos = -pos where pos in (11, 12)", "update es.log set pos = pos + 23 where pos < 0"},
			want: cdc.Verification{Verdict: cdc.VerdictEqual, Rows: 12, Records: 12}, // of two streams: no order between them is known
		},
		{
			name: "an event before the one it follows", table: "log",
			sql:  []string{"update es.log set pos = -pos where pos in (10, 12)", "update es.log set pos = pos + 22 where pos < 0"},
			want: cdc.Verification{Verdict: cdc.VerdictDifferent, Rows: 12, Records: 12, Different: 1}, sample: `"b/1 @6"`, mend: restore,
		},
		{
			name: "events that nobody numbers", sql: []string{"select * from es.append('{a/1}', '{null}', '{a/1}', array[gen_random_uuid()], '{x}', '{\"{}\"}')"},
			want: cdc.Verification{Verdict: cdc.VerdictUnchecked, Rows: 13, Records: 12},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s, db := newStore(t, "")
			for i := range 6 {
				for _, stream := range []string{"a/1", "b/1"} {
					if _, err := s.Append(testContext(t), []intent.Batch{one(stream, intent.Expect(i), "x")}); err != nil {
						t.Fatal(err)
					}
				}
			}
			number(t, db)
			switch {
			case tc.name == "holes": // two tables
				untriggered(t, db, "log", tc.sql[0])
				untriggered(t, db, "event", tc.sql[1])
				tc.want.Rows = 9
				tc.want.Different = 3 + 2 // and the streams lack versions
			case tc.table != "":
				untriggered(t, db, tc.table, tc.sql...)
			default:
				db.Exec(t, tc.sql...)
			}
			v, err := s.Verify(testContext(t), VerifyOptions{Samples: 5})
			if err != nil {
				t.Fatal(err)
			}
			got := cdc.Verification{Verdict: v.Verdict, Rows: v.Rows, Records: v.Records, Missing: v.Missing, Ghosts: v.Ghosts, Different: v.Different}
			if text(t, got) != text(t, tc.want) {
				t.Errorf("got  %s\nwant %s\nall: %s", text(t, got), text(t, tc.want), text(t, v))
			}
			if samples := text(t, v.Samples); !strings.Contains(samples, tc.sample) {
				t.Errorf("samples %s, want %s in them", samples, tc.sample)
			}
			if !strings.Contains(v.Mend, tc.mend) || tc.mend == "" && v.Mend != "" {
				t.Errorf("mend %q, want %q", v.Mend, tc.mend)
			}
			if v.Verdict == cdc.VerdictUnchecked && !strings.Contains(v.Why, "1 events without a position") {
				t.Errorf("why: %q", v.Why)
			}
			if v.Subject != "log" || v.Position != 12 || v.At.IsZero() || v.Took <= 0 {
				t.Errorf("of what and when: %s", text(t, v))
			}
		})
	}
}

// An empty store is whole.
func TestVerifyEmptyLog(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t, "")
	v, err := s.Verify(testContext(t), VerifyOptions{})
	if err != nil || v.Verdict != cdc.VerdictEqual || v.Position != 0 {
		t.Errorf("%s, %v", text(t, v), err)
	}
}

func text(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
