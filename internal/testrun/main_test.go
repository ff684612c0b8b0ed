package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	var out strings.Builder
	r := newReport(&out)
	for line := range strings.Lines(`{"Action":"start","Package":"a"}
{"Action":"run","Package":"a","Test":"TestGood"}
{"Action":"output","Package":"a","Test":"TestGood","Output":"quiet please\n"}
{"Action":"pass","Package":"a","Test":"TestGood","Elapsed":0}
{"Action":"output","Package":"a","Test":"TestSkipped","Output":"=== RUN   TestSkipped\n"}
{"Action":"output","Package":"a","Test":"TestSkipped","Output":"    a_test.go:3: not on a Monday\n"}
{"Action":"output","Package":"a","Test":"TestSkipped","Output":"--- SKIP: TestSkipped (0.00s)\n"}
{"Action":"skip","Package":"a","Test":"TestSkipped","Elapsed":0}
{"Action":"output","Package":"a","Test":"TestBad/sub","Output":"    a_test.go:9: got 1, want 2\n"}
{"Action":"fail","Package":"a","Test":"TestBad/sub","Elapsed":0}
{"Action":"fail","Package":"a","Test":"TestBad","Elapsed":0}
{"Action":"fail","Package":"a","Elapsed":1.25}
{"Action":"pass","Package":"b","Elapsed":2}
{"Action":"skip","Package":"c","Elapsed":0}
{"ImportPath":"d [d.test]","Action":"build-output","Output":"d.go:1: no such thing\n"}
{"ImportPath":"d [d.test]","Action":"build-fail"}
{"Action":"fail","Package":"d","Elapsed":0,"FailedBuild":"d [d.test]"}
{"Action":"output","Package":"e","Output":"goroutines left over\n"}
{"Action":"fail","Package":"e","Elapsed":0}
not an event
`) {
		r.line([]byte(line))
	}
	if got, want := r.finish(), (counts{passed: 1, failed: 4, skipped: 1}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, want := range []string{
		"got 1, want 2", "FAIL  a  1.2s", "ok    b  2.0s", "-     c  no tests", "d.go:1: no such thing",
		"goroutines left over", "not an event", "failed: a TestBad/sub", "failed: d\n", "failed: e\n",
		"skipped: a TestSkipped: a_test.go:3: not on a Monday",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "quiet please") {
		t.Errorf("output of a test that passed is printed:\n%s", out.String())
	}
}

func TestTargets(t *testing.T) {
	got := targets("FuzzA\nFuzzB\nok  \tcdc/internal/x\t0.01s\nok  \tcdc/internal/y\t0.01s\n?   \tcdc/internal/z\t[no test files]\nFuzzC\nok  \tcdc/w\t(cached)\n")
	want := []target{{"cdc/internal/x", "FuzzA"}, {"cdc/internal/x", "FuzzB"}, {"cdc/w", "FuzzC"}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestSum(t *testing.T) {
	path := filepath.Join(t.TempDir(), "totals")
	for _, c := range []counts{{1, 0, 2}, {10, 1, 0}} {
		if err := c.appendTo(path); err != nil {
			t.Fatal(err)
		}
	}
	var out strings.Builder
	code, err := run(context.Background(), []string{"-sum", path}, &out)
	if err != nil || code != 1 || out.String() != "11 passed, 1 failed, 2 skipped\n" {
		t.Errorf("got code %d, error %v, output %q", code, err, out.String())
	}
	if err := os.WriteFile(path, []byte("lots\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sum(path); err == nil {
		t.Error("a line that is no count is accepted")
	}
}
