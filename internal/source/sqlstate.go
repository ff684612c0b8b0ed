package source

import (
	"errors"

	"github.com/jackc/pgx/v5/pgconn"
)

// SQLSTATEs that decide what an error of a statement means; those of the stream
// stand beside it.
const (
	codeInsufficientPrivilege = "42501"
	codeUndefinedTable        = "42P01"
	codeUndefinedColumn       = "42703"
	codeDuplicateObject       = "42710"
	codeLockTimeout           = "55P03"
	codeProtocolViolation     = "08P01"
	codeReadOnly              = "25006"
	codeSerialization         = "40001" // on a standby: a conflict with recovery
	codeTooManySlots          = "53400" // configuration_limit_exceeded
)

// sqlState is the SQLSTATE of an error of the server, "" for any other error.
func sqlState(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.Code
	}
	return ""
}
