package source

import (
	"context"
	"fmt"
	"regexp"

	"github.com/jackc/pgx/v5"
)

// constant is a default's expression and the type of its column.
type constant struct{ expr, typeSQL string }

// literal matches what pg_get_expr writes for a constant: a number, true, false
// or a quoted string, at most with the name of its type. It holds no function
// call and no second cast, so that evaluating it does nothing and gives the same
// always ('now'::text::timestamp does not).
var literal = regexp.MustCompile(`^(?:[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|true|false|[BXE]?'(?:[^'\\]|''|\\.)*')` +
	`(?:::(?:"(?:[^"]|"")+"|[A-Za-z0-9_ .,()\[\]])+)?$`)

var null = regexp.MustCompile(`^NULL(?:::.*)?$`)

// defaultOf is the value of a column's default in Postgres' output form, or the
// fact that it must be computed.
func (c *catalogue) defaultOf(ctx context.Context, conn *pgx.Conn, f columnFacts) (value *string, computed bool) {
	switch {
	case f.computed:
		return nil, true
	case null.MatchString(f.expr):
		return nil, false
	case !literal.MatchString(f.expr):
		return nil, true
	}
	k := constant{f.expr, f.typeSQL}
	c.mu.Lock()
	value, ok := c.constants[k]
	c.mu.Unlock()
	if ok {
		return value, value == nil
	}
	text, err := evaluate(ctx, conn, k)
	if err != nil {
		// The type went away, or its domain refuses the value: what the default
		// would give is then not known, which is what computed says.
		c.s.log.Debug("default of a column is not known", "err", err)
		return nil, true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.constants) >= maxConstants {
		clear(c.constants)
	}
	c.constants[k] = text
	return text, text == nil
}

// evaluate asks the server for the text form of a constant. The simple protocol
// sends the type's own output; a cast to text would change it (bool, char(n)).
func evaluate(ctx context.Context, conn *pgx.Conn, k constant) (*string, error) {
	results, err := conn.PgConn().Exec(ctx, fmt.Sprintf("SELECT CAST(%s AS %s)", k.expr, k.typeSQL)).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("evaluate a constant of type %s: %w", k.typeSQL, err)
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) != 1 || results[0].Rows[0][0] == nil {
		return nil, nil
	}
	text := string(results[0].Rows[0][0])
	return &text, nil
}
