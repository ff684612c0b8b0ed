package intent

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestParseID(t *testing.T) {
	want := ID{0x01, 0x7f, 0x22, 0xe2, 0x79, 0xb0, 0x7c, 0xc3, 0x98, 0xc4, 0xdc, 0x0c, 0x0c, 0x07, 0x39, 0x8f}
	for _, s := range []string{"017f22e2-79b0-7cc3-98c4-dc0c0c07398f", "017F22E2-79B0-7CC3-98C4-DC0C0C07398F"} {
		if got, err := ParseID(s); err != nil || got != want {
			t.Errorf("ParseID(%q) = %v, %v, want %v", s, got, err, want)
		}
	}
	if got, want := want.String(), "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"; got != want {
		t.Errorf("String() = %s, want %s", got, want)
	}
	for name, s := range map[string]string{
		"empty": "", "short": "017f22e2-79b0-7cc3-98c4-dc0c0c07398", "long": "017f22e2-79b0-7cc3-98c4-dc0c0c07398f0",
		"no dashes": "017f22e279b07cc398c4dc0c0c07398f", "braces": "{17f22e2-79b0-7cc3-98c4-dc0c0c07398f}",
		"dashes elsewhere": "017f22e27-9b0-7cc3-98c4-dc0c0c07398f", "no digit": "017f22e2-79b0-7cc3-98c4-dc0c0c07398g",
		"a dash too many": "017f22e2-79b0-7cc3-98c4-dc0c-c07398f", "urn": "urn:uuid:017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
		"of another alphabet": "０17f22e2-79b0-7cc3-98c4-dc0c0c0739",
	} {
		if got, err := ParseID(s); err == nil || got != (ID{}) {
			t.Errorf("%s: ParseID(%q) = %v, %v, want an error", name, s, got, err)
		}
	}
	_, err := ParseID(strings.Repeat("x", 1<<20))
	if err == nil || len(err.Error()) > 200 {
		t.Errorf("the error of a long text has %d bytes: it must not repeat it", len(err.Error()))
	}
}

// RFC 9562, appendix A.4: the name www.example.com in the space of DNS.
func TestDeriveIsVersion5(t *testing.T) {
	dns, err := ParseID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := dns.Derive("www.example.com").String(), "2ed6657d-e927-568b-95e1-2665a8aea6a2"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	seen := map[ID]string{}
	for _, name := range []string{"", "a", "b", "a ", "A"} {
		id := dns.Derive(name)
		if other, ok := seen[id]; ok {
			t.Errorf("%q and %q give one id", name, other)
		}
		if id != dns.Derive(name) {
			t.Errorf("%q gives two ids", name)
		}
		seen[id] = name
	}
	if dns.Derive("a") == (ID{}).Derive("a") {
		t.Error("two spaces give one id")
	}
}

// RFC 9562, section 5.7: 48 bits of Unix milliseconds, version 7, variant 10.
func TestNewIDIsVersion7(t *testing.T) {
	seen := map[ID]bool{}
	for range 1000 {
		before := time.Now().UnixMilli()
		id := NewID()
		after := time.Now().UnixMilli()
		var ms int64
		for _, b := range id[:6] {
			ms = ms<<8 | int64(b)
		}
		if ms < before || ms > after {
			t.Fatalf("%s holds millisecond %d, made between %d and %d", id, ms, before, after)
		}
		if id[6]>>4 != 7 || id[8]>>6 != 2 {
			t.Fatalf("%s has version %d and variant %b", id, id[6]>>4, id[8]>>6)
		}
		if seen[id] {
			t.Fatalf("%s was made twice", id)
		}
		seen[id] = true
	}
}

func TestIDInJSON(t *testing.T) {
	var v struct {
		A ID `json:"a"`
		B ID `json:"b,omitzero"`
	}
	const text = `{"a":"017f22e2-79b0-7cc3-98c4-dc0c0c07398f"}`
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	if got, err := json.Marshal(v); err != nil || string(got) != text {
		t.Errorf("got %s, %v, want %s", got, err, text)
	}
	if !v.B.IsZero() || v.A.IsZero() {
		t.Errorf("zero: %v %v", v.A, v.B)
	}
	for _, bad := range []string{`{"a":1}`, `{"a":"x"}`, `{"a":""}`, `{"a":{}}`} {
		if err := json.Unmarshal([]byte(bad), &v); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}
