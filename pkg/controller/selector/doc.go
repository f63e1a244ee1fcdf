// Package selector chooses the pool a volume is placed in, and explains the
// choice. It is pure: it reads what it is given, keeps nothing, and imports
// package model only.
//
// A Request is compiled once to a Plan of rules. Each rule compares one value of
// a pool, named by its path in the pool's JSON, with what the request or the
// profile wants. Place, Explain and Fits all ask the same rules, so that an
// explanation is never another opinion than the placement.
//
// A pool that a rule cannot be evaluated on (a value it does not state, one of
// another type, an operator that does not exist) is skipped with that reason;
// the other pools are not affected.
package selector
