package api

import (
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"cdc/internal/intent"
)

// query reads the parameters of a request; the first fault sticks.
type query struct {
	values url.Values
	err    error
}

// newQuery takes a request's parameters, each at most once but those that may be
// repeated; nil known: whatever they are called.
func newQuery(r *http.Request, repeated string, known []string) *query {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return &query{err: malformed("query", "the query cannot be read: %s", err)}
	}
	q := &query{values: values}
	for name, all := range values {
		switch {
		case known != nil && !slices.Contains(known, name):
			q.wrong(name, "not known here: there are %s", strings.Join(known, ", "))
		case len(all) > 1 && name != repeated:
			q.wrong(name, "given %d times: once is enough", len(all))
		}
	}
	return q
}

func (q *query) wrong(name, format string, args ...any) {
	if q.err == nil {
		q.err = malformed(name, "parameter "+strconv.Quote(name)+": "+format, args...)
	}
}

// number is a whole number from least to most; otherwise where it is not given.
func (q *query) number(name string, otherwise, least, most int64) int64 {
	text, ok := q.text(name)
	if !ok {
		return otherwise
	}
	n, err := strconv.ParseInt(text, 10, 64)
	switch {
	case (err != nil || n < least || n > most) && most == math.MaxInt64:
		q.wrong(name, "write a whole number from %d, not %q", least, text)
	case err != nil || n < least || n > most:
		q.wrong(name, "write a whole number from %d to %d, not %q", least, most, text)
	}
	return n
}

// duration is a time of at most most; otherwise where it is not given.
func (q *query) duration(name string, otherwise, most time.Duration) time.Duration {
	text, ok := q.text(name)
	if !ok {
		return otherwise
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > most {
		q.wrong(name, "write a time from 0s to %s, as in 10s, not %q", most, text)
	}
	return d
}

// time is an instant; zero where it is not given.
func (q *query) time(name string) time.Time {
	text, ok := q.text(name)
	if !ok {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		q.wrong(name, "write a time as in 2026-11-22T17:00:00Z, not %q", text)
	}
	return t
}

// id is an event's id; zero where it is not given.
func (q *query) id(name string) intent.ID {
	text, ok := q.text(name)
	if !ok {
		return intent.ID{}
	}
	id, err := intent.ParseID(text)
	if err != nil {
		q.wrong(name, "%s", err)
	}
	return id
}

// list is a parameter that is repeated or separated by commas; nil where it is not
// given.
func (q *query) list(name string) []string {
	var all []string
	for _, text := range q.values[name] {
		for item := range strings.SplitSeq(text, ",") {
			if item == "" {
				q.wrong(name, "holds an empty name: write one or several, with commas between")
			}
			all = append(all, item)
		}
	}
	return all
}

func (q *query) text(name string) (string, bool) {
	if !q.values.Has(name) {
		return "", false
	}
	return q.values.Get(name), true
}
