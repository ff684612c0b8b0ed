package chunk

// maxNoted bounds the transactions remembered one by one: more than the busiest
// table has between two snapshots of its copy, and 256 KiB. Past it only the range
// of ids is kept, which costs a chunk that is read twice, see notes.prune.
const maxNoted = 1 << 16

// notes are transactions whose events were written and that no snapshot has shown
// to be visible yet.
//
// Invariant: the id of such a transaction is in xids or, when lost, it lies
// between least and greatest, both included, modulo 2^32. (Ids that are compared
// were in use at one time, or began since the last snapshot; see Window on how
// long that may be ago.)
type notes struct {
	limit int // of xids
	xids  []uint32

	lost            bool
	least, greatest uint32

	// last is the newest noted: the stream hands out transaction after transaction,
	// so it takes one comparison not to note one twice.
	any  bool
	last uint32
}

// note adds a transaction, the cost of an event of which nothing else is wanted.
func (n *notes) note(xid uint32) {
	if n.any && n.last == xid {
		return
	}
	n.any, n.last = true, xid
	switch {
	case len(n.xids) < n.limit:
		n.xids = append(n.xids, xid)
	case !n.lost:
		n.lost, n.least, n.greatest = true, xid, xid
	default:
		n.extend(xid, xid)
	}
}

func (n *notes) extend(least, greatest uint32) {
	if int32(least-n.least) < 0 {
		n.least = least
	}
	if int32(greatest-n.greatest) > 0 {
		n.greatest = greatest
	}
}

// prune forgets what is visible in s: it is so in every later snapshot. What is
// lost and not visible in s was in progress, so it is one of those listed in s, or
// it lies at or beyond xmax: the list takes the place of the range. It may name
// transactions that were never noted; they are over soon too.
func (n *notes) prune(s *Snapshot) {
	kept := n.xids[:0]
	for _, xid := range n.xids {
		if !s.Visible(xid) {
			kept = append(kept, xid)
		}
	}
	n.xids = kept
	if !n.lost {
		return
	}
	for _, id := range s.xip {
		if xid := uint32(id); int32(xid-n.least) >= 0 && int32(xid-n.greatest) <= 0 {
			if len(n.xids) == n.limit {
				return // the range still stands for all
			}
			n.xids = append(n.xids, xid)
		}
	}
	xmax := uint32(s.xmax)
	if n.lost = int32(n.greatest-xmax) >= 0; n.lost && int32(n.least-xmax) < 0 {
		n.least = xmax
	}
}

// pending is a transaction that may not be visible in any snapshot seen.
func (n *notes) pending() (xid uint32, ok bool) {
	if len(n.xids) > 0 {
		return n.xids[0], true
	}
	return n.greatest, n.lost
}

// move takes over all of from and leaves it empty.
func (n *notes) move(from *notes) {
	for _, xid := range from.xids {
		n.note(xid)
	}
	if from.lost && n.lost {
		n.extend(from.least, from.greatest)
	} else if from.lost {
		n.lost, n.least, n.greatest = true, from.least, from.greatest
	}
	from.xids, from.lost, from.any = from.xids[:0], false, false
}
