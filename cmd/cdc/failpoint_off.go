//go:build !failpoint

package main

// failpointHook is nil: only a build with the tag failpoint kills itself.
func failpointHook() func(point string) { return nil }
