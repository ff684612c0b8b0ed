package source

import (
	"context"
	"errors"

	"cdc/internal/cdc"
)

// Tables resolves the configured patterns against the catalogue.
func (s *Source) Tables(ctx context.Context) ([]cdc.Table, error) {
	return nil, errors.ErrUnsupported
}
