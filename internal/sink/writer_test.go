package sink

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
)

func TestEveryCodecIsReadBackByAnotherClient(t *testing.T) {
	for _, codec := range []string{"none", "snappy", "lz4", "zstd"} {
		t.Run(codec, func(t *testing.T) {
			k := cluster(t, kfake.SeedTopics(3, "data"))
			c := dial(t, k)
			w := owner(t, c, WriterConfig{TransactionalID: "p", Compression: codec, RequestBytes: 8 << 10, BatchBytes: 3 << 10}, parts("data", 3))
			load(t, w, parts("data", 3), 2000)
			onceInOrder(t, seen(t, k, "data", 2000), 2000)
		})
	}
}
