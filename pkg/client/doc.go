// Package client is the Go client of osds's REST API.
//
// It repeats only what may be repeated: reads, and writes that carry an
// Idempotency-Key, which it makes for every POST. It moves on to the next
// endpoint when one is not reachable, and it carries the newest revision it has
// seen from server to server, so that a caller reads its own writes whichever
// server answers.
//
// Every call has a deadline: the context's, or Config.Timeout.
package client
