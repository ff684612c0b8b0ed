package intent

import (
	"strings"
	"testing"
)

func TestTemplateCheck(t *testing.T) {
	fields := []Field{
		{Name: "course", Type: TypeString}, {Name: "n", Type: TypeInt}, {Name: "maybe", Type: TypeString, Optional: true}, {Name: "any", Type: TypeJSON},
	}
	for _, tc := range []struct {
		template Template
		category string
		want     string // part of the error; "": none
	}{
		{"course/{course}", "course", ""},
		{"course/{course}/{n}", "course", ""},
		{"course/{course}-{n}/x", "course", ""},
		{"course/{course}{course}", "course", ""},
		{"settings", "settings", ""},
		{"a.b_c-1/", "a.b_c-1", ""},
		{"über/{course}", "über", "the category"},
		{"course/ünder {course}", "course", ""},
		{"", "", "the stream is missing"},
		{"/{course}", "", "the category"},
		{"{course}", "{course}", "the category"},
		{"course{n}/{course}", "course{n}", "the category"},
		{"my course/{course}", "my course", "the category"},
		{Template(strings.Repeat("c", MaxCategory) + "/{course}"), strings.Repeat("c", MaxCategory), ""},
		{Template(strings.Repeat("c", MaxCategory+1) + "/{course}"), strings.Repeat("c", MaxCategory+1), "the category"},
		{Template("c/" + strings.Repeat("x", MaxStream-2)), "c", ""},
		{Template("c/" + strings.Repeat("x", MaxStream-1)), "c", "longer than 512 bytes"},
		{"course/\n{course}", "course", "control character"},
		{"course/\xff", "course", "not UTF-8"},
		{"course/{course", "course", "braces do not match"},
		{"course/course}", "course", "braces do not match"},
		{"course/}{course", "course", "braces do not match"},
		{"course/}{course}{", "course", "braces do not match"},
		{"course/{{course}}", "course", "braces do not match"},
		{"course/{}", "course", "{} is not a field"},
		{"course/{other}", "course", "{other} is not a field of data"},
		{"course/{maybe}", "course", "{maybe} may be missing"},
		{"course/{any}", "course", "no plain value"},
	} {
		if got := tc.template.Category(); got != tc.category {
			t.Errorf("category of %q: got %q, want %q", tc.template, got, tc.category)
		}
		err := tc.template.Check(fields)
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("Check of %q: got %v, want %q", tc.template, err, tc.want)
		}
	}
}

func TestTemplateSQL(t *testing.T) {
	for _, tc := range []struct {
		template Template
		want     string
	}{
		{"settings", `('settings')`},
		{"course/{course}", `('course/' || (data->>'course'))`},
		{"a/{b}-{c}/d", `('a/' || (data->>'b') || '-' || (data->>'c') || '/d')`},
		{"a/{b}{b}", `('a/' || (data->>'b') || (data->>'b'))`},
		{"it's/{b}", `('it''s/' || (data->>'b'))`},
	} {
		if got := tc.template.SQL("data"); got != tc.want {
			t.Errorf("SQL of %q: got %s, want %s", tc.template, got, tc.want)
		}
	}
}
