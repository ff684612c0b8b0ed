package broker_test

import (
	"bytes"
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"cdc/internal/broker"
)

// What an fsync for each batch costs: one record at a time, and as many as go.
func BenchmarkProduce(b *testing.B) {
	for _, noSync := range []bool{false, true} {
		for _, alone := range []bool{true, false} {
			b.Run(fmt.Sprintf("synced=%t/alone=%t", !noSync, alone), func(b *testing.B) { benchProduce(b, noSync, alone) })
		}
	}
}

func benchProduce(b *testing.B, noSync, alone bool) {
	const partitions = 6
	br, err := broker.Start(b.Context(), broker.Config{Dir: b.TempDir(), Listen: "127.0.0.1:0", NoSync: noSync})
	if err != nil {
		b.Fatal(err)
	}
	defer br.Close()
	cl, err := kgo.NewClient(kgo.SeedBrokers(br.Addr()), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MaxBufferedRecords(50_000))
	if err != nil {
		b.Fatal(err)
	}
	defer cl.Close()
	if _, err := kadm.NewClient(cl).CreateTopic(b.Context(), partitions, -1, nil, "rows"); err != nil {
		b.Fatal(err)
	}
	value := bytes.Repeat([]byte("0123456789"), 30)
	b.SetBytes(int64(len(value)))
	var failed atomic.Int64
	i := 0
	for b.Loop() {
		i++
		r := &kgo.Record{Topic: "rows", Partition: int32(i % partitions), Value: value}
		if alone {
			if err := cl.ProduceSync(b.Context(), r).FirstErr(); err != nil {
				b.Fatal(err)
			}
			continue
		}
		cl.Produce(b.Context(), r, func(_ *kgo.Record, err error) {
			if err != nil {
				failed.Add(1)
			}
		})
	}
	if err := cl.Flush(context.Background()); err != nil || failed.Load() > 0 {
		b.Fatal(err, failed.Load())
	}
}
