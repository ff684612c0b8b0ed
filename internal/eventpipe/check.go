package eventpipe

import (
	"context"
	"errors"

	"cdc/internal/eventstore"
	"cdc/internal/intent"
	"cdc/internal/reaction"
	"cdc/internal/view"
)

// Check looks at what the definitions ask of the store and changes nothing. The
// faults are those of the definitions; the error says what could not be checked.
func Check(ctx context.Context, store *eventstore.Store, defs intent.Definitions) ([]intent.Fault, error) {
	faults, err := faultsOf(ctx, store, defs)
	return faults, errors.Join(err, twoPhase(ctx, store, defs))
}

// faultsOf are the faults of the definitions, whatever the servers are set to.
func faultsOf(ctx context.Context, store *eventstore.Store, defs intent.Definitions) ([]intent.Fault, error) {
	var faults []intent.Fault
	var failed []error
	sort := func(err error) {
		var ofTypes *eventstore.DefinitionError
		var ofSQL view.FaultsError
		switch {
		case err == nil:
		case errors.As(err, &ofTypes):
			faults = append(faults, ofTypes.Faults...)
		case errors.As(err, &ofSQL):
			faults = append(faults, ofSQL...)
		default:
			failed = append(failed, err)
		}
	}
	_, err := store.CheckDefinitions(ctx, defs)
	sort(err)
	sort(view.Check(ctx, store.Pool(), defs))
	sort(reaction.Check(ctx, store, defs))
	return faults, errors.Join(failed...)
}

// twoPhase: an inline view in another database needs prepared transactions in both.
func twoPhase(ctx context.Context, store *eventstore.Store, defs intent.Definitions) error {
	var urls []string
	for _, v := range defs.Views {
		if v.Mode == intent.Inline && v.Database != "" {
			urls = append(urls, v.Database)
		}
	}
	if len(urls) == 0 {
		return nil
	}
	return view.CheckTwoPhase(ctx, store.Pool(), urls...)
}
