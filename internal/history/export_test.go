package history

import "time"

// SetSilence shortens the wait for a sign of life of another instance.
func (p *Publisher) SetSilence(d time.Duration) { p.silent = d }

// Fuzzed parts, and what tests compare with.
var GenerationOf = generationOf

const ChunkBytes = chunkBytes
