package model

import (
	"regexp"

	"github.com/google/uuid"
)

// AdminTenant is the tenant that is administrator in noauth mode: the original's
// well-known id, so that its clients work unchanged.
const AdminTenant = "e93b4c0934da416eb9c8d120c5d04d96"

// NewID gives a new record id: a UUID of version 7, so that ids sort by the time
// they were made.
func NewID() string { return uuid.Must(uuid.NewV7()).String() }

var (
	idPattern     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
	uuidPattern   = regexp.MustCompile(`^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$`)
	tenantPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)
)

// ValidTenant says whether s may stand as a tenant id, in a path and in a key.
func ValidTenant(s string) bool { return tenantPattern.MatchString(s) }

// ValidID says whether s may stand as the id of any record, in a path, a key
// and a file name.
func ValidID(s string) bool { return idPattern.MatchString(s) }

// ValidUUID says whether s is a UUID in its usual form: what a client may supply
// as the id of what it creates.
func ValidUUID(s string) bool { return uuidPattern.MatchString(s) }
