//go:build real && linux

package cephlab

import (
	"os"
	"strings"
	"testing"
	"time"
)

// The cluster comes up, keeps what was written through kills of the OSD and the
// monitor, and leaves no process.
func TestCluster(t *testing.T) {
	if why := Why(); why != "" {
		t.Skip("skipped: " + why)
	}
	dir, err := os.MkdirTemp("", "cephlab")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	began := time.Now()
	c, err := Start(t.Context(), Config{Dir: dir, Pools: []string{"one"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("up after %s", time.Since(began))
	defer func() {
		c.Stop()
		for name, d := range c.daemons {
			if d.alive() {
				t.Errorf("%s runs after Stop", name)
			}
		}
	}()
	if _, err := c.RBD(t.Context(), "create", "one/image", "--size", "64M"); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{OSD, Mon} {
		if err := c.Kill(d); err != nil {
			t.Fatal(err)
		}
		if err := c.StartDaemon(d); err != nil {
			t.Fatal(err)
		}
		began = time.Now()
		if err := c.WaitClean(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Logf("clean %s after a kill of %s", time.Since(began), d)
		out, err := c.RBD(t.Context(), "ls", "one")
		if err != nil || strings.TrimSpace(string(out)) != "image" {
			t.Fatalf("images after a kill of %s: %q, %v", d, out, err)
		}
	}
}
