package pipeline

import (
	"context"

	"cdc/internal/cdc"
	"cdc/internal/compaction"
)

const (
	// maxSuspects bounds the keys that are suspected at a time.
	maxSuspects = 10_000
	// maxSuspectBytes bounds their bytes.
	maxSuspectBytes = 4 << 20
)

// suspects are keys of one partition that are alive in the topic and were not in
// the table when it was read: ghosts, unless the stream has brought or brings a
// record of them. A reader of the topic found them up to the offset read.
//
// A suspect is written off (a tombstone) only when no record of it stands behind
// read. That takes two looks: the life goroutine, the only writer, strikes out
// every key whose event it writes from now on, and when everything written before
// now is acknowledged, a reader looks at what stands between read and the end. A
// key that neither has seen is as absent from the table as it was when read.
type suspects struct {
	p    *partition
	read int64
	keys map[string]struct{}
}

// strike takes a key out: an event of it is about to be written.
func (s *suspects) strike(key []byte) {
	delete(s.keys, string(key)) // does not allocate
}

// tail reads what stands between read and the partition's end, and returns which
// of the keys have records there. It runs beside the life's goroutine: keys is a
// copy.
func tail(ctx context.Context, r compaction.KeyReader, ends func(context.Context, cdc.TopicPartition) (int64, error), tp cdc.TopicPartition, read int64, keys map[string]struct{}) ([]string, error) {
	end, err := ends(ctx, tp)
	if err != nil || end <= read {
		return nil, err
	}
	var found []string
	err = r.ReadAll(ctx, tp, read, end, func(key []byte, _ bool, _ int64) error {
		if _, ok := keys[string(key)]; ok {
			found = append(found, string(key))
			delete(keys, found[len(found)-1])
		}
		return nil
	})
	return found, err
}
