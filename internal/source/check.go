package source

import "context"

// Level says how bad a Finding is that is not OK.
type Level string

// The levels of a Finding.
const (
	LevelError   Level = "error"   // the pipeline cannot run
	LevelWarning Level = "warning" // it can run, at a risk that What names
)

// Finding is one thing that Check looked at.
type Finding struct {
	OK    bool
	Level Level  // of a finding that is not OK
	What  string // what was looked at and what was found
	Mend  string // the SQL or setting that mends it
}

// Check looks at everything a pipeline needs and changes nothing.
func (s *Source) Check(ctx context.Context) []Finding { return nil }
