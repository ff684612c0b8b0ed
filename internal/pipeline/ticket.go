package pipeline

// ticket is work that waits until everything appended before it is acknowledged.
type ticket struct {
	number uint64
	then   func() error
}

// afterAck runs then, on the life's goroutine, once everything appended so far is
// acknowledged.
func (l *life) afterAck(then func() error) {
	l.mark.Ticket++
	l.w.Mark(l.mark)
	l.tickets = append(l.tickets, ticket{l.mark.Ticket, then})
}

// redeem runs what has become due. What it runs may take new tickets.
func (l *life) redeem(acked uint64) error {
	for len(l.tickets) > 0 && l.tickets[0].number <= acked {
		t := l.tickets[0]
		l.tickets = l.tickets[1:]
		if err := t.then(); err != nil {
			return err
		}
	}
	return nil
}
