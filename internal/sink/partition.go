package sink

// Partition is the partition of a key as Kafka's Java producer chooses it:
// murmur2 of the key's bytes, made positive, modulo the number of partitions.
// It panics when partitions is not positive.
func Partition(key []byte, partitions int32) int32 {
	if partitions <= 0 {
		panic("sink: Partition of a topic without partitions")
	}
	return int32(murmur2(key)&0x7fffffff) % partitions // toPositive: the sign bit is cut off, not negated
}

// murmur2 is org.apache.kafka.common.utils.Utils.murmur2: the 32-bit hash with
// Kafka's own seed, reading the key in little-endian words.
func murmur2(key []byte) uint32 {
	const (
		seed uint32 = 0x9747b28c
		m    uint32 = 0x5bd1e995
		r           = 24
	)
	h := seed ^ uint32(len(key))
	for len(key) >= 4 {
		k := uint32(key[0]) | uint32(key[1])<<8 | uint32(key[2])<<16 | uint32(key[3])<<24
		k *= m
		k ^= k >> r
		k *= m
		h *= m
		h ^= k
		key = key[4:]
	}
	switch len(key) {
	case 3:
		h ^= uint32(key[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(key[1]) << 8
		fallthrough
	case 1:
		h ^= uint32(key[0])
		h *= m
	}
	h ^= h >> 13
	h *= m
	h ^= h >> 15
	return h
}
