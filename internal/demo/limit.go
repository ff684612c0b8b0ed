package demo

import "time"

// limiter lets through what a person can read: so many lines a second, and of a
// source transaction all its lines or none. The zero perSecond lets all through.
// It has no clock of its own.
type limiter struct {
	perSecond int

	budget  float64 // lines that may be shown now; negative while a long transaction is paid off
	last    time.Time
	decided [remembered]verdict
	next    int // in decided
	skipped int // lines since the count was last taken
	told    time.Time
}

type verdict struct {
	tx   string
	show bool
}

const (
	// remembered is how many transactions' verdicts are kept: the changes of one
	// come from several partitions, a few transactions apart.
	remembered = 256
	// tellEvery is how often the count of skipped lines is shown.
	tellEvery = time.Second
)

// admit says whether a line of the transaction is shown; tx "" is on its own.
func (l *limiter) admit(now time.Time, tx string) bool {
	if l.perSecond == 0 {
		return true
	}
	if l.last.IsZero() {
		l.last, l.told, l.budget = now, now, float64(l.perSecond)
	}
	if passed := now.Sub(l.last); passed > 0 {
		l.budget = min(float64(l.perSecond), l.budget+passed.Seconds()*float64(l.perSecond))
		l.last = now
	}
	show := l.verdict(tx)
	if show {
		l.budget--
	} else {
		l.skipped++
	}
	return show
}

func (l *limiter) verdict(tx string) bool {
	show := l.budget >= 1
	if tx == "" {
		return show
	}
	for _, v := range l.decided {
		if v.tx == tx {
			return v.show
		}
	}
	l.decided[l.next] = verdict{tx, show}
	l.next = (l.next + 1) % remembered
	return show
}

// count takes the number of lines skipped since it was last taken, where it is
// time to show it.
func (l *limiter) count(now time.Time) (n int, tell bool) {
	if l.skipped == 0 || now.Sub(l.told) < tellEvery {
		return 0, false
	}
	n = l.skipped
	l.skipped, l.told = 0, now
	return n, true
}
