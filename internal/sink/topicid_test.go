package sink

import (
	"encoding/binary"
	"testing"

	"github.com/segmentio/kafka-go/protocol"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"cdc/internal/cdc"
	"cdc/internal/cdctest"
)

// A topic keeps its id, and one made again under its name has another.
func TestTopicIDs(t *testing.T) {
	c := dialConfig(t, Config{Brokers: cdctest.Kafka(t).Brokers}) // Apache Kafka too
	ctx := testContext(t)
	look := func(name string) string {
		t.Helper()
		got, err := c.Topics(ctx, name, "ids.none")
		must(t, err)
		if id := got["ids.none"].ID; id != "" {
			t.Errorf("a topic that does not exist has id %q", id)
		}
		return got[name].ID
	}
	a, b := cdc.TopicSpec{Name: "ids.a", Partitions: 3, Replication: 1}, cdc.TopicSpec{Name: "ids.b", Partitions: 1, Replication: 1}
	must(t, c.CreateTopic(ctx, a, nil))
	must(t, c.CreateTopic(ctx, b, nil))
	first := look("ids.a")
	if len(first) != 22 { // 16 bytes, base64 without padding
		t.Fatalf("id %q, want a UUID in base64", first)
	}
	if again := look("ids.a"); again != first {
		t.Errorf("id %q, then %q, of the same topic", first, again)
	}
	if other := look("ids.b"); other == first || other == "" {
		t.Errorf("ids.b has id %q, ids.a %q", other, first)
	}
	must(t, c.DeleteTopic(ctx, "ids.a"))
	must(t, c.CreateTopic(ctx, a, nil))
	if again := look("ids.a"); again == first || again == "" {
		t.Errorf("id %q after the topic was made again, was %q", again, first)
	}
}

func TestTopicIDsOfAnOldBroker(t *testing.T) {
	k := cluster(t, kfake.SeedTopics(2, "data"), kfake.MaxVersions(kversion.V2_7_0()))
	got, err := dial(t, k).Topics(testContext(t), "data")
	must(t, err)
	if s := got["data"]; s.ID != "" || s.Partitions != 2 {
		t.Errorf("got %+v, want two partitions and no id", s)
	}
}

// metadataAnswer is an answer as an independent encoder writes it.
func metadataAnswer() []byte {
	res := kmsg.NewPtrMetadataResponse()
	res.Version = metadataIDs
	rack, name := "r1", "data"
	b := kmsg.NewMetadataResponseBroker()
	b.NodeID, b.Host, b.Port, b.Rack = 1, "localhost", 9092, &rack
	res.Brokers = append(res.Brokers, b)
	res.ClusterID = &name
	topic := kmsg.NewMetadataResponseTopic()
	topic.Topic, topic.TopicID = &name, [16]byte{1, 2, 3}
	p := kmsg.NewMetadataResponseTopicPartition()
	p.Replicas, p.ISR, p.OfflineReplicas = []int32{1, 2}, []int32{1}, []int32{2}
	p.UnknownTags.Set(7, []byte("later"))
	topic.Partitions = append(topic.Partitions, p)
	gone, goneName := kmsg.NewMetadataResponseTopic(), "gone"
	gone.Topic, gone.ErrorCode = &goneName, 3
	res.Topics = append(res.Topics, topic, gone)
	frame := binary.BigEndian.AppendUint32(nil, 1)
	return res.AppendTo(append(frame, 0))
}

func TestParseTopicIDs(t *testing.T) {
	ids, err := parseTopicIDs(metadataAnswer(), 1)
	if err != nil || len(ids) != 1 || ids["data"] != "AQIDAAAAAAAAAAAAAAAAAA" {
		t.Errorf("got %v, %v", ids, err)
	}
	whole := metadataAnswer()
	for n := range whole {
		if ids, err := parseTopicIDs(whole[:n], 1); err == nil {
			t.Errorf("%d of %d bytes were believed: %v", n, len(whole), ids)
		}
	}
	if _, err := parseTopicIDs(append(whole, 0), 1); err == nil {
		t.Error("a byte too many was believed")
	}
	if _, err := parseTopicIDs(whole, 2); err == nil {
		t.Error("an answer to another request was believed")
	}
}

func FuzzTopicIDs(f *testing.F) {
	f.Add(metadataAnswer())
	f.Add([]byte{0, 0, 0, 1, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, frame []byte) {
		ids, err := parseTopicIDs(frame, 1)
		if err != nil && ids != nil || len(ids)*26 > len(frame) {
			t.Errorf("%d ids from %d bytes, error %v", len(ids), len(frame), err)
		}
	})
}

func FuzzNewestVersion(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 3, 0, 0, 0, 12})
	f.Fuzz(func(t *testing.T, frame []byte) {
		if v, err := parseNewestVersion(frame, 1, protocol.Metadata); err == nil && v < 0 {
			t.Errorf("version %d without an error", v)
		}
	})
}
