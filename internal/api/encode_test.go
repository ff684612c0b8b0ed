package api

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/intent"
)

// TestEventAsJSON: an event is written as encoding/json writes it, in one line.
func TestEventAsJSON(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	text := func() string {
		runes := []rune("aZ/ \"\\<>&\u2028\u2029\t\n\r\x00\x01\x7fé€😀")
		var b strings.Builder
		for range rng.IntN(12) {
			b.WriteRune(runes[rng.IntN(len(runes))])
		}
		return b.String()
	}
	for range 2000 {
		e := intent.Event{ID: intent.NewID(), Stream: text(), Version: rng.Int64(), Type: text(), Schema: rng.IntN(9), At: time.Unix(rng.Int64N(4e9), rng.Int64N(1e9)).UTC()}
		data, _ := json.Marshal(map[string]string{text(): text()})
		e.Data, e.Meta = data, json.RawMessage("{\n\"a\":\r\n 1}")
		for range rng.IntN(3) {
			e.Subjects = append(e.Subjects, text())
		}
		if rng.IntN(2) == 0 {
			e.Position, e.Tx, e.LSN = rng.Int64(), rng.Uint32(), cdc.LSN(rng.Uint64())
		}
		line := appendEvent(nil, &e)
		if bytes.ContainsAny(line, "\n\r") {
			t.Fatalf("seed %d: more than one line: %s", seed, line)
		}
		want, err := json.Marshal(&e)
		if err != nil {
			t.Fatal(err)
		}
		var a, b any
		if err := json.Unmarshal(line, &a); err != nil {
			t.Fatalf("seed %d: %v: %s", seed, err, line)
		}
		if err := json.Unmarshal(want, &b); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(a, b) {
			t.Fatalf("seed %d: got %s, want %s", seed, line, want)
		}
	}
}

func TestStringThatIsNoText(t *testing.T) {
	if got := string(appendString(nil, "a\xffb\xe2\x82")); got != "\"a\ufffdb\ufffd\ufffd\"" {
		t.Errorf("got %q", got)
	}
}

// TestEventAllocates: the buffer is all it needs.
func TestEventAllocates(t *testing.T) {
	e := &intent.Event{ID: intent.NewID(), Stream: "course/ddia", Version: 1, Type: "x", Schema: 1, Data: json.RawMessage(`{"n": 1}`), Meta: json.RawMessage(`{}`), At: time.Now()}
	buf := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() { buf = appendEvent(buf[:0], e) }); n > 1 { // the id's text
		t.Errorf("got %v allocations for an event, want at most 1", n)
	}
}
