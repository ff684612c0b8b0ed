package sink

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"

	"github.com/segmentio/kafka-go/protocol"
)

// metadataIDs is the first version of Metadata that tells topic ids (KIP-516,
// Kafka 2.8). kafka-go ends at version 8, so this one is framed and read here.
const metadataIDs = 10

// topicID is a topic's UUID; zero is none.
type topicID [16]byte

// String writes it as Kafka's own tools do: base64 for URLs, without padding.
func (id topicID) String() string { return base64.RawURLEncoding.EncodeToString(id[:]) }

// topicIDs asks for the ids of topics by name. A broker older than 2.8 knows
// none: then the map is empty. What does not exist is not in it.
func (c *Client) topicIDs(ctx context.Context, names []string) (map[string]string, error) {
	k, err := c.anyConn(ctx)
	if err != nil {
		return nil, err
	}
	var ids map[string]string
	err = k.exchange(ctx, func() error {
		if k.metadataMax == 0 {
			newest, err := k.newestVersion(protocol.Metadata)
			if err != nil {
				return err
			}
			k.metadataMax = newest
		}
		if k.metadataMax < metadataIDs {
			return nil
		}
		if _, err := k.pc.Write(k.appendTopicIDs(nil, names)); err != nil {
			return err
		}
		if k.frame, err = readFrame(k.pc, k.frame[:0]); err != nil {
			return err
		}
		ids, err = parseTopicIDs(k.frame, k.corr)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("ids of topics: %w", err)
	}
	return ids, nil
}

// newestVersion asks for the newest version of an API that the broker itself
// speaks: what kafka-go negotiated ends where kafka-go ends. The connection's
// lock is held.
func (k *conn) newestVersion(key protocol.ApiKey) (int16, error) {
	b := k.request(nil, protocol.ApiVersions, 0) // version 0 has no body, and every broker answers it
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	if _, err := k.pc.Write(b); err != nil {
		return 0, err
	}
	var err error
	if k.frame, err = readFrame(k.pc, k.frame[:0]); err != nil {
		return 0, err
	}
	return parseNewestVersion(k.frame, k.corr, key)
}

// parseNewestVersion reads an ApiVersions answer (v0).
func parseNewestVersion(frame []byte, corr int32, key protocol.ApiKey) (int16, error) {
	d := decoder{b: frame}
	if got := d.int32(); d.err == nil && got != corr {
		d.fail("answer to request %d, want %d", got, corr)
	}
	if code := d.int16(); d.err == nil && code != 0 {
		return 0, codeError(code)
	}
	newest := int16(-1)
	for n := d.array(6); n > 0; n-- {
		api := d.int16()
		d.int16() // oldest
		if v := d.int16(); api == int16(key) {
			newest = v
		}
	}
	d.end()
	if d.err == nil && newest < 0 {
		d.fail("versions of %s are left out", key)
	}
	return newest, d.err
}

// appendTopicIDs writes a Metadata request (v10) for topics that are not to be
// created by it.
func (k *conn) appendTopicIDs(b []byte, names []string) []byte {
	b = k.request(b, protocol.Metadata, metadataIDs)
	b = append(b, 0) // header v2: tagged fields, none
	b = binary.AppendUvarint(b, uint64(len(names))+1)
	for _, name := range names {
		b = append(b, make([]byte, len(topicID{}))...) // by name, not by id
		b = appendCompactString(b, name)
		b = append(b, 0)
	}
	b = append(b, 0, 0, 0, 0) // create nothing, tell no rights of cluster or topic, no tagged fields
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

// parseTopicIDs reads a Metadata answer (v10).
func parseTopicIDs(frame []byte, corr int32) (map[string]string, error) {
	d := decoder{b: frame}
	if got := d.int32(); d.err == nil && got != corr {
		d.fail("answer to request %d, want %d", got, corr)
	}
	d.skipTags() // of the header
	d.int32()    // throttle
	for n := d.compactArray(11); n > 0; n-- {
		d.int32()         // node
		d.compactString() // host
		d.int32()         // port
		d.compactString() // rack
		d.skipTags()
	}
	d.compactString() // cluster
	d.int32()         // controller
	ids := map[string]string{}
	for n := d.compactArray(26); n > 0 && d.err == nil; n-- {
		code := d.int16()
		name := d.compactString()
		var id topicID
		copy(id[:], d.take(len(id)))
		d.int8() // internal
		for p := d.compactArray(18); p > 0 && d.err == nil; p-- {
			d.take(2 + 4 + 4 + 4) // error, partition, leader, leader epoch
			d.skipInts()          // replicas
			d.skipInts()          // in sync
			d.skipInts()          // offline
			d.skipTags()
		}
		d.int32() // rights
		d.skipTags()
		if code == 0 && id != (topicID{}) {
			ids[string(name)] = id.String()
		}
	}
	d.int32() // rights of the cluster
	d.skipTags()
	d.end()
	if d.err != nil {
		return nil, d.err
	}
	return ids, nil
}
