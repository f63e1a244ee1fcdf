// Package wire holds the JSON that clients of the REST API see, and its
// conversions from and to the records of package model.
//
// Names, field order and what is left out follow the original API: id,
// createdAt and updatedAt are always there, a volume has an empty AttachStatus,
// sizes are GB (GiB), times are UTC in second precision without a zone. Fields
// that the original does not have come last in each type.
//
// One type serves both ways: a server fills it with FromX, a client sends it
// with only the fields it means.
package wire
