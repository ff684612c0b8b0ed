package broker

// WithFree is c on a disk whose free space is what free says.
func WithFree(c Config, free func(dir string) (uint64, error)) Config {
	c.free = free
	return c
}
