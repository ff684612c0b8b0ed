package format

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// javaLines reads what a Java program printed: hashmap.txt holds keys in the
// order of insertion and, behind a bar, in that of java.util.HashMap;
// bigdecimal.txt a scale, a plain decimal, BigDecimal.toString and the unscaled
// bytes; double.txt the bits of a double and Double.toString, without those
// where JDK 17 did not give the shortest digits, as JDK 19 does.
func javaLines(t *testing.T, name string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "java", name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

func TestJavaHashMapOrder(t *testing.T) {
	for _, line := range javaLines(t, "hashmap.txt") {
		in, want, _ := strings.Cut(line, "|")
		text := `"` + strings.ReplaceAll(in, ",", `"=>"v", "`) + `"=>"v"`
		if in == "" {
			text = ""
		}
		h := &hstore{debezium: true}
		if err := h.parse([]byte(text)); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		h.javaOrder()
		var got []string
		for _, p := range h.pairs {
			got = append(got, string(h.buf[p.key.from:p.key.to]))
		}
		if strings.Join(got, ",") != want {
			t.Errorf("keys %s\n got %s\nwant %s", in, strings.Join(got, ","), want)
		}
	}
}

func TestJavaBigDecimal(t *testing.T) {
	for _, line := range javaLines(t, "bigdecimal.txt") {
		parts := strings.Fields(line)
		scale, err := strconv.Atoi(parts[0])
		if err != nil {
			t.Fatal(err)
		}
		got, err := connectDecimal(scale)(nil, []byte(parts[1]))
		if err != nil || string(got) != parts[2] {
			t.Errorf("%s at scale %d: got %s (%v), want %s", parts[1], scale, got, err, parts[2])
		}
		got, err = decimalCodec(scale)(nil, []byte(parts[1]))
		if err != nil || string(got) != `"`+parts[3]+`"` {
			t.Errorf("%s at scale %d: got %s (%v), want %s", parts[1], scale, got, err, parts[3])
		}
	}
}

func TestJavaDouble(t *testing.T) {
	for _, line := range javaLines(t, "double.txt") {
		bits, want, _ := strings.Cut(line, " ")
		n, err := strconv.ParseInt(bits, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(appendJavaNumber(nil, math.Float64frombits(uint64(n)), 64)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
