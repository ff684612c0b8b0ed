package format

import "cdc/internal/cdc"

// The object identifiers of built-in types (pg_type.dat), which never change.
const (
	oidBool        = 16
	oidBytea       = 17
	oidChar        = 18 // "char"
	oidName        = 19
	oidInt8        = 20
	oidInt2        = 21
	oidInt2Vector  = 22
	oidInt4        = 23
	oidText        = 25
	oidOID         = 26
	oidOIDVector   = 30
	oidJSON        = 114
	oidXML         = 142
	oidPoint       = 600
	oidLseg        = 601
	oidPath        = 602
	oidBox         = 603
	oidPolygon     = 604
	oidLine        = 628
	oidCIDR        = 650
	oidFloat4      = 700
	oidFloat8      = 701
	oidCircle      = 718
	oidMacaddr8    = 774
	oidMoney       = 790
	oidMacaddr     = 829
	oidInet        = 869
	oidBpchar      = 1042
	oidVarchar     = 1043
	oidDate        = 1082
	oidTime        = 1083
	oidTimestamp   = 1114
	oidTimestamptz = 1184
	oidInterval    = 1186
	oidTimetz      = 1266
	oidBit         = 1560
	oidVarbit      = 1562
	oidNumeric     = 1700
	oidUUID        = 2950
	oidTsvector    = 3614
	oidJSONB       = 3802
	oidInt4Range   = 3904
	oidNumRange    = 3906
	oidTsRange     = 3908
	oidTstzRange   = 3910
	oidDateRange   = 3912
	oidInt8Range   = 3926
)

// resolved is a type behind its domains, with the modifier that applies.
type resolved struct {
	*cdc.Type
	mod   int32
	inner bool // a domain was followed
}

// maxTypeDepth bounds domains over domains and types inside types; PostgreSQL
// has no cycle there, a damaged description might.
const maxTypeDepth = 64

func resolve(t *cdc.Type, mod int32) resolved {
	r := resolved{Type: t, mod: mod}
	for range maxTypeDepth {
		if r.Kind != cdc.KindDomain || r.Elem == nil {
			return r
		}
		if r.mod < 0 {
			r.mod = r.Type.Mod
		}
		r.Type, r.inner = r.Elem, true
	}
	return r
}

// isArray says that values have an array's text form; vectors of the catalogue
// have an element type, but another form.
func (r resolved) isArray() bool {
	return r.Kind == cdc.KindArray && r.Elem != nil && r.OID != oidInt2Vector && r.OID != oidOIDVector
}

// extension says that this is the base type of an extension. Its OID differs from
// database to database, its schema is chosen by who installs it.
func (r resolved) extension(name string) bool {
	return r.Kind == cdc.KindBase && r.Name == name
}

// precision is the number of fractional digits of a time type, 6 unless declared.
func (r resolved) precision() int {
	if r.mod < 0 || r.mod > 6 {
		return 6
	}
	return int(r.mod)
}
