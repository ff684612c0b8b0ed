package pgserver

import (
	"context"
	"fmt"
)

// locate finds the programs, or fetches them.
func locate(ctx context.Context, opts Options) (Programs, error) {
	p, ok, err := Find(ctx, opts.Programs, opts.Version)
	if err != nil || ok {
		return p, err
	}
	return Programs{}, fmt.Errorf("find PostgreSQL's server programs (version %q): none installed", opts.Version)
}
