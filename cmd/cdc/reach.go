package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"cdc/internal/broker"
	"cdc/internal/config"
	"cdc/internal/sink"
)

// reach makes sure that a command beside the daemon has brokers to ask, and tells
// how to reach them. The embedded broker is the running daemon's; where none runs
// the command has it for its own time: call done. A broker that was never there
// is made only where make says so.
func reach(ctx context.Context, cfg *config.Config, make bool) (sc sink.Config, done func() error, err error) {
	quiet := discard()
	addresses, done := brokerAddresses(cfg), func() error { return nil }
	if e := cfg.Kafka.Embedded; e != nil {
		if _, err := os.Stat(e.Dir); errors.Is(err, fs.ErrNotExist) && !make {
			return sc, nil, environmentError("the embedded broker has no data in %q yet: cdc run makes it", e.Dir)
		}
		b, err := broker.Start(ctx, broker.Config{Dir: e.Dir, Listen: e.Listen, Logger: quiet})
		switch {
		case err == nil:
			addresses, done = []string{b.Addr()}, b.Close
		case !errors.Is(err, broker.ErrInUse):
			return sc, nil, environmentError("%w", err)
		}
	}
	if sc, err = sinkConfig(cfg, addresses, quiet); err != nil {
		return sc, nil, errors.Join(err, done())
	}
	client, err := sink.Dial(ctx, sc)
	if err != nil {
		return sc, nil, errors.Join(environmentError("%w", err), done())
	}
	if err := client.Close(); err != nil {
		return sc, nil, errors.Join(fmt.Errorf("close connection to Kafka: %w", err), done())
	}
	return sc, done, nil
}
