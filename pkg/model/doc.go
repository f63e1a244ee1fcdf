// Package model holds the records osds keeps, their state tables, their
// validation, units, ids and the one error type. It imports nothing of ours.
//
// Records are what is stored; the JSON that clients see is package wire. Sizes
// here are bytes, times are UTC.
package model
