package history

import (
	"cmp"
	"context"
	"errors"
	"time"

	"cdc/internal/cdc"
	"cdc/internal/compaction"
)

// guard looks at the topics while a life runs, and ends it where one is gone, is
// another than was written, or could lose events. A look that fails is no verdict:
// it is logged and made again.
func (l *life) guard(ctx context.Context) error {
	tick := time.NewTicker(cmp.Or(l.cfg.GuardEvery, compaction.DefaultGuardInterval))
	defer tick.Stop()
	blind := false
	warned := map[string]bool{}
	for {
		steps, err := l.plan(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case cdc.IsTerminal(err):
			return err
		case err != nil && !blind:
			l.log.Warn("cannot look at the topics, trying again", "error", err)
		case err == nil && blind:
			l.log.Info("the topics can be seen again")
		}
		blind = err != nil
		for _, s := range steps {
			if s.Kind == compaction.StepCreate { // only the progress topic: the others are recorded
				return cdc.Terminal("topic-missing",
					"Start again: the log is read from its start, and what the topics hold already is left out.",
					"progress topic %q is gone", s.Topic.Name)
			}
			if line := s.String(); !warned[line] {
				warned[line] = true
				l.log.Warn("topic settings have changed", "step", line, "mend", "cdc topics --apply")
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func asTerminal(err error, t **cdc.TerminalError) bool { return errors.As(err, t) }
