package broker_test

import (
	"encoding/binary"
	"hash/crc32"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// produceAs writes one batch of one record under a producer id and returns the
// broker's code.
func produceAs(t *testing.T, addr string, p producer, topic string, partition, sequence int32) int16 {
	t.Helper()
	rec := kmsg.Record{Key: []byte("k"), Value: []byte("v")}
	rec.Length = int32(len(rec.AppendTo(nil)) - 1)
	records := rec.AppendTo(nil)
	batch := kmsg.RecordBatch{
		Length: int32(49 + len(records)), Magic: 2, ProducerID: p.id, ProducerEpoch: p.epoch,
		FirstSequence: sequence, NumRecords: 1, Records: records,
	}
	raw := batch.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = -1, 10_000
	rp := kmsg.NewProduceRequestTopicPartition()
	rp.Partition, rp.Records = partition, raw
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic, rt.Partitions = topic, append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	// Version 8 names topics by name.
	req.SetVersion(8)
	resp, err := requestVersion(t, addr, req)
	if err != nil {
		t.Fatal(err)
	}
	return resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode
}
