package source

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Holder names the backend that reads the slot, or copies tables under the
// slot's temporary one; "" for nobody. An instance that finds a holder waits.
func (s *Source) Holder(ctx context.Context) (string, error) {
	holder := ""
	err := s.retrySQL(ctx, func(c *pgx.Conn) error {
		for _, name := range []string{s.cfg.Slot, snapshotSlot(s.cfg.Slot)} {
			slot, _, err := readSlot(ctx, c, name)
			if err != nil {
				return err
			}
			if slot.Active {
				holder = fmt.Sprintf("backend %d (slot %s)", slot.ActivePID, name)
				return nil
			}
		}
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("read slot %q of %s: %w", s.cfg.Slot, s.target, err)
	}
	return holder, nil
}
