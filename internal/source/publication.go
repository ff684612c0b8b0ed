package source

import (
	"context"
	"errors"

	"cdc/internal/cdc"
)

// Publish creates the publication or changes it by what differs.
func (s *Source) Publish(ctx context.Context, tables []cdc.Table) (changed bool, err error) {
	return false, errors.ErrUnsupported
}

// PublicationState describes the publication for the progress record.
func (s *Source) PublicationState(ctx context.Context) (hash string, tables []string, err error) {
	return "", nil, errors.ErrUnsupported
}

// DropPublication drops the publication.
func (s *Source) DropPublication(ctx context.Context) error { return errors.ErrUnsupported }
