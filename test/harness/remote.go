package harness

import (
	"testing"

	"github.com/osds-io/osds/pkg/api/apicheck"
	"github.com/osds-io/osds/pkg/client"
)

// Remote makes a client of osdslets that run elsewhere, in guests, say: cfg says
// where, and how to get there.
func Remote(t testing.TB, checks *apicheck.Suite, cfg client.Config) *API {
	t.Helper()
	c := &Cluster{T: t, S: &Suite{API: checks}}
	return c.Client(cfg)
}

// For gives the same client for another test, such as a subtest.
func (a *API) For(t testing.TB) *API {
	return &API{Client: a.Client, T: t, c: &Cluster{T: t, S: a.c.S}}
}

// LogTail gives the end of a daemon's log, without the reads that a test which
// waits makes so many of.
func LogTail(b []byte, n int) string { return string(tail(withoutReads(b), n)) }
