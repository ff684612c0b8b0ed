//go:build !linux

package main

import "errors"

func mountMemory(string, int64) error { return errors.New("mount tmpfs: only on Linux") }

func unmount(string) error { return nil }
