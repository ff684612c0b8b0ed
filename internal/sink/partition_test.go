package sink

import "testing"

// The vectors are Kafka's own (org.apache.kafka.common.utils.UtilsTest.testMurmur2).
func TestMurmur2IsJavas(t *testing.T) {
	for key, want := range map[string]int32{
		"21":                         -973932308,
		"foobar":                     -790332482,
		"a-little-bit-long-string":   -985981536,
		"a-little-bit-longer-string": -1486304829,
		"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
	} {
		if got := int32(murmur2([]byte(key))); got != want {
			t.Errorf("murmur2(%q) = %d, want %d", key, got, want)
		}
	}
}

func TestPartitionCutsTheSignBitOff(t *testing.T) {
	const want = (-973932308 & 0x7fffffff) % 6
	if got := Partition([]byte("21"), 6); got != want {
		t.Errorf("got %d, want %d", got, want)
	}
}
